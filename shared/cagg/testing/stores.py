"""What every store must do, as a pytest suite: a backend subclasses :class:`StoreContract` with a ``store`` fixture.

The store must be empty at first and be reachable from several threads at once. Example::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, clock, tmp_path):
            store = open_store(f"sqlite:///{tmp_path}/store.db", clock=clock)
            yield store
            store.close()
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from cagg.errors import IdempotencyConflict, InvalidInput, LedgerDamaged, StoreUnavailable
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append, columns_of, read_body
from cagg.ledger.merkle import TILE_WIDTH, leaf_hash, root_of
from cagg.ledger.notes import verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import Assurance, verify
from cagg.ports import Checkpoint, Signer, Store, Transaction
from cagg.records import Entry, EntryDraft, EntryKind
from cagg.testing._store_keeping import KeepingContract
from cagg.testing._store_logs import LogsContract
from cagg.testing._store_many import ManyContract
from cagg.testing._threads import in_threads
from cagg.testing.clock import ManualClock
from cagg.testing.kinds import LEAST, reading_body
from cagg.windows import format_instant

__all__ = ["MemorySigner", "StoreContract", "draft"]

_NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


class MemorySigner:
    """A signing key that lives in memory; implements :class:`cagg.ports.Signer`.

    Args:
        name: the log's name.
        seed: 32 bytes; the same seed gives the same key.
    """

    def __init__(self, name: str, seed: bytes = b"\x07" * 32) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature."""
        return self._key.sign(message)

    def public_key(self) -> bytes:
        """Return the raw public key."""
        return self._key.public_key().public_bytes_raw()


def draft(name: str = "a", *, ordinal: int = 0, kind: EntryKind = EntryKind.DECISION, **body: Any) -> EntryDraft:
    """Return a small draft; the name is its request key, further arguments say more than its kind must."""
    return EntryDraft(kind=kind, request_key=name, ordinal=ordinal, body={**LEAST[kind], "note": "x", **body})


def _measured(
    number: int, *, task_key: str = "nightly", outcome: str = "completed", energy: str | None = "7"
) -> EntryDraft:
    start = _NOON + timedelta(hours=number)
    body = reading_body(
        start=format_instant(start),
        end=format_instant(start + timedelta(seconds=90)),
        energy=energy,
        outcome=outcome,
        request={"task_key": task_key, "host": "local", "root_run_id": f"r{number}", "attempt": 1},
    )
    return EntryDraft(kind=EntryKind.MEASUREMENT, request_key=f"{task_key}-{number}", ordinal=0, body=body)


def _everything(tx: Transaction) -> list[Entry]:
    return list(tx.entries())


