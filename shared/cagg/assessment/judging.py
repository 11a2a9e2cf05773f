"""From folded runs to figures: energy, carbon, what could have moved, and which few pipelines matter. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median_low

from cagg.assessment.figures import Assessment, CarbonRange, EnergyRange, PipelineFigures, ShareRange, Totals
from cagg.assessment.history import FoldedHistory, FoldedRun
from cagg.assessment.intensities import SlotIntensities
from cagg.assessment.shifting import Slack, best_difference, slacks
from cagg.errors import InvalidInput
from cagg.pastruns import PastPipeline
from cagg.quantities import PPM, CarbonMass, Energy, ceil_div
from cagg.windows import to_milliseconds

__all__ = ["Assumptions", "assess"]

_MICROJOULES_PER_MILLIJOULE = 1_000

_CARBON_DIVISOR = 3_600_000_000_000_000
"""µJ x mg/kWh x ppm to µg: 1 kWh = 3.6e12 µJ, 1 mg = 1e3 µg, 1 = 1e6 ppm, hence 3.6e12 / 1e3 x 1e6."""

_MOST_UNKNOWN_PPM = 100_000
"""Own choice: up to a tenth of a pipeline's energy may lie in half hours of which the source says nothing; it is priced
between the lowest and the highest intensity known. Beyond it the carbon is unknown."""

_MOST_ENERGY_PPM = 800_000
"""The fewest pipelines that make up 80 % of the energy are said to matter (Juran's reading of Pareto, "Quality Control
Handbook", 1951)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What an assessment rests on besides the history.

    Attributes:
        zone: as given; None = unknown.
        actual: intensities while the runs ran; None with ``actual_reason``.
        typical: intensities that moves are judged by, reaching ``max_wait`` beyond the history; None with the reason.
        pue_ppm: power usage effectiveness in parts per million; None = not applied.
        materiality: least energy of a pipeline run that is worth a wait.
        max_wait: longest wait.
    """

    zone: str | None
    actual: SlotIntensities | None
    actual_reason: str
    typical: SlotIntensities | None
    typical_reason: str
    pue_ppm: int | None
    materiality: Energy
    max_wait: timedelta

    def __post_init__(self) -> None:
        if self.max_wait < timedelta(0):
            raise InvalidInput("the longest wait must not be negative.")
        if (self.actual is None and not self.actual_reason) or (self.typical is None and not self.typical_reason):
            raise InvalidInput("unknown intensities need the reason why they are unknown.")


def assess(
    history: FoldedHistory,
    pipelines: Sequence[PastPipeline],
    assumptions: Assumptions,
    *,
    host: str,
    notes: Sequence[str] = (),
) -> Assessment:
    """Return the assessment of a history.

    Args:
        history: folded runs.
        pipelines: what the engine knows of its pipelines; those that did not run are left out.
        assumptions: zone, intensities, longest wait.
        host: the engine's name.
        notes: what its reader left out.
    """
    known = {item.name: item for item in pipelines}
    figures = [_figures(history, name, known.get(name), assumptions) for name in history.names]
    figures.sort(key=lambda item: (-_middle(item), item.name))
    return Assessment(
        host=host,
        window=history.window,
        zone=assumptions.zone,
        power=history.power.sentence,
        carbon_source="" if assumptions.actual is None else assumptions.actual.label,
        difference_source="" if assumptions.typical is None else assumptions.typical.label,
        pue_ppm=assumptions.pue_ppm,
        materiality=assumptions.materiality,
        max_wait=assumptions.max_wait,
        pipelines=_mark_few(figures),
        totals=_totals(figures),
        notes=(*notes, *_own_notes(history)),
    )


def _middle(item: PipelineFigures) -> int:
    return item.energy.low.millijoules + item.energy.high.millijoules


def _mark_few(figures: Sequence[PipelineFigures]) -> tuple[PipelineFigures, ...]:
    total = sum(map(_middle, figures))
    marked, seen = [], 0
    for item in figures:
        marked.append(replace(item, matters=seen * PPM < total * _MOST_ENERGY_PPM))
        seen += _middle(item)
    return tuple(marked)


def _own_notes(history: FoldedHistory) -> list[str]:
    notes = []
    if history.unfinished:
        one = history.unfinished == 1
        notes.append(f"{history.unfinished} {'attempt goes' if one else 'attempts go'} on and did not count")
    if not history.power.stated and history.total:
        notes.append(f"{history.hinted} of {history.total} attempts say how many processors they asked for")
    return notes


# ---- one pipeline -------------------------------------------------------------------------------------------------


def _figures(
    history: FoldedHistory, name: str, known: PastPipeline | None, assumptions: Assumptions
) -> PipelineFigures:
    runs, counts = history.runs(name), history.counts(name)
    free = slacks(runs, to_milliseconds(assumptions.max_wait))
    energy = _energy(_sum(run.low for run in runs), _sum(run.high for run in runs))
    carbon, carbon_reason = _carbon(runs, assumptions)
    deferrable, difference, difference_reason = _moved(free, assumptions)
    notes = [] if known is not None else ["the engine no longer knows this pipeline"]
    if free and not any(item.by_schedule for item in free):
        notes.append("one scheduled run was seen, so only the longest wait bounds its slack")
    if counts["waiting_ms"]:
        share = round(100 * counts["waiting_ms"] / max(1, counts["busy_ms"]))
        notes.append(f"{share} % of its time it waited in sensors, taken to use next to nothing")
    return PipelineFigures(
        name=name,
        schedule="" if known is None else known.schedule,
        active=known is not None and known.active,
        runs=len(runs),
        scheduled_runs=len(free),
        attempts=counts["attempts"],
        failed_attempts=counts["failed_attempts"],
        busy=timedelta(milliseconds=counts["busy_ms"]),
        energy=energy,
        wasted=_energy(counts["wasted_low"], counts["wasted_high"]),
        carbon=carbon,
        carbon_reason=carbon_reason,
        deferrable=deferrable,
        deferrable_share=_share(deferrable, energy),
        slack=timedelta(milliseconds=median_low([item.milliseconds for item in free])) if free else None,
        difference=difference,
        difference_reason=difference_reason,
        notes=tuple(notes),
    )


def _sum(profiles: Iterable[Mapping[int, int]]) -> int:
    return sum(sum(profile.values()) for profile in profiles)


def _energy(low: int, high: int) -> EnergyRange:
    """Microjoules to a range: the low end rounded down, the high end up."""
    return EnergyRange(
        low=Energy(millijoules=low // _MICROJOULES_PER_MILLIJOULE),
        high=Energy(millijoules=ceil_div(high, _MICROJOULES_PER_MILLIJOULE)),
    )


def _mass(low: int, high: int, pue_ppm: int | None) -> CarbonRange:
    factor = PPM if pue_ppm is None else pue_ppm
    return CarbonRange(
        low=CarbonMass(micrograms=low * factor // _CARBON_DIVISOR),
        high=CarbonMass(micrograms=ceil_div(high * factor, _CARBON_DIVISOR)),
    )


def _share(part: EnergyRange, whole: EnergyRange) -> ShareRange | None:
    shares = sorted(
        min(PPM, some.millijoules * PPM // every.millijoules)
        for some, every in ((part.low, whole.low), (part.high, whole.high))
        if every.millijoules
    )
    return ShareRange(low_ppm=shares[0], high_ppm=shares[-1]) if shares else None


def _carbon(runs: Sequence[FoldedRun], assumptions: Assumptions) -> tuple[CarbonRange | None, str]:
    """Sum energy x intensity over the half hours; the few that are unknown count at the extremes."""
    actual = assumptions.actual
    if actual is None:
        return None, assumptions.actual_reason
    lowest, highest = actual.extremes
    low = high = unknown = total = 0
    for run in runs:
        for slot, amount in run.high.items():
            intensity = actual.by_slot.get(slot)
            total += amount
            unknown += amount if intensity is None else 0
            low += run.low[slot] * (lowest if intensity is None else intensity)
            high += amount * (highest if intensity is None else intensity)
    if unknown * PPM > total * _MOST_UNKNOWN_PPM:
        share = 100 * (total - unknown) // total
        return None, f"the intensity is known for only {share} % of the energy"
    return _mass(low, high, assumptions.pue_ppm), ""


def _moved(free: Sequence[Slack], assumptions: Assumptions) -> tuple[EnergyRange, CarbonRange | None, str]:
    """Return the deferrable energy, and the intensity difference of moving it within its slack.

    A run counts at the low end when it is material even at the least power, at the high end when it is at the most.
    """
    least = assumptions.materiality.millijoules * _MICROJOULES_PER_MILLIJOULE
    energy, change, unknown = [0, 0], [0, 0], False
    typical: Mapping[int, int] | None = None if assumptions.typical is None else assumptions.typical.by_slot
    for item in free:
        if not item.moves:
            continue
        for end, profile in enumerate((item.run.low, item.run.high)):
            amount = sum(profile.values())
            if amount == 0 or amount < least:
                continue
            energy[end] += amount
            found = None if typical is None else best_difference(profile, typical, item.milliseconds)
            unknown = unknown or found is None
            change[end] += found or 0
    deferrable = _energy(energy[0], energy[1])
    if typical is None:
        return deferrable, None, assumptions.typical_reason
    if unknown:
        return deferrable, None, "the intensity is not known for all hours of the runs that could move"
    return deferrable, _mass(change[0], change[1], assumptions.pue_ppm), ""


# ---- all of them --------------------------------------------------------------------------------------------------


def _totals(figures: Sequence[PipelineFigures]) -> Totals:
    energy = _energy_sum([item.energy for item in figures])
    deferrable = _energy_sum([item.deferrable for item in figures])
    return Totals(
        runs=sum(item.runs for item in figures),
        attempts=sum(item.attempts for item in figures),
        failed_attempts=sum(item.failed_attempts for item in figures),
        busy=sum((item.busy for item in figures), timedelta(0)),
        energy=energy,
        wasted=_energy_sum([item.wasted for item in figures]),
        carbon=_carbon_sum([item.carbon for item in figures]),
        deferrable=deferrable,
        deferrable_share=_share(deferrable, energy),
        difference=_carbon_sum([item.difference for item in figures]),
    )


def _energy_sum(parts: Sequence[EnergyRange]) -> EnergyRange:
    return EnergyRange(
        low=sum((part.low for part in parts), Energy.ZERO), high=sum((part.high for part in parts), Energy.ZERO)
    )


def _carbon_sum(parts: Sequence[CarbonRange | None]) -> CarbonRange | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return CarbonRange(
        low=sum((part.low for part in known), CarbonMass.ZERO), high=sum((part.high for part in known), CarbonMass.ZERO)
    )
