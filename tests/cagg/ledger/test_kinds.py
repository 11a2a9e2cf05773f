"""What each kind must say, and that readings stand nowhere but in measurements and corrections."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.entries import EntryDraft, EntryKind
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import append, read_body
from cagg.ledger.events import (
    ApprovalDecision,
    KeyEvent,
    LogEvent,
    ValidationOutcome,
    approval_body,
    key_body,
    log_body,
    validation_body,
    waiver_body,
)
from cagg.ledger.kinds import READINGS, check_kind
from cagg.ports import Store
from cagg.testing.kinds import LEAST

GOLDEN = Path(__file__).parents[2] / "golden" / "ledger"
EXPIRES = datetime(2027, 1, 1, tzinfo=UTC)
POINTED_AT = "019b902c-9700-7000-8203-040506070809"
OTHERS = sorted(set(EntryKind) - READINGS)
NEEDS = [
    (kind, name)
    for kind in EntryKind
    for name in LEAST[kind]
    if (kind, name)
    not in {  # what a body may leave out
        (EntryKind.OVERRIDE, "reason"),
        (EntryKind.OVERRIDE, "request"),
        (EntryKind.OVERRIDE, "parents"),
        (EntryKind.RESERVATION, "request"),
        (EntryKind.WAIVER, "parents"),
        (EntryKind.APPROVAL, "parents"),
        (EntryKind.APPROVAL, "reason"),
        (EntryKind.INFERENCE, "parents"),
        (EntryKind.REGENERATION, "parents"),
        (EntryKind.VALIDATION, "parents"),
    }
]

FOREIGN = [  # values of a type that the field never has; one of the right type is for other checks to judge
    (kind, name, value)
    for kind, name in NEEDS
    if (kind, name) != (EntryKind.CORRECTION, "evidence")
    for value in (5, True, "", [3], {"a": 1}, -1)
    if type(value) is not type(LEAST[kind][name])
    and not (LEAST[kind][name] is None and isinstance(value, str | dict))
    and not ((kind, name) == (EntryKind.DECISION, "verdict") and isinstance(value, dict))
]


def body_of(kind: EntryKind, **more: Any) -> dict[str, Any]:
    return {"kind": str(kind), **LEAST[kind], **more}


def test_every_kind_is_known() -> None:
    assert set(LEAST) == set(EntryKind)


@pytest.mark.parametrize("kind", list(EntryKind))
def test_the_least_is_enough_and_more_is_allowed(kind: EntryKind) -> None:
    check_kind(body_of(kind))
    check_kind(body_of(kind, something_of_later_years={"a": [1]}, parents=[POINTED_AT]))
    check_kind(decode(canonical(body_of(kind))))


@pytest.mark.parametrize(("kind", "name"), NEEDS)
def test_nothing_of_it_may_be_missing(kind: EntryKind, name: str) -> None:
    body = body_of(kind)
    del body[name]
    with pytest.raises(LedgerDamaged, match=name):
        check_kind(body)


@pytest.mark.parametrize(("kind", "name", "value"), FOREIGN)
def test_nothing_of_it_may_have_another_form(kind: EntryKind, name: str, value: object) -> None:
    with pytest.raises(LedgerDamaged, match=name):
        check_kind(body_of(kind, **{name: value}))


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize(
    "name",
    ["energy_millijoules", "energy_low_millijoules", "energy_high_millijoules", "carbon_micrograms", "slices"],
)
@pytest.mark.parametrize("value", [None, "7", []], ids=str)
def test_only_readings_hold_energy_and_carbon(kind: EntryKind, name: str, value: object) -> None:
    with pytest.raises(LedgerDamaged, match=f"{name}.*measurements or corrections"):
        check_kind(body_of(kind, **{name: value}))


def test_a_reading_shows_its_slices() -> None:
    """Without slices nobody could repeat the carbon."""
    for kind in READINGS:
        body = body_of(EntryKind.MEASUREMENT) | {"kind": str(kind)}
        check_kind(body)
        for name in ("slices", "carbon_micrograms", "start", "end", "outcome"):
            with pytest.raises(LedgerDamaged, match=name):
                check_kind({key: value for key, value in body.items() if key != name})


def test_a_correction_says_what_it_is_about() -> None:
    with pytest.raises(LedgerDamaged, match="corrects"):
        check_kind({"kind": "correction"})
    check_kind({"kind": "correction", "corrects": POINTED_AT})


@pytest.mark.parametrize(
    "changed",
    [
        {"verdict": "perhaps"},
        {"verdict": {"verdict": "Admit"}},
        {"parents": ["x"]},
        {"parents": POINTED_AT},
        {"measurements": [POINTED_AT.upper()]},
        {"inputs": [{"name": "a"}]},
        {"inputs": [{"name": "", "digest": None}]},
        {"outputs": [{"name": "a", "digest": "abc"}]},
        {"outputs": {"name": "a", "digest": None}},
        {"work_item": 17},
        {"software": []},
    ],
)
def test_shared_fields_have_one_form(changed: Mapping[str, Any]) -> None:
    with pytest.raises(LedgerDamaged, match=next(iter(changed))):
        check_kind(body_of(EntryKind.DECISION, **changed))


@pytest.mark.parametrize("kind", [None, "", "decisions", 5, ["decision"], "DECISION"])
def test_other_kinds_are_refused(kind: object) -> None:
    with pytest.raises(LedgerDamaged, match="no kind of entry"):
        check_kind({**LEAST[EntryKind.DECISION], "kind": kind})


@pytest.mark.parametrize(("kind", "person"), [(EntryKind.WAIVER, "owner"), (EntryKind.APPROVAL, "approver")])
def test_somebody_answers_for_it(kind: EntryKind, person: str) -> None:
    body = {name: value for name, value in body_of(kind).items() if name != person}
    with pytest.raises(LedgerDamaged, match=person):
        check_kind(body)
    check_kind(body | {"private": [{"commitment": "0" * 64, "field": person}]})
    with pytest.raises(LedgerDamaged, match=person):
        check_kind(body | {"private": [{"commitment": "0" * 64, "field": "somebody"}]})


WORDS = st.sampled_from([str(kind) for kind in EntryKind])
NAMES = st.sampled_from(["kind", "request", "held", "private", "redacted", "verdict", "inputs"])
OBJECTS = st.dictionaries(st.sampled_from(["name", "digest", "verdict", "unit", "amount"]), st.integers(), max_size=3)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=3),
    WORDS,
    st.lists(st.one_of(st.none(), OBJECTS)),
    OBJECTS,
)


@given(st.dictionaries(NAMES, VALUES))
def test_whatever_a_body_holds_the_answer_is_yes_or_damaged(body: dict[str, Any]) -> None:
    try:
        check_kind(body)
    except LedgerDamaged:
        pass
    else:
        assert body["kind"] in set(EntryKind)


@pytest.mark.parametrize("name", ["decision", "measurement", "spilled"])
def test_the_kept_bodies_say_what_they_must(name: str) -> None:
    check_kind(decode((GOLDEN / f"entry_v1_{name}.json").read_bytes()))


# ---- the bodies that are built --------------------------------------------------------------------------------------


def test_a_validation_points_to_its_reading() -> None:
    body = validation_body(
        request={"key": "k"},
        subject={"name": "model", "digest": f"sha256:{'0' * 64}"},
        validator="leakage",
        tier="quick",
        outcome=ValidationOutcome.INCONCLUSIVE,
        measurements=[POINTED_AT],
        work_item="PR-17",
    )
    check_kind({"kind": "validation", **body})
    assert (body["parents"], body["measurements"], body["outcome"]) == ([POINTED_AT], [POINTED_AT], "inconclusive")


def test_names_of_people_do_not_stand_in_bodies() -> None:
    assert "owner" not in waiver_body(owner=None, reason="r", scope="s", expires_at=EXPIRES)
    subject = {"name": "model", "digest": None}
    body = approval_body(subject=subject, decision=ApprovalDecision.REJECTED, approver=None, risk="critical")
    assert "approver" not in body
    assert (body["decision"], body["risk"]) == ("rejected", "critical")


def test_a_log_points_back_to_the_one_before() -> None:
    body = log_body(event=LogEvent.BEGUN, predecessor=("example.org/2026", 3, bytes(32)))
    check_kind({"kind": "log", **body})
    assert body["predecessor"] == {"origin": "example.org/2026", "size": 3, "root": "0" * 64}
    with pytest.raises(InvalidInput, match="32 bytes"):
        log_body(event=LogEvent.BEGUN, predecessor=("example.org/2026", 3, b"short"))


def test_a_key_says_from_where_on() -> None:
    body = key_body(event=KeyEvent.REVOKED, key="example.org+00000000+AAAA", from_size=7, reason="laptop lost")
    check_kind({"kind": "key", **body})
    with pytest.raises(LedgerDamaged, match="from_size"):
        check_kind({"kind": "key", **body, "from_size": -1})


# ---- the ledger asks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(EntryKind))
def test_every_kind_is_recorded_as_it_was_said(store: Store, kind: EntryKind) -> None:
    with store.transaction() as tx:
        entry = append(tx, EntryDraft(kind=kind, request_key="k", ordinal=0, body=LEAST[kind]))
        body = read_body(tx, entry)
    assert {name: body[name] for name in LEAST[kind]} == dict(LEAST[kind])
    check_kind(body)


def test_a_body_that_does_not_say_it_is_not_recorded(store: Store) -> None:
    with store.transaction() as tx, pytest.raises(InvalidInput, match=r"waiver.*cannot be recorded.*'reason'"):
        append(tx, EntryDraft(kind=EntryKind.WAIVER, request_key="k", ordinal=0, body={"owner": "ml"}))
