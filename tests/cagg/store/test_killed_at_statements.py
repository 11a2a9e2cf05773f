"""kill -9 before every single statement: what was acknowledged is there, and nothing is there by half.

A child appends a batch (with a personal value, an attachment and a tile that becomes full), redacts, and rolls the log
over; each is one transaction. It is killed before its first statement, then in a new store before its second, and so on
until it gets through.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cagg.clock import SystemClock
from cagg.entries import Entry, LogState
from cagg.errors import StoreUnavailable
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append_many, read_body
from cagg.ledger.merkle import TILE_WIDTH
from cagg.ledger.retention import redact
from cagg.ledger.sequencer import sequence
from cagg.ledger.succession import RollReason, roll
from cagg.ledger.verify import verify
from cagg.ports import Store, Transaction
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import MemorySigner, draft

NEXT = "example.org/next"
BEFORE = TILE_WIDTH - 2
BATCH = ("one", "two", "three")
MOST_STATEMENTS = 400


def place_all(tx: Transaction) -> None:
    while sequence(tx):
        pass


def prepare(store: Store) -> None:
    with store.transaction() as tx:
        append_many(tx, [draft(f"k{number}") for number in range(BEFORE)])
        place_all(tx)


def append_batch(tx: Transaction) -> None:
    drafts = [draft(name) for name in BATCH]
    drafts[0] = replace(drafts[0], private={"owner": "Ada", "approver": "Bob"})
    drafts[1] = draft(BATCH[1], large=["ä" * 70_000])
    append_many(tx, drafts)
    place_all(tx)


def redact_owner(tx: Transaction) -> None:
    redact(tx, _named(tx, BATCH[0]).entry_id, "owner", reason="asked for", retention_years=0)


def roll_over(tx: Transaction) -> None:
    roll(tx, MemorySigner(tx.origin()), MemorySigner(NEXT, b"\x08" * 32), reason=RollReason.REQUESTED)


STEPS: tuple[Callable[[Transaction], None], ...] = (append_batch, redact_owner, roll_over)


def _named(tx: Transaction, name: str) -> Entry:
    return next(entry for entry in tx.entries() if read_body(tx, entry)["request_key"] == name)


def reached(store: Store) -> int:
    """How many steps the store holds; fails when one of them is there by half, or anything does not verify."""
    with store.transaction() as tx:  # as `cagg maintain` would
        place_all(tx)
        if len(tx.logs()) == 2:
            frozen = tx.in_log(tx.logs()[0].origin)
            sign_checkpoint(frozen, MemorySigner(frozen.origin()))
    with store.snapshot() as tx:
        first = tx.in_log(tx.logs()[0].origin)
        names = [str(read_body(first, entry)["request_key"]) for entry in first.entries()]
        appended = [name for name in BATCH if name in names]
        private = sorted(item.field for item in first.private_values())
        rolled = [log.state for log in tx.logs()] == [LogState.FROZEN, LogState.ACTIVE]
        redacted = any(str(entry.kind) == "redaction" for entry in first.entries())
        assert names[:BEFORE] == [f"k{number}" for number in range(BEFORE)]
        assert verify(tx, []).failures == ()
        assert rolled or len(tx.logs()) == 1
        if not appended:
            assert (private, redacted, rolled, len(names)) == ([], False, False, BEFORE)
            return 0
        assert appended == list(BATCH)
        assert (first.tile(0, 0) is not None, read_body(first, _named(first, BATCH[1]))["large"]) == (
            True,
            ["ä" * 70_000],
        )
        assert private == (["approver"] if redacted else ["approver", "owner"])
        assert redacted or not rolled
        return 1 + redacted + rolled


def killed_before(url: str, number: int, watch: Callable[[Any, Callable[[], None]], None]) -> tuple[int, bool]:
    """Run the steps in a child that dies before its ``number``-th statement; what it acknowledged, and if it died."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(receive)
            _live_until(url, number, watch, send)
            status = 0
        finally:
            os._exit(status)
    os.close(send)
    acknowledged = 0
    while os.read(receive, 1):
        acknowledged += 1
    os.close(receive)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -signal.SIGKILL), "the child failed instead of being killed"
    return acknowledged, ended != 0


