"""What a transaction says of the schema that a newer program has moved on."""

from __future__ import annotations

from cagg.store.engine import open_store
from cagg.store.tables import SCHEMA_VERSION
from cagg.testing import ManualClock


def test_a_transaction_tells_the_version_that_is_stored(store_url: str) -> None:
    store = open_store(store_url, clock=ManualClock())
    newer = f"{int(SCHEMA_VERSION) + 1:04}"
    with store.transaction() as tx:
        assert tx.schema_version() == SCHEMA_VERSION
        tx.connection.exec_driver_sql(f"UPDATE cagg_schema_version SET version_num = '{newer}'")  # type: ignore[attr-defined]
    with store.snapshot() as tx:
        assert tx.schema_version() == newer
    store.close()
