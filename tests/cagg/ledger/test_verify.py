"""Attacks: whatever is changed in the store, verification names it. Its owner first takes the triggers away."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from cagg.errors import InvalidInput
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import append, columns_of, idempotency_key
from cagg.ledger.merkle import EMPTY_ROOT, Frontier, leaf_hash, root_of
from cagg.ledger.notes import TreeHead, checkpoint_text, signed_note, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import Assurance, FailureKind, VerifyReport, verify
from cagg.ports import Checkpoint, Signer, Store, Transaction
from cagg.records import EntryDraft, EntryKind
from cagg.store.audit_rows import CACHE_COLUMNS
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.store.tables import entry as entry_table
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"
SIGNER = MemorySigner(NAME)
KEY = str(verifier_key(SIGNER))
SIZE, SIGNED = 270, (200, 262)
MEASURED, SPILLED, ATTACHED, NESTED = 7, 8, 9, 10
SERIES = hashlib.sha256(b"series").hexdigest()
INNER = hashlib.sha256(b"inner").hexdigest()


def _measurement() -> EntryDraft:
    slices = [
        {
            "start": f"2026-01-05T2{hour}:00:00.000000Z",
            "end": f"2026-01-05T2{hour + 1}:00:00.000000Z",
            "energy_millijoules": "3600000000",
            "intensity_milligrams_per_kwh": "100000",
            "source": "trace",
        }
        for hour in (1, 2)
    ]
    body = {
        "request": {"host": "local", "root_run_id": "r", "task_key": "nightly", "attempt": 1, "budget_path": "a/b"},
        "start": slices[0]["start"],
        "end": slices[1]["end"],
        "outcome": "completed",
        "grade": "C",
        "part_of": "outer",
        "energy_millijoules": "7200000000",
        "pue_ppm": None,
        "carbon_micrograms": "200000000",
        "slices": slices,
    }
    return EntryDraft(kind=EntryKind.MEASUREMENT, request_key="m", ordinal=0, body=body)


def _draft(number: int) -> EntryDraft:
    if number == MEASURED:
        return _measurement()
    if number == SPILLED:
        return draft("spilled", large="x" * 70_000)
    if number == ATTACHED:
        return replace(draft("attached", forecast={"blob": SERIES}), blobs={SERIES: b"series"})
    if number == NESTED:
        return replace(
            draft("nested", large={"series": {"blob": INNER}, "text": "x" * 70_000}), blobs={INNER: b"inner"}
        )
    return draft(f"k{number}")


def sign(tx: Transaction, signer: Signer = SIGNER) -> Checkpoint:
    """Give every entry its place, as the sequencer does where appends do not, and sign."""
    while sequence(tx):
        pass
    return sign_checkpoint(tx, signer)


def filled(store: Store) -> Store:
    """270 entries, one full tile, two checkpoints; tests change it inside a transaction that is taken back."""
    with store.transaction() as tx:
        for number in range(SIZE):
            append(tx, _draft(number))
            if number + 1 in SIGNED:
                sign(tx)
        while sequence(tx):
            pass
    return store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, named_store: Callable[..., AbstractContextManager[Store]]) -> Iterator[Store]:
    """The filled log, once on each backend."""
    with named_store(request.param, origin=NAME) as store:
        yield filled(store)


@pytest.fixture(scope="module")
def file_log(named_store: Callable[..., AbstractContextManager[Store]]) -> Iterator[Store]:
    """The filled log in a file, where a column may hold a value of any type."""
    with named_store("sqlite", origin=NAME) as store:
        yield filled(store)


@contextlib.contextmanager
def attacked(store: Store) -> Iterator[tuple[Transaction, Connection]]:
    class TakeBack(Exception):
        pass

    with contextlib.suppress(TakeBack), store.transaction() as tx:
        yield tx, unlock(tx)
        raise TakeBack


def after(store: Store, *statements: str, keys: tuple[str, ...] = (KEY,)) -> VerifyReport:
    with attacked(store) as (tx, connection):
        for statement in statements:
            assert connection.exec_driver_sql(statement).rowcount != 0, f"the attack did nothing: {statement}"
        return verify(tx, keys)


def kinds(report: VerifyReport) -> set[FailureKind]:
    assert not report.verified
    assert report.assurance is Assurance.NONE
    assert "verified" not in report.sentence
    return {failure.kind for failure in report.failures}


# ---- the untouched log ----------------------------------------------------------------------------------------------


def test_an_untouched_signed_log_is_verified(log: Store) -> None:
    with log.snapshot() as tx:
        report = verify(tx, [KEY])
        assert report.root == root_of(tx.leaf_hashes(0, SIZE))
    assert report.failures == ()
    assert report.assurance is Assurance.SIGNED
    assert (report.origin, report.size, report.signed_size, report.checkpoints) == (NAME, SIZE, 262, 2)
    assert (report.unsigned, report.unproven) == (8, SIZE)
    assert "8 newer entries are not signed" in report.sentence


def test_without_keys_it_is_only_consistent(log: Store) -> None:
    with log.snapshot() as tx:
        report = verify(tx, [])
    assert (report.failures, report.assurance, report.verified) == ((), Assurance.CONSISTENT, False)
    assert "verified" not in report.sentence
    assert report.signed_size == 0


def test_an_empty_log_proves_nothing(store: Store) -> None:
    with store.transaction():
        pass
    with store.snapshot() as tx:
        report = verify(tx, [KEY])
    assert (report.failures, report.assurance, report.verified, report.size) == ((), Assurance.NONE, False, 0)
    assert report.root == EMPTY_ROOT
    assert "nothing to check" in report.sentence


def test_an_unsigned_log_is_never_verified(store: Store) -> None:
    with store.transaction() as tx:
        append(tx, draft())
        sequence(tx)
    with store.snapshot() as tx:
        report = verify(tx, [KEY])
    assert (report.assurance, report.verified, report.unproven) == (Assurance.CONSISTENT, False, 1)


def test_a_signature_over_nothing_signs_nothing(store: Store) -> None:
    with store.transaction() as tx:
        sign(tx)
        append(tx, draft())
        sequence(tx)
        report = verify(tx, [KEY])
    assert (report.failures, report.assurance) == ((), Assurance.CONSISTENT)


def test_an_older_outside_checkpoint_is_continued(log: Store) -> None:
    with log.snapshot() as tx:
        report = verify(tx, [KEY], tx.checkpoints()[0])
    assert (report.failures, report.assurance, report.verified) == ((), Assurance.ANCHORED, True)


def test_a_wrong_key_text_is_an_error_of_the_caller(log: Store) -> None:
    with log.snapshot() as tx, pytest.raises(InvalidInput):
        verify(tx, ["nonsense"])


# ---- bodies ---------------------------------------------------------------------------------------------------------


def test_no_bit_of_a_body_can_be_changed(file_store: Store) -> None:
    with file_store.transaction() as tx:
        body = append(tx, _measurement()).body
        sign(tx)
    with attacked(file_store) as (tx, connection):
        for position in range(len(body)):
            changed = bytearray(body)
            changed[position] ^= 1 << (position % 8)
            connection.execute(text("UPDATE cagg_entry SET body = :body"), {"body": bytes(changed)})
            report = verify(tx, [KEY])
            assert FailureKind.BODY in kinds(report), position
            assert report.failures[0].index == 0


@pytest.mark.parametrize("value", ["NULL", "''", "'text'", "zeroblob(10)", "CAST(body AS TEXT)", "17"])
def test_a_body_of_another_type_is_found(file_log: Store, value: str) -> None:
    statement = f"UPDATE cagg_entry SET body = {value} WHERE request_key = 'k5'"
    if value == "NULL":
        with attacked(file_log) as (tx, connection):
            connection.exec_driver_sql("CREATE TABLE copy AS SELECT * FROM cagg_entry")
            connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
            connection.exec_driver_sql("ALTER TABLE cagg_entry RENAME TO old")
            connection.exec_driver_sql("ALTER TABLE copy RENAME TO cagg_entry")
            connection.exec_driver_sql(statement)
            report = verify(tx, [KEY])
    else:
        report = after(file_log, statement)
    assert FailureKind.BODY in kinds(report)
    assert report.failures[0].index == 5


def test_a_body_and_its_hashes_rewritten_break_the_signed_root(log: Store) -> None:
    with attacked(log) as (tx, connection):
        _rewrite(connection, 5, lambda body: body | {"note": "y"})
        report = verify(tx, [KEY])
    assert kinds(report) == {FailureKind.CHECKPOINT, FailureKind.TILE}
    assert {failure.index for failure in report.failures} == {0, 200, 262}


def test_a_rewritten_entry_after_the_last_checkpoint_is_unproven_not_verified(log: Store) -> None:
    with attacked(log) as (tx, connection):
        _rewrite(connection, SIZE - 1, lambda body: body | {"note": "y"})
        report = verify(tx, [KEY])
    assert report.failures == ()
    assert report.unsigned == 8, "nothing can vouch for what no checkpoint covers, and the report says so"


def _rewrite(connection: Connection, index: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace a body with everything derived from it, as a careful attacker does."""
    query = (
        "SELECT e.entry_id, e.body FROM cagg_leaf l JOIN cagg_entry e ON e.entry_id = l.entry_id WHERE leaf_index = :i"
    )
    entry_id, old = connection.execute(text(query), {"i": index}).one()
    body = change(decode(bytes(old)))
    data = canonical(body)
    values = {**columns_of(body), "body": data, "leaf_hash": leaf_hash(data)}
    values["idempotency_key"] = bytes.fromhex(body["idempotency_key"])
    connection.execute(entry_table.update().where(entry_table.c.entry_id == entry_id).values(values))
    statement = text("UPDATE cagg_leaf SET leaf_hash = :hash WHERE leaf_index = :i")
    connection.execute(statement, {"hash": leaf_hash(data), "i": index})


