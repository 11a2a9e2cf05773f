"""The pure middle of the gate: from what is known to a verdict. No clock, no store, no network.

Everything that a verdict depends on is a field of :class:`Question` or of the two headroom lists, all integers and
text, all in the decision's ledger entry. Ties go to the earliest start. The same inputs give the same verdict, on
any machine, for ever: that is what ``cagg explain ID --recompute`` shows.

Order of precedence: enforced budget > schedule > preference. (Assurance floors, which stand above, come with the
validation suites.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cagg.grid.series import to_arrays
from cagg.intensity import IntensitySeries
from cagg.provenance import IntensityKind
from cagg.quantities import PPM, CarbonIntensity, CarbonMass, Energy, Unit
from cagg.records import BudgetMode, Headroom
from cagg.request import Purpose
from cagg.schedule.contiguous import Plan, plan_contiguous
from cagg.settings import Mode
from cagg.verdict import Admit, Defer, Deny, Reason, Review, Verdict
from cagg.windows import Window, format_duration, from_epoch_ms

__all__ = ["PLANNER_VERSION", "Proposal", "Question", "conclude", "propose", "without_reviewer"]

PLANNER_VERSION = "contiguous/1"
"""Changes whenever the same inputs could give another verdict; old versions stay recomputable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the schedule depends on. Instants in milliseconds since 1970-01-01T00:00Z, energies in millijoules.

    Attributes:
        now_ms: instant of this ask.
        deadline_ms: when the work must be finished; None = no deadline, hence no waiting.
        expected_energy_millijoules, upper_energy_millijoules: estimate and bound of the run's energy.
        expected_duration_ms, upper_duration_ms: estimate and bound of its duration.
        wake_margin_ms: how long the host may take to wake.
        shortest_wait_ms: waits below this run now.
        min_difference_ppm: least worthwhile difference as a share of the run's carbon.
        materiality_millijoules: runs expected to use less are never deferred.
        attempt: the engine's own attempt; later ones are never deferred.
        deferrals, max_deferrals: how often this request was deferred, and may be.
        can_defer: the host can continue the run later.
        inside_outer: an enclosing gate was admitted already.
        zone_known: a zone was given.
        mode: enforce or observe.
        purpose: release, work or monitor.
        budget_path: who pays; None when nobody was named.
        budget_known: that path exists; True when none was named.
        store_unshared: runs may land on several machines while the store is one file: no limit could hold, so none is
            enforced and a release that a budget pays is denied.
    """

    now_ms: int
    deadline_ms: int | None
    expected_energy_millijoules: int
    upper_energy_millijoules: int
    expected_duration_ms: int
    upper_duration_ms: int
    wake_margin_ms: int
    shortest_wait_ms: int
    min_difference_ppm: int
    materiality_millijoules: int
    attempt: int
    deferrals: int
    max_deferrals: int
    can_defer: bool
    inside_outer: bool
    zone_known: bool
    mode: Mode
    purpose: Purpose
    budget_path: str | None
    budget_known: bool
    store_unshared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Where the schedule alone would put the run, and how that compares with now.

    Attributes:
        reason: why there.
        start_ms: planned start; ``now_ms`` of the question means now.
        now_micrograms, then_micrograms: expected carbon now and at the planned start; None when unknown.
        now_intensity, then_intensity: mean intensity over the expected duration, mg/kWh; None when unknown.
        plan: the schedule's own figures; None when nothing was planned.
        by: what the comparison rests on: forecast or climatology.
    """

    reason: Reason
    start_ms: int
    now_micrograms: int | None = None
    then_micrograms: int | None = None
    now_intensity: int | None = None
    then_intensity: int | None = None
    plan: Plan | None = None
    by: str = "forecast"

    @property
    def difference_micrograms(self) -> int:
        """Carbon now minus carbon then, by the forecast; zero when it is unknown."""
        if self.now_micrograms is None or self.then_micrograms is None:
            return 0
        return self.now_micrograms - self.then_micrograms


