"""Zones and series of carbon intensity: the values that providers return and everybody shares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cagg.errors import InvalidInput
from cagg.provenance import Convention, IntensityKind
from cagg.quantities import CarbonIntensity
from cagg.windows import Window, require_utc

__all__ = ["IntensityPoint", "IntensitySeries", "Zone"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Zone:
    """A grid area, named in its provider's namespace, for example ``neso:GB``."""

    provider: str
    code: str

    def __post_init__(self) -> None:
        if not self.provider or not self.code:
            raise InvalidInput(
                f"a zone needs a provider and a code, for example 'neso:GB', got {self.provider!r}:{self.code!r}."
            )

    def __str__(self) -> str:
        return f"{self.provider}:{self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityPoint:
    """The mean intensity of one window; None means that the source left a gap there."""

    window: Window
    intensity: CarbonIntensity | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensitySeries:
    """Intensities of one zone from one source, in order, without overlaps; gaps are allowed and visible.

    Attributes:
        zone: the zone as this provider names it.
        points: windows in ascending order; two never overlap.
        convention: signal, basis and gas, the same for every point.
        kind: how the numbers came about.
        source: the provider and, for files, the digest or edition, for example ``neso`` or ``climatology 2022``.
        issued_at: the vintage: when the source published it; None when it does not say.
        fetched_at: when we obtained it.
        licence: SPDX identifier or name, with the attribution the licence asks for.
    """

    zone: Zone
    points: tuple[IntensityPoint, ...]
    convention: Convention
    kind: IntensityKind
    source: str
    issued_at: datetime | None
    fetched_at: datetime
    licence: str

    def __post_init__(self) -> None:
        require_utc(self.fetched_at, "fetched_at")
        if self.issued_at is not None:
            require_utc(self.issued_at, "issued_at")
        for before, after in zip(self.points, self.points[1:], strict=False):
            if after.window.start < before.window.end:
                raise InvalidInput(
                    f"the intensities of {self.zone} from {self.source} overlap at {after.window.start.isoformat()}."
                )

    @property
    def window(self) -> Window | None:
        """From the first point's start to the last point's end; None for an empty series."""
        if not self.points:
            return None
        return Window(start=self.points[0].window.start, end=self.points[-1].window.end)
