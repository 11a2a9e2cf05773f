"""Climatology: what 16 zones emitted on average in 2022, by month and hour of the day. Ships with cagg, no network.

It knows the usual shape of a day, not this day. Computed from hourly data of Electricity Maps (ODbL 1.0), see
``grid/data/LICENSES.md``; the origin does not say whether direct or life-cycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cagg.errors import IntensityUnavailable
from cagg.grid._data import CLIMATOLOGY_EDITION, Climate, climate
from cagg.grid.zones import CONVENTIONS, KINDS, ZoneEntry, zones_of
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.ports import Clock
from cagg.quantities import CarbonIntensity
from cagg.windows import Window

__all__ = ["ClimatologyProvider"]

_HOUR = timedelta(hours=1)
_LONGEST = timedelta(days=400)
_LICENCE = "ODbL-1.0; Electricity Maps"


class ClimatologyProvider:
    """Means and 95th percentiles of 2022 by month and hour of day (UTC)."""

    name = "climatology"
    convention = CONVENTIONS["climatology"]
    kind = KINDS["climatology"]
    local = True
    horizon = timedelta(hours=48)

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock

    def zones(self) -> tuple[ZoneEntry, ...]:
        """The 16 zones."""
        return zones_of(self.name)

    def knows(self, zone: Zone) -> bool:
        """True for the zones of :meth:`zones`."""
        return any(entry.zone == zone for entry in self.zones())

    def fresh_until(self, fetched_at: datetime) -> datetime:
        """The past of 2022 does not change: a day."""
        return fetched_at + timedelta(days=1)

    def fetch(self, zone: Zone, window: Window) -> IntensitySeries:
        """Return hourly means over the window, whole hours.

        Raises:
            IntensityUnavailable: the zone is unknown, or the window is longer than 400 days.
        """
        mean = self._climate(zone).mean
        if window.duration > _LONGEST:
            raise IntensityUnavailable(f"the climatology is asked for at most 400 days at once, not for {window}.")
        points = tuple(
            IntensityPoint(
                window=Window(start=hour, end=hour + _HOUR),
                intensity=CarbonIntensity(milligrams_per_kwh=mean[_cell(hour)]),
            )
            for hour in _hours(window)
        )
        return IntensitySeries(
            zone=zone,
            points=points,
            convention=self.convention,
            kind=self.kind,
            source=f"{self.name} {CLIMATOLOGY_EDITION}",
            issued_at=None,
            fetched_at=self._clock.now(),
            licence=_LICENCE,
        )

    async def fetch_async(self, zone: Zone, window: Window) -> IntensitySeries:
        """As :meth:`fetch`; it never blocks."""
        return self.fetch(zone, window)

    def percentile_95(self, zone: Zone, window: Window) -> CarbonIntensity:
        """Return the highest 95th percentile among the months and hours of day that the window touches.

        A window longer than 400 days touches all of them. Raises IntensityUnavailable for an unknown zone.
        """
        p95 = self._climate(zone).p95
        highest = max(p95) if window.duration > _LONGEST else max(p95[_cell(hour)] for hour in _hours(window))
        return CarbonIntensity(milligrams_per_kwh=highest)

    def _climate(self, zone: Zone) -> Climate:
        if zone.provider != self.name or not self.knows(zone):
            raise IntensityUnavailable(f"the climatology has 16 zones, {zone} is none of them; see `cagg zones`.")
        return climate(zone.code)


def _hours(window: Window) -> Iterator[datetime]:
    hour = window.start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    while hour < window.end:
        yield hour
        hour += _HOUR


def _cell(hour: datetime) -> int:
    return (hour.month - 1) * 24 + hour.hour