class StoreContract(KeepingContract, LogsContract, ManyContract):
    """Tests of transactions, ledger rows and forecasts that every backend passes."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The clock that the store is opened with."""
        return ManualClock()

    @pytest.fixture
    def store(self, clock: ManualClock) -> Store:
        """The backend under test, empty, on that clock."""
        raise NotImplementedError("a backend's test class gives its store here")

    # ---- transactions -------------------------------------------------------------------------------------------

    def test_what_a_block_wrote_is_there_after_it(self, store: Store) -> None:
        with store.transaction() as tx:
            entry = append(tx, draft())
        with store.snapshot() as tx:
            assert tx.entry(entry.entry_id) is not None
            assert tx.entry_by_key(entry.idempotency_key) is not None

    def test_an_exception_takes_everything_back(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.transaction() as tx:
            append(tx, draft())
            raise ZeroDivisionError
        with store.transaction() as tx:
            assert tx.tree_size() == 0
            assert tx.queued() == 0
            append(tx, draft("b"))

    def test_errors_of_the_block_leave_it_as_they_are(self, store: Store) -> None:
        with store.transaction():
            pass
        with pytest.raises(FileNotFoundError, match="mine"), store.transaction():
            raise FileNotFoundError(2, "mine", "/mine")
        with pytest.raises(OSError, match="mine"), store.snapshot():
            raise OSError("mine")

    def test_a_second_transaction_in_the_same_thread_is_refused(self, store: Store) -> None:
        with store.transaction() as tx:
            with pytest.raises(InvalidInput, match="already has a transaction"), store.transaction():
                pass
            append(tx, draft())
        with store.transaction() as tx:
            assert len(_everything(tx)) == tx.tree_size() == 1 or tx.queued() == 1

    def test_a_snapshot_keeps_its_state_while_others_write(self, store: Store) -> None:
        with store.transaction() as tx:
            append(tx, draft("a"))
            sequence(tx)
        with store.snapshot() as before:
            seen = before.tree_size()
            with store.transaction() as tx:
                append(tx, draft("b"))
                sequence(tx)
            assert before.tree_size() == seen == 1
        with store.snapshot() as after:
            assert after.tree_size() == 2

    def test_a_snapshot_cannot_write(self, store: Store) -> None:
        with store.transaction():
            pass
        with pytest.raises(StoreUnavailable), store.snapshot() as tx:
            tx.put_blob(hashlib.sha256(b"x").hexdigest(), b"x")

    def test_time_stands_still_within_a_transaction(self, store: Store) -> None:
        with store.transaction() as tx:
            now = tx.now()
            assert now.tzinfo is UTC
            assert tx.now() == now

    def test_a_closed_store_opens_again(self, store: Store) -> None:
        with store.transaction() as tx:
            append(tx, draft("a"))
        store.close()
        with store.transaction() as tx:
            append(tx, draft("b"))
            sequence(tx)
            assert tx.tree_size() == 2

    # ---- entries ------------------------------------------------------------------------------------------------

    def test_the_same_draft_again_gives_the_stored_entry(self, store: Store) -> None:
        with store.transaction() as tx:
            first = append(tx, draft(value=1))
        with store.transaction() as tx:
            again = append(tx, draft(value=1))
            assert (again.entry_id, again.body, again.recorded_at) == (first.entry_id, first.body, first.recorded_at)
            assert tx.tree_size() + tx.queued() == 1

    def test_another_body_under_the_same_key_is_a_conflict(self, store: Store) -> None:
        with store.transaction() as tx:
            append(tx, draft(value=1))
        with pytest.raises(IdempotencyConflict, match="already recorded"), store.transaction() as tx:
            append(tx, draft(value=2))
        with store.transaction() as tx:
            append(tx, draft(value=2, ordinal=1))
            sequence(tx)
            assert tx.tree_size() == 2

    def test_entries_come_in_order_and_filtered(self, store: Store) -> None:
        with store.transaction() as tx:
            for number in range(5):
                append(tx, _measured(number, task_key="even" if number % 2 == 0 else "odd"))
            append(tx, draft("d"))
            sequence(tx)
        with store.snapshot() as tx:
            assert [entry.index for entry in tx.entries()] == [0, 1, 2, 3, 4, 5]
            assert [entry.index for entry in tx.entries(newest_first=True)] == [5, 4, 3, 2, 1, 0]
            assert [entry.index for entry in tx.entries(start=3, limit=2)] == [3, 4]
            assert [entry.index for entry in tx.entries(kind=EntryKind.DECISION)] == [5]
            assert [entry.index for entry in tx.entries(task_key="odd", newest_first=True, limit=1)] == [3]
            assert [entry.index for entry in tx.entries(request_key="even-2")] == [2]
            assert list(tx.entries(task_key="none")) == []
            assert list(tx.entries(limit=0)) == []

    def test_an_entry_is_seen_as_soon_as_it_is_recorded(self, store: Store) -> None:
        with store.transaction() as tx:
            append(tx, draft("a"))
            sequence(tx)
            append(tx, draft("b"))
        with store.snapshot() as tx:
            assert [read_body(tx, entry)["request_key"] for entry in tx.entries()] == ["a", "b"]
            assert [read_body(tx, entry)["request_key"] for entry in tx.entries(newest_first=True)] == ["b", "a"]

    def test_long_reads_stream_over_pages(self, store: Store) -> None:
        with store.transaction() as tx:
            for number in range(1_100):
                append(tx, draft(f"k{number}"))
            sequence(tx, 5_000)
        with store.snapshot() as tx:
            indexes = [entry.index for entry in tx.entries()]
            assert indexes == list(range(1_100))
            assert [entry.index for entry in tx.entries(newest_first=True, limit=600)] == indexes[:-601:-1]

    def test_columns_repeat_the_body(self, store: Store) -> None:
        with store.transaction() as tx:
            entry = append(tx, _measured(1))
            sequence(tx)
        with store.snapshot() as tx:
            [(index, entry_id, columns)] = tx.columns(0, 10)
            assert (index, entry_id) == (0, entry.entry_id)
            assert columns == columns_of(read_body(tx, entry))
            assert columns["energy_millijoules"] == 7
            assert columns["task_key"] == "nightly"

    def test_large_bodies_spill_and_come_back(self, store: Store) -> None:
        with store.transaction() as tx:
            entry = append(tx, draft(large=["ä" * 70_000], small="kept"))
        assert len(entry.body) < 65_536
        with store.snapshot() as tx:
            body = read_body(tx, entry)
            assert body["large"] == ["ä" * 70_000]
            assert body["small"] == "kept"

    def test_blobs_are_kept_by_digest(self, store: Store) -> None:
        digest = hashlib.sha256(b"data").hexdigest()
        with store.transaction() as tx:
            tx.put_blob(digest, b"data")
            tx.put_blob(digest, b"data")
            assert tx.blob(digest) == b"data"
            assert tx.blob("0" * 64) is None

    def test_history_gives_the_newest_measurements(self, store: Store) -> None:
        with store.transaction() as tx:
            append(tx, _measured(0, outcome="failed"))
            append(tx, _measured(1, energy=None))
            append(tx, _measured(2, task_key="other"))
            append(tx, draft("no-measurement", request={"task_key": "nightly"}))
        with store.snapshot() as tx:
            found = tx.history("nightly", 10)
            assert sorted((point.completed, point.energy_millijoules) for point in found) == [(False, 7), (True, None)]
            assert {point.duration_ms for point in found} == {90_000}
            assert {point.started_at for point in found} == {_NOON, _NOON + timedelta(hours=1)}
            assert len(tx.history("nightly", 1)) == 1
            assert tx.history("unknown", 10) == []

    # ---- tree ---------------------------------------------------------------------------------------------------

    def test_the_queue_gives_each_entry_once(self, store: Store) -> None:
        with store.transaction() as tx:
            for name in ("a", "b", "c"):
                entry = append(tx, draft(name))
                if entry.index is not None:
                    waiting = replace(entry, entry_id=f"q-{name}", idempotency_key=name.encode() * 32, index=None)
                    tx.insert_entries([(waiting, columns_of(read_body(tx, entry)))])
            queued = tx.queued()
            assert queued == 3
            assert tx.oldest_queued_at() == tx.now()
            first, rest = tx.take_queued(2), tx.take_queued(10)
            assert len({entry_id for entry_id, _ in (*first, *rest)}) == 3
            assert len(first) == 2
            assert (tx.queued(), tx.oldest_queued_at(), tx.take_queued(1)) == (0, None, [])

    def test_sequencing_gives_dense_indexes_and_full_tiles(self, store: Store) -> None:
        total = 2 * TILE_WIDTH + 3
        with store.transaction() as tx:
            bodies = [append(tx, draft(f"k{number}")).body for number in range(total)]
            while sequence(tx, 100):
                pass
        with store.snapshot() as tx:
            assert tx.tree_size() == total
            leaves = list(tx.leaf_hashes(0, total))
            assert sorted(leaves) == sorted(leaf_hash(body) for body in bodies)
            assert tx.tile(0, 0) == b"".join(leaves[:TILE_WIDTH])
            assert tx.tile(0, 1) == b"".join(leaves[TILE_WIDTH : 2 * TILE_WIDTH])
            assert tx.tile(0, 2) is None
            assert list(tx.tile_roots(0, 0, 2)) == [root_of(leaves[:256]), root_of(leaves[256:512])]
            with pytest.raises(LedgerDamaged, match="gap"):
                tx.leaf_hashes(0, total + 1)

    def test_checkpoints_are_kept_and_never_replaced(self, store: Store) -> None:
        one = Checkpoint(size=1, root=b"\x01" * 32, note="n", created_at=_NOON)
        with store.transaction() as tx:
            assert tx.last_checkpoint() is None
            tx.put_checkpoint(one)
            tx.put_checkpoint(replace(one, note="another"))
            tx.put_checkpoint(replace(one, size=5))
            assert [item.size for item in tx.checkpoints()] == [1, 5]
            assert tx.checkpoints()[0] == one
            assert tx.last_checkpoint() == replace(one, size=5)
            with pytest.raises(LedgerDamaged, match="another root"):
                tx.put_checkpoint(replace(one, root=b"\x02" * 32))

    def test_the_log_keeps_its_name(self, store: Store) -> None:
        with store.transaction() as tx:
            name = tx.origin()
        store.close()
        with store.snapshot() as tx:
            assert tx.origin() == name
            assert name

    def test_a_signed_log_verifies(self, store: Store) -> None:
        with store.transaction() as tx:
            signer: Signer = MemorySigner(tx.origin())
            for number in range(300):
                append(tx, draft(f"k{number}"))
            sequence(tx, 1_000)
            assert sign_checkpoint(tx, signer).size == 300
        with store.snapshot() as tx:
            report = verify(tx, [str(verifier_key(signer))])
        assert report.failures == ()
        assert report.assurance is Assurance.SIGNED
        assert report.verified

    # ---- many at once -------------------------------------------------------------------------------------------

    def test_many_threads_with_repeats_and_rollbacks_lose_nothing(self, store: Store) -> None:
        with store.transaction():
            pass
        keys = [f"k{number}" for number in range(60)]

        def work(offset: int) -> None:
            for number, key in enumerate(keys):
                if (number + offset) % 3 == 0:
                    continue
                with store.transaction() as tx:
                    append(tx, draft(key))
                with pytest.raises(ZeroDivisionError), store.transaction() as tx:
                    append(tx, draft(f"gone-{offset}-{key}"))
                    raise ZeroDivisionError

        in_threads([partial(work, offset) for offset in range(4)])
        with store.transaction() as tx:
            while sequence(tx):
                pass
            found = _everything(tx)
            assert [entry.index for entry in found] == list(range(len(keys)))
            assert sorted(read_body(tx, entry)["request_key"] for entry in found) == sorted(keys)
