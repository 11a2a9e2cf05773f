"""Stores that older programs filled, and older programs on a store of this version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError

from cagg.clock import SystemClock
from cagg.entries import Entry, LogState, PrivateValue
from cagg.errors import InvalidInput, StoreUnavailable
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append, append_many
from cagg.ledger.notes import verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.ports import Store
from cagg.store._schema import ensure_log
from cagg.store.engine import is_postgresql, open_store
from cagg.store.migrations import run
from cagg.store.postgresql_rows import PostgresqlTransaction
from cagg.store.tables import SCHEMA_VERSION
from cagg.store.transaction import SqlTransaction
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import MemorySigner, draft

ORIGIN = "example.org/old"
BEGAN = datetime(2026, 1, 5, 12, tzinfo=UTC)
COUNT = 300

OLD_HEAD = "SELECT log_id, origin FROM cagg_log ORDER BY log_id LIMIT 1"
"""How programs of version 0002 choose their log."""

OLD_ENTRY = (
    "INSERT INTO cagg_entry (log_id, entry_id, idempotency_key, body, leaf_hash, kind, recorded_us, request_key) "
    "VALUES ({log}, '{name}', {name_bytes}, {name_bytes}, {name_bytes}, 'decision', 1, '{name}') {conflict}"
)
OLD_QUEUE = "INSERT INTO cagg_queue (log_id, entry_id, leaf_hash, queued_us) VALUES ({log}, '{name}', {name_bytes}, 1)"
OLD_LEAF = "INSERT INTO cagg_leaf (log_id, leaf_index, entry_id, leaf_hash) VALUES ({log}, 1, '{name}', {name_bytes})"


def plain(url: str) -> AbstractContextManager[Connection]:
    """A transaction on the database, without a store around it."""

    @contextmanager
    def opened() -> Iterator[Connection]:
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            yield connection
        engine.dispose()

    return opened()


def fill(url: str, version: str) -> list[Entry]:
    """Make a store of an older version and record entries in it, all but the last of them signed."""
    with plain(url) as connection:
        run.upgrade(connection, to=version)
        ensure_log(connection, origin=ORIGIN, now=BEGAN)
        kind: Callable[..., SqlTransaction] = PostgresqlTransaction if is_postgresql(url) else _inline
        tx = kind(connection=connection, now=BEGAN, log_id=1, origin=ORIGIN)
        entries = append_many(tx, [draft(f"k{number}") for number in range(COUNT)])
        while sequence(tx):
            pass
        sign_checkpoint(tx, MemorySigner(ORIGIN))
        return [*entries, append(tx, draft("waits"))]


def _inline(**values: Any) -> SqlTransaction:
    return SqlTransaction(**values, sequences_inline=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    """The address of a database without a table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    server: LocalPostgres = request.getfixturevalue("postgres")
    url = server.empty_database()
    yield url
    server.drop_database(url)


@pytest.mark.parametrize("version", ["0001", "0002"])
def test_a_store_of_an_older_version_is_migrated_with_everything_in_it(empty_url: str, version: str) -> None:
    before = fill(empty_url, version)
    store = open_store(empty_url, clock=SystemClock())
    with pytest.raises(StoreUnavailable, match="cagg store migrate"), store.snapshot():
        pass
    assert store.migrate() is False
    with store.snapshot() as tx:
        assert tx.schema_version() == SCHEMA_VERSION
        assert [(log.origin, log.state) for log in tx.logs()] == [(ORIGIN, LogState.ACTIVE)]
        assert {entry.entry_id: entry.body for entry in tx.entries()} == {one.entry_id: one.body for one in before}
    with store.transaction() as tx:
        assert append(tx, draft("waits")).entry_id == before[-1].entry_id
        new = append(tx, draft("after"))
        tx.put_private([PrivateValue(entry_id=new.entry_id, field="owner", salt=b"\x01" * 32, value="Ada")])
        assert tx.drop_private(new.entry_id, "owner")
        while sequence(tx):
            pass
    with store.snapshot() as tx:
        report = verify(tx, [str(verifier_key(MemorySigner(ORIGIN)))])
        assert (report.failures, report.size, report.signed_size) == ((), COUNT + 2, COUNT)
    with store.transaction() as tx:
        append(tx.begin_log("example.org/next"), draft("k7"))  # recorded in the log before
        append(tx.in_log("example.org/next"), draft("new"))
    with store.snapshot() as tx:
        assert (tx.origin(), tx.tree_size() + tx.queued()) == ("example.org/next", 1)
    store.close()


def old_statements(url: str, name: str) -> list[str]:
    server = is_postgresql(url)
    values = {
        "log": 1,
        "name": name,
        "name_bytes": f"'\\x{name.encode().hex()}'" if server else f"x'{name.encode().hex()}'",
        "conflict": "ON CONFLICT (log_id, idempotency_key) DO NOTHING" if server else "",
    }
    return [OLD_ENTRY.format(**values), OLD_QUEUE.format(**values), OLD_LEAF.format(**values)]


def rolled(store: Store) -> None:
    with store.transaction() as tx:
        append(tx, draft("a"))
        while sequence(tx):
            pass
        tx.begin_log("example.org/next")