ARITHMETIC: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "less carbon": lambda body: body | {"carbon_micrograms": "199999999"},
    "no carbon": lambda body: body | {"carbon_micrograms": None},
    "less energy": lambda body: body | {"energy_millijoules": "7199999999"},
    "another PUE": lambda body: body | {"pue_ppm": 1_000_001},
    "a slice less": lambda body: body | {"slices": body["slices"][:1]},
    "a cleaner slice": lambda body: (
        body | {"slices": [body["slices"][0] | {"intensity_milligrams_per_kwh": "1"}, body["slices"][1]]}
    ),
}


@pytest.mark.parametrize("change", ARITHMETIC.values(), ids=ARITHMETIC.keys())
def test_figures_that_do_not_follow_are_found_even_unsigned(
    log: Store, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    with attacked(log) as (tx, connection):
        connection.exec_driver_sql("DELETE FROM cagg_checkpoint")
        connection.exec_driver_sql("DELETE FROM cagg_tile")
        _rewrite(connection, MEASURED, change)
        report = verify(tx, [])
    assert FailureKind.ARITHMETIC in kinds(report)
    assert MEASURED in {failure.index for failure in report.failures if failure.kind is FailureKind.ARITHMETIC}


ENVELOPES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], FailureKind]] = {
    "another log": (lambda body: body | {"log": "other"}, FailureKind.COLUMN),
    "another id": (lambda body: body | {"entry_id": "0" * 36}, FailureKind.COLUMN),
    "another ordinal": (lambda body: body | {"ordinal": 1}, FailureKind.IDEMPOTENCY),
    "an unknown kind": (lambda body: body | {"kind": "gift"}, FailureKind.IDEMPOTENCY),
    "another key": (lambda body: body | {"idempotency_key": "00" * 32}, FailureKind.IDEMPOTENCY),
    "another format": (lambda body: body | {"v": 2}, FailureKind.PROFILE),
    "a true format": (lambda body: body | {"v": True}, FailureKind.PROFILE),
    "no spilled value": (lambda body: body | {"spilled": ["note"]}, FailureKind.BLOB),
    "spilled nonsense": (lambda body: body | {"spilled": 5}, FailureKind.BLOB),
}


