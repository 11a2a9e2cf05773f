"""Who may begin a log on PostgreSQL, and who may read, keep and delete personal values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from cagg.clock import SystemClock
from cagg.errors import IdempotencyConflict, StoreUnavailable
from cagg.ledger.entry import append
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.store.engine import open_store
from cagg.store.postgresql import PostgresqlStore
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import draft

ROLES = ("writer", "maintainer", "reader")
APPROVED = replace(draft("release"), private={"approver": "Ada"})


@pytest.fixture
def stores(postgres: LocalPostgres, postgres_url: str) -> Iterator[dict[str, PostgresqlStore]]:
    """One store, opened by each role."""
    database = postgres_url.rpartition("/")[2]
    names = {role: f"{role}_{database}" for role in ROLES}
    for name in names.values():
        postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
    found: dict[str, Any] = {"owner": open_store(postgres_url, clock=SystemClock())}
    found["owner"].apply(found["owner"].grants(**names))
    for role, name in names.items():
        found[role] = open_store(postgres.url_of(database, user=name, password="p"), clock=SystemClock())
    yield found
    for store in found.values():
        store.close()
    for name in names.values():
        postgres.execute(f"DROP OWNED BY {name}; DROP ROLE {name}", url=postgres_url)


def test_a_writer_keeps_personal_values_and_repeats_itself_without_reading_them(
    stores: dict[str, PostgresqlStore],
) -> None:
    with stores["writer"].transaction() as tx:
        entry = append(tx, APPROVED)
    with stores["writer"].transaction() as tx:
        assert append(tx, APPROVED).entry_id == entry.entry_id
        with pytest.raises(StoreUnavailable, match="may not read personal values"):
            list(tx.private_values(entry.entry_id))
        append(tx, draft("the transaction goes on"))
    with pytest.raises(IdempotencyConflict), stores["writer"].transaction() as tx:
        append(tx, replace(APPROVED, private={"approver": "Eve"}))


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_nobody_but_maintainers_sees_or_deletes_personal_values_or_begins_a_log(
    stores: dict[str, PostgresqlStore], role: str
) -> None:
    with stores["writer"].transaction() as tx:
        append(tx, APPROVED)
    for statement in (
        "SELECT value FROM cagg_private",
        "SELECT salt FROM cagg_private",
        "SELECT * FROM cagg_private",
        "DELETE FROM cagg_private",
        "UPDATE cagg_private SET value = 'x'",
        "TRUNCATE cagg_private",
        "SELECT cagg_begin_log(1, 'example.org/next', 0)",
        "UPDATE cagg_log SET state = 'frozen'",
        "INSERT INTO cagg_log VALUES (2, 'example.org/next', 'active', 0)",
    ):
        with pytest.raises(StoreUnavailable, match="lacks a right"), stores[role].transaction() as tx:
            tx.connection.execute(text(statement))  # type: ignore[attr-defined]
    with stores[role].snapshot() as tx:
        assert verify(tx, []).failures == ()
    with stores["maintainer"].transaction() as tx:
        sequence(tx)
    with stores[role].snapshot() as tx:
        assert tx.row_counts()["private"] == 1
        assert verify(tx, []).failures == ()


def test_a_maintainer_reads_and_deletes_them_and_begins_a_log(stores: dict[str, PostgresqlStore]) -> None:
    with stores["writer"].transaction() as tx:
        entry = append(tx, APPROVED)
    with stores["maintainer"].transaction() as tx:
        assert [item.value for item in tx.private_values()] == ["Ada"]
        assert tx.drop_private(entry.entry_id, "approver")
        sequence(tx)
        assert tx.begin_log("example.org/next").origin() == "example.org/next"
    with stores["writer"].transaction() as tx:
        assert tx.origin() == "example.org/next"
        assert append(tx, APPROVED).entry_id == entry.entry_id, "a deleted value differs from nothing"
        append(tx, draft("new"))
    for statement in (
        "UPDATE cagg_log SET state = 'active'",
        "DELETE FROM cagg_log",
        "UPDATE cagg_private SET value = 'x'",
    ):
        with pytest.raises(StoreUnavailable, match="lacks a right"), stores["maintainer"].transaction() as tx:
            tx.connection.execute(text(statement))  # type: ignore[attr-defined]
