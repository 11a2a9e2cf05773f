"""Personal values: committed to in the body, kept beside it, and gone without a trace when they are redacted."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.clock import SystemClock
from cagg.entries import Entry, EntryDraft, EntryKind, PrivateValue
from cagg.errors import IdempotencyConflict, InvalidInput, LedgerDamaged, StoreUnavailable
from cagg.ledger.encoding import decode
from cagg.ledger.entry import append
from cagg.ledger.events import ApprovalDecision, approval_body
from cagg.ledger.merkle import TreeReader, inclusion_proof, verify_inclusion
from cagg.ledger.private import check_private, commitment, redactions, seal, sealed_fields
from cagg.ledger.retention import redact
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.ports import Store, Transaction
from cagg.store.engine import open_store
from cagg.store.postgresql import PostgresqlStore
from cagg.store.scrubbing import scrub_write_ahead_log
from cagg.store.sqlite import SqliteStore
from cagg.testing import ManualClock
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import draft

NAME = "Ada Lovelace-Example"


def approval(key: str = "release-1", *, risk: str = "limited", **private: str) -> EntryDraft:
    body = approval_body(
        subject={"name": "model", "digest": None}, decision=ApprovalDecision.APPROVED, approver=None, risk=risk
    )
    return EntryDraft(
        kind=EntryKind.APPROVAL, request_key=key, ordinal=0, body=body, private=private or {"approver": NAME}
    )


def appended(store: Store, wanted: EntryDraft) -> Entry:
    with store.transaction() as tx:
        return append(tx, wanted)


def body_of(entry: Entry) -> dict[str, Any]:
    body = decode(entry.body)
    assert isinstance(body, dict)
    return body


def checked(store: Store, entry: Entry) -> tuple[str, ...]:
    with store.snapshot() as tx:
        return check_private(tx, body_of(entry)).problems


# ---- the commitment -------------------------------------------------------------------------------------------------


def test_the_commitment_is_the_documented_hash() -> None:
    salt = bytes(range(32))
    by_hand = hashlib.sha256(salt + (8).to_bytes(8, "big") + b"approver" + "Zoë".encode()).hexdigest()
    assert commitment(salt, "approver", "Zoë") == by_hand
    assert by_hand == "86401b53d4207e28a2f75173e853f702d6de455893b2a0d2bb1fa94d835aa7c2"


@given(st.text("ab", min_size=1, max_size=3), st.text("ab", max_size=3), st.text("ab", min_size=1, max_size=3))
def test_field_and_value_cannot_be_shifted_against_each_other(field: str, value: str, other: str) -> None:
    whole = field + value
    if whole.startswith(other) and other != field:
        assert commitment(b"\0" * 32, field, value) != commitment(b"\0" * 32, other, whole[len(other) :])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Approver": "x"}, "lower-case"),
        ({"": "x"}, "lower-case"),
        ({"a" * 64: "x"}, "lower-case"),
        ({"approver": ""}, "1 to 10000"),
        ({"approver": "x" * 10_001}, "1 to 10000"),
        ({"approver": 5}, "1 to 10000"),
    ],
)
def test_values_that_cannot_be_kept_are_refused(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        seal(values, "e")


def test_a_lone_surrogate_is_refused_and_nothing_is_written(store: Store) -> None:
    with store.transaction() as tx, pytest.raises(InvalidInput, match="surrogate"):
        append(tx, approval(approver="\ud800"))
    with store.snapshot() as tx:
        assert (tx.tree_size(), tx.queued(), list(tx.private_values())) == (0, 0, [])


def test_salts_are_never_used_twice(store: Store) -> None:
    for number in range(3):
        appended(store, approval(f"r{number}", approver=NAME, place=NAME))
    with store.snapshot() as tx:
        kept = list(tx.private_values())
    assert len({item.salt for item in kept}) == 6
    assert {len(item.salt) for item in kept} == {32}


# ---- writing --------------------------------------------------------------------------------------------------------


def test_the_body_holds_a_commitment_and_never_the_value(store: Store) -> None:
    entry = appended(store, approval(approver=NAME, place="Åre"))
    assert NAME.encode() not in entry.body
    listed = body_of(entry)["private"]
    assert [item["field"] for item in listed] == ["approver", "place"]
    with store.snapshot() as tx:
        kept = {item.field: item for item in tx.private_values(entry.entry_id)}
    assert {field: item.value for field, item in kept.items()} == {"approver": NAME, "place": "Åre"}
    for item in listed:
        value = kept[item["field"]]
        assert item["commitment"] == commitment(value.salt, value.field, value.value)
    assert checked(store, entry) == ()


def test_without_personal_values_the_body_says_nothing_of_them(store: Store) -> None:
    assert "private" not in body_of(appended(store, draft()))


def test_a_rollback_takes_the_values_back(store: Store) -> None:
    with contextlib.suppress(ZeroDivisionError), store.transaction() as tx:
        append(tx, approval())
        raise ZeroDivisionError
    with store.snapshot() as tx:
        assert list(tx.private_values()) == []


def test_the_same_draft_again_is_the_stored_entry_although_salts_are_random(store: Store) -> None:
    entry = appended(store, approval())
    assert appended(store, approval()).body == entry.body
    with store.snapshot() as tx:
        assert len(list(tx.private_values())) == 1


@pytest.mark.parametrize(
    "other",
    [
        approval(approver="Somebody Else"),
        approval(approver=NAME, place="Paris"),
        EntryDraft(
            kind=EntryKind.APPROVAL, request_key="release-1", ordinal=0, body={**approval().body, "approver": "r"}
        ),
    ],
)
def test_another_value_or_field_under_the_same_key_conflicts(store: Store, other: EntryDraft) -> None:
    entry = appended(store, approval())
    with store.transaction() as tx, pytest.raises(IdempotencyConflict, match=entry.entry_id):
        append(tx, other)


def test_a_redacted_field_is_passed_over_when_a_draft_is_repeated(store: Store) -> None:
    entry = appended(store, approval(approver=NAME, place="Paris"))
    with store.transaction() as tx:
        redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10)
    again = appended(store, approval(approver=NAME, place="Paris"))
    assert again.entry_id == entry.entry_id
    with store.transaction() as tx, pytest.raises(IdempotencyConflict):
        append(tx, approval(approver=NAME, place="London"))
    with store.snapshot() as tx:
        assert [item.field for item in tx.private_values(entry.entry_id)] == ["place"]


# ---- checking -------------------------------------------------------------------------------------------------------


def exchange(tx: Transaction, entry: Entry, *, salt: bytes | None = None, value: str | None = None) -> None:
    """Tamper with the one personal value of an entry."""
    (kept,) = tx.private_values(entry.entry_id)
    tx.drop_private(entry.entry_id, kept.field)
    changed = PrivateValue(entry_id=entry.entry_id, field=kept.field, salt=salt or kept.salt, value=value or kept.value)
    tx.put_private([changed])


@pytest.mark.parametrize("change", [{"value": "Somebody Else"}, {"salt": b"\1" * 32}, {"salt": b"short"}])
def test_a_value_or_salt_that_was_exchanged_is_found(store: Store, change: dict[str, Any]) -> None:
    entry = appended(store, approval())
    with store.transaction() as tx:
        exchange(tx, entry, **change)
    (problem,) = checked(store, entry)
    assert "is not the one that was committed to" in problem
    assert NAME not in problem


def test_a_value_that_is_gone_without_a_redaction_is_found(store: Store) -> None:
    entry = appended(store, approval())
    with store.transaction() as tx:
        assert tx.drop_private(entry.entry_id, "approver")
    assert checked(store, entry) == ("the private value 'approver' is gone and no redaction says so.",)


def test_a_redacted_value_that_is_there_again_is_found(store: Store) -> None:
    entry = appended(store, approval())
    with store.transaction() as tx:
        (kept,) = tx.private_values(entry.entry_id)
        redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10)
    assert checked(store, entry) == ()
    with store.transaction() as tx:
        tx.put_private([kept])
    (problem,) = checked(store, entry)
    assert "was redacted and is there again" in problem


def test_a_value_that_the_body_does_not_name_is_found(store: Store) -> None:
    entry = appended(store, approval())
    with store.transaction() as tx:
        tx.put_private([PrivateValue(entry_id=entry.entry_id, field="extra", salt=b"\0" * 32, value="x")])
    (problem,) = checked(store, entry)
    assert "'extra' is kept that the body does not name" in problem
    with store.snapshot() as tx:
        assert check_private(tx, body_of(entry)).rows == 2


@pytest.mark.parametrize(
    "listed",
    [
        [],
        {},
        ["approver"],
        [{"field": "approver"}],
        [{"field": "approver", "commitment": "00"}],
        [{"field": "approver", "commitment": "0" * 64, "value": NAME}],
        [{"field": "b", "commitment": "0" * 64}, {"field": "a", "commitment": "0" * 64}],
        [{"field": "a", "commitment": "0" * 64}, {"field": "a", "commitment": "0" * 64}],
        [{"field": 5, "commitment": "0" * 64}],
    ],
)
def test_a_list_of_commitments_in_another_form_is_damage(listed: object) -> None:
    with pytest.raises(LedgerDamaged):
        sealed_fields({"private": listed})


def test_redactions_of_all_logs_are_known(store: Store) -> None:
    entries = [appended(store, approval(f"r{number}")) for number in range(2)]
    for entry in entries:
        with store.transaction() as tx:
            redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10)
    with store.snapshot() as tx:
        found = redactions(tx)
        assert all((entry.entry_id, "approver") in found for entry in entries)
        assert (entries[0].entry_id, "deputy") not in found
        assert ("", "approver") not in found
        assert entries[0].entry_id not in found


# ---- what stays, and what does not ----------------------------------------------------------------------------------


def test_leaf_root_and_proof_survive_the_redaction(store: Store) -> None:
    entry = appended(store, approval())
    for number in range(5):
        appended(store, draft(f"d{number}"))
    with store.transaction() as tx:
        sequence(tx)
        index, size = tx.entry(entry.entry_id).index, tx.tree_size()  # type: ignore[union-attr]
        assert index is not None
        root, proof = TreeReader(tx, size).root(), inclusion_proof(TreeReader(tx, size), index, size)
        redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10)
        sequence(tx)
        assert TreeReader(tx, size).root() == root
        stored = tx.entry(entry.entry_id)
        assert stored is not None
        assert verify_inclusion(leaf=stored.leaf_hash, index=index, size=size, proof=proof, root=root)
        assert stored.body == entry.body
        assert tx.tree_size() == size + 1


def files_of(store: SqliteStore) -> Iterator[bytes]:
    for path in store.path.parent.iterdir():
        yield path.read_bytes()


def test_a_redacted_value_stands_nowhere_in_the_files_any_more(file_store: SqliteStore) -> None:
    entry = appended(file_store, approval())
    for number in range(20):
        appended(file_store, approval(f"r{number}", approver="Somebody Else"))
    with file_store.snapshot() as tx:
        (kept,) = tx.private_values(entry.entry_id)
    file_store.close()
    assert any(NAME.encode() in data and kept.salt in data for data in files_of(file_store))
    with file_store.transaction() as tx:
        redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10)
    file_store.close()
    for data in files_of(file_store):
        assert NAME.encode() not in data
        assert kept.salt not in data
        assert b"Somebody Else" in data or len(data) == 0


def test_the_write_ahead_log_of_an_open_file_is_scrubbed(file_store: SqliteStore, clock: ManualClock) -> None:
    other = open_store(file_store.url, clock=clock)
    entry = appended(file_store, approval())
    appended(other, draft())
    with other.transaction() as tx:
        redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10)
    other.close()
    assert any(NAME.encode() in data for data in files_of(file_store)), "another program has the file open"
    with file_store.snapshot() as tx:
        assert tx.tree_size() == 3
        assert not scrub_write_ahead_log(file_store.path, timeout_seconds=0)
    assert scrub_write_ahead_log(file_store.path)
    assert not any(NAME.encode() in data for data in files_of(file_store))
    appended(file_store, draft("later"))


# ---- roles on a shared store ----------------------------------------------------------------------------------------


ROLES = ("writer", "maintainer", "reader")


@pytest.fixture
def roles(postgres: LocalPostgres, postgres_url: str) -> Iterator[dict[str, Store]]:
    """One store on PostgreSQL, seen by each role."""
    database = postgres_url.rpartition("/")[2]
    names = {role: f"{role}_private_{database}" for role in ROLES}
    for role, name in names.items():
        postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p{role}'")
    owner = PostgresqlStore(url=postgres_url, clock=SystemClock(), origin=None, lock_timeout_seconds=10)
    owner.apply(owner.grants(**names))
    urls = {role: postgres.url_of(database, user=name, password=f"p{role}") for role, name in names.items()}
    stores = {role: open_store(url, clock=SystemClock()) for role, url in urls.items()}
    yield stores
    for store in (owner, *stores.values()):
        store.close()
    for name in names.values():
        postgres.execute(f"DROP OWNED BY {name}; DROP ROLE {name}", url=postgres_url)


def test_only_the_maintainer_reads_personal_values_and_everybody_does_their_work(roles: dict[str, Store]) -> None:
    entry = appended(roles["writer"], approval())
    assert appended(roles["writer"], approval()).entry_id == entry.entry_id
    with roles["writer"].transaction() as tx, pytest.raises(IdempotencyConflict):
        append(tx, approval(approver="Somebody Else"))
    for role in ("writer", "reader"):
        with roles[role].snapshot() as tx:
            assert not tx.may_read_private()
            assert tx.private_fields(entry.entry_id) == ["approver"]
            with pytest.raises(StoreUnavailable, match="may not read personal values"):
                list(tx.private_values(entry.entry_id))
            found = check_private(tx, body_of(entry))
            assert (found.rows, found.unread, found.problems) == (1, 1, ())
    with pytest.raises(StoreUnavailable), roles["writer"].transaction() as tx:
        tx.drop_private(entry.entry_id, "approver")
    with roles["maintainer"].transaction() as tx:
        sequence(tx)
    with roles["reader"].snapshot() as tx:
        report = verify(tx, [])
        assert (report.failures, len(report.notes)) == ((), 1)
        assert "1 personal values were not compared" in report.notes[0]
    with roles["maintainer"].transaction() as tx:
        assert [item.value for item in tx.private_values(entry.entry_id)] == [NAME]
        assert redact(tx, entry.entry_id, "approver", reason="asked to", retention_years=10).deleted == 1
    assert appended(roles["writer"], approval()).entry_id == entry.entry_id
    with roles["reader"].snapshot() as tx:
        found = check_private(tx, body_of(entry))
        assert (found.rows, found.unread, found.problems) == (0, 0, ())


def test_a_reader_finds_a_value_that_is_gone_without_a_redaction(roles: dict[str, Store]) -> None:
    entry = appended(roles["writer"], approval())
    with roles["maintainer"].transaction() as tx:
        tx.drop_private(entry.entry_id, "approver")
    assert "gone and no redaction says so" in checked(roles["reader"], entry)[0]


def test_no_repr_tells_a_personal_value() -> None:
    """A value in a traceback, an assertion or a log line has left the only table from which it can be deleted."""
    draft_of_it = EntryDraft(
        kind=EntryKind.APPROVAL, request_key="r", ordinal=0, body={}, private={"approver": "Ada Lovelace-Example"}
    )
    kept = PrivateValue(entry_id="e", field="approver", salt=b"s" * 32, value="Ada Lovelace-Example")
    for text in (repr(draft_of_it), repr(kept), f"{[kept]}"):
        assert "Lovelace" not in text
        assert "ssss" not in text
    assert "approver" in repr(kept)