def _live_until(url: str, number: int, watch: Callable[[Any, Callable[[], None]], None], send: int) -> None:
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(url, clock=SystemClock())
    with store.transaction():
        pass
    watch(store, count)
    for step in STEPS:
        with store.transaction() as tx:
            step(tx)
        os.write(send, b".")


def watch_sqlite(store: Any, count: Callable[[], None]) -> None:
    """SQLite tells of each statement before it runs, those of triggers and of ``executemany`` included."""
    store._writer.connection.dbapi_connection.set_trace_callback(lambda _: count())


def watch_postgresql(_: Any, count: Callable[[], None]) -> None:
    """In the child only: everything that is said to the server passes one method."""
    import psycopg

    execute = psycopg.Cursor.execute

    def counted(self: Any, *args: Any, **more: Any) -> Any:
        count()
        return execute(self, *args, **more)

    psycopg.Cursor.execute = counted  # type: ignore[method-assign]


def check_every_statement(
    new_url: Callable[[int], str], watch: Callable[[Any, Callable[[], None]], None], *, stride: int
) -> int:
    """Kill at every ``stride``-th statement; returns how many statements there are, about."""
    seen = set()
    for number in range(1, MOST_STATEMENTS, stride):
        url = new_url(number)
        store = open_store(url, clock=SystemClock())
        prepare(store)
        store.close()
        acknowledged, died = killed_before(url, number, watch)
        steps = reached(store)
        # one more than was acknowledged may be there: the answer to its commit was not heard any more
        assert acknowledged <= steps <= acknowledged + 1
        assert died or steps == acknowledged == len(STEPS)
        store.close()
        seen.add(acknowledged)
        if not died:
            assert seen == set(range(len(STEPS) + 1)), "the child died within each of its transactions"
            return number
    raise AssertionError(f"the child says more than {MOST_STATEMENTS} statements")


def sqlite_urls(tmp_path: Path) -> Callable[[int], str]:
    return lambda number: f"sqlite:///{tmp_path}/{number}.db"


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    """A server of this test's own: each of its clients is killed."""
    with LocalPostgres() as server:
        yield server


def test_sqlite_killed_at_statements(tmp_path: Path) -> None:
    assert check_every_statement(sqlite_urls(tmp_path), watch_sqlite, stride=11) > 40


def test_postgresql_killed_at_statements(server: LocalPostgres) -> None:
    assert check_every_statement(lambda _: server.new_database(), watch_postgresql, stride=5) > 20


@pytest.mark.prove
def test_sqlite_killed_before_every_statement(tmp_path: Path) -> None:
    check_every_statement(sqlite_urls(tmp_path), watch_sqlite, stride=1)


@pytest.mark.prove
def test_postgresql_killed_before_every_statement(server: LocalPostgres) -> None:
    check_every_statement(lambda _: server.new_database(), watch_postgresql, stride=1)


# ---- a disk that fills up --------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_keeps_whole_steps_only(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s.db"), clock=SystemClock())
    assert isinstance(store, SqliteStore)
    prepare(store)
    done, refused, why = 0, 0, set()
    while done < len(STEPS):
        writer = store._writer
        assert writer is not None
        raw: Any = writer.connection.dbapi_connection
        (pages,) = raw.execute("PRAGMA page_count").fetchone()
        for room in range(1_000):
            raw.execute(f"PRAGMA max_page_count={pages + room}")
            try:
                with store.transaction() as tx:
                    STEPS[done](tx)
            except StoreUnavailable as error:
                why.add(str(error).partition("; ")[0])
                refused += 1
                with store.snapshot() as tx:
                    assert tx.tree_size() == len(list(tx.entries()))
            else:
                done += 1
                break
        raw.execute("PRAGMA max_page_count=1000000000")
        assert reached(store) == done
    assert refused > 3
    assert why == {f"the store {store.path} cannot grow because the disk is full"}
    store.close()