def propose(question: Question, series: IntensitySeries | None) -> Proposal:
    """Return where the schedule would put the run.

    Args:
        question: everything but the grid.
        series: the steering forecast; None when nothing is known.
    """
    now = question.now_ms
    if question.inside_outer:
        return Proposal(reason=Reason.INSIDE_OUTER_GATE, start_ms=now)
    if not question.zone_known:
        return Proposal(reason=Reason.NO_ZONE, start_ms=now)
    if series is None or not series.points:
        return Proposal(reason=Reason.NO_INTENSITY, start_ms=now)
    latest_finish = now + question.expected_duration_ms
    if question.deadline_ms is not None:
        # the bound of the duration decides how late a start may be, the expectation what a start costs
        slack = question.upper_duration_ms - question.expected_duration_ms + question.wake_margin_ms
        latest_finish = question.deadline_ms - slack
    plan = _plan(question, series, latest_finish)
    blocked = _blocked(question, series, latest_finish)
    if plan is None:
        return Proposal(reason=blocked or Reason.NO_INTENSITY, start_ms=now)
    now_mean = _mean(plan.now_cost, question.expected_duration_ms)
    if blocked is not None:
        micrograms = _carbon(question, plan.now_cost)
        return Proposal(
            reason=blocked,
            start_ms=now,
            now_micrograms=micrograms,
            then_micrograms=micrograms,
            now_intensity=now_mean,
            then_intensity=now_mean,
            plan=plan,
        )
    reason, start = _weigh(question, plan)
    cost = plan.cost if start != now else plan.now_cost
    return Proposal(
        reason=reason,
        start_ms=start,
        now_micrograms=_carbon(question, plan.now_cost),
        then_micrograms=_carbon(question, cost),
        now_intensity=now_mean,
        then_intensity=_mean(cost, question.expected_duration_ms),
        plan=plan,
        by="climatology" if series.kind is IntensityKind.CLIMATOLOGY else "forecast",
    )


def _blocked(question: Question, series: IntensitySeries, latest_finish_ms: int) -> Reason | None:
    """Return why the run cannot be moved at all, in a fixed order; None when it can."""
    if question.deadline_ms is None:
        return Reason.NO_DEADLINE
    if question.deadline_ms <= question.now_ms:
        return Reason.DEADLINE_PASSED
    if latest_finish_ms - question.expected_duration_ms <= question.now_ms:
        return Reason.NO_ROOM
    if question.attempt > 1:
        return Reason.LATER_ATTEMPT
    if not question.can_defer:
        return Reason.HOST_CANNOT_DEFER
    if question.expected_energy_millijoules < question.materiality_millijoules:
        return Reason.IMMATERIAL
    if question.deferrals >= question.max_deferrals:
        return Reason.DEFERRALS_USED_UP
    if series.kind is IntensityKind.YEARLY:
        return Reason.FLAT_INTENSITY
    return None


def _plan(question: Question, series: IntensitySeries, latest_finish_ms: int) -> Plan | None:
    edges, milligrams, known = to_arrays(series)
    latest = max(latest_finish_ms, question.now_ms + question.expected_duration_ms)
    return plan_contiguous(
        edges_ms=edges,
        milligrams_per_kwh=milligrams,
        known=known,
        now_ms=question.now_ms,
        latest_finish_ms=latest,
        duration_ms=question.expected_duration_ms,
    )


def _weigh(question: Question, plan: Plan) -> tuple[Reason, int]:
    """Return (reason, start): the planned start, or now when moving is not worth it."""
    now = question.now_ms
    if plan.start_ms <= now:
        return Reason.NOW_IS_BEST, now
    if plan.start_ms - now < question.shortest_wait_ms:
        return Reason.WAIT_TOO_SHORT, now
    if plan.now_cost is None:
        # the forecast begins later than now: nothing to compare with, so the run is not held back
        return Reason.NO_INTENSITY, now
    if (plan.now_cost - plan.cost) * PPM < question.min_difference_ppm * plan.now_cost:
        return Reason.DIFFERENCE_TOO_SMALL, now
    return Reason.CLEANER_WINDOW, plan.start_ms


