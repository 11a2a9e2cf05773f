"""One log after another: frozen with a last entry, begun with the root of the one before, broken off only in words."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.clock import SystemClock
from cagg.entries import EntryDraft, EntryKind, LogState
from cagg.errors import CaggError, IdempotencyConflict, InvalidInput, SigningRefused, StoreUnavailable
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.encoding import decode
from cagg.ledger.entry import append
from cagg.ledger.keyring import KeyRing
from cagg.ledger.lineage import check_succession, entries_of_all_logs, succession, tree_head
from cagg.ledger.notes import TreeHead, checkpoint_text, note_of, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.succession import Rolled, RollReason, next_origin, roll
from cagg.ledger.verify import Assurance, FailureKind, verify
from cagg.ports import Store
from cagg.store.engine import open_store
from cagg.store.postgresql import PostgresqlStore
from cagg.store.sqlite import SqliteStore
from cagg.testing.attacks import unlock
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import MemorySigner, draft

FIRST = "example.org/test"


def key_of(origin: str) -> MemorySigner:
    return MemorySigner(origin, origin.encode().ljust(32, b".")[:32])


def filled(store: Store, *names: str) -> None:
    with store.transaction() as tx:
        for name in names:
            append(tx, draft(name))


def rolled(store: Store, origin: str, *, reason: RollReason = RollReason.YEARLY, lost: str | None = None) -> Rolled:
    with store.transaction() as tx:
        signer = None if reason.breaks else key_of(tx.origin())
        return roll(tx, signer, key_of(origin), reason=reason, lost=lost)


def signed(store: Store, *origins: str) -> None:
    for origin in origins:
        with store.transaction() as tx:
            while sequence(tx):
                pass
            sign_checkpoint(tx.in_log(origin), key_of(origin))


def bodies(store: Store, origin: str) -> list[dict[str, Any]]:
    with store.snapshot() as tx:
        return [decode(entry.body) for entry in tx.in_log(origin).entries()]


def problems(store: Store) -> list[str]:
    with store.snapshot() as tx:
        return check_succession(tx)


# ---- a roll ---------------------------------------------------------------------------------------------------------


def test_a_roll_freezes_the_log_and_the_next_one_names_its_end(store: Store) -> None:
    filled(store, "a", "b")
    done = rolled(store, f"{FIRST}/2027")
    assert (done.origin, done.predecessor.origin, done.predecessor.size) == (f"{FIRST}/2027", FIRST, 4)
    old = bodies(store, FIRST)
    assert [body["kind"] for body in old] == ["decision", "decision", "key", "log"]
    assert (old[3]["event"], old[3]["successor"], old[3]["reason"]) == ("frozen", f"{FIRST}/2027", "yearly")
    (begun,) = bodies(store, f"{FIRST}/2027")
    head = done.predecessor
    assert begun["event"] == "begun"
    assert begun["predecessor"] == {"origin": FIRST, "size": 4, "root": head.root.hex()}
    with store.snapshot() as tx:
        assert [(log.origin, log.state) for log in tx.logs()] == [
            (FIRST, LogState.FROZEN),
            (f"{FIRST}/2027", LogState.ACTIVE),
        ]
        assert tx.origin() == f"{FIRST}/2027"
        assert tree_head(tx.in_log(FIRST)) == head
        assert (tx.tree_size(), tx.queued()) == (1, 0)


def test_a_signed_succession_is_verified_with_the_first_key_alone(store: Store) -> None:
    filled(store, "a", "b")
    rolled(store, f"{FIRST}/2027")
    filled(store, "c")
    signed(store, FIRST, f"{FIRST}/2027")
    rolled(store, f"{FIRST}/2028")
    signed(store, f"{FIRST}/2027", f"{FIRST}/2028")
    assert problems(store) == []
    with store.snapshot() as tx:
        report = verify(tx, [str(verifier_key(key_of(FIRST)))])
        assert report.failures == ()
        assert report.assurance is Assurance.SIGNED
        assert report.size == 4 + 4 + 1
        names = [item.key.name for item in KeyRing.of(tx, [str(verifier_key(key_of(FIRST)))]).standings]
        assert names == [f"{FIRST}/2028"]


def test_entries_after_the_roll_stand_in_the_next_log(store: Store) -> None:
    filled(store, "a")
    rolled(store, f"{FIRST}/2027")
    filled(store, "b")
    assert [body["request_key"] for body in bodies(store, f"{FIRST}/2027")][1:] == ["b"]
    with store.snapshot() as tx:
        keys = [decode(entry.body)["request_key"] for entry in entries_of_all_logs(tx, kind=EntryKind.DECISION)]
        newest = [
            decode(entry.body)["request_key"]
            for entry in entries_of_all_logs(tx, kind=EntryKind.DECISION, newest_first=True, limit=1)
        ]
    assert (keys, newest) == (["a", "b"], ["b"])


def test_what_was_recorded_before_the_roll_is_recognised_after_it(store: Store) -> None:
    with store.transaction() as tx:
        first = append(tx, draft("a", value=1))
    rolled(store, f"{FIRST}/2027")
    with store.transaction() as tx:
        assert append(tx, draft("a", value=1)).entry_id == first.entry_id
        with pytest.raises(IdempotencyConflict, match=first.entry_id):
            append(tx, draft("a", value=2))
    with store.snapshot() as tx:
        assert tx.tree_size() + tx.queued() == 1


def test_an_id_of_an_earlier_log_is_used_once(store: Store) -> None:
    filled(store, "a")
    rolled(store, f"{FIRST}/2027")
    filled(store, "b")
    signed(store, FIRST, f"{FIRST}/2027")
    with store.transaction() as tx:
        assert tx.duplicate_entries() == []
        connection = unlock(tx)
        connection.exec_driver_sql(
            "UPDATE cagg_entry SET entry_id = (SELECT entry_id FROM cagg_entry WHERE request_key = 'a') "
            "WHERE request_key = 'b'"
        )
        (entry_id,) = tx.duplicate_entries()
        assert tx.in_log(FIRST).duplicate_entries() == []
        (first,) = tx.in_log(FIRST).entries(request_key="a")
        assert entry_id == first.entry_id


def test_personal_values_of_a_frozen_log_are_recognised_and_redacted(store: Store) -> None:
    from cagg.ledger.retention import redact

    wanted = EntryDraft(
        kind=EntryKind.DECISION, request_key="a", ordinal=0, body=draft().body, private={"asker": "Ada Example"}
    )
    with store.transaction() as tx:
        first = append(tx, wanted)
    rolled(store, f"{FIRST}/2027")
    with store.transaction() as tx:
        assert append(tx, wanted).entry_id == first.entry_id
        done = redact(tx, first.entry_id, "asker", reason="asked to", retention_years=10)
        assert (done.deleted, decode(done.entry.body)["log"]) == (1, f"{FIRST}/2027")
        assert append(tx, wanted).entry_id == first.entry_id
    signed(store, FIRST, f"{FIRST}/2027")
    with store.snapshot() as tx:
        assert verify(tx, []).failures == ()


def test_waiting_entries_get_their_places_before_the_log_is_frozen(store: Store) -> None:
    filled(store, *(f"k{number}" for number in range(300)))
    assert rolled(store, f"{FIRST}/2027").predecessor.size == 302
    with store.snapshot() as tx:
        old = tx.in_log(FIRST)
        assert (old.queued(), old.tree_size()) == (0, 302)


def test_a_rollback_leaves_the_log_as_it_was(store: Store) -> None:
    filled(store, "a")
    with contextlib.suppress(ZeroDivisionError), store.transaction() as tx:
        roll(tx, key_of(FIRST), key_of(f"{FIRST}/2027"), reason=RollReason.YEARLY)
        raise ZeroDivisionError
    with store.snapshot() as tx:
        assert [log.origin for log in tx.logs()] == [FIRST]
        assert tx.tree_size() + tx.queued() == 1
    filled(store, "b")
    assert rolled(store, f"{FIRST}/2027").predecessor.size == 4


def test_a_frozen_log_takes_nothing_more(store: Store) -> None:
    filled(store, "a")
    rolled(store, f"{FIRST}/2027")
    with pytest.raises((StoreUnavailable, InvalidInput)), store.transaction() as tx:
        append(tx.in_log(FIRST), draft("late"))
    with pytest.raises(InvalidInput), store.transaction() as tx:
        tx.in_log(FIRST).begin_log("example.org/other")


def test_writers_that_are_under_way_lose_nothing(store: Store) -> None:
    """Eight threads write while three logs are begun: every acknowledged entry stands in one log, each once."""
    filled(store, "a")
    written: list[str] = []
    go_on = threading.Event()
    go_on.set()
    grown = threading.Condition()

    def write(number: int) -> None:
        count = 0
        while go_on.is_set() or count < 3:
            name = f"w{number}-{count}"
            with store.transaction() as tx:
                append(tx, draft(name))
            with grown:
                written.append(name)
                grown.notify()
            count += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        for year in (2027, 2028, 2029):
            wanted = 20 * (year - 2026)
            with grown:
                assert grown.wait_for(lambda wanted=wanted: len(written) >= wanted, timeout=60)
            rolled(store, f"{FIRST}/{year}")
    finally:
        go_on.clear()
        for thread in threads:
            thread.join()
    origins = [FIRST, *(f"{FIRST}/{year}" for year in (2027, 2028, 2029))]
    signed(store, *origins)
    found = [body["request_key"] for origin in origins for body in bodies(store, origin) if body["kind"] == "decision"]
    assert sorted(found) == sorted(["a", *written])
    assert problems(store) == []
    with store.snapshot() as tx:
        assert verify(tx, [str(verifier_key(key_of(FIRST)))]).failures == ()


def test_of_two_who_roll_at_the_same_time_one_does(store: Store) -> None:
    filled(store, "a", "b")
    start = threading.Barrier(2)
    done: list[Rolled] = []
    refused: list[CaggError] = []

    def work(origin: str) -> None:
        start.wait()
        try:
            done.append(rolled(store, origin))
        except CaggError as error:
            refused.append(error)

    threads = [threading.Thread(target=work, args=(f"{FIRST}/{name}",)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), len(refused)) == (1, 1), refused
    signed(store, FIRST, done[0].origin)
    assert problems(store) == []


def test_only_the_maintainer_begins_a_log(postgres: LocalPostgres, postgres_url: str) -> None:
    database = postgres_url.rpartition("/")[2]
    names = {role: f"{role}_roll_{database}" for role in ("writer", "maintainer")}
    for name in names.values():
        postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
    owner = open_store(postgres_url, clock=SystemClock())
    assert isinstance(owner, PostgresqlStore)
    owner.apply(owner.grants(writer=names["writer"], maintainer=names["maintainer"], reader=None))
    stores = {
        role: open_store(postgres.url_of(database, user=name, password="p"), clock=SystemClock())
        for role, name in names.items()
    }
    try:
        filled(stores["writer"], "a")
        with stores["maintainer"].transaction() as tx:
            origin = tx.origin()
        with pytest.raises(StoreUnavailable, match="lacks a right"):
            rolled(stores["writer"], f"{origin}/2027")
        assert rolled(stores["maintainer"], f"{origin}/2027").predecessor.size == 3
        filled(stores["writer"], "b")
        signed(stores["maintainer"], origin, f"{origin}/2027")
        assert problems(owner) == []
    finally:
        for opened in (owner, *stores.values()):
            opened.close()
        for name in names.values():
            postgres.execute(f"DROP OWNED BY {name}; DROP ROLE {name}", url=postgres_url)


# ---- names and refusals ---------------------------------------------------------------------------------------------


def test_the_next_name_is_the_first_ones_and_the_year(store: Store) -> None:
    filled(store, "a")
    at = datetime(2027, 6, 1, tzinfo=UTC)
    for expected in (f"{FIRST}/2027", f"{FIRST}/2027-2", f"{FIRST}/2027-3"):
        with store.snapshot() as tx:
            assert next_origin(tx, at) == expected
        rolled(store, expected)
        filled(store, expected)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\0b", "jä", FIRST])
def test_names_that_cannot_be_used_are_refused_and_nothing_changes(store: Store, name: str) -> None:
    filled(store, "a")

    class Named:
        def __init__(self) -> None:
            self.name = name

        def sign(self, message: bytes) -> bytes:
            return key_of(FIRST).sign(message)

        def public_key(self) -> bytes:
            return key_of(FIRST).public_key()

    with store.transaction() as tx, pytest.raises(InvalidInput, match=r"log name|already"):
        roll(tx, key_of(FIRST), Named(), reason=RollReason.YEARLY)
    assert len(bodies(store, FIRST)) == 1


def test_a_log_that_has_just_begun_is_not_rolled(store: Store) -> None:
    with pytest.raises(InvalidInput, match="just begun"):
        rolled(store, f"{FIRST}/2027")
    filled(store, "a")
    rolled(store, f"{FIRST}/2027")
    with pytest.raises(InvalidInput, match="just begun"):
        rolled(store, f"{FIRST}/2028")


def test_the_key_of_another_log_rolls_nothing(store: Store) -> None:
    filled(store, "a")
    with store.transaction() as tx, pytest.raises(SigningRefused, match="belongs to the log"):
        roll(tx, key_of("example.org/other"), key_of(f"{FIRST}/2027"), reason=RollReason.YEARLY)


def test_a_log_that_does_not_break_off_needs_its_key(store: Store) -> None:
    filled(store, "a")
    with store.transaction() as tx, pytest.raises(InvalidInput, match="signed to its end"):
        roll(tx, None, key_of(f"{FIRST}/2027"), reason=RollReason.YEARLY)


# ---- a log that breaks off ------------------------------------------------------------------------------------------


def lost_note(store: Store, *names: str) -> str:
    """Sign the log with further entries, and take those back: what a restored backup has forgotten."""
    taken: list[str] = []
    with contextlib.suppress(ZeroDivisionError), store.transaction() as tx:
        for name in names:
            append(tx, draft(name))
        while sequence(tx):
            pass
        taken.append(sign_checkpoint(tx, key_of(FIRST)).note)
        raise ZeroDivisionError
    return taken[0]


def test_a_restored_log_gets_no_second_history_and_its_break_is_stated(store: Store) -> None:
    filled(store, "a", "b")
    signed(store, FIRST)
    lost = lost_note(store, "c", "d")
    filled(store, "after-the-restore")
    done = rolled(store, f"{FIRST}/2027", reason=RollReason.RESTORED, lost=lost)
    assert done.predecessor.size == 3
    assert [body["kind"] for body in bodies(store, FIRST)] == ["decision"] * 3
    (begun,) = bodies(store, f"{FIRST}/2027")
    assert begun["break"] == {"signed_size": 2, "lost": lost}
    assert begun["predecessor"]["root"] == done.predecessor.root.hex()
    signed(store, f"{FIRST}/2027")
    with store.snapshot() as tx:
        found = succession(tx)
        assert found.problems == ()
        (stated,) = found.breaks
        assert "a backup was restored" in stated
        assert "of the 4 entries that were signed the first 2 are proven" in stated
        assert found.logs[1].lost is not None
        assert (found.logs[1].lost.size, found.logs[1].broken_at) == (4, 2)
        both = [str(verifier_key(key_of(origin))) for origin in (FIRST, f"{FIRST}/2027")]
        assert verify(tx, both).failures == ()


def test_a_fork_at_the_same_size_is_lost_too(store: Store) -> None:
    filled(store, "a")
    signed(store, FIRST)
    lost = lost_note(store, "b")
    filled(store, "other")
    rolled(store, f"{FIRST}/2027", reason=RollReason.RESTORED, lost=lost)
    assert bodies(store, f"{FIRST}/2027")[0]["break"]["signed_size"] == 1


def test_nothing_is_called_lost_that_the_log_continues(store: Store) -> None:
    filled(store, "a")
    signed(store, FIRST)
    with store.snapshot() as tx:
        note = tx.checkpoints()[0].note
    filled(store, "b")
    with pytest.raises(InvalidInput, match="nothing of it is lost"):
        rolled(store, f"{FIRST}/2027", reason=RollReason.RESTORED, lost=note)


def other_log() -> str:
    text = checkpoint_text(TreeHead(origin="example.org/other", size=9, root=b"\0" * 32))
    signer = key_of("example.org/other")
    return note_of(text, [(verifier_key(signer), signer.sign(text.encode()))])


@pytest.mark.parametrize(
    ("lost", "message"),
    [(None, "--lost"), ("no note", "cannot be read"), (other_log(), "is of the log 'example.org/other'")],
)
def test_what_is_lost_must_be_a_checkpoint_of_the_log(store: Store, lost: str | None, message: str) -> None:
    filled(store, "a")
    with pytest.raises(InvalidInput, match=message):
        rolled(store, f"{FIRST}/2027", reason=RollReason.RESTORED, lost=lost)


def test_a_log_whose_key_is_lost_breaks_off_at_its_last_checkpoint(store: Store) -> None:
    filled(store, "a")
    signed(store, FIRST)
    filled(store, "b", "c")
    rolled(store, f"{FIRST}/2027", reason=RollReason.KEY_LOST)
    with store.snapshot() as tx:
        found = succession(tx)
    assert found.problems == ()
    (stated,) = found.breaks
    assert "its key is lost, and its first 1 entries are signed; the 2 after them are fixed by the next log" in stated


# ---- what does not fit together -------------------------------------------------------------------------------------


def test_a_frozen_log_without_its_final_checkpoint_is_found(store: Store) -> None:
    filled(store, "a")
    rolled(store, f"{FIRST}/2027")
    (problem,) = problems(store)
    assert "no signed checkpoint over all of its 3 entries; run 'cagg maintain'" in problem
    signed(store, FIRST)
    assert problems(store) == []


def falsified(store: Store, change: Callable[[dict[str, Any]], None], *, at: EntryKind, origin: str) -> list[str]:
    """Return what is said when an entry of a log says something else; of the tree nothing is checked here."""
    from dataclasses import replace

    from cagg.ledger import lineage
    from cagg.ledger.encoding import canonical

    real = lineage.log_event

    def lying(entry: Any) -> Any:
        body = real(entry)
        if body is not None and body["kind"] == at and body["log"] == origin:
            changed = decode(canonical(body))
            change(changed)
            return real(replace(entry, body=canonical(changed)))
        return body

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lineage, "log_event", lying)
        return problems(store)


@pytest.fixture
def three(file_store: SqliteStore) -> SqliteStore:
    """Three logs, all signed."""
    filled(file_store, "a")
    rolled(file_store, f"{FIRST}/2027")
    filled(file_store, "b")
    rolled(file_store, f"{FIRST}/2028")
    signed(file_store, FIRST, f"{FIRST}/2027", f"{FIRST}/2028")
    assert problems(file_store) == []
    return file_store


@pytest.mark.parametrize(
    ("origin", "change", "message"),
    [
        (FIRST, lambda body: body.update(successor="example.org/x"), "was to go on in example.org/x"),
        (FIRST, lambda body: body.update(event="begun"), "last entry does not say so"),
        (f"{FIRST}/2028", lambda body: body.update(event="frozen"), "says that it was frozen, and the store lets it"),
        (f"{FIRST}/2028", lambda body: body["predecessor"].update(size=3), "goes on from .* at 3 entries"),
        (f"{FIRST}/2028", lambda body: body["predecessor"].update(root="00" * 32), "or another root"),
        (f"{FIRST}/2028", lambda body: body["predecessor"].update(origin=FIRST), "two logs say that they go on from"),
        (
            f"{FIRST}/2028",
            lambda body: body["predecessor"].update(origin="example.org/x"),
            "goes on from example.org/x",
        ),
        (f"{FIRST}/2028", lambda body: body.update(predecessor=None), "does not say which log it goes on from"),
        (f"{FIRST}/2028", lambda body: body.update(predecessor={"size": 1}), "does not name the origin, size and root"),
        (f"{FIRST}/2028", lambda body: body.update({"break": {"lost": None}}), "without saying how far"),
        (f"{FIRST}/2028", lambda body: body.update({"break": {"signed_size": 1, "lost": "x"}}), "signature lines"),
    ],
)
def test_ends_and_beginnings_that_do_not_fit_are_found(
    three: SqliteStore, origin: str, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    import re

    found = falsified(three, change, at=EntryKind.LOG, origin=origin)
    assert any(re.search(message, problem) for problem in found), found


def without_triggers(store: SqliteStore, *statements: str) -> None:
    """Do what the owner of the file can do."""
    import sqlite3

    store.close()
    raw = sqlite3.connect(store.path)
    for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        raw.execute(statement)
    raw.commit()
    raw.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE cagg_log SET state = 'active' WHERE log_id = 1", "exactly one log may grow"),
        ("UPDATE cagg_log SET state = 'frozen'", "exactly one log may grow"),
        ("DELETE FROM cagg_checkpoint WHERE log_id = 1", "no signed checkpoint over all"),
        ("DELETE FROM cagg_leaf WHERE log_id = 1 AND leaf_index = 2", "another root|last entry does not say so"),
        ("UPDATE cagg_leaf SET leaf_hash = zeroblob(32) WHERE log_id = 2 AND leaf_index = 1", "another root"),
        ("DELETE FROM cagg_log WHERE log_id = 1", "which this store has not"),
        ("UPDATE cagg_log SET created_us = created_us - 1 WHERE log_id = 2", "another time of its beginning"),
        ("UPDATE cagg_log SET origin = origin || 'x' WHERE log_id = 2", "goes on from|was to go on in"),
    ],
)
def test_rows_that_were_changed_are_found(three: SqliteStore, statement: str, message: str) -> None:
    import re

    without_triggers(three, statement)
    found = problems(three)
    assert any(re.search(message, problem) for problem in found), found
    with three.snapshot() as tx:
        report = verify(tx, [])
        assert report.failures
        assert any(failure.kind is FailureKind.LOG for failure in report.failures)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans())
def test_any_number_of_logs_of_any_length_fit_together(tmp_path_factory: Any, lengths: list[int], sign: bool) -> None:
    from cagg.testing import ManualClock

    store = open_store(str(tmp_path_factory.mktemp("s") / "store.db"), clock=ManualClock(), origin=FIRST)
    origins = [FIRST]
    for number, length in enumerate(lengths):
        filled(store, *(f"{number}-{name}" for name in range(length)))
        origins.append(f"{FIRST}/{2027 + number}")
        rolled(store, origins[-1])
    if sign:
        signed(store, *origins)
        assert problems(store) == []
    else:
        assert len(problems(store)) == len(lengths)
    with store.snapshot() as tx:
        facts = succession(tx).logs
    assert [one.size for one in facts] == [length + 2 + (number > 0) for number, length in enumerate(lengths)] + [1]
    store.close()
