"""GateOptions: text becomes values, contradictions are refused, stronger options hide weaker ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import InvalidInput
from cagg.quantities import Energy, Power
from cagg.request import (
    Capacity,
    GateOptions,
    HostProfile,
    Kind,
    OnDeny,
    Purpose,
    Request,
    RequestIdentity,
    Risk,
    check_budget_path,
)


def test_nothing_said_is_nothing_known() -> None:
    options = GateOptions()
    assert options.interruptible is False
    assert all(getattr(options, name) is None for name in GateOptions.__slots__ if name != "interruptible")
    assert options.resolved_purpose is Purpose.WORK
    assert options.resolved_risk is Risk.LIMITED


def test_text_becomes_values() -> None:
    options = GateOptions(
        zone="neso:GB",
        duration="30m",
        power="250 W",
        finish_by="2026-11-23T07:00:00+01:00",
        interruptible=True,
        resume_cost="2 Wh",
        capacity="reserved",
        budget="acme/ml/nightly",
        kind="validation",
        purpose="monitor",
        risk="high",
        work_item="PR-7",
        min_difference="5%",
        on_deny="skip",
    )
    assert options.duration == timedelta(minutes=30)
    assert options.power == Power.parse("250 W")
    assert options.finish_by == datetime(2026, 11, 23, 6, tzinfo=UTC)
    assert options.resume_cost == Energy.parse("2 Wh")
    assert (options.capacity, options.kind, options.purpose) == (Capacity.RESERVED, Kind.VALIDATION, Purpose.MONITOR)
    assert (options.risk, options.on_deny) == (Risk.HIGH, OnDeny.SKIP)
    assert options.min_difference == 0.05


def test_values_stay_as_they_are() -> None:
    given_options = GateOptions(
        duration=timedelta(hours=1), energy=Energy(millijoules=5), max_wait=timedelta(hours=2), kind=Kind.TRAINING
    )
    assert GateOptions(**{name: getattr(given_options, name) for name in GateOptions.__slots__}) == given_options


def test_a_time_of_day_is_kept_until_the_schedule_is_known() -> None:
    assert GateOptions(finish_by="06:00").finish_by == "06:00"


@pytest.mark.parametrize(("text", "value"), [("3 kJ", Energy.parse("3 kJ")), ("2 min", timedelta(minutes=2))])
def test_resume_cost_is_energy_or_time(text: str, value: object) -> None:
    assert GateOptions(resume_cost=text).resume_cost == value


BAD: list[tuple[dict[str, Any], str]] = [
    ({"zone": 5}, "zone must be text"),
    ({"budget": ["a"]}, "budget must be text"),
    ({"interruptible": "yes"}, "interruptible must be True or False"),
    ({"interruptible": None}, "interruptible must be True or False"),
    ({"duration": 30}, "duration must be text with a unit"),
    ({"duration": "30"}, "needs a number and a unit"),
    ({"duration": "0m"}, "longer than zero"),
    ({"duration": timedelta(0)}, "longer than zero"),
    ({"max_wait": 5.0}, "max_wait must be text with a unit"),
    ({"energy": 1.5}, r"energy 1\.5 has no unit"),
    ({"energy": "1.5"}, "needs a number and a unit"),
    ({"energy": "-1 kWh"}, "negative"),
    ({"energy": "nan kWh"}, "needs a number and a unit"),
    ({"power": "250 Wh"}, "unknown unit"),
    ({"energy": "1 kWh", "power": "1 kW"}, "energy and power are both given"),
    ({"finish_by": "06:00", "max_wait": "2h"}, "finish_by and max_wait are both given"),
    ({"finish_by": "2026-11-23T06:00:00"}, "no UTC offset"),
    ({"finish_by": datetime(2026, 11, 23)}, "no UTC offset"),  # noqa: DTZ001 - the point of the case
    ({"finish_by": "25:00"}, "not a date and time"),
    ({"finish_by": 6}, "must be a time of day or an instant"),
    ({"resume_cost": "3"}, "needs a number and a unit"),
    ({"kind": "party"}, "kind 'party' is unknown; use one of training, validation"),
    ({"purpose": "fun"}, "purpose 'fun' is unknown"),
    ({"risk": ""}, "risk '' is unknown"),
    ({"on_deny": "retry"}, "on_deny 'retry' is unknown; use one of fail, skip"),
    ({"capacity": 3}, "capacity 3 is unknown"),
    ({"min_difference": -0.1}, "between 0 and 1"),
    ({"min_difference": 5}, "between 0 and 1"),
    ({"min_difference": float("nan")}, "between 0 and 1"),
    ({"min_difference": True}, "between 0 and 1"),
    ({"min_difference": "nan%"}, "between 0 and 1"),
    ({"min_difference": "five"}, "must be a share"),
    ({"budget": ""}, "names joined by"),
    ({"budget": "a//b"}, "names joined by"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_refused_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        GateOptions(**options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_an_unknown_option_is_named_with_the_place() -> None:
    with pytest.raises(InvalidInput, match=r"^cagg\.toml: unknown option 'finishby'; known are .*finish_by"):
        GateOptions.from_mapping({"finishby": "06:00"}, "cagg.toml")
    assert GateOptions.from_mapping({"zone": "GB"}) == GateOptions(zone="GB")


def test_what_is_said_wins_and_the_rest_is_inherited() -> None:
    weaker = GateOptions(zone="GB", duration="1h", risk="high", min_difference=0.2)
    merged = GateOptions(zone="neso:GB", min_difference=0.0).over(weaker)
    assert merged == GateOptions(zone="neso:GB", duration="1h", risk="high", min_difference=0.0)


def test_one_question_is_answered_once() -> None:
    assert GateOptions(power="1 kW").over(GateOptions(energy="1 kWh")) == GateOptions(power="1 kW")
    assert GateOptions(energy="1 kWh").over(GateOptions(power="1 kW")) == GateOptions(energy="1 kWh")
    assert GateOptions(max_wait="2h").over(GateOptions(finish_by="06:00")) == GateOptions(max_wait="2h")
    assert GateOptions(finish_by="06:00").over(GateOptions(max_wait="2h")) == GateOptions(finish_by="06:00")


def _sometimes(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


OPTIONS = st.builds(
    GateOptions,
    zone=_sometimes(st.sampled_from(["GB", "DE"])),
    duration=_sometimes(st.sampled_from(["30m", "1h"])),
    energy=_sometimes(st.just("1 kWh")),
    finish_by=_sometimes(st.sampled_from(["06:00", "07:00"])),
    interruptible=st.booleans(),
    budget=_sometimes(st.just("a/b")),
    min_difference=_sometimes(st.sampled_from([0.0, 0.1])),
    risk=_sometimes(st.sampled_from(list(Risk))),
) | st.builds(GateOptions, power=_sometimes(st.just("1 kW")), max_wait=_sometimes(st.just("2h")))


@given(OPTIONS)
def test_merging_with_nothing_changes_nothing(options: GateOptions) -> None:
    assert options.over(GateOptions()) == options
    assert GateOptions().over(options) == options
    assert options.over(options) == options


@given(OPTIONS, OPTIONS, OPTIONS)
def test_merging_does_not_depend_on_the_order_of_brackets(a: GateOptions, b: GateOptions, c: GateOptions) -> None:
    assert a.over(b).over(c) == a.over(b.over(c))


@pytest.mark.parametrize(
    ("kind", "purpose", "expected"),
    [
        ("validation", None, Purpose.RELEASE),
        ("training", None, Purpose.WORK),
        (None, None, Purpose.WORK),
        ("validation", "monitor", Purpose.MONITOR),
        ("training", "release", Purpose.RELEASE),
    ],
)
def test_the_default_purpose(kind: str | None, purpose: str | None, expected: Purpose) -> None:
    assert GateOptions(kind=kind, purpose=purpose).resolved_purpose is expected


@pytest.mark.parametrize("path", ["acme", "acme/ml/nightly", "a b/c", "équipe/ml", "/".join("a" * 16)])
def test_budget_paths(path: str) -> None:
    assert check_budget_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a", "a/", "a//b", " a", "a /b", "a/./b", "../a", "a\nb/c", "a/\x00", "/".join("a" * 17), "a" * 513],
)
def test_bad_budget_paths(path: str) -> None:
    with pytest.raises(InvalidInput):
        check_budget_path(path)


IDENTITIES = st.builds(
    RequestIdentity,
    host=st.text(min_size=1, max_size=5),
    root_run_id=st.text(min_size=1, max_size=5),
    task_key=st.text(min_size=1, max_size=5),
    ordinal=st.integers(0, 3),
    inputs_digest=st.text(max_size=3),
    attempt=st.integers(1, 3),
    incarnation=st.integers(0, 2),
)


@given(IDENTITIES, IDENTITIES)
def test_two_requests_share_a_key_only_if_they_are_the_same(one: RequestIdentity, other: RequestIdentity) -> None:
    assert (one.key == other.key) == (one == other)


def test_fields_cannot_run_into_each_other() -> None:
    one = RequestIdentity(host="ab", root_run_id="c", task_key="d")
    other = RequestIdentity(host="a", root_run_id="bc", task_key="d")
    assert one.key != other.key


def test_an_attempt_is_new_and_its_series_is_not() -> None:
    first = RequestIdentity(host="prefect", root_run_id="r", task_key="t")
    second = RequestIdentity(host="prefect", root_run_id="r", task_key="t", attempt=2)
    assert first.key != second.key
    assert first.series_key == second.series_key
    assert len(first.key) == 64


def test_keys_are_the_same_for_ever() -> None:
    identity = RequestIdentity(host="prefect", root_run_id="run-1", task_key="flow/task", ordinal=2, attempt=3)
    series = sha256(b'["cagg/series/1","prefect","run-1","flow/task",2,""]').hexdigest()
    assert identity.series_key == series == "5102715c02491e9232f2522c7969ca55c38e211375a6d7335430d8d99ba1dae3"
    assert identity.key == sha256(f'["cagg/request/1","{series}",3,0]'.encode()).hexdigest()


@pytest.mark.parametrize(
    "wrong", [{"host": ""}, {"root_run_id": ""}, {"task_key": ""}, {"ordinal": -1}, {"attempt": 0}]
)
def test_an_identity_is_complete(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        RequestIdentity(**({"host": "h", "root_run_id": "r", "task_key": "t"} | wrong))


def test_a_scheduled_start_needs_an_offset() -> None:
    identity = RequestIdentity(host="h", root_run_id="r", task_key="t")
    with pytest.raises(InvalidInput, match="scheduled_start"):
        Request(
            identity=identity,
            options=GateOptions(),
            host=HostProfile(name="h"),
            scheduled_start=datetime(2026, 1, 1),  # noqa: DTZ001 - the point of the test
        )
