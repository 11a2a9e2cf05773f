"""What a waiter that is no gated run yet can be told: when the grid is clean enough. Holds and records nothing.

Sensors ask this. A gate asks more (budgets, materiality, the least worthwhile difference) and records its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from cagg.composition import Components
from cagg.errors import StoreUnavailable
from cagg.grid.chain import GridAnswer
from cagg.grid.series import mean_over, to_arrays
from cagg.ports import StoredForecast
from cagg.quantities import CarbonIntensity
from cagg.request import GateOptions
from cagg.schedule.contiguous import plan_contiguous
from cagg.schedule.threshold import first_start_within
from cagg.steps.deadlines import resolve_deadline
from cagg.windows import Window, from_epoch_ms, to_epoch_ms, to_milliseconds

__all__ = ["Outlook", "Readiness", "cleanest", "first_within", "latest_start", "look_ahead"]

_CACHE_REACH = timedelta(hours=24)
_MOMENT = timedelta(milliseconds=1)


class Readiness(StrEnum):
    """Whether the awaited moment is here."""

    NOW = "now"
    LATER = "later"
    NOT_FORESEEN = "not_foreseen"
    """the forecast shows no such moment in time; a newer one may"""
    UNKNOWN = "unknown"
    """nothing is known of the grid at the moment"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """When to start, by the forecast.

    Attributes:
        readiness: now, later, not foreseen or unknown.
        start: when, UTC; None when it is not foreseen or unknown.
        window: where the run would lie then; None without a start.
        intensity: forecast mean over that window; None when unknown.
        now_intensity: forecast mean over a run that starts now; None when unknown.
        source: the series' source; empty without one.
        quality: where the answer came from (live, cached, stale, climatology, yearly, none).
        steps: what was tried before, with the reason why it was not used.
    """

    readiness: Readiness
    start: datetime | None
    window: Window | None
    intensity: CarbonIntensity | None
    now_intensity: CarbonIntensity | None
    source: str
    quality: str
    steps: tuple[str, ...]


def latest_start(
    options: GateOptions,
    components: Components,
    *,
    first_asked_at: datetime,
    scheduled_start: datetime | None,
    time_zone: str | None,
    duration: timedelta,
    wake_margin: timedelta,
) -> datetime | None:
    """Return the last instant at which waiting still leaves room for the run; None when no deadline is set.

    Args:
        options: ``finish_by`` bounds the end of a run of ``duration``, ``max_wait`` its start.
        components: whose settings give the time zone where the schedule has none.
        first_asked_at, scheduled_start, time_zone, wake_margin: as for
            :func:`cagg.steps.deadlines.resolve_deadline`.
        duration: how long the run takes.

    Raises:
        InvalidInput: an explicit instant lies in the past at the first ask.
        ConfigurationError: a time of day was given and no time zone is known.
    """
    settings = components.settings
    deadline = resolve_deadline(
        options,
        first_asked_at=first_asked_at,
        scheduled_start=scheduled_start,
        time_zone=time_zone or settings.timezone,
        upper_duration=duration,
        wake_margin=wake_margin,
        config_file=settings.config_file,
    )
    return None if deadline is None else deadline - duration - wake_margin


def look_ahead(
    components: Components, zone_name: str, until: datetime, *, known: Sequence[StoredForecast] = ()
) -> GridAnswer:
    """Return what is known of a zone from now on: from the shared cache while that is fresh, else from the network.

    What was fetched goes into the shared cache for all others. Without a store the answer is the same; then the
    caller can hand in what earlier answers fetched.

    Args:
        components: grid, store and clock.
        zone_name: as people write it.
        until: how far to look.
        known: rows of earlier answers' ``fetched``.

    Raises:
        ZoneUnknown, ConfigurationError: the zone cannot be resolved.
    """
    now = components.clock.now()
    cached = list(known)
    keys = components.grid.cache_keys(zone_name)
    reachable = True
    try:
        with components.store.snapshot() as tx:
            cached.extend(row for provider, zone in keys for row in tx.forecasts(provider, zone, now - _CACHE_REACH))
    except StoreUnavailable:
        reachable = False
    window = Window(start=now, end=max(until, now + timedelta(hours=1)))
    answer = components.grid.forecast(zone_name, window, cached)
    if not reachable:
        return replace(answer, steps=(*answer.steps, "the store was down, so no other process's forecast was used"))
    if answer.fetched is not None:
        try:
            with components.store.transaction() as tx:
                tx.put_forecast(answer.fetched)
        except StoreUnavailable as problem:
            return replace(answer, steps=(*answer.steps, f"the forecast was not shared: {problem}"))
    return answer


def cleanest(answer: GridAnswer, *, now: datetime, duration: timedelta, latest: datetime) -> Outlook:
    """Return the cleanest start for a run of this length from now to ``latest``; now on ties.

    A latest start that has passed leaves now as the only start.
    """
    if answer.series is None:
        return _without(answer, Readiness.UNKNOWN)
    latest = max(latest, now)
    arrays = to_arrays(answer.series)
    length = to_milliseconds(duration)
    plan = plan_contiguous(
        edges_ms=arrays.edges_ms,
        milligrams_per_kwh=arrays.milligrams_per_kwh,
        known=arrays.known,
        now_ms=to_epoch_ms(now, up=True),
        latest_finish_ms=to_epoch_ms(latest, up=True) + length,
        duration_ms=length,
    )
    if plan is None or plan.now_cost is None:
        # nothing to compare a later start with, so nothing is held back; the same rule as the gate's
        return _without(answer, Readiness.UNKNOWN)
    start = now if plan.start_ms <= to_epoch_ms(now, up=True) else from_epoch_ms(plan.start_ms)
    return _at(answer, now, start, duration)


def first_within(
    answer: GridAnswer, *, now: datetime, duration: timedelta | None, latest: datetime, most: CarbonIntensity
) -> Outlook:
    """Return the first start from now to ``latest`` whose run stays within a mean intensity.

    Args:
        answer: what is known.
        now: earliest start.
        duration: length of the run that the mean is taken over; None = the intensity of the moment.
        latest: latest start.
        most: the threshold, itself allowed.
    """
    if answer.series is None:
        return _without(answer, Readiness.UNKNOWN)
    length = _MOMENT if duration is None else duration
    arrays = to_arrays(answer.series)
    now_ms = to_epoch_ms(now, up=True)
    start_ms = first_start_within(
        edges_ms=arrays.edges_ms,
        milligrams_per_kwh=arrays.milligrams_per_kwh,
        known=arrays.known,
        first_start_ms=now_ms,
        last_start_ms=max(now_ms, to_epoch_ms(latest)),
        duration_ms=to_milliseconds(length),
        most_milligrams_per_kwh=most.milligrams_per_kwh,
    )
    if start_ms is None:
        return replace(
            _without(answer, Readiness.NOT_FORESEEN),
            now_intensity=mean_over(answer.series, Window(start=now, end=now + length)).intensity,
        )
    return _at(answer, now, now if start_ms <= now_ms else from_epoch_ms(start_ms), length)


def _at(answer: GridAnswer, now: datetime, start: datetime, length: timedelta) -> Outlook:
    assert answer.series is not None  # noqa: S101  (callers return before)
    window = Window(start=start, end=start + length)
    return Outlook(
        readiness=Readiness.NOW if start <= now else Readiness.LATER,
        start=start,
        window=window,
        intensity=mean_over(answer.series, window).intensity,
        now_intensity=mean_over(answer.series, Window(start=now, end=now + length)).intensity,
        source=answer.series.source,
        quality=str(answer.quality),
        steps=answer.steps,
    )


def _without(answer: GridAnswer, readiness: Readiness) -> Outlook:
    return Outlook(
        readiness=readiness,
        start=None,
        window=None,
        intensity=None,
        now_intensity=None,
        source="" if answer.series is None else answer.series.source,
        quality=str(answer.quality),
        steps=answer.steps,
    )
