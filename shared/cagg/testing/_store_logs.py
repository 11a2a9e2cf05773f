"""What every store must do with several logs: a pytest suite."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from cagg.entries import Entry, EntryDraft, EntryKind, LogState
from cagg.errors import IdempotencyConflict, InvalidInput, StoreUnavailable
from cagg.ledger.entry import append, append_many, columns_of, read_body
from cagg.ledger.merkle import leaf_hash
from cagg.ledger.sequencer import sequence
from cagg.ports import Checkpoint, Store, Transaction
from cagg.testing._threads import in_threads
from cagg.testing.kinds import LEAST

__all__ = ["LogsContract", "names_of", "place_all", "rolled", "small"]

_NEXT = "example.org/next"
_NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def small(name: str, *, ordinal: int = 0, **body: Any) -> EntryDraft:
    return EntryDraft(
        kind=EntryKind.DECISION, request_key=name, ordinal=ordinal, body={**LEAST[EntryKind.DECISION], **body}
    )


def place_all(tx: Transaction) -> None:
    while sequence(tx):
        pass


def rolled(tx: Transaction, origin: str = _NEXT) -> Transaction:
    tx.lock_log()
    place_all(tx)
    return tx.begin_log(origin)


def names_of(tx: Transaction) -> list[str]:
    return [read_body(tx, entry)["request_key"] for entry in tx.entries()]


class LogsContract:
    """Tests of logs that every backend passes."""

    # ---- several logs -------------------------------------------------------------------------------------------

    def test_a_new_store_has_one_log_that_grows(self, store: Store) -> None:
        with store.transaction() as tx:
            (only,) = tx.logs()
            assert (only.origin, only.state) == (tx.origin(), LogState.ACTIVE)
            assert only.created_at.tzinfo is UTC
            assert tx.in_log(tx.origin()).origin() == tx.origin()
            with pytest.raises(InvalidInput, match="no log of the name"):
                tx.in_log("example.org/other")

    def test_the_next_log_begins_empty_and_the_one_before_stays_readable(self, store: Store) -> None:
        with store.transaction() as tx:
            old = tx.origin()
            append_many(tx, [small("a"), small("b")])
            new = rolled(tx)
            assert (new.origin(), new.tree_size(), new.queued()) == (_NEXT, 0, 0)
            append(new, small("c"))
            place_all(new)
            assert tx.origin() == old
        with store.snapshot() as tx:
            assert tx.origin() == _NEXT
            assert [(log.origin, log.state) for log in tx.logs()] == [
                (old, LogState.FROZEN),
                (_NEXT, LogState.ACTIVE),
            ]
            assert (names_of(tx), names_of(tx.in_log(old))) == (["c"], ["a", "b"])
            (entry,) = tx.entries()
            assert entry.index == 0
            assert read_body(tx, entry)["log"] == _NEXT
            assert {name: tx.row_counts()[name] for name in ("entry", "leaf", "foreign")} == {
                "entry": 1,
                "leaf": 1,
                "foreign": 0,
            }
            assert tx.in_log(old).row_counts()["entry"] == 2
            assert (tx.duplicate_entries(), tx.unplaced_entries(), tx.queue_faults()) == ([], [], [])

    def test_writers_and_readers_open_the_log_that_grows(self, store: Store) -> None:
        with store.transaction() as tx:
            append(tx, small("a"))
            rolled(tx)
        for _ in range(2):  # on the connection that was open at the roll, then on a new one
            with store.transaction() as tx:
                assert tx.origin() == _NEXT
                append(tx, small("b"))
            store.close()
        with store.snapshot() as tx:
            assert (tx.origin(), names_of(tx)) == (_NEXT, ["b"])

    def test_what_was_recorded_in_an_earlier_log_is_found_and_not_recorded_again(self, store: Store) -> None:
        with store.transaction() as tx:
            old = tx.origin()
            first = append(tx, small("a", note="x"))
            rolled(tx)
        with store.transaction() as tx:
            assert append(tx, small("a", note="x")).entry_id == first.entry_id
            again, new = append_many(tx, [small("a", note="x"), small("b")])
            assert again.entry_id == first.entry_id
            found, by_id = tx.entry_by_key(first.idempotency_key), tx.entry(first.entry_id)
            assert found is not None
            assert found == by_id
            assert (found.body, found.index) == (first.body, 0)
            assert tx.entries_by_keys([first.idempotency_key, new.idempotency_key]).keys() == {
                first.idempotency_key,
                new.idempotency_key,
            }
        with pytest.raises(IdempotencyConflict), store.transaction() as tx:
            append(tx, small("a", note="y"))
        with store.snapshot() as tx:
            assert (names_of(tx), names_of(tx.in_log(old))) == (["b"], ["a"])

    def test_a_frozen_log_takes_no_entry_and_no_leaf_but_a_checkpoint(self, store: Store) -> None:
        with store.transaction() as tx:
            old = tx.origin()
            append(tx, small("a"))
            rolled(tx)

        def entry_in(tx: Transaction) -> None:
            append(tx.in_log(old), small("late"))

        def leaf_in(tx: Transaction) -> None:
            tx.in_log(old).insert_leaves(1, [("other", b"\x00" * 32)])

        def tile_in(tx: Transaction) -> None:
            tx.in_log(old).put_tile(0, 0, b"\x00" * 8192, b"\x00" * 32)

        for work in (entry_in, leaf_in, tile_in):
            with pytest.raises(StoreUnavailable, match="is frozen"), store.transaction() as tx:
                work(tx)
        with store.transaction() as tx:
            tx.in_log(old).put_checkpoint(Checkpoint(size=1, root=b"\x01" * 32, note="n", created_at=_NOON))
            assert tx.last_checkpoint() is None
        with store.snapshot() as tx:
            frozen = tx.in_log(old)
            assert (frozen.tree_size(), frozen.queued(), len(frozen.checkpoints())) == (1, 0, 1)

    def test_a_log_is_begun_once_under_a_name_of_its_own_and_when_nothing_waits(self, store: Store) -> None:
        with store.transaction() as tx:
            old = tx.origin()
            for name in ("", "a b", "a+b"):
                with pytest.raises(InvalidInput, match="log name"):
                    tx.begin_log(name)
            with pytest.raises(InvalidInput, match="another name"):
                tx.begin_log(old)
            tx.insert_entries([_waiting(tx)])
            with pytest.raises(InvalidInput, match="still wait"):
                tx.begin_log(_NEXT)
            tx.take_queued(10)
            tx.begin_log(_NEXT)
            with pytest.raises(InvalidInput, match="frozen already"):
                tx.begin_log("example.org/third")
        with store.transaction() as tx:
            with pytest.raises(InvalidInput, match="another name"):
                tx.begin_log(old)
            assert len(tx.logs()) == 2

    def test_a_log_that_was_begun_in_vain_never_was(self, store: Store) -> None:
        with store.transaction() as tx:
            old = tx.origin()
        with pytest.raises(ZeroDivisionError), store.transaction() as tx:
            append(rolled(tx), small("a"))
            raise ZeroDivisionError
        with store.transaction() as tx:
            assert (tx.origin(), len(tx.logs())) == (old, 1)
            append(tx, small("a"))
            assert names_of(tx) == ["a"]

    def test_logs_change_in_no_other_way(self, store: Store) -> None:
        with store.transaction() as tx:
            rolled(tx)
        for statement in (
            "UPDATE cagg_log SET state = 'active'",
            "UPDATE cagg_log SET origin = 'other' WHERE log_id = 2",
            "UPDATE cagg_log SET state = 'frozen', origin = 'other' WHERE log_id = 2",
            "DELETE FROM cagg_log WHERE log_id = 2",
            "INSERT INTO cagg_log VALUES (3, 'third', 'active', 0)",
            "INSERT INTO cagg_log VALUES (3, 'third', 'frozen', 0)",
        ):
            with pytest.raises(StoreUnavailable, match="append-only"), store.transaction() as tx:
                tx.connection.exec_driver_sql(statement)  # type: ignore[attr-defined]

    def test_the_history_goes_on_over_the_logs(self, store: Store) -> None:
        from cagg.testing._store_keeping import record_run

        with store.transaction() as tx:
            record_run(tx, EntryKind.MEASUREMENT, "lost", key="a")
            record_run(tx, EntryKind.MEASUREMENT, "completed", key="b")
            new = rolled(tx)
            record_run(new, EntryKind.CORRECTION, "completed", key="a", energy_millijoules="70")
        with store.snapshot() as tx:
            found = sorted((point.energy_millijoules or 0, point.completed) for point in tx.history("nightly", 9))
            assert found == [(5, True), (70, True)]

    def test_rolls_among_many_writers_lose_and_double_nothing(self, store: Store) -> None:
        with store.transaction() as tx:
            append(tx, small("before"))
        keys = [f"k{number}" for number in range(48)]
        rolls = 3

        def write(offset: int) -> None:
            for number in range(len(keys)):
                key = keys[(number + offset) % len(keys)]
                with store.transaction() as tx:
                    if number % 3:
                        append(tx, small(key))
                    else:
                        append_many(tx, [small(key), small(f"{key}-{offset}")])

        def roll() -> None:
            for number in range(rolls):
                with store.transaction() as tx:
                    place_all(tx)
                with store.transaction() as tx:
                    rolled(tx, f"example.org/{number}")

        in_threads([*(partial(write, offset) for offset in (0, 13, 29)), roll])
        with store.transaction() as tx:
            place_all(tx)
        with store.snapshot() as tx:
            names: list[str] = []
            assert [log.state for log in tx.logs()] == [LogState.FROZEN] * rolls + [LogState.ACTIVE]
            for log in tx.logs():
                seen = tx.in_log(log.origin)
                assert [entry.index for entry in seen.entries()] == list(range(seen.tree_size()))
                assert (seen.queued(), seen.unplaced_entries()) == (0, [])
                assert {read_body(seen, entry)["log"] for entry in seen.entries()} <= {log.origin}
                names += names_of(seen)
        assert len(names) == len(set(names)) == 1 + len(keys) + 3 * len(keys) // 3
        assert set(keys) < set(names)


def _waiting(tx: Transaction) -> tuple[Entry, dict[str, str | int | None]]:
    """An entry that waits for its place, on every backend."""
    said = {"kind": "decision", "recorded_at": "1970-01-01T00:00:00.000001Z", "request_key": "waits"}
    body = b"{}"
    entry = Entry(
        entry_id="waits",
        kind=EntryKind.DECISION,
        idempotency_key=b"\x02" * 32,
        body=body,
        leaf_hash=leaf_hash(body),
        index=None,
        recorded_at=tx.now(),
    )
    return entry, columns_of(said)
