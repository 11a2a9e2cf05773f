"""Measurements: exact carbon, closed books, nothing secret, nothing named by a doubtful unit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.bodies import (
    carbon_of_slices,
    check_measurement,
    clean_text,
    measurement_body,
    named,
    request_body,
)
from cagg.ledger.encoding import canonical, decode
from cagg.provenance import Basis, Convention, Gas, Grade, Signal
from cagg.quantities import CarbonIntensity, Energy
from cagg.records import Component, Reading, ReadingSlice
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.windows import Window

START = datetime(2026, 1, 5, 22, tzinfo=UTC)
CONVENTION = Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2)
Priced = tuple[Window, Energy, CarbonIntensity | None, str]


def window(number: int) -> Window:
    start = START + timedelta(minutes=30 * number)
    return Window(start=start, end=start + timedelta(minutes=30))


def energy(millijoules: int) -> Energy:
    return Energy(millijoules=millijoules)


def reading(*amounts: int | None) -> Reading:
    """A reading with these slices; one None instead of slices = unknown."""
    known = [amount for amount in amounts if amount is not None]
    total = energy(sum(known)) if len(known) == len(amounts) else None
    component = Component(
        domain="cpu", source="cpu_model", method="share of time", grade=Grade.C, energy=total, dynamic=total,
        idle=None, low=total, high=total, share_ppm=500_000,
    )  # fmt: skip
    return Reading(
        window=Window(start=START, end=window(max(0, len(amounts) - 1)).end),
        energy=total, low=total, high=total, grade=Grade.C if total else None, components=(component,),
        slices=tuple(ReadingSlice(window=window(i), energy=energy(a)) for i, a in enumerate(known)) if total else (),
        host_total=total, other=Energy.ZERO, unowned_idle=Energy.ZERO, siblings=Energy.ZERO,
        cpu_milliseconds=5, gpu_milliseconds=None, reason="" if total else "no meter here",
        hardware={"Model Name": "x"},
    )  # fmt: skip


def body_of(found: Reading, priced: Sequence[Priced], **changed: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "request": {"task_key": "t"}, "reading": found, "priced": priced, "convention": CONVENTION, "pue_ppm": None,
        "outcome": "completed", "part_of": None, "carbon_reason": "", "extra": {}, **changed,
    }  # fmt: skip
    return measurement_body(**arguments)


def priced_of(*pairs: tuple[int, int | None]) -> list[Priced]:
    return [
        (window(i), energy(amount), None if mg is None else CarbonIntensity(milligrams_per_kwh=mg), "trace")
        for i, (amount, mg) in enumerate(pairs)
    ]


# ---- arithmetic -----------------------------------------------------------------------------------------------------


def test_one_kilowatt_hour_at_one_gram() -> None:
    assert body_of(reading(3_600_000_000), priced_of((3_600_000_000, 1_000)))["carbon_micrograms"] == "1000000"


def test_the_sum_is_rounded_up_once() -> None:
    pairs = [(1, 1), (1, 1), (1, 1)]  # each a tiny fraction of a microgram
    assert body_of(reading(1, 1, 1), priced_of(*pairs))["carbon_micrograms"] == "1"


amounts = st.tuples(st.integers(0, 10**13), st.integers(0, 2_000_000))


@given(st.lists(amounts, min_size=1, max_size=6), st.none() | st.integers(1_000_000, 3_000_000))
def test_carbon_is_the_exact_sum_rounded_up(pairs: list[tuple[int, int]], pue: int | None) -> None:
    exact = sum((Fraction(mj * mg, 3_600_000) for mj, mg in pairs), Fraction(0)) * Fraction(pue or 1_000_000, 10**6)
    body = body_of(reading(*(mj for mj, _ in pairs)), priced_of(*pairs), pue_ppm=pue)
    assert int(body["carbon_micrograms"]) == -(-exact.numerator // exact.denominator)
    assert body["carbon_reason"] == ""
    check_measurement(decode(canonical(body)))


def test_one_slice_without_an_intensity_makes_the_carbon_null_with_the_reason() -> None:
    body = body_of(reading(5, 5), priced_of((5, 100), (5, None)), carbon_reason="no data for zone X")
    assert body["carbon_micrograms"] is None
    assert body["carbon_reason"] == "no data for zone X"
    assert body["slices"][1]["intensity_milligrams_per_kwh"] is None
    assert body_of(reading(5), priced_of((5, None)))["carbon_reason"] != ""
    check_measurement(body)


def test_unknown_energy_is_null_with_its_reason() -> None:
    body = body_of(reading(None), [])
    assert (body["energy_millijoules"], body["carbon_micrograms"], body["grade"]) == (None, None, None)
    assert body["energy_reason"] == body["carbon_reason"] == "no meter here"
    check_measurement(body)


def test_no_energy_is_no_carbon() -> None:
    assert body_of(reading(0), priced_of((0, 100)))["carbon_micrograms"] == "0"


@pytest.mark.parametrize(
    ("found", "priced"),
    [
        (reading(5, 5), priced_of((5, 1))),
        (reading(5), priced_of((4, 1))),
        (reading(None), priced_of((4, 1))),
        (reading(5, 5), list(reversed(priced_of((5, 1), (5, 1))))),
        (reading(10), [*priced_of((5, 1)), *priced_of((5, 1))]),
    ],
)
def test_slices_that_do_not_close_the_books_are_refused(found: Reading, priced: list[Priced]) -> None:
    with pytest.raises(InvalidInput):
        body_of(found, priced)


@pytest.mark.parametrize("pue", [999_999, 0, -1, True])
def test_a_pue_below_one_is_refused(pue: int) -> None:
    with pytest.raises(InvalidInput, match="effectiveness"):
        body_of(reading(5), priced_of((5, 1)), pue_ppm=pue)


def test_further_fields_are_added_but_never_replace() -> None:
    assert body_of(reading(5), priced_of((5, 1)), extra={"zone": "neso:GB"})["zone"] == "neso:GB"
    with pytest.raises(InvalidInput, match="outcome"):
        body_of(reading(5), priced_of((5, 1)), extra={"outcome": "x"})


# ---- repeating the arithmetic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"carbon_micrograms": "2"}, "slices give '3'"),
        ({"carbon_micrograms": None}, "slices give '3'"),
        ({"energy_millijoules": "11"}, "add up to 10"),
        ({"energy_millijoules": None}, "carbon_micrograms"),
        ({"pue_ppm": 10**15}, "carbon_micrograms"),
        ({"pue_ppm": "1"}, "pue_ppm"),
        ({"slices": {}}, "no list"),
        ({"slices": [1]}, "no object"),
        ({"slices": [{}]}, "decimal text"),
    ],
)
def test_a_figure_that_does_not_follow_is_found(change: dict[str, Any], says: str) -> None:
    body = body_of(reading(5, 5), priced_of((5, 10**6), (5, 10**6)))
    with pytest.raises(LedgerDamaged, match=says):
        check_measurement({**body, **change})


def test_overlapping_slices_are_found() -> None:
    body = body_of(reading(5, 5), priced_of((5, 1), (5, 1)))
    body["slices"][1] = {**body["slices"][1], "start": body["slices"][0]["start"]}
    with pytest.raises(LedgerDamaged, match="overlap"):
        check_measurement(body)


def test_no_slices_carry_no_carbon() -> None:
    assert carbon_of_slices([], None) == 0


# ---- what stands in it ----------------------------------------------------------------------------------------------


def test_names_say_their_unit_in_full() -> None:
    def names(value: Any) -> set[str]:
        if isinstance(value, dict):
            return {*value, *(name for item in value.values() for name in names(item))}
        return {name for item in value for name in names(item)} if isinstance(value, list) else set()

    parts = {part for name in names(body_of(reading(5), priced_of((5, 1)))) for part in name.split("_")}
    assert parts.isdisjoint({"mj", "mw", "mwh", "ug", "kg", "ms"})


def test_a_request_is_recorded_with_identity_and_labels_in_the_profile() -> None:
    request = Request(
        identity=RequestIdentity(host="prefect", root_run_id="r", task_key="t", attempt=2),
        options=GateOptions(zone="neso:GB", budget="acme/ml", kind="validation", work_item="ISSUE-7"),
        host=HostProfile(name="prefect"),
        scheduled_start=START,
        labels={"Flow-Name": "nightly", "a": "é\udcff"},
        code={"commit": "abc"},
    )
    body = decode(canonical(request_body(request)))
    assert body["key"] == request.identity.key
    assert (body["host"], body["root_run_id"], body["attempt"]) == ("prefect", "r", 2)
    assert (body["budget_path"], body["purpose"], body["risk"]) == ("acme/ml", "release", "limited")
    assert body["labels"] == [{"name": "Flow-Name", "value": "nightly"}, {"name": "a", "value": "é\ufffd"}]
    assert body["task_key"] == "t"
    assert body["scheduled_start"] == "2026-01-05T22:00:00.000000Z"


@given(st.text())
def test_cleaned_text_is_text_and_good_text_stays(text: str) -> None:
    clean_text(text).encode()
    assert clean_text(clean_text(text)) == clean_text(text)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert clean_text(text) == text


def test_mappings_with_free_keys_become_lists_by_name() -> None:
    assert named({"b": "2", "A-x": "1"}) == [{"name": "A-x", "value": "1"}, {"name": "b", "value": "2"}]