@pytest.mark.parametrize(("change", "kind"), ENVELOPES.values(), ids=ENVELOPES.keys())
def test_envelopes_that_do_not_fit_are_found_even_unsigned(
    store: Store, change: Callable[[dict[str, Any]], dict[str, Any]], kind: FailureKind
) -> None:
    with store.transaction() as tx:
        append(tx, draft("a"))
        append(tx, draft("b"))
        sequence(tx)
    with attacked(store) as (tx, connection):
        _rewrite(connection, 1, change)
        report = verify(tx, [])
    assert kind in kinds(report)
    assert {failure.index for failure in report.failures} == {1}


# ---- columns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CACHE_COLUMNS)
@pytest.mark.parametrize("request_key", ["m", "k5"])
@pytest.mark.parametrize("value", ["'zz'", "4711", "NULL", "x'00'", "CAST(x'ff' AS TEXT)"])
def test_a_column_of_another_type_is_compared_too(file_log: Store, name: str, request_key: str, value: str) -> None:
    with attacked(file_log) as (tx, connection):
        where = f"WHERE request_key = '{request_key}'"
        before = connection.exec_driver_sql(f"SELECT {name} FROM cagg_entry {where}").scalar_one()
        if value == "NULL" and (before is None or name in ("kind", "recorded_us", "request_key")):
            return  # nothing would change, or the table refuses it
        connection.exec_driver_sql(f"UPDATE cagg_entry SET {name} = {value} {where}")
        report = verify(tx, [KEY])
    assert kinds(report) == {FailureKind.COLUMN}
    assert name in report.failures[0].message


