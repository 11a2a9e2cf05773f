"""The quick look at a row never finds in order what the slow one refuses, whatever is changed in body or columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cagg.entries import EntryKind
from cagg.errors import LedgerDamaged
from cagg.ledger import _verify_body
from cagg.ledger._verify_body import LONGEST_LEAF_BYTES, PageFound, Row, check_figures, check_page
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import columns_of, idempotency_key
from cagg.ledger.merkle import leaf_hash
from cagg.store.audit_rows import CACHE_COLUMNS
from cagg.testing.kinds import LEAST

ORIGIN = "example.org/test"
NAMES = tuple(str.__str__(name) for name in CACHE_COLUMNS)
BLOB = hashlib.sha256(b"series").hexdigest()

MEASURED: dict[str, Any] = {
    "request": {"host": "local", "root_run_id": "r", "task_key": 'näch"tly', "attempt": 1, "budget_path": "a/b"},
    "start": "2026-01-05T21:00:00.000000Z",
    "end": "2026-01-05T23:00:00.000000Z",
    "outcome": "completed",
    "grade": "C",
    "part_of": None,
    "energy_millijoules": "7200000000",
    "energy_low_millijoules": "7000000000",
    "energy_high_millijoules": "7300000000",
    "pue_ppm": 1_150_000,
    "carbon_micrograms": "230000000",
    "slices": [
        {
            "start": f"2026-01-05T2{hour}:00:00.000000Z",
            "end": f"2026-01-05T2{hour + 1}:00:00.000000Z",
            "energy_millijoules": "3600000000",
            "intensity_milligrams_per_kwh": "100000",
        }
        for hour in (1, 2)
    ],
}


def body_of(kind: EntryKind = EntryKind.MEASUREMENT, **more: Any) -> dict[str, Any]:
    said = MEASURED if kind is EntryKind.MEASUREMENT else LEAST[kind]
    key = idempotency_key(kind, 'k"é', 0)
    return {
        "request": None,
        **said,
        "v": 1,
        "kind": str(kind),
        "log": ORIGIN,
        "entry_id": "019b902c-9700-7000-8203-040506070809",
        "idempotency_key": key.hex(),
        "request_key": 'k"é',
        "ordinal": 0,
        "recorded_at": "2026-01-05T23:00:01.000005Z",
        **more,
    }


def row_of(data: bytes, body: dict[str, Any], **columns: Any) -> Row:
    """The row as whoever changes everything consistently would leave it: hashes fit, columns too where they can."""
    try:
        derived: dict[str, Any] = dict(columns_of(body))
    except LedgerDamaged:
        derived = dict(columns_of(body_of()))
    derived |= columns
    key = idempotency_key(EntryKind(body["kind"]), body["request_key"], body["ordinal"])
    leaf = leaf_hash(data)
    return (7, body["entry_id"], leaf, body["entry_id"], key, data, leaf, *(derived[name] for name in NAMES))


def slowly(rows: Sequence[Row]) -> PageFound:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_verify_body, "_in_order", lambda row, origin: None)
        return check_page(rows, NAMES, ORIGIN)


def agreed(row: Row) -> PageFound:
    found = check_page([row], NAMES, ORIGIN)
    assert found == slowly([row])
    return found


@pytest.mark.parametrize("kind", EntryKind)
def test_an_entry_of_every_kind_is_plainly_in_order(kind: EntryKind) -> None:
    body = body_of(kind)
    row = row_of(canonical(body), body)
    assert _verify_body._in_order(row, ORIGIN) == body
    assert agreed(row)[0] == []


_odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**53 - 1),
    st.sampled_from(
        ["", "0", "-1", "00", "1_0", "+5", " 5", "٣", "7200000001", "9" * 19, "9" * 25, "x" * 30, "C", "CC"]
    ),
    st.sampled_from(["2026-01-05T21:00:00.000000Z", "2026-01-05T21:00:00Z", "2026-W01-1T21:00:00.000000Z", "admit"]),
    st.sampled_from(["2026-02-30T21:00:00.000000Z", "2026-01-05T21:00:60.000000Z", "2026-01-05 21:00:00.000000Z"]),
    st.just({}),
    st.just([]),
    st.just({"blob": BLOB}),
    st.just([{"blob": BLOB}, {"blob": "short"}]),
    st.just([{"start": 1}]),
    st.just([5]),
)
_PLACES = """slices.0 slices.0.start slices.1.end slices.1.energy_millijoules slices.0.intensity_milligrams_per_kwh
request.host request.attempt request.task_key request.budget_path budget_path further spilled private parents
measurements inputs"""
_names = st.sampled_from([*body_of(), *_PLACES.split()])


def put(body: Any, path: str, value: Any) -> Any:
    """Return a body with something else at a place."""
    name, _, rest = path.partition(".")
    if isinstance(body, list):
        copy: Any = list(body)
        copy[int(name)] = put(copy[int(name)], rest, value) if rest else value
        return copy
    return {**body, name: put(body[name], rest, value) if rest else value}


@settings(max_examples=600, deadline=None)
@given(_names, _odd)
@example("pue_ppm", "x")
@example("request.attempt", True)
@example("ordinal", True)
@example("energy_low_millijoules", "7200000001")
@example("slices", [5])
@example("log", "other")
@example("entry_id", None)
@example("entry_id", 7)
def test_a_changed_field_has_one_verdict(path: str, value: Any) -> None:
    body = body_of()
    changed = put(body, path, value)
    data = canonical(changed)
    try:
        row = row_of(data, changed)
    except (LedgerDamaged, ValueError, TypeError):
        row = row_of(data, body)
    agreed(row)


_cells: list[Any] = [None, 0, 1, True, 1.0, 7, -1, 2**63 - 1, "", "x", "C", "local", b"", b"\x00" * 32, "\udcff", "k5"]


@pytest.mark.parametrize("kind", [EntryKind.MEASUREMENT, EntryKind.DECISION])
def test_a_changed_cell_has_one_verdict_and_is_never_passed(kind: EntryKind) -> None:
    body = body_of(kind)
    row = row_of(canonical(body), body)
    for place in range(2, len(row)):
        for value in [*_cells, str(row[place]), *([float(row[place])] if isinstance(row[place], int) else [])]:
            if type(value) is type(row[place]) and value == row[place]:
                continue
            failures = agreed((*row[:place], value, *row[place + 1 :]))[0]
            assert failures, (place, value)
            assert {index for _, index, _ in failures} == {7}


def test_every_byte_of_a_body_changed_with_its_hashes_has_one_verdict() -> None:
    body = body_of()
    data = canonical(body)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ (1 << place % 7)]) + data[place + 1 :]
        row = row_of(data, body)
        leaf = leaf_hash(changed)
        assert agreed((*row[:2], leaf, *row[3:5], changed, leaf, *row[7:])) is not None


def test_a_body_that_is_larger_than_a_leaf_may_be_is_refused() -> None:
    for extra, expected in ((0, []), (1, ["profile"])):
        body = body_of(note="")
        body["note"] = "x" * (LONGEST_LEAF_BYTES - len(canonical(body)) + extra)
        data = canonical(body)
        assert len(data) == LONGEST_LEAF_BYTES + extra
        assert [kind for kind, _, _ in agreed(row_of(data, body))[0]] == expected


def test_attachments_are_found_in_what_was_plainly_in_order() -> None:
    body = body_of(forecast={"blob": BLOB}, note='"blob":"' + BLOB + '"', more=[{"blob": BLOB[:-1]}])
    assert agreed(row_of(canonical(body), body)) == ([], [(7, [BLOB])], [])


def test_spilled_and_personal_values_are_left_to_whoever_reads_the_store() -> None:
    spilled = body_of(note={"blob": BLOB}, spilled=["note"])
    assert agreed(row_of(canonical(spilled), spilled)) == ([], [(7, [BLOB])], [0])
    private = body_of(private=[{"field": "who", "commitment": "00" * 32}])
    assert agreed(row_of(canonical(private), private)) == ([], [], [0])


def test_columns_that_are_not_known_are_compared_the_slow_way() -> None:
    body = body_of()
    row = row_of(canonical(body), body)
    failures, _, _ = check_page([(*row, "x")], (*NAMES, "further"), ORIGIN)
    assert failures == [("column", 7, "the column further of entry 7 differs from its body.")]


@pytest.mark.parametrize(
    ("change", "ok"),
    [
        ({"energy_low_millijoules": "7200000000", "energy_high_millijoules": "7200000000"}, True),
        ({"energy_low_millijoules": None, "energy_high_millijoules": None}, True),
        ({"energy_low_millijoules": "7200000001"}, False),
        ({"energy_high_millijoules": "7199999999"}, False),
        ({"energy_high_millijoules": "x"}, False),
    ],
)
def test_a_reading_lies_between_its_bounds(change: dict[str, Any], ok: bool) -> None:
    body = {**MEASURED, **change}
    if ok:
        check_figures(body)
    else:
        with pytest.raises(LedgerDamaged):
            check_figures(body)
    whole = body_of(**change)
    assert (agreed(row_of(canonical(whole), whole))[0] == []) is ok


def _slices(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**piece, **change} for piece, change in zip(MEASURED["slices"], changes, strict=False)]


@pytest.mark.parametrize(
    "change",
    [
        {"pue_ppm": 1_000_000, "carbon_micrograms": "200000000"},
        {"pue_ppm": None, "carbon_micrograms": "200000000"},
        {"slices": [], "energy_millijoules": None, "carbon_micrograms": None},
        {"slices": _slices({}, {"intensity_milligrams_per_kwh": None}), "carbon_micrograms": None},
    ],
)
def test_figures_that_follow_are_plainly_in_order(change: dict[str, Any]) -> None:
    body = body_of(**change)
    row = row_of(canonical(body), body)
    assert _verify_body._in_order(row, ORIGIN) == body
    assert agreed(row)[0] == []


@pytest.mark.parametrize(
    "change",
    [
        {"pue_ppm": 999_999, "carbon_micrograms": "199999800"},
        {"pue_ppm": -1, "carbon_micrograms": "-200"},
        {"slices": _slices({"energy_millijoules": "7200000001"}, {"energy_millijoules": "-1"})},
        {"slices": _slices({"intensity_milligrams_per_kwh": "200001"}, {"intensity_milligrams_per_kwh": "-1"})},
        {"start": "2026-01-05T21:00:00.000001Z"},
        {"end": "2026-01-05T22:59:59.999999Z"},
        {"end": None},
        {"slices": _slices({}, {})[::-1]},
        {"slices": _slices({}, {"start": "2026-01-05T21:59:59.999999Z"})},
        {"slices": _slices({}, {"end": "2026-01-05T22:00:00.000000Z"})},
    ],
)
def test_figures_that_add_up_and_still_cannot_be_are_refused(change: dict[str, Any]) -> None:
    body = body_of(**change)
    assert agreed(row_of(canonical(body), body))[0] != []


def test_a_slice_that_is_none_is_named_though_the_energy_is_unknown() -> None:
    body = body_of(energy_millijoules=None, carbon_micrograms=None, slices=["x"])
    assert decode(canonical(body)) == body
    [(kind, _, message)] = agreed(row_of(canonical(body), body))[0]
    assert (kind, "no object" in message) == ("arithmetic", True)
