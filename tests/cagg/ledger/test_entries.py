"""Entries: written once, spilled when large, every column re-derivable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import IdempotencyConflict, InvalidInput, LedgerDamaged
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import (
    ENVELOPE,
    LARGEST_BODY_BYTES,
    append,
    blobs_of,
    columns_of,
    idempotency_key,
    instant_us,
    read_body,
)
from cagg.ledger.identifiers import uuid7
from cagg.ledger.merkle import leaf_hash
from cagg.ledger.sequencer import sequence
from cagg.ports import Store
from cagg.records import EntryDraft, EntryKind
from cagg.testing import ManualClock
from cagg.testing.stores import draft

NOW = datetime(2026, 11, 23, 6, 0, 0, 123_456, tzinfo=UTC)


# ---- keys and ids ---------------------------------------------------------------------------------------------------


def test_the_idempotency_key_is_the_documented_hash() -> None:
    expected = hashlib.sha256(b'cagg/entry/1\n["decision","ab",3]').digest()
    assert idempotency_key(EntryKind.DECISION, "ab", 3) == expected


_facts = st.tuples(st.text('ab,["', max_size=4), st.integers(0, 12))


@given(_facts, _facts)
def test_different_facts_have_different_keys(one: tuple[str, int], other: tuple[str, int]) -> None:
    same = idempotency_key(EntryKind.DECISION, *one) == idempotency_key(EntryKind.DECISION, *other)
    assert same == (one == other)


def test_entry_ids_are_uuids_of_version_7_in_order_of_time() -> None:
    ids = [uuid7(NOW + timedelta(milliseconds=number)) for number in range(50)]
    assert ids == sorted(ids)
    assert len({uuid7(NOW) for _ in range(500)}) == 500
    for text in ids:
        assert UUID(text).version == 7
        assert UUID(text).variant == "specified in RFC 4122"
    assert UUID(ids[0]).int >> 80 == int(NOW.timestamp() * 1_000)


# ---- append ---------------------------------------------------------------------------------------------------------


def test_the_body_holds_the_envelope_and_is_what_is_hashed(store: Store) -> None:
    with store.transaction() as tx:
        entry = append(tx, draft("k", ordinal=2, value=1))
        now = tx.now()
    body = decode(entry.body)
    assert body == {
        "v": 1,
        "kind": "decision",
        "log": "example.org/test",
        "entry_id": entry.entry_id,
        "idempotency_key": entry.idempotency_key.hex(),
        "request_key": "k",
        "ordinal": 2,
        "recorded_at": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}",
        "request": {},
        "verdict": "admit",
        "note": "x",
        "value": 1,
    }
    assert entry.leaf_hash == leaf_hash(entry.body)
    assert (entry.index, entry.recorded_at) == (0 if tx.sequences_inline else None, now)
    assert canonical(body) == entry.body


def test_a_repeat_after_time_has_passed_is_the_same_entry(store: Store, clock: ManualClock) -> None:
    with store.transaction() as tx:
        first = append(tx, draft(value=1))
    clock.advance(3_600)
    with store.transaction() as tx:
        assert append(tx, draft(value=1)) == first
        with pytest.raises(IdempotencyConflict, match=first.entry_id):
            append(tx, draft(value=2))
        append(tx, draft(value=2, kind=EntryKind.CORRECTION))
        append(tx, draft(value=2, ordinal=1))
        assert tx.tree_size() + tx.queued() == 3


@pytest.mark.parametrize("name", ENVELOPE)
def test_drafts_cannot_write_the_envelope(store: Store, name: str) -> None:
    with store.transaction() as tx, pytest.raises(InvalidInput, match=name):
        append(tx, EntryDraft(kind=EntryKind.DECISION, request_key="k", ordinal=0, body={name: 1}))


@pytest.mark.parametrize(
    "bad",
    [
        replace(draft(), ordinal=-1),
        replace(draft(), request_key=""),
        draft(value=1.5),
        draft(value="\ud800"),
        draft(Value=1),
        draft(start="2026-11-23T06:00:00Z"),
        draft(start="2026-13-23T06:00:00.000000Z"),
        draft(energy_millijoules=5),
        draft(energy_millijoules="-0"),
        draft(energy_millijoules=str(2**63)),
        draft(request=[]),
        draft(request={"attempt": "1"}),
        draft(request={"task_key": 1}),
        draft(grade="AB"),
        draft(outcome="x" * 25),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_leaves_nothing(store: Store, bad: EntryDraft) -> None:
    with store.transaction() as tx:
        with pytest.raises(InvalidInput):
            append(tx, bad)
        assert (tx.tree_size(), tx.queued()) == (0, 0)


# ---- large bodies and attachments -----------------------------------------------------------------------------------


def test_the_largest_values_spill_and_only_as_many_as_needed(store: Store) -> None:
    big, bigger, small = "a" * 30_000, ["b" * 50_000], {"c": "c" * 1_000}
    with store.transaction() as tx:
        entry = append(tx, draft(big=big, bigger=bigger, small=small, outcome="completed"))
        body = decode(entry.body)
        assert body["spilled"] == ["bigger"]
        digest = hashlib.sha256(canonical(bigger)).hexdigest()
        assert body["bigger"] == {"blob": digest}
        assert tx.blob(digest) == canonical(bigger)
        assert len(entry.body) <= LARGEST_BODY_BYTES
        whole = read_body(tx, entry)
        assert (whole["big"], whole["bigger"], whole["small"]) == (big, bigger, small)
        assert "spilled" not in whole
        assert append(tx, draft(big=big, bigger=bigger, small=small, outcome="completed")) == entry
        with pytest.raises(IdempotencyConflict):
            append(tx, draft(big=big, bigger=["b" * 50_001], small=small, outcome="completed"))


def test_a_body_at_the_limit_stays_whole(store: Store) -> None:
    with store.transaction() as tx:
        room = LARGEST_BODY_BYTES - len(append(tx, draft("k" * 3, pad="")).body)
        entry = append(tx, draft("l" * 3, pad="x" * room))
        assert len(entry.body) == LARGEST_BODY_BYTES
        assert "spilled" not in decode(entry.body)
        assert decode(append(tx, draft("m" * 3, pad="x" * (room + 1))).body)["spilled"] == ["pad"]


def test_columns_are_derived_from_the_whole_body_when_the_request_spills(store: Store) -> None:
    request = {"task_key": "nightly", "labels": ["x" * 80_000]}
    with store.transaction() as tx:
        entry = append(tx, draft(request=request))
        sequence(tx)
        [(_, _, columns)] = tx.columns(0, 1)
        assert columns["task_key"] == "nightly"
        assert columns == columns_of(read_body(tx, entry))


def test_too_many_small_values_are_refused(store: Store) -> None:
    body = {f"k{number}": "x" * 100 for number in range(1_000)}
    with store.transaction() as tx, pytest.raises(InvalidInput, match="record fewer fields"):
        append(tx, draft(**body))


def test_attachments_must_be_named_and_be_what_they_say(store: Store) -> None:
    digest = hashlib.sha256(b"series").hexdigest()
    with store.transaction() as tx:
        for unseen in ({}, {"digest": digest}, {"forecast": {"digest": digest}}):
            with pytest.raises(InvalidInput, match="not named"):
                append(tx, replace(draft(**unseen), blobs={digest: b"series"}))
        with pytest.raises(InvalidInput, match="not what its digest says"):
            append(tx, replace(draft(forecast={"blob": digest}), blobs={digest: b"other"}))
        entry = append(tx, replace(draft(forecast={"blob": digest}), blobs={digest: b"series"}))
        assert tx.blob(digest) == b"series"
        assert read_body(tx, entry)["forecast"] == {"blob": digest}
        assert list(blobs_of(decode(entry.body))) == [digest]


def test_an_attachment_may_be_named_in_a_value_that_is_spilled(store: Store) -> None:
    digest = hashlib.sha256(b"series").hexdigest()
    large = {"series": {"blob": digest}, "text": "x" * 70_000}
    with store.transaction() as tx:
        entry = append(tx, replace(draft(forecast=large), blobs={digest: b"series"}))
        assert digest not in set(blobs_of(decode(entry.body)))
        assert digest in set(blobs_of(read_body(tx, entry)))


def test_a_missing_spilled_value_is_named(store: Store) -> None:
    with store.transaction() as tx:
        entry = append(tx, draft(large="x" * 70_000))
        tx.connection.exec_driver_sql("DELETE FROM cagg_blob")  # type: ignore[attr-defined]
        with pytest.raises(LedgerDamaged, match=r"'large' is missing"):
            read_body(tx, entry)


# ---- columns --------------------------------------------------------------------------------------------------------


def test_every_column_comes_from_the_body() -> None:
    body: dict[str, Any] = {
        "kind": "measurement",
        "recorded_at": "2026-11-23T06:00:00.000001Z",
        "request_key": "k",
        "request": {"host": "h", "root_run_id": "r", "task_key": "t", "attempt": 2, "budget_path": "a/b"},
        "start": "1970-01-01T00:00:01.000000Z",
        "end": "1970-01-01T00:00:02.500000Z",
        "outcome": "completed",
        "energy_millijoules": "9223372036854775807",
        "carbon_micrograms": "0",
        "grade": "B",
        "part_of": "outer",
    }
    assert columns_of(body) == {
        "kind": "measurement",
        "recorded_us": instant_us("2026-11-23T06:00:00.000001Z", "x"),
        "request_key": "k",
        "host": "h",
        "root_run_id": "r",
        "task_key": "t",
        "attempt": 2,
        "budget_path": "a/b",
        "start_us": 1_000_000,
        "end_us": 2_500_000,
        "outcome": "completed",
        "energy_millijoules": 2**63 - 1,
        "carbon_micrograms": 0,
        "grade": "B",
        "part_of": "outer",
    }
    assert columns_of({**body, "budget_path": None})["budget_path"] is None
    assert columns_of({**body, "budget_path": "c"})["budget_path"] == "c"
    bare = columns_of({name: body[name] for name in ("kind", "recorded_at", "request_key")})
    assert {name for name, value in bare.items() if value is not None} == {"kind", "recorded_us", "request_key"}


@pytest.mark.parametrize("name", ["kind", "recorded_at", "request_key"])
def test_columns_that_must_be_there_are_missed(name: str) -> None:
    body = {"kind": "decision", "recorded_at": "2026-11-23T06:00:00.000001Z", "request_key": "k"}
    with pytest.raises(LedgerDamaged, match=f"'{name}' is missing"):
        columns_of({**body, name: None})


def test_bodies_are_readable_without_us(store: Store) -> None:
    with store.transaction() as tx:
        entry = append(tx, draft(note="grün", amount="12"))
    assert json.loads(entry.body)["note"] == "grün"