@pytest.mark.parametrize("name", CACHE_COLUMNS)
@pytest.mark.parametrize("request_key", ["m", "k5"])
def test_every_column_beside_the_body_is_compared(log: Store, name: str, request_key: str) -> None:
    value = "'z'" if entry_table.c[name].type.python_type is str else "4711"
    report = after(log, f"UPDATE cagg_entry SET {name} = {value} WHERE request_key = '{request_key}'")
    assert kinds(report) == {FailureKind.COLUMN}
    assert name in report.failures[0].message


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE cagg_entry SET leaf_hash = zeroblob(32) WHERE request_key = 'k5'", FailureKind.COLUMN),
        ("UPDATE cagg_entry SET idempotency_key = zeroblob(32) WHERE request_key = 'k5'", FailureKind.IDEMPOTENCY),
        ("UPDATE cagg_entry SET idempotency_key = 'text' WHERE request_key = 'k5'", FailureKind.IDEMPOTENCY),
        ("UPDATE cagg_entry SET entry_id = 'other' WHERE request_key = 'k5'", FailureKind.BODY),
        ("UPDATE cagg_log SET origin = 'other'", FailureKind.COLUMN),
        ("INSERT INTO cagg_log VALUES (2, 'second', 'active', 0)", FailureKind.ROWS),
    ],
)
def test_other_columns_are_compared(log: Store, statement: str, kind: FailureKind) -> None:
    with attacked(log) as (tx, connection):
        connection.exec_driver_sql(statement)
        tx._origin = connection.exec_driver_sql("SELECT origin FROM cagg_log").scalars().all()[0]  # type: ignore[attr-defined]
        report = verify(tx, [KEY])
    assert kind in kinds(report)


