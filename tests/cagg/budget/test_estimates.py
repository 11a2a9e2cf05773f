"""Upper bounds of energy and duration: conformal where there is enough history, labelled where there is not."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.budget.estimates import Estimate, EstimateMethod, estimate
from cagg.errors import InvalidInput
from cagg.ports import HistoryPoint
from cagg.quantities import Energy, Power

WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def point(energy: int | None, duration_ms: int = 60_000, *, completed: bool = True) -> HistoryPoint:
    return HistoryPoint(energy_millijoules=energy, duration_ms=duration_ms, completed=completed, started_at=WHEN)


def guess(history: list[HistoryPoint], **said: Any) -> Estimate:
    settings: dict[str, Any] = {
        "default_duration": timedelta(minutes=30),
        "default_power": Power(milliwatts=100_000),
    }
    return estimate(history, **{**settings, **said})


def test_nineteen_runs_give_the_conformal_bound() -> None:
    found = guess([point(energy) for energy in range(1, 20)])
    assert (found.method, found.sample_size) == (EstimateMethod.HISTORY, 19)
    assert found.upper_energy.millijoules == 19, "ceil(20 x 0.95) = 19: the largest"
    assert found.expected_energy.millijoules == 10


@pytest.mark.parametrize(("count", "rank"), [(19, 19), (39, 38), (59, 57), (99, 95), (100, 96), (199, 190), (200, 191)])
def test_the_rank_is_exact_where_binary_fractions_are_not(count: int, rank: int) -> None:
    runs = [point(energy) for energy in range(1, count + 1)]
    random.Random(1).shuffle(runs)
    assert guess(runs).upper_energy.millijoules == rank


def test_the_bound_covers_what_it_says() -> None:
    draw = random.Random(7)
    within = 0
    for _ in range(1_000):
        runs = [point(round(draw.lognormvariate(10, 1)) + 1) for _ in range(41)]
        within += (runs[0].energy_millijoules or 0) <= guess(runs[1:]).upper_energy.millijoules
    assert 935 <= within <= 990, "rank 39 of 40: 39/41 = 95.1 % in the mean"


def test_a_short_history_is_widened_and_never_below_what_was_declared() -> None:
    runs = [point(100), point(300), point(200)]
    found = guess(runs)
    assert (found.method, found.sample_size) == (EstimateMethod.SHORT_HISTORY, 3)
    assert (found.expected_energy.millijoules, found.upper_energy.millijoules) == (200, 450)
    assert "150 %" in found.note
    assert guess(runs, declared_energy=Energy(millijoules=1_000)).upper_energy.millijoules == 1_250
    assert guess([point(1)] * 18).method is EstimateMethod.SHORT_HISTORY


def test_declared_amounts_are_expected_and_widened() -> None:
    found = guess([], declared_energy=Energy.parse("1 kWh"), declared_duration=timedelta(hours=1))
    assert (found.method, found.duration_method) == (EstimateMethod.DECLARED, EstimateMethod.DECLARED)
    assert found.expected_energy == Energy.parse("1 kWh")
    assert found.upper_energy == Energy.parse("1.25 kWh")
    assert (found.expected_duration, found.upper_duration) == (timedelta(hours=1), timedelta(minutes=75))
    assert found.sample_size == 0


def test_declared_power_is_multiplied_by_the_duration_and_widened_once() -> None:
    found = guess([], declared_power=Power.parse("200 W"), declared_duration=timedelta(hours=1))
    assert (found.expected_energy, found.upper_energy) == (Energy.parse("200 Wh"), Energy.parse("250 Wh"))
    learned = guess([point(None, 3_600_000)] * 19, declared_power=Power.parse("200 W"))
    assert learned.expected_energy == Energy.parse("200 Wh")
    assert (learned.method, learned.duration_method) == (EstimateMethod.DECLARED, EstimateMethod.HISTORY)
    assert "19 runs have no measured energy" in learned.note


def test_a_cold_start_says_so_and_is_never_zero() -> None:
    found = guess([])
    assert found.method is EstimateMethod.DEFAULT
    assert "cold start" in found.note
    assert found.expected_energy == Energy.parse("50 Wh")
    assert found.upper_energy == Energy.parse("100 Wh")
    assert found.upper_duration == timedelta(hours=1)
    named = guess([], default_energy=Energy.parse("10 Wh"))
    assert (named.expected_energy, named.upper_energy) == (Energy.parse("10 Wh"), Energy.parse("20 Wh"))
    nothing = guess([], declared_energy=Energy.ZERO, default_power=Power(milliwatts=0))
    assert nothing.expected_energy.millijoules == 1
    assert nothing.upper_energy.millijoules >= 1


def test_one_or_two_runs_only_raise_the_bound() -> None:
    found = guess([point(10**9)], declared_energy=Energy(millijoules=100))
    assert found.method is EstimateMethod.DECLARED
    assert found.expected_energy.millijoules == 100
    assert found.upper_energy.millijoules == 10**9


def test_runs_that_broke_off_never_lower_the_bound() -> None:
    whole = [point(energy) for energy in range(81, 101)]
    broken = [point(1, completed=False)] * 20
    found = guess(whole + broken)
    assert found.upper_energy.millijoules == 100
    assert found.expected_energy.millijoules == 91, "short broken runs are not in the mean"
    assert "20 of them broken off" in found.note
    longer = guess([*whole, *[point(500, completed=False)] * 20])
    assert longer.upper_energy.millijoules == 500
    only_broken = guess([point(40, completed=False)] * 30)
    assert only_broken.method is EstimateMethod.SHORT_HISTORY
    assert only_broken.upper_energy.millijoules == 60


@given(
    runs=st.lists(
        st.builds(point, st.none() | st.integers(0, 2**63 - 1), st.integers(0, 10**9), completed=st.booleans()),
        max_size=60,
    ),
    declared=st.none() | st.integers(0, 2**63 - 1),
    watts=st.none() | st.integers(0, 10**9),
)
def test_every_estimate_is_positive_ordered_and_independent_of_the_order_of_runs(
    runs: list[HistoryPoint], declared: int | None, watts: int | None
) -> None:
    said: dict[str, Any] = {
        "declared_energy": None if declared is None else Energy(millijoules=declared),
        "declared_power": None if watts is None else Power(milliwatts=watts),
    }
    found = guess(runs, **said)
    assert 0 < found.expected_energy.millijoules <= found.upper_energy.millijoules
    assert timedelta(0) < found.expected_duration <= found.upper_duration
    assert guess(runs[::-1], **said) == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"coverage": 0.0},
        {"coverage": 1.0},
        {"coverage": float("nan")},
        {"coverage": True},
        {"declared_duration": timedelta(0)},
        {"declared_duration": timedelta(seconds=-1)},
        {"default_duration": timedelta(0)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        guess([], **wrong)


@pytest.mark.parametrize("runs", [[point(-1)], [point(1, -1)], [point(True)]])
def test_a_damaged_history_is_refused(runs: list[HistoryPoint]) -> None:
    with pytest.raises(InvalidInput, match="past run"):
        guess(runs)