def test_an_older_program_goes_on_while_one_log_grows(store_url: str) -> None:
    store = open_store(store_url, clock=SystemClock())
    with store.transaction() as tx:
        append(tx, draft("a"))
    entry, queue, _ = old_statements(store_url, "old")
    with plain(store_url) as connection:
        assert connection.exec_driver_sql(OLD_HEAD).one()[0] == 1
        connection.exec_driver_sql(entry)
        connection.exec_driver_sql(queue)
    with store.transaction() as tx:
        assert tx.queued() == (2 if is_postgresql(store_url) else 1)
    store.close()


def test_an_older_program_cannot_append_to_a_frozen_log(store_url: str) -> None:
    store = open_store(store_url, clock=SystemClock())
    rolled(store)
    with plain(store_url) as connection:
        assert connection.exec_driver_sql(OLD_HEAD).one()[0] == 1, "it finds the first log, as it always did"
    for statement in old_statements(store_url, "old"):
        # on PostgreSQL a queue row of no entry is refused before
        with pytest.raises(DBAPIError, match=r"frozen|cagg_queue_of_entry"), plain(store_url) as connection:
            connection.exec_driver_sql(statement)
    with store.snapshot() as tx:
        assert tx.in_log(tx.logs()[0].origin).row_counts()["entry"] == 1
    store.close()


# ---- an older program under way while the log is frozen: it takes no lock of its own ---------------------------------


def test_an_older_program_that_has_written_is_waited_for(postgres_url: str) -> None:
    store = open_store(postgres_url, clock=SystemClock(), lock_timeout_seconds=0.3)
    with store.transaction() as tx:
        append(tx, draft("a"))
        sequence(tx)
    entry, queue, _ = old_statements(postgres_url, "old")
    with plain(postgres_url) as old:
        old.exec_driver_sql(entry)
        old.exec_driver_sql(queue)
        with pytest.raises(StoreUnavailable, match="locked by another program"), store.transaction() as tx:
            tx.begin_log("example.org/next")
    with pytest.raises(InvalidInput, match="still wait"), store.transaction() as tx:
        tx.begin_log("example.org/next")
    store.close()


def test_an_older_program_that_has_begun_and_not_written_is_refused(postgres_url: str) -> None:
    store = open_store(postgres_url, clock=SystemClock())
    entry, _, _ = old_statements(postgres_url, "old")
    with plain(postgres_url) as old:
        assert old.exec_driver_sql(OLD_HEAD).one()[0] == 1
        rolled(store)
        with pytest.raises(DBAPIError, match="frozen"), old.begin_nested():
            old.exec_driver_sql(entry)
    with store.snapshot() as tx:
        assert tx.in_log(tx.logs()[0].origin).row_counts()["entry"] == 1
    store.close()


def test_an_older_program_that_writes_during_the_roll_waits_for_its_end(postgres_url: str) -> None:
    store = open_store(postgres_url, clock=SystemClock())
    entry, _, _ = old_statements(postgres_url, "old")
    with store.transaction() as tx:
        tx.begin_log("example.org/next")
        with pytest.raises(DBAPIError, match="lock timeout"), plain(postgres_url) as old:
            old.exec_driver_sql(f"SET LOCAL lock_timeout = 200; {entry}")
    with pytest.raises(DBAPIError, match="frozen"), plain(postgres_url) as old:
        old.exec_driver_sql(entry)
    store.close()


def test_roles_of_an_older_version_keep_their_work_after_the_migration(postgres: LocalPostgres) -> None:
    url = postgres.empty_database()
    fill(url, "0002")
    database = url.rpartition("/")[2]
    for role, rights in {
        "oldreader": "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        "oldwriter": "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; "
        "GRANT INSERT ON cagg_entry, cagg_queue, cagg_blob TO {role}",
        "oldmaintainer": "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; GRANT DELETE ON cagg_queue TO {role}; "
        "GRANT INSERT ON cagg_entry, cagg_queue, cagg_leaf, cagg_tile, cagg_checkpoint, cagg_blob TO {role}",
    }.items():
        postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
        postgres.execute(rights.format(role=role), url=url)
    stores = {
        role: open_store(postgres.url_of(database, user=role, password="p"), clock=SystemClock())
        for role in ("oldreader", "oldwriter", "oldmaintainer")
    }
    owner = open_store(url, clock=SystemClock())
    owner.migrate()
    with stores["oldwriter"].transaction() as tx:
        entry = append(tx, draft("private"))
        tx.put_private([PrivateValue(entry_id=entry.entry_id, field="owner", salt=b"\x01" * 32, value="Ada")])
        assert not tx.same_private(entry.entry_id, {"owner": "Eve"})
    with stores["oldreader"].snapshot() as tx:
        assert tx.row_counts()["private"] == 0, "its entry waits for its place"
    with stores["oldmaintainer"].transaction() as tx:
        assert [item.value for item in tx.private_values()] == ["Ada"]
        assert tx.drop_private(entry.entry_id, "owner")
        while sequence(tx):
            pass
        assert tx.begin_log("example.org/next").origin() == "example.org/next"
    for store in (*stores.values(), owner):
        store.close()
    for role in stores:
        postgres.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", url=url)
    postgres.drop_database(url)