# ---- leaves, tiles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 130, 255, 256, SIZE - 1])
def test_a_changed_leaf_is_found(log: Store, index: int) -> None:
    report = after(log, f"UPDATE cagg_leaf SET leaf_hash = zeroblob(32) WHERE leaf_index = {index}")
    assert {FailureKind.BODY, FailureKind.COLUMN} <= kinds(report)
    assert index in {failure.index for failure in report.failures}
    report = after(log, f"UPDATE cagg_leaf SET leaf_hash = 'x' WHERE leaf_index = {index}")
    assert FailureKind.LEAF in kinds(report)


@pytest.mark.parametrize("index", [0, 130, 255, 256])
def test_a_deleted_leaf_is_found(log: Store, index: int) -> None:
    report = after(log, f"DELETE FROM cagg_leaf WHERE leaf_index = {index}")
    assert FailureKind.LEAF in kinds(report)
    assert index in {failure.index for failure in report.failures if failure.kind is FailureKind.LEAF}


def test_a_deleted_entry_is_found(log: Store) -> None:
    report = after(log, "DELETE FROM cagg_entry WHERE request_key = 'k100'")
    assert FailureKind.BODY in kinds(report)
    assert report.failures[0].index == 100


def test_an_entry_and_its_leaf_deleted_are_found(log: Store) -> None:
    report = after(
        log,
        "DELETE FROM cagg_leaf WHERE entry_id = (SELECT entry_id FROM cagg_entry WHERE request_key = 'k100')",
        "DELETE FROM cagg_entry WHERE request_key = 'k100'",
    )
    assert FailureKind.LEAF in kinds(report)


def test_a_deleted_entry_whose_successors_move_up_is_found(log: Store) -> None:
    report = after(
        log,
        "DELETE FROM cagg_leaf WHERE leaf_index = 100",
        "DELETE FROM cagg_entry WHERE request_key = 'k100'",
        "UPDATE cagg_leaf SET leaf_index = -leaf_index WHERE leaf_index > 100",
        "UPDATE cagg_leaf SET leaf_index = -leaf_index - 1 WHERE leaf_index < 0",
    )
    assert {FailureKind.CHECKPOINT, FailureKind.TILE} <= kinds(report)


def test_swapped_leaves_are_found(log: Store) -> None:
    report = after(
        log,
        "UPDATE cagg_leaf SET leaf_index = -1 WHERE leaf_index = 10",
        "UPDATE cagg_leaf SET leaf_index = 10 WHERE leaf_index = 11",
        "UPDATE cagg_leaf SET leaf_index = 11 WHERE leaf_index = -1",
    )
    assert {FailureKind.CHECKPOINT, FailureKind.TILE} <= kinds(report)


def test_an_entry_that_was_never_given_a_place_is_found(log: Store) -> None:
    report = after(log, f"DELETE FROM cagg_leaf WHERE leaf_index = {SIZE - 1}")
    assert FailureKind.LEAF in kinds(report)
    assert any("does not wait" in failure.message for failure in report.failures)


def test_a_leaf_outside_the_numbers_is_found(log: Store) -> None:
    for index in ("-5", str(2**62)):
        report = after(log, f"INSERT INTO cagg_leaf VALUES (1, {index}, 'x', zeroblob(32))")
        assert {FailureKind.ROWS, FailureKind.LEAF} & kinds(report)


def test_a_leaf_whose_number_is_none_is_found(file_log: Store) -> None:
    for index in ("'abc'", "1e300"):
        report = after(file_log, f"INSERT INTO cagg_leaf VALUES (1, {index}, 'x', zeroblob(32))")
        assert {FailureKind.ROWS, FailureKind.LEAF} & kinds(report)


def test_rows_of_a_second_log_are_found(log: Store) -> None:
    report = after(log, "INSERT INTO cagg_leaf VALUES (2, 0, 'x', zeroblob(32))")
    assert kinds(report) == {FailureKind.ROWS}


