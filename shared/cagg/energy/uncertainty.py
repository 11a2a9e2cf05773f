"""Bounds and grades of one component of a reading.

Relative terms, combined in quadrature (heuristics, to be calibrated against wall meters; cagg meter model 1, 2026-11):
sensor u_s (the source says) | boundary u_q = 2 d / T, d the counter's resolution | attribution u_a = 0.5 (1 - s) of the
dynamic energy, s the run's share of the host's dynamic energy | idle calibration 20 % of the idle energy. Kepler's
documentation ("Power attribution", 2025) reports that equal processor time can differ 2 to 3 times in power, which is
what u_a stands for. Estimates (grade D) span a factor of three either way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cagg.provenance import Grade, worst_grade

__all__ = ["ComponentFacts", "bounds", "grade_of", "reading_grade"]

_IDLE_UNCERTAINTY = 0.20
_ATTRIBUTION_UNCERTAINTY = 0.5
_ESTIMATE_FACTOR = 3
_SOLE_SHARE = 0.95
_LONG_ENOUGH = 10
_MATERIAL = 10
"""A component counts for the reading's grade when it holds at least a tenth (1 / 10) of the energy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentFacts:
    """What decides bounds and grade of one component.

    Attributes:
        dynamic_millijoules, idle_millijoules: the run's parts; their sum is the value.
        host_dynamic_millijoules: dynamic energy of the whole host in the run's interval.
        best_grade: the best grade the source and the way of sharing allow.
        duration_seconds: length of the run.
        resolution_seconds: how coarse the counter is in time.
        sensor_uncertainty: relative, of the source.
        power_milliwatts: recent power of the host in this domain, for windows shorter than the resolution.
        gap_seconds: time in which the counter could not be read.
        gap_millijoules: what the run would have used in the gaps at its mean power.
        ambiguous_millijoules: part of the value that was spread because nothing told the runs apart.
    """

    dynamic_millijoules: int
    idle_millijoules: int
    host_dynamic_millijoules: int
    best_grade: Grade
    duration_seconds: float
    resolution_seconds: float
    sensor_uncertainty: float
    power_milliwatts: int
    gap_seconds: float = 0.0
    gap_millijoules: int = 0
    ambiguous_millijoules: int = 0

    @property
    def energy_millijoules(self) -> int:
        """The value."""
        return self.dynamic_millijoules + self.idle_millijoules

    @property
    def share(self) -> float:
        """The run's share of the host's dynamic energy, 0 to 1; 0 when there was none."""
        if self.host_dynamic_millijoules <= 0:
            return 0.0
        return min(1.0, self.dynamic_millijoules / self.host_dynamic_millijoules)

    @property
    def too_short(self) -> bool:
        """True when the run is not longer than the counter's two boundary errors."""
        return self.duration_seconds <= 2 * self.resolution_seconds


def grade_of(facts: ComponentFacts) -> Grade:
    """Return the component's grade: A sole holder of a counter, B a share of one, C modelled, D estimated."""
    if facts.too_short or facts.gap_seconds * _MATERIAL >= facts.duration_seconds:
        return Grade.D
    grade = facts.best_grade
    long_enough = facts.duration_seconds >= _LONG_ENOUGH * facts.resolution_seconds
    if grade is Grade.A and not (facts.share >= _SOLE_SHARE and long_enough):
        grade = Grade.B
    if facts.ambiguous_millijoules * _MATERIAL >= max(1, facts.energy_millijoules):
        grade = worst_grade(grade, Grade.C)
    if facts.gap_seconds > 0:
        grade = worst_grade(grade, Grade.B)
    return grade


def bounds(facts: ComponentFacts, grade: Grade) -> tuple[int, int]:
    """Return (low, high) in millijoules with low <= value <= high.

    The high bound also holds what the run may have used while the counter could not be read; for runs shorter than
    the counter's resolution it holds what the host may have used within the two boundary errors.
    """
    value = facts.energy_millijoules
    if facts.too_short:
        boundary = facts.power_milliwatts * 2 * facts.resolution_seconds
    else:
        boundary = value * 2 * facts.resolution_seconds / facts.duration_seconds
    # The factor of an estimate stands for everything the sensor term would say.
    sensor = 0.0 if facts.best_grade is Grade.D else facts.sensor_uncertainty
    half_width = math.sqrt(
        (value * sensor) ** 2
        + boundary**2
        + (facts.dynamic_millijoules * _ATTRIBUTION_UNCERTAINTY * (1 - facts.share)) ** 2
        + (facts.idle_millijoules * _IDLE_UNCERTAINTY) ** 2
        + facts.ambiguous_millijoules**2
    )
    low = math.floor(value - half_width)
    high = math.ceil(value + half_width)
    if grade is Grade.D:
        low = min(low, value // _ESTIMATE_FACTOR)
        high = max(high, value * _ESTIMATE_FACTOR)
    high += math.ceil(facts.gap_millijoules * (1 + facts.sensor_uncertainty) * (2 if facts.gap_millijoules else 0))
    return max(0, min(low, value)), max(high, value)


def reading_grade(parts: list[tuple[Grade, int]]) -> Grade | None:
    """Return the worst grade among components that hold at least a tenth of the energy.

    Args:
        parts: (grade, millijoules) of the known components. With no energy at all every component counts.

    Returns:
        None when there is no component.
    """
    whole = sum(energy for _, energy in parts)
    material = [grade for grade, energy in parts if energy * _MATERIAL >= whole]
    return worst_grade(*material) if material else None
