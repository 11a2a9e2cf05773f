"""Rows of the forecast cache as a chain sees them: newest first, decoded only when looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from cagg.errors import InvalidInput
from cagg.grid._holes import Looked
from cagg.grid.codec import unpack
from cagg.grid.series import gaps, merge
from cagg.intensity import IntensitySeries, Zone
from cagg.ports import IntensityProvider, StoredForecast
from cagg.provenance import IntensityKind
from cagg.windows import Window

__all__ = ["STALE_AFTER", "CachedRows"]

STALE_AFTER = timedelta(hours=24)
"""A cached forecast older than this does not steer any more."""

_OF_ITS_DAY = (IntensityKind.MEASURED, IntensityKind.ESTIMATED, IntensityKind.FORECAST)
"""Kinds that know the actual day, best first: joined, they are what the weakest of them is."""

_decoded = lru_cache(maxsize=16)(unpack)


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
                if gaps(series, window) != (window,):
                    yield series

    def looked_back(self, zone: Zone, since: datetime) -> bool:
        """True when a row that was fetched since then knows a past that it did not forecast."""
        return any(
            row.zone == str(zone) and row.fetched_at >= since and row.start < row.fetched_at - timedelta(hours=1)
            for row in self._rows
        )

    def newest(self, zone: Zone, window: Window) -> IntensitySeries | None:
        """The newest series that knows all of the window."""
        return next((series for series in self.vintages(zone, window) if not gaps(series, window)), None)

    def joined(self, zone: Zone, window: Window) -> IntensitySeries | None:
        """The newest series, extended by older ones until the window is covered or none is left.

        Measured, estimated and forecast numbers of one source are joined, and called what the weakest of them is.
        """
        joined: IntensitySeries | None = None
        for series in self.vintages(zone, window):
            if joined is None:
                joined = series
            elif series.convention == joined.convention and (
                series.kind is joined.kind or {series.kind, joined.kind} <= set(_OF_ITS_DAY)
            ):
                kind = max(series.kind, joined.kind, key=[*_OF_ITS_DAY, *IntensityKind].index)
                joined = merge(replace(joined, kind=kind), replace(series, kind=kind))
            if not gaps(joined, window):
                break
        return joined

    def why_none(self, provider: IntensityProvider, zone: Zone, looked: Looked) -> str:
        """Say why no cached series steers."""
        own = [row for row in self._rows if row.zone == str(zone)]
        if not own:
            return f"{provider.name}: no forecast of {zone} is cached"
        newest = next(self.vintages(zone, looked.window), None)
        if newest is not None and self._now - newest.fetched_at <= STALE_AFTER and (lack := looked.lack(newest)):
            return f"{provider.name}, cached: {lack}"
        return f"{provider.name}: what is cached of {zone} is of another time, unreadable, or more than 24 h old"