def test_a_duplicated_entry_is_found_though_all_constraints_were_dropped(store: Store) -> None:
    with store.transaction() as tx:
        append(tx, draft("a"))
        sequence(tx)
    with attacked(store) as (tx, connection):
        for table in ("cagg_leaf", "cagg_entry"):
            connection.exec_driver_sql(f"CREATE TABLE copy_{table} AS SELECT * FROM {table}")
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
            connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO old_{table}")
            connection.exec_driver_sql(f"ALTER TABLE copy_{table} RENAME TO {table}")
        connection.exec_driver_sql("INSERT INTO cagg_leaf SELECT log_id, 1, entry_id, leaf_hash FROM cagg_leaf")
        assert FailureKind.IDEMPOTENCY in kinds(verify(tx, []))
        connection.exec_driver_sql("INSERT INTO cagg_entry SELECT * FROM cagg_entry")
        assert FailureKind.IDEMPOTENCY in kinds(verify(tx, []))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM cagg_tile",
        "UPDATE cagg_tile SET hashes = zeroblob(8192)",
        "UPDATE cagg_tile SET hashes = substr(hashes, 1, 8160)",
        "UPDATE cagg_tile SET root = zeroblob(32)",
        "UPDATE cagg_tile SET root = 'x'",
        "UPDATE cagg_tile SET number = 1",
        "UPDATE cagg_tile SET level = 1",
    ],
)
def test_a_changed_tile_is_found(log: Store, statement: str) -> None:
    assert FailureKind.TILE in kinds(after(log, statement))


def test_a_tile_too_many_is_found(log: Store) -> None:
    statement = "INSERT INTO cagg_tile SELECT log_id, level, 7, hashes, root FROM cagg_tile"
    assert kinds(after(log, statement)) == {FailureKind.ROWS}


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE cagg_checkpoint SET root = zeroblob(32) WHERE size = 200", FailureKind.CHECKPOINT),
        ("UPDATE cagg_checkpoint SET size = 201 WHERE size = 200", FailureKind.CHECKPOINT),
        ("UPDATE cagg_checkpoint SET note = replace(note, '200', '201') WHERE size = 200", FailureKind.SIGNATURE),
        ("UPDATE cagg_checkpoint SET note = 'x' WHERE size = 200", FailureKind.SIGNATURE),
    ],
)
def test_a_changed_checkpoint_is_found(log: Store, statement: str, kind: FailureKind) -> None:
    assert kind in kinds(after(log, statement))


def test_the_newest_checkpoint_removed_leaves_a_longer_unproven_tail(log: Store) -> None:
    report = after(log, "DELETE FROM cagg_checkpoint WHERE size = 262")
    assert (report.failures, report.signed_size, report.unsigned) == ((), 200, 70)


def test_a_log_signed_again_with_a_foreign_key_is_found(log: Store) -> None:
    foreign = MemorySigner(NAME, b"\x66" * 32)
    with attacked(log) as (tx, connection):
        connection.exec_driver_sql("DELETE FROM cagg_checkpoint")
        sign(tx, foreign)
        assert kinds(verify(tx, [KEY])) == {FailureKind.SIGNATURE}
        assert verify(tx, [KEY, str(verifier_key(foreign))]).assurance is Assurance.SIGNED
        assert verify(tx, []).assurance is Assurance.CONSISTENT


def test_a_note_that_lies_about_the_tree_is_found_though_it_is_signed(log: Store) -> None:
    text = checkpoint_text(TreeHead(origin=NAME, size=100, root=b"\x01" * 32))
    note = signed_note(text, SIGNER.sign(text.encode()), verifier_key(SIGNER))
    with attacked(log) as (tx, _):
        tx.put_checkpoint(Checkpoint(size=100, root=b"\x01" * 32, note=note, created_at=tx.now()))
        report = verify(tx, [KEY])
    assert kinds(report) == {FailureKind.CHECKPOINT}
    assert report.failures[0].index == 100


