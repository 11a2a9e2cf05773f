"""What a chain answers, and which providers may stand in one chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile

from cagg.errors import ConfigurationError
from cagg.grid.series import coverage
from cagg.grid.traits import traits_of
from cagg.grid.zones import ZoneEntry, equivalent_zone
from cagg.intensity import IntensitySeries, Zone
from cagg.ports import IntensityProvider, StoredForecast

__all__ = [
    "GridAnswer",
    "GridQuality",
    "Use",
    "accounting_providers",
    "check_homogeneous",
    "entries_of",
    "zone_for",
]


class GridQuality(StrEnum):
    """Where a steering answer came from, best first."""

    LIVE = "live"
    """asked just now"""
    CACHED = "cached"
    """from the cache, and no newer answer exists yet"""
    STALE = "stale"
    """from the cache because the source failed; at most 24 h old"""
    CLIMATOLOGY = "climatology"
    """the usual shape of a day, not this day"""
    YEARLY = "yearly"
    """flat: cannot support shifting in time"""
    NONE = "none"
    """nothing is known"""


class Use(StrEnum):
    """What a chain's numbers are for."""

    STEERING = "steering"
    """choosing when to run: sources of different conventions may follow each other"""
    ACCOUNTING = "accounting"
    """pricing readings: one convention only"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridAnswer:
    """What the chain found for a zone and window.

    Attributes:
        series: from one source; None when nothing is known. It may cover less of the window than was asked, or more.
        quality: where it came from.
        steps: what was tried before, in order, with the reason why it was not used; then what the series leaves open.
        age: time since the series was fetched; None without a series.
        fetched: row for the forecast cache, to be stored by the caller; None when there is nothing new to store.
    """

    series: IntensitySeries | None
    quality: GridQuality
    steps: tuple[str, ...]
    age: timedelta | None
    fetched: StoredForecast | None

    @property
    def horizon(self) -> datetime | None:
        """End of what the series knows; planning stops there. None when nothing is known."""
        known = None if self.series is None else coverage(self.series)
        return None if known is None else known.end


def check_homogeneous(providers: Sequence[IntensityProvider]) -> None:
    """Raise ConfigurationError, naming both conventions, unless all providers share signal, basis and gas."""
    for other in providers[1:]:
        if other.convention != providers[0].convention:
            first = providers[0]
            raise ConfigurationError(
                f"{first.name} ({first.convention}) and {other.name} ({other.convention}) mean different things and "
                "cannot price readings together; keep one of them under grid.accounting, both may steer."
            )


def accounting_providers(
    providers: Sequence[IntensityProvider], *, declared: bool, zone: Zone | None = None
) -> tuple[str, ...]:
    """Return the names of the providers that may price readings.

    Args:
        providers: in order of preference.
        declared: True when the user named exactly these for accounting; False takes the homogeneous start of a
            steering chain.
        zone: leaves out providers that know nothing of this area; None = all stay.

    Raises:
        ConfigurationError: declared providers differ in signal, basis or gas.
    """
    if declared:
        check_homogeneous(providers)
    more = entries_of(providers)
    able = [item for item in providers if zone is None or zone_for(item, zone, more) is not None]
    return tuple(item.name for item in takewhile(lambda item: item.convention == able[0].convention, able))


def entries_of(providers: Sequence[IntensityProvider]) -> tuple[ZoneEntry, ...]:
    """Return every zone that the providers list."""
    return tuple(entry for provider in providers for entry in traits_of(provider).zones)


def zone_for(provider: IntensityProvider, zone: Zone, more: Sequence[ZoneEntry]) -> Zone | None:
    """Return what a provider calls the zone's area; None when it does not know it."""
    own = equivalent_zone(zone, provider.name, more=more)
    return own if own is not None and provider.knows(own) else None
