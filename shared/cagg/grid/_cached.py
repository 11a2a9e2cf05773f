"""Rows of the forecast cache as a chain sees them: newest first, decoded only when looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from cagg.errors import InvalidInput
from cagg.grid.codec import unpack
from cagg.grid.series import gaps, merge
from cagg.intensity import IntensitySeries, Zone
from cagg.ports import IntensityProvider, StoredForecast
from cagg.windows import Window

__all__ = ["CachedRows", "covers", "knows_some"]

STALE_AFTER = timedelta(hours=24)
"""A cached forecast older than this does not steer any more."""

_decoded = lru_cache(maxsize=16)(unpack)


def knows_some(series: IntensitySeries, window: Window) -> bool:
    """True when at least an instant of the window is known."""
    return gaps(series, window) != (window,)


def covers(series: IntensitySeries, window: Window) -> bool:
    """True when all of the window is known."""
    return not gaps(series, window)


class CachedRows:
    """The rows that callers handed in.

    Args:
        rows: in any order; rows of other providers and rows from the future are passed over.
        providers: whose rows count, and with which convention.
        now: the present instant.
        steps: where unreadable rows are reported.
    """

    def __init__(
        self,
        rows: Sequence[StoredForecast],
        *,
        providers: Sequence[IntensityProvider],
        now: datetime,
        steps: list[str],
    ) -> None:
        conventions = {provider.name: str(provider.convention) for provider in providers}
        self._now = now
        self._steps = steps
        self._rows = sorted(
            (row for row in rows if conventions.get(row.provider) == row.convention and row.fetched_at <= now),
            key=lambda row: row.fetched_at,
            reverse=True,
        )

    def vintages(self, zone: Zone, window: Window) -> Iterator[IntensitySeries]:
        """Series of the zone that know some of the window, newest first; each is decoded when it is its turn."""
        for row in self._rows:
            if row.zone == str(zone) and row.start < window.end and row.end > window.start:
                try:
                    series = _decoded(row)
                except InvalidInput as error:
                    if f"cache: {error}" not in self._steps:
                        self._steps.append(f"cache: {error}")
                    continue
                if knows_some(series, window):
                    yield series

    def newest(self, zone: Zone, window: Window) -> IntensitySeries | None:
        """The newest series that knows some of the window."""
        return next(self.vintages(zone, window), None)

    def joined(self, zone: Zone, window: Window) -> IntensitySeries | None:
        """The newest series, extended by older ones of the same kind until the window is covered or none is left."""
        joined: IntensitySeries | None = None
        for series in self.vintages(zone, window):
            if joined is None:
                joined = series
            elif series.kind is joined.kind and series.convention == joined.convention:
                joined = merge(joined, series)
            if covers(joined, window):
                break
        return joined

    def why_none(self, provider: IntensityProvider, zone: Zone) -> str:
        """Say why no cached series steers."""
        own = [row for row in self._rows if row.zone == str(zone)]
        if not own:
            return f"{provider.name}: no forecast of {zone} is cached"
        return f"{provider.name}: what is cached of {zone} is of another time, unreadable, or more than 24 h old"