def test_a_checkpoint_of_another_log_is_found(log: Store) -> None:
    other = MemorySigner("other")
    with attacked(log) as (tx, _):
        root = root_of(tx.leaf_hashes(0, 50))
        text = checkpoint_text(TreeHead(origin="other", size=50, root=root))
        note = signed_note(text, other.sign(text.encode()), verifier_key(other))
        tx.put_checkpoint(Checkpoint(size=50, root=root, note=note, created_at=tx.now()))
        assert FailureKind.CHECKPOINT in kinds(verify(tx, [KEY, str(verifier_key(other))]))


def test_truncation_is_seen_with_the_log_s_own_checkpoint(log: Store) -> None:
    report = after(
        log,
        "DELETE FROM cagg_entry WHERE entry_id IN (SELECT entry_id FROM cagg_leaf WHERE leaf_index >= 260)",
        "DELETE FROM cagg_leaf WHERE leaf_index >= 260",
    )
    assert FailureKind.TRUNCATED in kinds(report)


def test_truncation_with_its_checkpoint_is_seen_only_from_outside(log: Store) -> None:
    statements = (
        "DELETE FROM cagg_entry WHERE entry_id IN (SELECT entry_id FROM cagg_leaf WHERE leaf_index >= 260)",
        "DELETE FROM cagg_leaf WHERE leaf_index >= 260",
        "DELETE FROM cagg_checkpoint WHERE size = 262",
    )
    with log.snapshot() as tx:
        older, newer = tx.checkpoints()
    assert after(log, *statements).failures == ()
    with attacked(log) as (tx, connection):
        for statement in statements:
            connection.exec_driver_sql(statement)
        assert kinds(verify(tx, [KEY], newer)) == {FailureKind.TRUNCATED}
        assert verify(tx, [KEY], older).assurance is Assurance.ANCHORED


def test_a_fork_is_seen_from_outside(log: Store, store: Store) -> None:
    """A second history under the same name and key, for example after a restored backup."""
    with log.snapshot() as tx:
        kept = tx.checkpoints()[-1]
    with store.transaction() as tx:
        for number in range(SIZE):
            append(tx, draft(f"other-{number}"))
        sign(tx)
        assert verify(tx, [KEY]).verified
        report = verify(tx, [KEY], kept)
    assert kinds(report) == {FailureKind.CHECKPOINT}
    assert "outside checkpoint" in report.sentence


def test_an_outside_checkpoint_needs_a_trusted_signature(log: Store) -> None:
    foreign = MemorySigner(NAME, b"\x66" * 32)
    with log.snapshot() as tx:
        head = tx.checkpoints()[0]
        text = checkpoint_text(TreeHead(origin=NAME, size=head.size, root=head.root))
        note = signed_note(text, foreign.sign(text.encode()), verifier_key(foreign))
        assert kinds(verify(tx, [KEY], replace(head, note=note))) == {FailureKind.SIGNATURE}


# ---- attachments and queue ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [SPILLED, ATTACHED])
@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM cagg_blob",
        "UPDATE cagg_blob SET data = data || 'x'",
    ],
)
def test_attachments_are_compared_with_their_digests(log: Store, index: int, change: str) -> None:
    report = after(log, change)
    assert kinds(report) == {FailureKind.BLOB}
    assert index in {failure.index for failure in report.failures}


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE cagg_tile SET hashes = 17", FailureKind.TILE),
        ("UPDATE cagg_checkpoint SET root = 7 WHERE size = 200", FailureKind.CHECKPOINT),
        ("UPDATE cagg_blob SET data = CAST(data || 'x' AS BLOB)", FailureKind.BLOB),
        ("UPDATE cagg_blob SET data = 4711", FailureKind.BLOB),
    ],
)
def test_values_of_another_type_are_found(file_log: Store, statement: str, kind: FailureKind) -> None:
    assert kind in kinds(after(file_log, statement))


