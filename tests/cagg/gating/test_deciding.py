"""The pure middle: proposals and verdicts from integers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.deciding import Question, conclude, propose, without_reviewer
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.provenance import Basis, Convention, Gas, IntensityKind, Signal
from cagg.quantities import CarbonIntensity, Unit
from cagg.records import Allotment, Budget, BudgetMode, Headroom, Period
from cagg.request import Purpose
from cagg.settings import Mode
from cagg.verdict import Admit, Defer, Deny, Reason, Review
from cagg.windows import Window, to_epoch_ms

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
HOUR = 3_600_000
MINUTE = 60_000


def series_of(
    *g_per_kwh: float | None, kind: IntensityKind = IntensityKind.FORECAST, minutes: int = 60
) -> IntensitySeries:
    points = []
    for number, value in enumerate(g_per_kwh):
        start = NOW + timedelta(minutes=minutes * number)
        intensity = None if value is None else CarbonIntensity.from_g_per_kwh(value)
        points.append(
            IntensityPoint(window=Window(start=start, end=start + timedelta(minutes=minutes)), intensity=intensity)
        )
    return IntensitySeries(
        zone=Zone(provider="trace", code="GB"),
        points=tuple(points),
        convention=Convention(signal=Signal.AVERAGE, basis=Basis.DIRECT, gas=Gas.CO2),
        kind=kind,
        source="trace",
        issued_at=NOW,
        fetched_at=NOW,
        licence="CC-BY-4.0",
    )


QUESTION = Question(
    now_ms=to_epoch_ms(NOW),
    deadline_ms=to_epoch_ms(NOW) + 8 * HOUR,
    expected_energy_millijoules=2 * 3_600_000_000,
    upper_energy_millijoules=2 * 3_600_000_000,
    expected_duration_ms=HOUR,
    upper_duration_ms=HOUR,
    wake_margin_ms=0,
    shortest_wait_ms=0,
    min_difference_ppm=50_000,
    materiality_millijoules=18_000_000,
    attempt=1,
    deferrals=0,
    max_deferrals=6,
    can_defer=True,
    inside_outer=False,
    zone_known=True,
    mode=Mode.ENFORCE,
    purpose=Purpose.WORK,
    budget_path=None,
    budget_known=True,
)
NIGHT = series_of(300, 250, 200, 100, 100, 200, 300, 400)


def headroom(available: int, asked: int | None, mode: BudgetMode = BudgetMode.ENFORCE) -> Headroom:
    budget = Budget(path="acme/ml", unit=Unit.CARBON, period=Period.DAY, time_zone="UTC", limit=10**9, mode=mode)
    day = Window(start=NOW.replace(hour=0), end=NOW.replace(hour=0) + timedelta(days=1))
    allotment = Allotment(
        allotment_id=7, budget=budget, window=day, limit=10**9, extra=0, held=10**9 - available, spent=0, overrun=0
    )
    return Headroom(allotment=allotment, amount=asked)


def test_the_cleanest_stretch_is_taken_and_its_difference_named() -> None:
    proposal = propose(QUESTION, NIGHT)
    assert proposal.reason is Reason.CLEANER_WINDOW
    assert proposal.start_ms == QUESTION.now_ms + 3 * HOUR
    assert proposal.now_micrograms == 2 * 300 * 1_000_000
    assert proposal.difference_micrograms == 2 * 200 * 1_000_000
    verdict = conclude(QUESTION, proposal, (), ())
    assert isinstance(verdict, Defer)
    assert verdict.until == NOW + timedelta(hours=3)
    assert verdict.expected_difference_micrograms == 400_000_000


def test_a_start_between_edges_is_found() -> None:
    proposal = propose(
        replace(QUESTION, expected_duration_ms=90 * MINUTE, upper_duration_ms=90 * MINUTE),
        series_of(300, 200, 100, 150, 400, 400, 400, 400),
    )
    assert proposal.start_ms == QUESTION.now_ms + 2 * HOUR
    ends_on_an_edge = propose(
        replace(QUESTION, expected_duration_ms=90 * MINUTE, upper_duration_ms=90 * MINUTE),
        series_of(300, 300, 200, 100, 400, 400, 400, 400),
    )
    assert ends_on_an_edge.start_ms == QUESTION.now_ms + 4 * HOUR - 90 * MINUTE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deadline_ms": None}, Reason.NO_DEADLINE),
        ({"deadline_ms": QUESTION.now_ms}, Reason.DEADLINE_PASSED),
        ({"deadline_ms": QUESTION.now_ms + HOUR}, Reason.NO_ROOM),
        ({"deadline_ms": QUESTION.now_ms + 2 * HOUR, "upper_duration_ms": 2 * HOUR}, Reason.NO_ROOM),
        ({"deadline_ms": QUESTION.now_ms + HOUR + 59_000, "wake_margin_ms": MINUTE}, Reason.NO_ROOM),
        ({"attempt": 2}, Reason.LATER_ATTEMPT),
        ({"can_defer": False}, Reason.HOST_CANNOT_DEFER),
        ({"expected_energy_millijoules": 17_999_999}, Reason.IMMATERIAL),
        ({"deferrals": 6}, Reason.DEFERRALS_USED_UP),
        ({"inside_outer": True}, Reason.INSIDE_OUTER_GATE),
        ({"zone_known": False}, Reason.NO_ZONE),
        ({"min_difference_ppm": 700_000}, Reason.DIFFERENCE_TOO_SMALL),
        ({"shortest_wait_ms": 4 * HOUR}, Reason.WAIT_TOO_SHORT),
    ],
)
def test_each_reason_to_run_now(change: dict[str, int], reason: Reason) -> None:
    question = replace(QUESTION, **change)  # type: ignore[arg-type]
    proposal = propose(question, NIGHT)
    assert proposal.reason is reason
    assert proposal.start_ms == question.now_ms
    verdict = conclude(question, proposal, (), ())
    assert isinstance(verdict, Admit)
    assert verdict.reason is reason


def test_without_a_forecast_it_runs_now_and_says_unshifted() -> None:
    proposal = propose(QUESTION, None)
    verdict = conclude(QUESTION, proposal, (), ())
    assert isinstance(verdict, Admit)
    assert (verdict.reason, verdict.unshifted) == (Reason.NO_INTENSITY, True)


def test_a_yearly_average_cannot_move_a_run() -> None:
    verdict = conclude(QUESTION, propose(QUESTION, series_of(300, 100, kind=IntensityKind.YEARLY)), (), ())
    assert isinstance(verdict, Admit)
    assert (verdict.reason, verdict.unshifted) == (Reason.FLAT_INTENSITY, True)


def test_nothing_is_planned_across_a_gap() -> None:
    proposal = propose(QUESTION, series_of(300, None, 50, None, 200, 200, 200, 200))
    assert proposal.start_ms == QUESTION.now_ms + 2 * HOUR
    longer = replace(QUESTION, expected_duration_ms=2 * HOUR, upper_duration_ms=2 * HOUR)
    blocked = propose(longer, series_of(300, 300, None, 50, None, 50, 290, 300))
    assert blocked.start_ms == QUESTION.now_ms + 5 * HOUR


@given(
    values=st.lists(st.integers(0, 900), min_size=8, max_size=24),
    duration=st.integers(1, 6 * 60),
    deadline=st.integers(1, 30 * 60),
    margin=st.integers(0, 90),
    upper=st.integers(0, 180),
)
def test_a_plan_never_passes_the_deadline_and_is_never_worse_than_now(
    values: list[int], duration: int, deadline: int, margin: int, upper: int
) -> None:
    question = replace(
        QUESTION,
        deadline_ms=QUESTION.now_ms + deadline * MINUTE,
        expected_duration_ms=duration * MINUTE,
        upper_duration_ms=(duration + upper) * MINUTE,
        wake_margin_ms=margin * 1_000,
    )
    proposal = propose(question, series_of(*values))
    if proposal.start_ms > question.now_ms:
        assert proposal.start_ms + question.upper_duration_ms + question.wake_margin_ms <= (question.deadline_ms or 0)
        assert proposal.difference_micrograms > 0


# ---- budgets ------------------------------------------------------------------------------------------------------


def test_an_enforced_budget_denies_and_says_by_how_much() -> None:
    question = replace(QUESTION, deadline_ms=None)
    verdict = conclude(question, propose(question, NIGHT), (), (headroom(5, 6),))
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.BUDGET_EXCEEDED
    assert "acme/ml" in verdict.message
    assert isinstance(conclude(question, propose(question, NIGHT), (), (headroom(6, 6),)), Admit)


@pytest.mark.parametrize("mode", [BudgetMode.OBSERVE, BudgetMode.WARN])
def test_other_modes_let_it_in_and_name_the_budget(mode: BudgetMode) -> None:
    question = replace(QUESTION, deadline_ms=None)
    verdict = conclude(question, propose(question, NIGHT), (), (headroom(5, 6, mode),))
    assert isinstance(verdict, Admit)
    assert verdict.over_limit == ("acme/ml",)


def test_monitor_is_never_blocked() -> None:
    question = replace(QUESTION, deadline_ms=None, purpose=Purpose.MONITOR)
    verdict = conclude(question, propose(question, NIGHT), (), (headroom(5, 6),))
    assert isinstance(verdict, Admit)
    assert verdict.over_limit == ("acme/ml",)
    typo = replace(question, budget_path="acme/typo", budget_known=False)
    verdict = conclude(typo, propose(typo, NIGHT), (), ())
    assert isinstance(verdict, Admit)
    assert verdict.over_limit == ("acme/typo",)
    assert "Nobody created the budget acme/typo" in verdict.message


def test_a_full_later_period_does_not_stop_a_run_that_fits_now() -> None:
    verdict = conclude(QUESTION, propose(QUESTION, NIGHT), (headroom(5, 6),), (headroom(6, 6),))
    assert isinstance(verdict, Admit)
    assert verdict.reason is Reason.BUDGET_EXCEEDED


def test_a_full_period_now_does_not_stop_a_run_that_fits_later() -> None:
    assert isinstance(conclude(QUESTION, propose(QUESTION, NIGHT), (headroom(6, 6),), (headroom(5, 6),)), Defer)


def test_unknown_intensity_is_denied_under_an_enforced_budget_with_the_remedy() -> None:
    question = replace(QUESTION, zone_known=False)
    verdict = conclude(question, propose(question, None), (), (headroom(5, None),))
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.INTENSITY_UNKNOWN_TO_BUDGET
    assert "--unknown-intensity" in verdict.message


def test_a_budget_that_nobody_created_is_denied() -> None:
    question = replace(QUESTION, budget_known=False)
    verdict = conclude(question, propose(question, NIGHT), (), ())
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.BUDGET_UNKNOWN


def test_mode_observe_runs_everything_now() -> None:
    question = replace(QUESTION, mode=Mode.OBSERVE)
    verdict = conclude(question, propose(question, NIGHT), (headroom(5, 6),), (headroom(5, 6),))
    assert isinstance(verdict, Admit)
    assert (verdict.reason, verdict.over_limit) == (Reason.MODE_OBSERVE, ("acme/ml",))
    assert "would wait" in verdict.message


def test_a_review_denies_where_no_reviewer_is_configured() -> None:
    verdict = without_reviewer(Review(reason=Reason.BUDGET_EXCEEDED, message="A floor does not fit the budget."))
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.NO_REVIEWER
    assert "No reviewer is configured" in verdict.message
    admitted = conclude(QUESTION, propose(QUESTION, None), (), ())
    assert without_reviewer(admitted) is admitted


def test_a_typical_day_is_not_called_a_forecast() -> None:
    series = series_of(300, 250, 200, 100, 100, 200, 300, 400, kind=IntensityKind.CLIMATOLOGY)
    verdict = conclude(QUESTION, propose(QUESTION, series), (), ())
    assert "by the climatology" in verdict.message
