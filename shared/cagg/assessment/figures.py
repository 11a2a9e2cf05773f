"""The figures of an assessment: ranges, never single numbers, and null with a reason where nothing is known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cagg.errors import InvalidInput
from cagg.quantities import PPM, CarbonMass, Energy
from cagg.windows import Window

__all__ = ["PROVENANCE", "Assessment", "CarbonRange", "EnergyRange", "PipelineFigures", "ShareRange", "Totals"]

PROVENANCE = "estimated from durations"
"""How every energy and carbon figure of an assessment came about: durations times assumed power. Nothing was measured;
as a reading it would have grade D."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyRange:
    """Energy at the least and at the most assumed power."""

    low: Energy
    high: Energy

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise InvalidInput(f"an energy range must not end below its start, got {self.low} to {self.high}.")

    def __str__(self) -> str:
        return str(self.high) if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonRange:
    """Carbon of an energy range; gas and basis are those of the intensities' label."""

    low: CarbonMass
    high: CarbonMass

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise InvalidInput(f"a carbon range must not end below its start, got {self.low} to {self.high}.")

    def __str__(self) -> str:
        return str(self.high) if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRange:
    """A share in parts per million, at its least and at its most."""

    low_ppm: int
    high_ppm: int

    def __post_init__(self) -> None:
        if not 0 <= self.low_ppm <= self.high_ppm <= PPM:
            raise InvalidInput(f"a share lies between 0 and 1, got {self.low_ppm} to {self.high_ppm} ppm.")

    def __str__(self) -> str:
        low, high = (f"{share / 10_000:.0f}" for share in (self.low_ppm, self.high_ppm))
        return f"{high} %" if low == high else f"{low} to {high} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFigures:
    """What one pipeline did in the window.

    Attributes:
        name, schedule, active: as the engine says; the schedule is empty without one.
        runs: pipeline runs that held a worker; ``scheduled_runs`` of them were made by a schedule.
        attempts: attempts of its tasks; ``failed_attempts`` of them failed, were retried or cancelled.
        busy: time that the attempts held a worker, added up.
        energy: of all attempts.
        wasted: energy of the failed attempts, a part of ``energy``.
        carbon: of ``energy``, priced half hour by half hour; None with ``carbon_reason``.
        deferrable: energy in scheduled runs that had slack and are large enough to matter.
        deferrable_share: the same as a share of ``energy``; None when no energy was used.
        slack: median time by which a scheduled run could have started later; None without scheduled runs.
        difference: what the carbon of the deferrable runs would have been less, had each started at the best half hour
            within its slack, by the usual intensities: an intensity difference in hindsight, an upper bound for any
            planner, and no avoided emission. None with ``difference_reason``.
        matters: one of the few pipelines that together make up most of the energy.
        notes: what limits these figures.
    """

    name: str
    schedule: str
    active: bool
    runs: int
    scheduled_runs: int
    attempts: int
    failed_attempts: int
    busy: timedelta
    energy: EnergyRange
    wasted: EnergyRange
    carbon: CarbonRange | None
    carbon_reason: str
    deferrable: EnergyRange
    deferrable_share: ShareRange | None
    slack: timedelta | None
    difference: CarbonRange | None
    difference_reason: str
    matters: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over all pipelines, of the attributes of the same names; a sum with an unknown part is None."""

    runs: int
    attempts: int
    failed_attempts: int
    busy: timedelta
    energy: EnergyRange
    wasted: EnergyRange
    carbon: CarbonRange | None
    deferrable: EnergyRange
    deferrable_share: ShareRange | None
    difference: CarbonRange | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """An installation's run history, assessed.

    Attributes:
        host: the engine.
        window: what was read.
        zone: grid zone as given; None when none was.
        power: what runs were taken to draw, in words.
        carbon_source: what carbon was priced with; empty when nothing is known.
        difference_source: what differences rest on; empty when nothing is known.
        pue_ppm: power usage effectiveness that carbon includes, in parts per million; None = not applied.
        materiality: runs below it are not worth a wait and not counted as deferrable.
        max_wait: longest wait that was assumed.
        pipelines: by energy, the largest first.
        totals: sums.
        notes: what was left out or could not be read.
    """

    host: str
    window: Window
    zone: str | None
    power: str
    carbon_source: str
    difference_source: str
    pue_ppm: int | None
    materiality: Energy
    max_wait: timedelta
    pipelines: tuple[PipelineFigures, ...]
    totals: Totals
    notes: tuple[str, ...]

    @property
    def few(self) -> tuple[PipelineFigures, ...]:
        """The pipelines that matter: the fewest that make up 80 % of the energy."""
        return tuple(item for item in self.pipelines if item.matters)

    @property
    def first(self) -> tuple[PipelineFigures, ...]:
        """Which of them to gate first: those with the largest intensity difference, then the most deferrable energy."""
        able = [item for item in self.few if item.deferrable.high.millijoules > 0]
        return tuple(sorted(able, key=_worth, reverse=True)[:3])


def _worth(item: PipelineFigures) -> tuple[int, int]:
    return (0 if item.difference is None else item.difference.high.micrograms, item.deferrable.high.millijoules)
