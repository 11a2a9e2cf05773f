"""What comes from outside and what spans the store: checkpoints kept elsewhere, hashes only, several logs, clocks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from cagg.entries import PrivateValue
from cagg.errors import InvalidInput
from cagg.ledger._verify_failures import Failures
from cagg.ledger._verify_heads import read_heads
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.notes import TreeHead, checkpoint_text, note_of, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.succession import RollReason, roll
from cagg.ledger.verify import Assurance, FailureKind, VerifyReport, verify
from cagg.ports import Checkpoint, Signer, Store, Transaction
from cagg.records import EntryDraft, EntryKind
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME, NEXT = "example.org/test", "example.org/test/2027"
SIGNER, NEXT_SIGNER = MemorySigner(NAME), MemorySigner(NEXT, b"\x08" * 32)
KEY, NEXT_KEY = str(verifier_key(SIGNER)), str(verifier_key(NEXT_SIGNER))


def add(tx: Transaction, names: Sequence[str]) -> None:
    for name in names:
        append(tx, draft(name))
    while sequence(tx):
        pass


def signed(tx: Transaction, signer: Signer = SIGNER) -> Checkpoint:
    while sequence(tx):
        pass
    return sign_checkpoint(tx, signer)


def kinds(report: VerifyReport) -> set[FailureKind]:
    return {failure.kind for failure in report.failures}


# ---- checkpoints from outside ---------------------------------------------------------------------------------------


def test_the_newest_outside_checkpoint_says_how_far_the_log_is_proven(store: Store) -> None:
    with store.transaction() as tx:
        add(tx, ["a", "b"])
        first = signed(tx)
        add(tx, ["c"])
        second = signed(tx)
        add(tx, ["d", "e"])
        report = verify(tx, [KEY], [second, first])
        assert (report.assurance, report.signed_size, report.anchored_size) == (Assurance.ANCHORED, 3, 3)
        assert (report.unsigned, report.unproven) == (2, 2)
        assert "the last 2 are newer than it, and unproven" in report.sentence
        signed(tx)
        report = verify(tx, [KEY], [first])
        assert (report.unsigned, report.unproven, report.anchored_size) == (0, 3, 2)
        report = verify(tx, [KEY], ())
        assert (report.assurance, report.unsigned, report.unproven) == (Assurance.SIGNED, 0, 5)
        assert "unproven without an outside checkpoint" in report.sentence
        report = verify(tx, [KEY], signed(tx))
        assert (report.unproven, report.sentence) == (
            0,
            "verified (signed, continues the outside checkpoint): 5 entries.",
        )


def test_each_of_several_outside_checkpoints_is_compared(store: Store) -> None:
    with store.transaction() as tx:
        add(tx, ["a", "b", "c"])
        good = signed(tx)
        text = checkpoint_text(TreeHead(origin=NAME, size=2, root=b"\x01" * 32))
        forged = replace(
            good, size=2, root=b"\x01" * 32, note=note_of(text, [(verifier_key(SIGNER), SIGNER.sign(text.encode()))])
        )
        report = verify(tx, [KEY], [good, forged])
        assert [(failure.kind, failure.index) for failure in report.failures] == [(FailureKind.CHECKPOINT, 2)]
        text = checkpoint_text(TreeHead(origin=NAME, size=9, root=b"\x01" * 32))
        ahead = replace(
            good, size=9, root=b"\x01" * 32, note=note_of(text, [(verifier_key(SIGNER), SIGNER.sign(text.encode()))])
        )
        report = verify(tx, [KEY], [good, ahead, forged])
        assert [(failure.kind, failure.index) for failure in report.failures] == [
            (FailureKind.CHECKPOINT, 2),
            (FailureKind.TRUNCATED, 9),
        ]


def test_an_outside_checkpoint_of_a_log_that_is_not_here_is_a_failure(store: Store) -> None:
    with store.transaction() as tx:
        add(tx, ["a"])
        other = MemorySigner("example.org/other")
        text = checkpoint_text(TreeHead(origin=other.name, size=1, root=tx.leaf_hashes(0, 1)[0]))
        note = note_of(text, [(verifier_key(other), other.sign(text.encode()))])
        report = verify(tx, [KEY], replace(signed(tx), note=note))
        assert [(item.kind, item.index) for item in report.failures] == [(FailureKind.TRUNCATED, 1)]
        assert "of 1 entries is of the log example.org/other, which this store does not hold" in report.sentence
        report = verify(tx, [KEY], replace(signed(tx), note="no note"))
        assert kinds(report) == {FailureKind.SIGNATURE}


def test_an_unknown_signature_beside_the_trusted_one_passes_and_a_wrong_one_of_a_known_key_fails(store: Store) -> None:
    stranger = MemorySigner(NAME, b"\x09" * 32)
    with store.transaction() as tx:
        add(tx, ["a"])
        head = signed(tx)
        text = checkpoint_text(TreeHead(origin=NAME, size=1, root=head.root))
        mine = (verifier_key(SIGNER), SIGNER.sign(text.encode()))
        both = note_of(text, [(verifier_key(stranger), stranger.sign(text.encode())), mine])
        assert verify(tx, [KEY], replace(head, note=both)).assurance is Assurance.ANCHORED
        wrong = note_of(text, [mine, (verifier_key(stranger), SIGNER.sign(text.encode()))])
        assert verify(tx, [KEY], replace(head, note=wrong)).assurance is Assurance.ANCHORED, "its key is unknown"
        report = verify(tx, [KEY, str(verifier_key(stranger))], replace(head, note=wrong))
        assert kinds(report) == {FailureKind.SIGNATURE}


def test_without_keys_an_outside_checkpoint_is_compared_and_the_level_stays_consistent(store: Store) -> None:
    with store.transaction() as tx:
        add(tx, ["a", "b"])
        head = signed(tx)
        report = verify(tx, [], head)
        assert (report.assurance, report.anchored_size, report.signed_size) == (Assurance.CONSISTENT, 2, 0)
        assert kinds(verify(tx, [], replace(head, size=1))) == {FailureKind.CHECKPOINT}


def test_a_log_that_is_signed_often_takes_little_memory(store: Store) -> None:
    """A checkpoint every minute is half a million in a year; of each only size and root are kept while it is read."""
    many = 3_000
    with store.transaction() as tx:
        text = checkpoint_text(TreeHead(origin=NAME, size=0, root=bytes(32)))
        note = note_of(text, [(verifier_key(SIGNER), bytes(64))])
        for size in range(1, many + 1):
            tx.put_checkpoint(Checkpoint(size=size, root=bytes(32), note=note, created_at=tx.now()))
        read_heads(tx, [], [], Failures(NAME))
        tracemalloc.start()
        found = read_heads(tx, [], [], failures := Failures(NAME))
        used, peak = (amount / many for amount in tracemalloc.get_traced_memory())
        tracemalloc.stop()
    assert (found.stored, len(failures.found)) == (many, many), "each says another size in its note than beside it"
    assert peak - used < 400, "bytes per checkpoint, without what was found"


# ---- hashes only ----------------------------------------------------------------------------------------------------


def test_hashes_only_says_so_and_reads_no_body(store: Store) -> None:
    with store.transaction() as tx:
        add(tx, [f"k{number}" for number in range(300)])
        signed(tx)
        everything = verify(tx, [KEY])
        report = verify(tx, [KEY], tree_only=True)
        assert (report.root, report.assurance, report.tree_only) == (everything.root, Assurance.SIGNED, True)
        assert "hashes only" in report.sentence
        assert "the entries themselves were not read" in report.sentence
        connection = unlock(tx)
        connection.exec_driver_sql("UPDATE cagg_entry SET outcome = 'x' WHERE request_key = 'k5'")
        assert verify(tx, [KEY], tree_only=True).verified
        connection.exec_driver_sql("UPDATE cagg_leaf SET leaf_hash = zeroblob(32) WHERE leaf_index = 299")
        assert kinds(verify(tx, [KEY], tree_only=True)) == {FailureKind.CHECKPOINT}
        connection.exec_driver_sql("UPDATE cagg_leaf SET leaf_hash = zeroblob(32) WHERE leaf_index = 3")
        assert kinds(verify(tx, [KEY], tree_only=True)) == {FailureKind.CHECKPOINT, FailureKind.TILE}
        connection.exec_driver_sql("DELETE FROM cagg_leaf WHERE leaf_index = 7")
        found = verify(tx, [KEY], tree_only=True)
        assert {FailureKind.LEAF, FailureKind.ROWS} <= kinds(found)


@pytest.mark.parametrize("kind", ["log", "key"])
def test_hashes_only_goes_by_no_word_on_logs_and_keys_that_is_not_under_its_leaf(two_logs: Store, kind: str) -> None:
    with two_logs.transaction() as tx:
        signed(tx, NEXT_SIGNER)
        assert verify(tx, [KEY, NEXT_KEY], tree_only=True).verified
        unlock(tx).exec_driver_sql(
            f"UPDATE cagg_entry SET body = (SELECT body FROM cagg_entry WHERE request_key = 'a') WHERE kind = '{kind}'"
        )
        report = verify(tx, [KEY, NEXT_KEY], tree_only=True)
    assert FailureKind.BODY in kinds(report)
    assert report.assurance is Assurance.NONE


def test_hashes_only_of_nothing_is_not_verified(store: Store) -> None:
    with store.transaction() as tx:
        report = verify(tx, [KEY], tree_only=True)
    assert (report.verified, report.failures, report.size) == (False, (), 0)


# ---- several logs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two_logs(store: Store) -> Store:
    with store.transaction() as tx:
        add(tx, ["a", "b"])
        signed(tx)
        roll(tx, SIGNER, NEXT_SIGNER, reason=next(item for item in RollReason if not item.breaks))
    with store.transaction() as tx:
        signed(tx.in_log(NAME))
    with store.transaction() as tx:
        assert tx.origin() == NEXT
        add(tx, ["c"])
    return store


def test_all_logs_are_verified_and_the_weakest_level_counts(two_logs: Store) -> None:
    with two_logs.transaction() as tx:
        report = verify(tx, [KEY, NEXT_KEY])
        assert [one.origin for one in report.logs] == [NAME, NEXT]
        assert report.failures == ()
        assert report.logs[0].assurance is Assurance.SIGNED
        before = report.logs[1].signed_size
        head = signed(tx, NEXT_SIGNER)
        assert head.size > before
        report = verify(tx, [KEY, NEXT_KEY])
        assert (report.assurance, report.unsigned) == (Assurance.SIGNED, 0)
        assert report.size == sum(one.size for one in report.logs) == report.signed_size
        assert f"{report.size} entries in 2 logs" in report.sentence
        report = verify(tx, [KEY, NEXT_KEY], head)
        assert (report.assurance, report.unproven) == (Assurance.ANCHORED, 0), "its first entry names the log before it"


def test_one_log_alone_is_asked_for_by_its_name(two_logs: Store) -> None:
    with two_logs.transaction() as tx:
        report = verify(tx, [KEY], log=NAME)
        assert (report.origin, report.logs, report.assurance) == (NAME, (), Assurance.SIGNED)
        with pytest.raises(InvalidInput):
            verify(tx, [KEY], log="example.org/none")


def test_a_changed_entry_of_a_frozen_log_is_found_with_its_log(two_logs: Store) -> None:
    with two_logs.transaction() as tx:
        signed(tx, NEXT_SIGNER)
        unlock(tx).exec_driver_sql("UPDATE cagg_entry SET outcome = 'x' WHERE request_key = 'a'")
        report = verify(tx, [KEY, NEXT_KEY])
    [failure] = report.failures
    assert (failure.kind, failure.index, failure.log) == (FailureKind.COLUMN, 0, NAME)
    assert report.logs[1].failures == ()
    assert not report.verified


def test_rows_of_no_log_are_found_once(two_logs: Store) -> None:
    with two_logs.transaction() as tx:
        signed(tx, NEXT_SIGNER)
        unlock(tx).exec_driver_sql("INSERT INTO cagg_leaf VALUES (99, 0, 'x', zeroblob(32))")
        report = verify(tx, [KEY, NEXT_KEY])
    assert [(failure.kind, failure.log) for failure in report.failures] == [(FailureKind.ROWS, "")]


# ---- clocks, personal values ----------------------------------------------------------------------------------------


def test_odd_clocks_are_noted_and_no_failure(store: Store, clock: ManualClock) -> None:
    with store.transaction() as tx:
        add(tx, ["a"])
    clock.step_wall_clock(timedelta(days=3650))
    with store.transaction() as tx:
        add(tx, ["b"])
    clock.step_wall_clock(timedelta(days=-3650, minutes=-29))
    with store.transaction() as tx:
        add(tx, ["c", "d"])
        signed(tx)
        report = verify(tx, [KEY])
    assert (report.verified, report.failures) == (True, ())
    backwards, future = report.notes
    assert "entry 2" in backwards
    assert "before that of the entry in front" in backwards
    assert "entry 1" in future
    assert "in the future" in future


def test_clocks_that_differ_by_minutes_are_not_odd(store: Store, clock: ManualClock) -> None:
    for step in (timedelta(0), timedelta(minutes=-20), timedelta(minutes=20)):
        clock.step_wall_clock(step)
        with store.transaction() as tx:
            add(tx, [f"k{step}"])
    with store.snapshot() as tx:
        assert verify(tx, []).notes == ()


def test_personal_values_are_compared_with_their_commitments(store: Store) -> None:
    said = draft("p", kind=EntryKind.OVERRIDE)
    with store.transaction() as tx:
        add(tx, ["a"])
        entry = append(
            tx,
            EntryDraft(kind=said.kind, request_key="p", ordinal=0, body=said.body, private={"who": "Ada", "why": "x"}),
        )
        signed(tx)
        assert verify(tx, [KEY]).failures == ()
    for statement, words in (
        ("UPDATE cagg_private SET value = 'Eve' WHERE field = 'who'", "not the one"),
        ("UPDATE cagg_private SET salt = zeroblob(32) WHERE field = 'who'", "not the one"),
        ("DELETE FROM cagg_private WHERE field = 'why'", "no redaction"),
    ):
        with store.transaction() as tx, tx.connection.begin_nested() as undo:  # type: ignore[attr-defined]
            unlock(tx).exec_driver_sql(statement)
            [failure] = verify(tx, [KEY]).failures
            assert (failure.kind, failure.index) == (FailureKind.PRIVATE, 1)
            assert words in failure.message
            assert "Ada" not in failure.message
            undo.rollback()
    with store.transaction() as tx:
        tx.put_private([PrivateValue(entry_id=entry.entry_id, field="other", salt=b"\x01" * 32, value="y")])
        assert FailureKind.PRIVATE in kinds(verify(tx, [KEY]))
