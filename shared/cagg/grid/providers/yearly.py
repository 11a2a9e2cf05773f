"""Yearly averages of 213 countries and territories. Ships with cagg, no network; cannot support shifting in time.

From Our World in Data, "Lifecycle carbon intensity of electricity generation" (Ember, Energy Institute), CC BY 4.0,
mostly 2022 and 2023; see ``grid/data/LICENSES.md``.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cagg.errors import IntensityUnavailable
from cagg.grid._data import Country, countries
from cagg.grid.zones import CONVENTIONS, KINDS, ZoneEntry, zones_of
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.ports import Clock
from cagg.quantities import CarbonIntensity
from cagg.windows import Window

__all__ = ["YearlyProvider"]

_LICENCE = "CC-BY-4.0; Our World in Data from Ember and Energy Institute"


class YearlyProvider:
    """One number per country, by ISO 3166-1 alpha-3 code (``yearly:DEU``)."""

    name = "yearly"
    convention = CONVENTIONS["yearly"]
    kind = KINDS["yearly"]
    local = True
    horizon = timedelta(hours=48)

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock

    def zones(self) -> tuple[ZoneEntry, ...]:
        """All countries."""
        return zones_of(self.name)

    def knows(self, zone: Zone) -> bool:
        """True for an alpha-3 code that is in the file."""
        return zone.provider == self.name and zone.code in countries()

    def fresh_until(self, fetched_at: datetime) -> datetime:
        """The file changes with releases of cagg only: a day."""
        return fetched_at + timedelta(days=1)

    def fetch(self, zone: Zone, window: Window) -> IntensitySeries:
        """Return one point over the whole window; raises IntensityUnavailable for an unknown country."""
        country = self._country(zone)
        intensity = CarbonIntensity(milligrams_per_kwh=country.milligrams_per_kwh)
        return IntensitySeries(
            zone=zone,
            points=(IntensityPoint(window=window, intensity=intensity),),
            convention=self.convention,
            kind=self.kind,
            source=f"{self.name} {country.year}",
            issued_at=None,
            fetched_at=self._clock.now(),
            licence=_LICENCE,
        )

    async def fetch_async(self, zone: Zone, window: Window) -> IntensitySeries:
        """As :meth:`fetch`; it never blocks."""
        return self.fetch(zone, window)

    def average(self, zone: Zone) -> tuple[CarbonIntensity, int]:
        """Return a country's average and its year; raises IntensityUnavailable for an unknown country."""
        country = self._country(zone)
        return CarbonIntensity(milligrams_per_kwh=country.milligrams_per_kwh), country.year

    def _country(self, zone: Zone) -> Country:
        if not self.knows(zone):
            raise IntensityUnavailable(
                f"no yearly average is known for {zone}; use an ISO 3166-1 alpha-3 code, see `cagg zones`."
            )
        return countries()[zone.code]
