"""Several sources in order of preference, with a visible fallback when the first ones have no answer.

Steering goes live, then the last forecast up to 24 h old, then climatology, then the yearly average, then nothing.
Each step that failed is named in the answer, which always rests on one series of one provider: numbers of different
sources or conventions are never put into one series.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cagg.errors import CaggError, ConfigurationError, ZoneUnknown
from cagg.grid._cached import STALE_AFTER, CachedRows
from cagg.grid._holes import Looked
from cagg.grid.answers import (
    GridAnswer,
    GridQuality,
    Use,
    accounting_providers,
    check_homogeneous,
    entries_of,
    zone_for,
)
from cagg.grid.codec import pack
from cagg.grid.planning import planning_intensity
from cagg.grid.series import gaps
from cagg.grid.traits import fresh_until, traits_of
from cagg.grid.zones import ZoneEntry
from cagg.intensity import IntensitySeries, Zone
from cagg.ports import Clock, IntensityProvider, StoredForecast
from cagg.provenance import IntensityKind
from cagg.quantities import CarbonIntensity
from cagg.windows import Window, format_duration

__all__ = ["Chain", "GridAnswer", "GridQuality", "Use", "accounting_providers", "check_homogeneous"]

_PAUSE = timedelta(seconds=30)
_SLOW_NS = 500_000_000
"""A source that failed slowly, half a second or more, is left alone for the pause: else each of many gates in one
process would wait for the same timeout."""

_PAST = timedelta(hours=23)
"""What sources serve as their last 24 hours: the present one is among them."""

_PAST_AGAIN = timedelta(minutes=15)
"""How long the past of a source is not asked for again: its newest hours are revised, its gaps may stay."""

_FURTHEST = timedelta(days=400)
"""Nothing later is looked at, whatever the deadline: over a year the grid repeats itself as far as anybody knows, and
sums over a longer series would leave 64 bits."""

_FLAT = {IntensityKind.CLIMATOLOGY: GridQuality.CLIMATOLOGY, IntensityKind.YEARLY: GridQuality.YEARLY}
"""Kinds that do not know the actual day, in the order in which they stand in for those that do."""


class Chain:
    """Providers in order of preference. Opens no store: callers hand cached rows in and store what is fetched.

    Args:
        providers: best first; names must differ.
        clock: time.
        use: steering, or accounting, where all providers must share one convention.

    Raises:
        ConfigurationError: no provider, a repeated name, or an accounting chain of several conventions.
    """

    def __init__(self, *, providers: Sequence[IntensityProvider], clock: Clock, use: Use = Use.STEERING) -> None:
        if not providers:
            raise ConfigurationError("a grid chain needs at least one provider; name one under grid.steering.")
        names = [provider.name for provider in providers]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"a grid chain names a provider twice ({', '.join(names)}); name each once.")
        if use is Use.ACCOUNTING:
            check_homogeneous(providers)
        self.providers = tuple(providers)
        self.use = use
        self._clock = clock
        self._entries = entries_of(providers)
        self._zones: dict[tuple[str, Zone], Zone | None] = {}
        self._failed: dict[Zone, tuple[datetime, str]] = {}

    # ---- zones ----------------------------------------------------------------------------------------------------

    def zones(self) -> tuple[ZoneEntry, ...]:
        """Every zone that the providers list, for ``cagg zones`` and for resolving names."""
        return self._entries

    def zone_of(self, provider: IntensityProvider, zone: Zone) -> Zone | None:
        """Return what a provider of this chain calls the zone's area; None when it does not know it."""
        key = (provider.name, zone)
        if key not in self._zones:
            self._zones[key] = zone_for(provider, zone, self._entries)
        return self._zones[key]

    def require(self, zone: Zone) -> None:
        """Raise ZoneUnknown unless at least one provider knows the zone's area."""
        if all(self.zone_of(provider, zone) is None for provider in self.providers):
            names = ", ".join(provider.name for provider in self.providers)
            own = [str(entry.zone) for entry in self._entries if entry.zone.provider == zone.provider]
            hint = f"{zone.provider} has {own[0]}" if len(own) == 1 else "see `cagg zones`"
            raise ZoneUnknown(f"zone {zone} is known to none of the providers {names}; {hint}.")

    def cache_keys(self, zone: Zone) -> tuple[tuple[str, str], ...]:
        """Return (provider, zone) of the cached rows that the chain can use, best first."""
        keys = []
        for provider in self.providers:
            own = self.zone_of(provider, zone)
            if own is not None and not traits_of(provider).local:
                keys.append((provider.name, str(own)))
        return tuple(keys)

    # ---- answers --------------------------------------------------------------------------------------------------

    def forecast(
        self,
        zone: Zone,
        window: Window,
        cached: Sequence[StoredForecast] = (),
        *,
        needed: timedelta | None = None,
    ) -> GridAnswer:
        """Return the best answer for steering; failures become steps, never exceptions.

        Uses the network only when no cached row is fresh. A series steers only if it knows the time from the window's
        start on, because every later start is compared with that one. Later gaps, and an end before the window's, are
        left in place and named in the steps.

        Args:
            zone: any provider's name of the area.
            window: what planning looks at; longer than a source's horizon is fine, beyond 400 days is not looked at.
            cached: rows of :meth:`cache_keys` in any order; damaged or foreign ones are passed over with a step.
            needed: how long from the window's start must be known without a gap: the run's expected duration, as far
                as the window reaches. None = the instant at which the window starts.
        """
        steps: list[str] = []
        if window.duration > _FURTHEST:
            window = Window(start=window.start, end=window.start + _FURTHEST)
            steps.append(f"only the first {_FURTHEST.days} days are looked at, until {window.end:%Y-%m-%d %H:%M}Z")
        looked = Looked.over(window, needed)
        rows = self._rows(cached, steps)
        found = (
            self._live(zone, looked, rows, steps)
            or self._stale(zone, looked, rows, steps)
            or self._typical(zone, looked, steps)
        )
        if found is None:
            return GridAnswer(series=None, quality=GridQuality.NONE, steps=tuple(steps), age=None, fetched=None)
        series, quality = found
        steps.extend(looked.remarks(series))
        local = any(item.name == series.zone.provider and traits_of(item).local for item in self.providers)
        return GridAnswer(
            series=series,
            quality=quality,
            steps=tuple(steps),
            age=max(timedelta(0), self._clock.now() - series.fetched_at),
            fetched=pack(series) if quality is GridQuality.LIVE and not local else None,
        )

    def on_hand(self, zone: Zone, window: Window, cached: Sequence[StoredForecast] = ()) -> tuple[IntensitySeries, ...]:
        """Return what is known of a window without the network, best first: what a settlement may price with.

        One series per provider, of its joined cached vintages or, for a local one, asked now; it may know only a part
        of the window.
        """
        rows = self._rows(cached, [])
        found = []
        for provider in self.providers:
            own = self.zone_of(provider, zone)
            if own is None:
                continue
            local = traits_of(provider).local
            series = self._fetched(provider, own, window, []) if local else rows.joined(own, window)
            if series is not None:
                found.append(series)
        return tuple(found)

    def past_day(self, zone: Zone, cached: Sequence[StoredForecast] = ()) -> StoredForecast | None:
        """Ask the first live source for the last day where the cache has gaps, so that readings can be priced.

        For accounts without forecasts, and after an outage. Returns a row for the cache; None when nothing is
        missing, when it was asked lately, or when the source does not know it either.
        """
        now = self._clock.now()
        window = Window(start=now - _PAST, end=now + timedelta(milliseconds=1))  # the interval that just began, too
        rows = self._rows(cached, [])
        for provider in self.providers:
            own = self.zone_of(provider, zone)
            if own is None or provider.kind in _FLAT or traits_of(provider).local:
                continue
            joined = rows.joined(own, window)
            if (joined is not None and not gaps(joined, window)) or rows.looked_back(own, now - _PAST_AGAIN):
                return None
            series = self._fetched(provider, own, window, [])
            return None if series is None else pack(series)
        return None

    def planning_intensity(
        self, zone: Zone, window: Window, forecast: IntensitySeries | None = None
    ) -> tuple[CarbonIntensity | None, str]:
        """Return the price of holds and where it comes from; see :func:`cagg.grid.planning.planning_intensity`."""
        return planning_intensity(zone, window, forecast, clock=self._clock, more=self._entries)

    def _rows(self, cached: Sequence[StoredForecast], steps: list[str]) -> CachedRows:
        return CachedRows(cached, providers=self.providers, now=self._clock.now(), steps=steps)

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _live(
        self, zone: Zone, looked: Looked, rows: CachedRows, steps: list[str]
    ) -> tuple[IntensitySeries, GridQuality] | None:
        for provider in self.providers:
            if provider.kind in _FLAT:
                continue
            own = self.zone_of(provider, zone)
            if own is None:
                steps.append(f"{provider.name}: knows nothing of {zone}")
                continue
            newest = rows.newest(own, looked.needed)
            if newest is not None and self._clock.now() < fresh_until(provider, newest.fetched_at):
                return newest, GridQuality.CACHED
            series = self._fetched(provider, own, self._reach(provider, looked.window), steps)
            if series is not None:
                lack = looked.lack(series)
                if not lack:
                    return series, GridQuality.LIVE
                steps.append(f"{provider.name}: {lack}")
        return None

    def _stale(
        self, zone: Zone, looked: Looked, rows: CachedRows, steps: list[str]
    ) -> tuple[IntensitySeries, GridQuality] | None:
        for provider in self.providers:
            own = self.zone_of(provider, zone)
            if provider.kind in _FLAT or own is None or traits_of(provider).local:
                continue
            newest = rows.newest(own, looked.needed)
            if newest is not None and self._clock.now() - newest.fetched_at <= STALE_AFTER:
                return newest, GridQuality.STALE
            steps.append(rows.why_none(provider, own, looked))
        return None

    def _typical(self, zone: Zone, looked: Looked, steps: list[str]) -> tuple[IntensitySeries, GridQuality] | None:
        for kind, quality in _FLAT.items():
            for provider in self.providers:
                if provider.kind is not kind:
                    continue
                own = self.zone_of(provider, zone)
                if own is None:
                    steps.append(f"{provider.name}: knows nothing of {zone}")
                    continue
                series = self._fetched(provider, own, self._reach(provider, looked.window), steps)
                if series is not None:
                    lack = looked.lack(series)
                    if not lack:
                        return series, quality
                    steps.append(f"{provider.name}: {lack}")
        return None

    def _fetched(
        self, provider: IntensityProvider, zone: Zone, window: Window, steps: list[str]
    ) -> IntensitySeries | None:
        """Ask one provider; None with a step when it fails, or answers for another zone or convention."""
        now, started_ns = self._clock.now(), self._clock.monotonic_ns()
        failed = self._failed.get(zone)
        if failed is not None and timedelta(0) <= now - failed[0] < _PAUSE:
            ago = format_duration(now - failed[0])
            steps.append(f"{provider.name}: failed {ago} ago and is not asked again yet ({failed[1]})")
            return None
        self._failed.pop(zone, None)
        try:
            series = provider.fetch(zone, window)
        except CaggError as error:
            if self._clock.monotonic_ns() - started_ns >= _SLOW_NS:
                self._failed[zone] = (self._clock.now(), str(error))
            steps.append(f"{provider.name}: {error}")
            return None
        if series.zone != zone or series.convention != provider.convention:
            steps.append(f"{provider.name}: answered for {series.zone} ({series.convention}) instead of {zone}")
            return None
        return series

    def _reach(self, provider: IntensityProvider, window: Window) -> Window:
        """Ask for all that a source has ahead: the next gates, with other deadlines, find it in the cache, and a run
        that overruns its plan can still be priced."""
        if window.end <= self._clock.now():
            return window
        return Window(start=window.start, end=max(window.end, window.start + traits_of(provider).horizon))