@pytest.mark.parametrize("change", ["DELETE FROM cagg_blob", "UPDATE cagg_blob SET data = 'x'"])
def test_an_attachment_that_a_spilled_value_names_is_compared(log: Store, change: str) -> None:
    report = after(log, f"{change} WHERE digest = '{INNER}'")
    assert kinds(report) == {FailureKind.BLOB}
    assert {failure.index for failure in report.failures} == {NESTED}


@contextlib.contextmanager
def waiting(store: Store) -> Iterator[tuple[Transaction, Connection]]:
    """One sequenced entry and one that waits, as on a store with a separate sequencer."""
    with attacked(store) as (tx, connection):
        append(tx, draft("a"))
        sign(tx)
        tx.sequences_inline = False
        assert append(tx, draft("b")).index is None
        yield tx, connection


def test_an_entry_that_waits_is_unproven(store: Store) -> None:
    with waiting(store) as (tx, _):
        report = verify(tx, [KEY])
        assert (report.failures, report.size, report.queued, report.unsigned, report.unproven) == ((), 1, 1, 1, 2)


def test_an_entry_that_waits_too_long_is_found(store: Store) -> None:
    with waiting(store) as (tx, connection):
        connection.exec_driver_sql("UPDATE cagg_queue SET queued_us = queued_us - 3600000001")
        assert kinds(verify(tx, [KEY])) == {FailureKind.QUEUE}
        assert verify(tx, [KEY], longest_queued=timedelta(hours=2)).failures == ()


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("DELETE FROM cagg_queue", FailureKind.LEAF),
        ("UPDATE cagg_queue SET leaf_hash = zeroblob(32)", FailureKind.QUEUE),
        ("UPDATE cagg_queue SET entry_id = 'x'", FailureKind.QUEUE),
        ("DELETE FROM cagg_entry WHERE request_key = 'b'", FailureKind.QUEUE),
    ],
)
def test_a_changed_queue_is_found(store: Store, statement: str, kind: FailureKind) -> None:
    with waiting(store) as (tx, connection):
        connection.exec_driver_sql(statement)
        assert kind in kinds(verify(tx, [KEY]))


# ---- several at once ------------------------------------------------------------------------------------------------


def test_all_failures_are_listed_with_their_places(log: Store) -> None:
    report = after(
        log,
        "UPDATE cagg_entry SET outcome = 'x' WHERE request_key IN ('k20', 'k40')",
        "UPDATE cagg_entry SET body = zeroblob(2) WHERE request_key = 'k60'",
        "UPDATE cagg_tile SET root = zeroblob(32)",
    )
    found = {(failure.kind, failure.index) for failure in report.failures}
    expected = {(FailureKind.COLUMN, 20), (FailureKind.COLUMN, 40), (FailureKind.BODY, 60), (FailureKind.TILE, 0)}
    assert expected <= found
    assert f"and {len(report.failures) - 1} more" in report.sentence


def test_a_key_from_another_kind_is_not_mistaken(log: Store) -> None:
    assert idempotency_key(EntryKind.DECISION, "m", 0) != idempotency_key(EntryKind.MEASUREMENT, "m", 0)
    frontier = Frontier()
    with log.snapshot() as tx:
        frontier.extend(tx.leaf_hashes(0, SIZE))
        assert verify(tx, [KEY]).root == frontier.root()


def test_the_file_itself_changed_on_disk_is_found(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s.db"), clock=ManualClock(), origin=NAME)
    assert isinstance(store, SqliteStore)
    with store.transaction() as tx:
        append(tx, draft("a", note="the-true-amount"))
        sign(tx)
    store.close()
    data = store.path.read_bytes()
    assert data.count(b"the-true-amount") == 1
    store.path.write_bytes(data.replace(b"the-true-amount", b"the-fake-amount"))
    with store.snapshot() as tx:
        assert kinds(verify(tx, [KEY])) == {FailureKind.BODY}
