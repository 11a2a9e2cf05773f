"""Energy, carbon, slack and difference of known histories, against figures done by hand and by brute force."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.assessment.history import SLOT_MS, FoldedHistory, FoldedRun
from cagg.assessment.judging import assess
from cagg.assessment.power import PowerAssumption, PowerRange
from cagg.assessment.shifting import best_difference, slacks
from cagg.errors import InvalidInput
from cagg.pastruns import PastPipeline, PastRun, RunOutcome, RunTrigger
from cagg.quantities import Energy, Power
from cagg.windows import Window

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
Fold = Callable[..., FoldedHistory]
Build = Callable[..., PastRun]
Any_ = Callable[..., Any]


def at(hour: float, day: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour)


def only(history: FoldedHistory, assumptions: Any, **more: Any) -> Any:
    return assess(history, [PastPipeline(name="nightly", schedule="0 20 * * *")], assumptions, host="test", **more)


# ---- energy -------------------------------------------------------------------------------------------------------


def test_energy_is_power_times_time_at_both_ends(fold: Fold, build: Build, assume: Any_) -> None:
    found = only(fold(build(at(20), 90)), assume()).pipelines[0]
    assert (found.energy.low, found.energy.high) == (Energy.parse("1.5 kWh"), Energy.parse("3 kWh"))
    assert found.busy == timedelta(minutes=90)
    assert (found.runs, found.attempts, found.failed_attempts) == (1, 1, 0)


def test_tasks_of_one_run_are_one_run(fold: Fold, build: Build, assume: Any_) -> None:
    runs = [build(at(20), 60, run_id="r", task=f"t{n}") for n in range(3)]
    found = only(fold(*runs), assume()).pipelines[0]
    assert (found.runs, found.attempts) == (1, 3)
    assert found.energy.low == Energy.parse("3 kWh")


def test_what_did_not_run_or_has_not_ended_uses_nothing(fold: Fold, build: Build, assume: Any_) -> None:
    runs = [
        build(at(1), 0, started_at=None, ended_at=None, outcome=RunOutcome.SKIPPED),
        build(at(2), 0, ended_at=None, outcome=RunOutcome.RUNNING),
        build(at(3), 60),
    ]
    found = only(fold(*runs), assume())
    assert found.totals.attempts == 1
    assert found.notes[0] == "1 attempt goes on and did not count"


def test_only_what_lies_in_the_window_counts(fold: Fold, build: Build, assume: Any_) -> None:
    long = build(at(-1), 120)
    endless = build(at(167), 60 * 24 * 365, run_id="stuck")
    found = only(fold(long, endless), assume()).pipelines[0]
    assert found.busy == timedelta(hours=2)
    outside = build(at(200), 10)
    assert fold(outside).names == ()


def test_failed_attempts_are_wasted_and_still_counted(fold: Fold, build: Build, assume: Any_) -> None:
    runs = [
        build(at(20), 30, run_id="r", outcome=RunOutcome.RETRIED),
        build(at(21), 30, run_id="r", outcome=RunOutcome.SUCCEEDED, attempt=2),
        build(at(22), 30, run_id="r", outcome=RunOutcome.FAILED, task="other"),
    ]
    found = only(fold(*runs), assume()).pipelines[0]
    assert found.wasted.low == Energy.parse("1 kWh")
    assert found.energy.low == Energy.parse("1.5 kWh")
    assert found.failed_attempts == 2


def test_processors_asked_for_replace_the_default_unless_a_power_was_stated(build: Build) -> None:
    run = build(at(1), 60, cpu_thousandths=2_000, memory_bytes=4_000_000_000)
    assumed = PowerAssumption.from_settings(Power.parse("100 W"))
    # 2 x 0.74 W + 4 x 0.392 W, and 2 x 3.5 W + 4 x 0.392 W
    assert assumed.of(run) == (1_480 + 1_568, 7_000 + 1_568)
    assert assumed.of(build(at(1), 60)) == (10_000, 100_000)
    stated = PowerAssumption(default=PowerRange.parse("20..40 W"), stated=True)
    assert stated.of(run) == (20_000, 40_000)


def test_a_sensor_is_taken_to_use_next_to_nothing(build: Build, fold: Fold, assume: Any_) -> None:
    found = only(fold(build(at(1), 60, waits=True)), assume()).pipelines[0]
    assert (found.energy.low, found.energy.high) == (Energy.ZERO, Energy.parse("1 kWh"))
    assert any("100 % of its time" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("20 W..100 W", 20_000, 100_000), ("20..100 W", 20_000, 100_000), ("0.5 kW", 500_000, 500_000)],
)
def test_power_ranges_are_read(text: str, low: int, high: int) -> None:
    found = PowerRange.parse(text)
    assert (found.low.milliwatts, found.high.milliwatts) == (low, high)


@pytest.mark.parametrize("text", ["", "20", "100 W..20 W", "20 W..", "..20 W", "-1 W..2 W", "1..2", "a lot"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        PowerRange.parse(text)


@given(st.lists(st.tuples(st.integers(0, 7 * 86_400_000 - 1), st.integers(0, 86_400_000)), max_size=8))
def test_slots_add_up_to_power_times_time(stretches: list[tuple[int, int]]) -> None:
    window = Window(start=MONDAY, end=MONDAY + timedelta(days=7))
    history = FoldedHistory(window=window, power=PowerAssumption(default=PowerRange.parse("3 W..7 W"), stated=True))
    total_ms = 0
    for start_ms, length_ms in stretches:
        started = MONDAY + timedelta(milliseconds=start_ms)
        ended = started + timedelta(milliseconds=length_ms)
        history.add(PastRun(pipeline="p", run_id="r", outcome=RunOutcome.SUCCEEDED, started_at=started, ended_at=ended))
        total_ms += min(start_ms + length_ms, 7 * 86_400_000) - start_ms
    energies = [run for name in history.names for run in history.runs(name)]
    assert sum(sum(run.low.values()) for run in energies) == 3_000 * total_ms
    assert sum(sum(run.high.values()) for run in energies) == 7_000 * total_ms


def test_what_is_kept_grows_with_runs_and_hours_not_with_tasks(fold: Fold, build: Build) -> None:
    tasks = [build(at(20, day), 60, run_id=str(day), task=f"t{n}") for day in range(2) for n in range(200)]
    history = fold(*tasks)
    assert sum(len(run.low) for run in history.runs("nightly")) == 4


# ---- carbon -------------------------------------------------------------------------------------------------------


def test_carbon_is_priced_half_hour_by_half_hour(fold: Fold, build: Build, assume: Any_) -> None:
    found = only(fold(build(at(5.5), 60)), assume()).pipelines[0]  # 0.5 kWh at 100, 0.5 kWh at 300 g/kWh
    assert found.carbon is not None
    assert (found.carbon.low.micrograms, found.carbon.high.micrograms) == (200_000_000, 400_000_000)


def test_pue_is_applied_to_carbon_only(fold: Fold, build: Build, assume: Any_) -> None:
    found = only(fold(build(at(1), 60)), assume(pue_ppm=1_500_000)).pipelines[0]
    assert found.carbon.low.micrograms == 150_000_000
    assert found.energy.low == Energy.parse("1 kWh")


def test_an_unknown_zone_gives_null_with_the_reason(fold: Fold, build: Build, assume: Any_) -> None:
    unknown = assume(zone=None, actual=None, actual_reason="no zone", typical=None, typical_reason="no zone either")
    found = only(fold(build(at(20), 60)), unknown)
    item = found.pipelines[0]
    assert (item.carbon, item.carbon_reason) == (None, "no zone")
    assert (item.difference, item.difference_reason) == (None, "no zone either")
    assert found.totals.carbon is None
    assert item.deferrable.high.millijoules > 0  # energy needs no zone


def test_few_unknown_hours_widen_the_range_and_many_make_it_unknown(
    fold: Fold, build: Build, assume: Any_, emitted: Any_
) -> None:
    holes = emitted(lambda moment: None if moment == at(9.5) else 100 if moment.hour < 6 else 300)
    wide = only(fold(build(at(0), 600)), assume(actual=holes)).pipelines[0]  # a twentieth is unknown
    assert wide.carbon.low.micrograms == round((6 * 100 + 3.5 * 300 + 0.5 * 100) * 1e6)
    assert wide.carbon.high.micrograms == round(2 * (6 * 100 + 3.5 * 300 + 0.5 * 300) * 1e6)
    narrow = only(fold(build(at(9), 60)), assume(actual=holes)).pipelines[0]
    assert narrow.carbon is None
    assert narrow.carbon_reason == "the intensity is known for only 50 % of the energy"


# ---- what could have moved ----------------------------------------------------------------------------------------


def test_the_difference_is_the_best_half_hour_within_the_slack(fold: Fold, build: Build, assume: Any_) -> None:
    runs = [build(at(20, day), 60) for day in range(3)]
    found = only(fold(*runs), assume()).pipelines[0]
    # each at 00:00, four hours later, for 100 instead of 300 g/kWh
    assert (found.difference.low.micrograms, found.difference.high.micrograms) == (600_000_000, 1_200_000_000)
    assert (found.deferrable_share.low_ppm, found.deferrable_share.high_ppm) == (1_000_000, 1_000_000)
    assert found.slack == timedelta(hours=8)


def test_a_wait_too_short_changes_nothing(fold: Fold, build: Build, assume: Any_) -> None:
    runs = [build(at(20, day), 60) for day in range(3)]
    found = only(fold(*runs), assume(max_wait=timedelta(hours=2))).pipelines[0]
    assert found.difference.high.micrograms == 0
    assert found.deferrable.low == Energy.parse("3 kWh")


def test_the_next_scheduled_run_bounds_the_slack(fold: Fold, build: Build, assume: Any_) -> None:
    runs = [build(at(hour), 50) for hour in range(20, 24)]
    found = only(fold(*runs), assume()).pipelines[0]
    assert found.slack == timedelta(minutes=10)
    assert found.deferrable.high == Energy.ZERO
    assert found.deferrable_share.high_ppm == 0


@pytest.mark.parametrize("trigger", [item for item in RunTrigger if item is not RunTrigger.SCHEDULED])
def test_only_scheduled_runs_are_deferrable(fold: Fold, build: Build, assume: Any_, trigger: RunTrigger) -> None:
    found = only(fold(build(at(20), 60, trigger=trigger)), assume()).pipelines[0]
    assert (found.deferrable.high, found.slack, found.scheduled_runs) == (Energy.ZERO, None, 0)


def test_immaterial_runs_are_not_deferrable_and_the_range_tells_between(fold: Fold, build: Build, assume: Any_) -> None:
    run = build(at(20), 60)
    between = only(fold(run, power="4 W..6 W"), assume()).pipelines[0]
    assert (between.deferrable.low, between.deferrable.high) == (Energy.ZERO, Energy.parse("6 Wh"))
    assert (between.deferrable_share.low_ppm, between.deferrable_share.high_ppm) == (0, 1_000_000)
    below = only(fold(run, power="4 W"), assume()).pipelines[0]
    assert below.deferrable.high == Energy.ZERO


def test_a_single_scheduled_run_says_that_only_the_wait_bounds_it(fold: Fold, build: Build, assume: Any_) -> None:
    found = only(fold(build(at(20), 60)), assume()).pipelines[0]
    assert any("only the longest wait bounds its slack" in note for note in found.notes)


def folded(first_ms: int, last_ms: int, scheduled_ms: int) -> FoldedRun:
    return FoldedRun(trigger=RunTrigger.SCHEDULED, scheduled_ms=scheduled_ms, first_ms=first_ms, last_ms=last_ms)


def test_a_run_that_outlasts_its_period_has_no_slack() -> None:
    found = slacks([folded(0, 90, 0), folded(60, 70, 60)], 1_000)
    assert [item.milliseconds for item in found] == [0, 50]


@given(
    st.dictionaries(st.integers(0, 5), st.integers(0, 9), min_size=1),
    st.lists(st.one_of(st.none(), st.integers(0, 500)), min_size=6, max_size=20),
    st.integers(0, 10),
)
def test_the_best_move_is_that_of_brute_force(energy: dict[int, int], grid: list[int | None], moves: int) -> None:
    known = {slot: value for slot, value in enumerate(grid) if value is not None}
    found = best_difference(energy, known, moves * SLOT_MS + 1)
    costs = [
        (move, sum(amount * known[slot + move] for slot, amount in energy.items()))
        for move in range(moves + 1)
        if all(slot + move in known for slot in energy)
    ]
    if not costs or costs[0][0] != 0:
        assert found is None
    else:
        assert found == costs[0][1] - min(cost for _, cost in costs)
        assert found >= 0


# ---- all pipelines ------------------------------------------------------------------------------------------------


def test_the_few_that_matter_are_the_fewest_that_reach_four_fifths(fold: Fold, build: Build, assume: Any_) -> None:
    minutes = {"a": 500, "b": 300, "c": 120, "d": 50, "e": 30}
    runs = [build(at(1), length, pipeline=name, run_id=name) for name, length in minutes.items()]
    found = only(fold(*runs), assume())
    assert [item.name for item in found.pipelines] == ["a", "b", "c", "d", "e"]
    assert [item.name for item in found.few] == ["a", "b"]
    assert all("no longer knows" in item.notes[0] for item in found.pipelines)


def test_what_to_gate_first_is_what_would_change_most(fold: Fold, build: Build, assume: Any_) -> None:
    runs = [build(at(20, day), 60, pipeline="evening", run_id=f"e{day}") for day in range(4)]
    runs += [build(at(0, day), 90, pipeline="midnight", run_id=f"m{day}") for day in range(4)]
    runs += [build(at(12, day), 60, pipeline="by hand", run_id=f"h{day}", trigger=RunTrigger.MANUAL) for day in (1, 2)]
    found = only(fold(*runs), assume())
    assert [item.name for item in found.first] == ["evening", "midnight"]


def test_totals_are_sums(fold: Fold, build: Build, assume: Any_) -> None:
    runs = [build(at(20, day), 60, pipeline=f"p{day}", run_id=str(day)) for day in range(4)]
    found = only(fold(*runs), assume(), notes=["a note"])
    assert found.totals.energy.low == Energy.parse("4 kWh")
    assert found.totals.carbon.low.micrograms == sum(item.carbon.low.micrograms for item in found.pipelines)
    assert found.totals.difference.high.micrograms == sum(item.difference.high.micrograms for item in found.pipelines)
    assert found.notes[0] == "a note"


def test_an_empty_history_has_no_share(fold: Fold, assume: Any_) -> None:
    found = only(fold(), assume())
    assert (found.pipelines, found.totals.attempts, found.totals.deferrable_share) == ((), 0, None)
