"""What a run is taken to draw when nothing metered it: a range of power, and the sentence that states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cagg.energy.coefficients import DATASET, DEFAULT, MEMORY_MILLIWATTS_PER_GB
from cagg.errors import InvalidInput
from cagg.pastruns import PastRun
from cagg.quantities import Power, ceil_div

__all__ = ["PowerAssumption", "PowerRange"]

_LOW_SHARE = 10
"""Own choice: without better knowledge a run draws between a tenth of ``policy.default_power`` and all of it. With the
default of 100 W that is 10 W, about three busy logical processors (3.5 W each: Cloud Carbon Footprint, "Methodology",
appendix "AWS min and max watts"), to a small server for itself alone. ``--power`` replaces it."""

_BYTES_PER_GB = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRange:
    """The least and the most that something is taken to draw."""

    low: Power
    high: Power

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise InvalidInput(f"a power range must not end below its start, got {self.low}..{self.high}.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"20 W..100 W"``, ``"20..100 W"`` or one power; raises InvalidInput."""
        first, dots, second = text.partition("..")
        if not dots:
            power = Power.parse(first)
            return cls(low=power, high=power)
        high = Power.parse(second)
        unit = second.strip().lstrip("0123456789._+-eE ")
        low = Power.parse(first if any(mark.isalpha() for mark in first) else f"{first} {unit}")
        return cls(low=low, high=high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerAssumption:
    """What runs are taken to draw.

    Attributes:
        default: of a run of which nothing is known.
        stated: the user said ``default``: then it holds for every run, whatever the run asked for.
    """

    default: PowerRange
    stated: bool

    @classmethod
    def from_settings(cls, default_power: Power) -> Self:
        """Take a run for something between a tenth of the default power and all of it."""
        low = Power(milliwatts=ceil_div(default_power.milliwatts, _LOW_SHARE))
        return cls(default=PowerRange(low=low, high=default_power), stated=False)

    def of(self, run: PastRun) -> tuple[int, int]:
        """Return the least and the most power of a run in milliwatts.

        A run that asked for processors is taken to draw between their idle and their full power, and the power of the
        memory it asked for: P = processors x (0.74 to 3.5 W) + GB x 0.392 W (Cloud Carbon Footprint, see
        :mod:`cagg.energy.coefficients`). One that mostly waits draws between nothing and its low end.
        """
        low, high = self.default.low.milliwatts, self.default.high.milliwatts
        if run.cpu_thousandths is not None and not self.stated:
            memory = ceil_div((run.memory_bytes or 0) * MEMORY_MILLIWATTS_PER_GB, _BYTES_PER_GB)
            low = run.cpu_thousandths * DEFAULT.idle_milliwatts // 1_000 + memory
            high = ceil_div(run.cpu_thousandths * DEFAULT.full_milliwatts, 1_000) + memory
        return (0, low) if run.waits else (low, high)

    @property
    def sentence(self) -> str:
        """The assumption in words."""
        if self.stated:
            return f"every run is taken to draw {self.default}, as stated"
        return (
            f"a run is taken to draw {self.default}; one that asked for processors, 0.74 to 3.5 W for each "
            f"({DATASET}) and its memory; a sensor, next to nothing"
        )
