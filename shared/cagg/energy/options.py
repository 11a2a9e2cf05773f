"""Settings of the meter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cagg.errors import ConfigurationError
from cagg.settings import IdlePolicy

__all__ = ["AUTO_SOURCES", "SOURCE_NAMES", "IdlePolicy", "MeterSettings"]

SOURCE_NAMES = ("rapl", "cpu_model", "memory_model", "nvml", "codecarbon")
"""Every source by name."""

AUTO_SOURCES = ("auto",)
"""RAPL where it can be read, else the models; GPUs where there is a driver."""

_LONGEST_HEARTBEAT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSettings:
    """How a meter works; everything has a default.

    Attributes:
        sources: ``("auto",)`` or names from ``rapl``, ``cpu_model``, ``memory_model``, ``nvml``, ``codecarbon``; at
            most one per domain is used, in the order given.
        heartbeat_seconds: how often the meter settles while a run is open; above 0, at most 30. Sources that must be
            read more often shorten it.
        idle_policy: who is charged for idle energy.
        idle_milliwatts: measured idle power by domain, for example ``{"cpu": 45_000}``; others are calibrated from
            quiet moments or taken from the model.
        cross_check: ``"codecarbon"`` adds its figure to the notes and never changes a reading; None = no check.
        codecarbon_country: ISO-3 country that CodeCarbon insists on; None unless CodeCarbon is used.
        strict: raise when energy cannot be measured, instead of a reading with the reason.
        most_slices: slices kept per run; beyond it they are merged pairwise.
        background: False = no heartbeat thread; the owner calls ``Meter.beat()``.

    Raises:
        ConfigurationError: a name is unknown or a number is out of range.
    """

    sources: tuple[str, ...] = AUTO_SOURCES
    heartbeat_seconds: float = 10.0
    idle_policy: IdlePolicy = IdlePolicy.RESERVED
    idle_milliwatts: Mapping[str, int] = field(default_factory=dict)
    cross_check: str | None = None
    codecarbon_country: str | None = None
    strict: bool = False
    most_slices: int = 20_000
    background: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.sources if name not in SOURCE_NAMES and self.sources != AUTO_SOURCES]
        if unknown or not self.sources:
            raise ConfigurationError(
                f"the energy sources {list(self.sources)!r} are not ['auto'] or names from {', '.join(SOURCE_NAMES)}."
            )
        if not math.isfinite(self.heartbeat_seconds) or not 0 < self.heartbeat_seconds <= _LONGEST_HEARTBEAT_SECONDS:
            raise ConfigurationError(
                f"heartbeat_seconds must be above 0 and at most 30, got {self.heartbeat_seconds!r}."
            )
        if self.cross_check not in (None, "codecarbon"):
            raise ConfigurationError(f"cross_check can only be 'codecarbon', got {self.cross_check!r}.")
        if self.most_slices < 2:
            raise ConfigurationError(f"most_slices must be at least 2, got {self.most_slices}.")
        for domain, power in self.idle_milliwatts.items():
            if isinstance(power, bool) or not isinstance(power, int) or power < 0:
                raise ConfigurationError(f"the idle power of {domain} must be whole milliwatts, got {power!r}.")