def _carbon(question: Question, cost: int | None) -> int | None:
    """Expected carbon of a start, µg: energy x mean intensity, the mean being cost / duration."""
    if cost is None:
        return None
    # mJ x (mg/kWh x ms) / ms = mJ mg/kWh; / 3.6e9 mJ per kWh x 1000 µg per mg
    return -(-question.expected_energy_millijoules * cost // (question.expected_duration_ms * 3_600_000))


def _mean(cost: int | None, duration_ms: int) -> int | None:
    return None if cost is None else (2 * cost + duration_ms) // (2 * duration_ms)


# ---- the verdict --------------------------------------------------------------------------------------------------


def without_reviewer(verdict: Verdict) -> Verdict:
    """Return the verdict as it stands where nobody can be asked: Review denies."""
    if not isinstance(verdict, Review):
        return verdict
    return Deny(
        reason=Reason.NO_REVIEWER, message=f"{verdict.message} No reviewer is configured, so it is not admitted."
    )


def conclude(
    question: Question, proposal: Proposal, at_plan: Sequence[Headroom], at_now: Sequence[Headroom]
) -> Verdict:
    """Return the verdict from the proposal and the budgets.

    Args:
        question, proposal: see :func:`propose`.
        at_plan: budgets on the path in the period of the planned start.
        at_now: budgets on the path in the period of now; the same as ``at_plan`` when both lie in one period.
    """
    wants_to_wait = proposal.start_ms > question.now_ms
    if question.mode is Mode.OBSERVE:
        return _observe(question, proposal, at_now)
    if question.store_unshared and question.budget_path is not None and question.purpose is Purpose.RELEASE:
        return Deny(
            reason=Reason.STORE_NOT_SHARED,
            message=(
                f"Budget {question.budget_path} cannot be enforced: the engine may run work on several machines and "
                "the store is one file, which would be a budget per machine; set `store` to one that they share, "
                "postgresql://…"
            ),
        )
    lenient = question.purpose is Purpose.MONITOR or question.store_unshared
    if not question.budget_known and not lenient:
        return Deny(
            reason=Reason.BUDGET_UNKNOWN,
            message=(
                f"Nobody created the budget {question.budget_path} that should pay; check its name, or create it "
                f"with `cagg budget set {question.budget_path} '2 kg/month'`."
            ),
        )
    if wants_to_wait and not _refusals(question, at_plan):
        return _defer(question, proposal, at_plan)
    refused = _refusals(question, at_now)
    if refused:
        return _deny(refused)
    return _admit(question, proposal, at_now, gave_up_waiting=wants_to_wait)


def _refusals(question: Question, headrooms: Sequence[Headroom]) -> tuple[Headroom, ...]:
    if question.purpose is Purpose.MONITOR or question.store_unshared:
        return ()
    return tuple(item for item in headrooms if item.allotment.budget.mode is BudgetMode.ENFORCE and not item.fits)


def _over(headrooms: Sequence[Headroom]) -> tuple[str, ...]:
    return tuple(
        sorted({item.allotment.budget.path for item in headrooms if item.amount is not None and not item.fits})
    )


def _defer(question: Question, proposal: Proposal, headrooms: Sequence[Headroom]) -> Defer:
    assert question.deadline_ms is not None  # noqa: S101  (a proposal to wait exists only with a deadline)
    until = from_epoch_ms(proposal.start_ms)
    window = Window(start=until, end=from_epoch_ms(proposal.start_ms + question.expected_duration_ms))
    return Defer(
        reason=proposal.reason,
        message=f"Waits until {until:%Y-%m-%d %H:%M:%S}Z: {_comparison(proposal)}",
        until=until,
        deadline=from_epoch_ms(question.deadline_ms),
        window=window,
        expected_difference_micrograms=proposal.difference_micrograms,
        over_limit=_over(headrooms),
    )


def _comparison(proposal: Proposal) -> str:
    if proposal.now_intensity is None or proposal.then_intensity is None:
        return "the forecast is cleaner then."
    now = CarbonIntensity(milligrams_per_kwh=proposal.now_intensity)
    then = CarbonIntensity(milligrams_per_kwh=proposal.then_intensity)
    share = 100 * (now.milligrams_per_kwh - then.milligrams_per_kwh) / max(1, now.milligrams_per_kwh)
    return f"{then} then against {now} if it started now, {share:.0f} % less carbon by the {proposal.by}."


def _observe(question: Question, proposal: Proposal, headrooms: Sequence[Headroom]) -> Admit:
    would = "would wait" if proposal.start_ms > question.now_ms else "would run now"
    return Admit(
        reason=Reason.MODE_OBSERVE,
        message=f"Runs now because the mode is observe; the schedule {would} ({proposal.reason}).",
        over_limit=_over(headrooms),
    )


def _deny(refused: Sequence[Headroom]) -> Deny:
    unknown = [item for item in refused if item.amount is None]
    if unknown:
        path, unit = unknown[0].allotment.budget.path, unknown[0].allotment.budget.unit
        if unit is not Unit.CARBON:
            return Deny(
                reason=Reason.BUDGET_EXCEEDED,
                message=(
                    f"Budget {path} is enforced in {unit} and the request states no amount in it; "
                    f"put that budget in mode observe, or charge another one."
                ),
            )
        return Deny(
            reason=Reason.INTENSITY_UNKNOWN_TO_BUDGET,
            message=(
                f"The carbon intensity is unknown and budget {path} does not say what that costs; set a zone, "
                f"or `cagg budget set {path} … --unknown-intensity '500 g/kWh'`."
            ),
        )
    tightest = min(
        refused, key=lambda item: (item.allotment.available - (item.amount or 0), item.allotment.budget.path)
    )
    allotment = tightest.allotment
    path, unit, period = allotment.budget.path, allotment.budget.unit, allotment.budget.period
    return Deny(
        reason=Reason.BUDGET_EXCEEDED,
        message=(
            f"Budget {path} has {_amount(unit, max(0, allotment.available))} of {unit} left until "
            f"{allotment.window.end:%Y-%m-%d %H:%M}Z and the run may need {_amount(unit, tightest.amount or 0)}; "
            f"raise the limit with `cagg budget set {path} …` or wait for the next {period}."
        ),
    )


def _amount(unit: str, amount: int) -> str:
    match unit:
        case "carbon":
            return str(CarbonMass(micrograms=amount))
        case "energy":
            return str(Energy(millijoules=amount))
        case _:
            return f"{amount}"


_SENTENCES = {
    Reason.NOW_IS_BEST: "now is the cleanest moment before the deadline.",
    Reason.DIFFERENCE_TOO_SMALL: "no later start is enough cleaner to be worth the wait.",
    Reason.IMMATERIAL: "the run is too small to be worth a wait.",
    Reason.NO_DEADLINE: "no finish_by or max_wait allows a wait.",
    Reason.NO_ZONE: "no zone is set, so the grid is unknown; its carbon stays null until one is.",
    Reason.NO_INTENSITY: "no carbon intensity could be had for the zone.",
    Reason.FLAT_INTENSITY: "only a yearly average is known, which cannot support a choice of hour.",
    Reason.NO_ROOM: "this is the last moment for a start that meets the deadline.",
    Reason.DEADLINE_PASSED: "the deadline has passed while it waited.",
    Reason.WAIT_TOO_SHORT: "the cleaner moment is nearer than the host can wake reliably.",
    Reason.LATER_ATTEMPT: "later attempts are not deferred.",
    Reason.DEFERRALS_USED_UP: "it was deferred as often as the settings allow.",
    Reason.HOST_CANNOT_DEFER: "nothing could continue the run later.",
    Reason.INSIDE_OUTER_GATE: "the enclosing gate was admitted and pays.",
}


def _admit(question: Question, proposal: Proposal, headrooms: Sequence[Headroom], *, gave_up_waiting: bool) -> Admit:
    unshifted = proposal.reason in {Reason.NO_INTENSITY, Reason.FLAT_INTENSITY}
    if gave_up_waiting:
        wait = format_duration(from_epoch_ms(proposal.start_ms) - from_epoch_ms(question.now_ms))
        sentence = f"a cleaner window in {wait} lies in a budget period that has no room."
        return Admit(reason=Reason.BUDGET_EXCEEDED, message=f"Runs now: {sentence}", over_limit=_over(headrooms))
    sentence, over = _SENTENCES[proposal.reason], _over(headrooms)
    if not question.budget_known:
        over = (*over, str(question.budget_path))
        sentence += f" Nobody created the budget {question.budget_path}, so nobody pays; `cagg budget set` creates it."
    return Admit(reason=proposal.reason, message=f"Runs now: {sentence}", over_limit=over, unshifted=unshifted)
