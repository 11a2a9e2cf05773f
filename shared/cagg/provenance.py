"""How we know a number: signal, basis, gas, origin, grade. Figures travel with these, never alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Basis", "Convention", "Gas", "Grade", "IntensityKind", "Signal", "worst_grade"]


class Signal(StrEnum):
    """What a carbon intensity describes."""

    AVERAGE = "average"
    """all generation that serves the zone"""
    MARGINAL = "marginal"
    """the generation that answers a change in demand"""


class Basis(StrEnum):
    """Which emissions of a power station are counted."""

    DIRECT = "direct"
    """combustion only"""
    LIFE_CYCLE = "life_cycle"
    """construction, fuel supply and decommissioning as well"""
    UNKNOWN = "unknown"
    """the origin does not say"""


class Gas(StrEnum):
    """Which gases are counted."""

    CO2 = "co2"
    """carbon dioxide only"""
    CO2E = "co2e"
    """carbon dioxide equivalent of all greenhouse gases that the origin counts"""


class IntensityKind(StrEnum):
    """How a carbon intensity came about."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    FORECAST = "forecast"
    CLIMATOLOGY = "climatology"
    """mean of past years by month and hour of day"""
    YEARLY = "yearly"
    """one number for a country and year: cannot support shifting in time"""
    DECLARED = "declared"
    """set by the user"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """What an intensity means. Numbers of different conventions are never compared for accounting or added up."""

    signal: Signal
    basis: Basis
    gas: Gas

    def __str__(self) -> str:
        return f"{self.signal}/{self.basis}/{self.gas}"


class Grade(StrEnum):
    """How good a reading is, best first."""

    A = "A"
    """measured: a hardware counter, nearly alone on it"""
    B = "B"
    """attributed: a hardware counter times a share"""
    C = "C"
    """modelled: utilisation times the power curve of known hardware"""
    D = "D"
    """estimated: a default, a declared value, a remote service"""


def worst_grade(*grades: Grade) -> Grade:
    """Return the worst of the grades; a grade never improves when readings are put together."""
    return max(grades, key=lambda grade: grade.value)
