"""Periods of budgets: half-open stretches of UTC time between local midnights.

A day has 23, 24 or 25 hours (or any other length that the zone's clocks give it), weeks are ISO 8601 weeks, and the
boundary of a date is the first instant at which local clocks show that date or a later one. So a midnight that the
clocks skip (Havana, Cairo) or repeat, and even a date that a country skipped (Apia, 30 December 2011), leave neither a
gap nor an overlap. Time zone rules come from the computer's tz database or from the ``tzdata`` package.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from cagg.errors import InvalidInput
from cagg.ports import Transaction
from cagg.records import Allotment, Budget, Period
from cagg.windows import Window, require_utc, time_zone

__all__ = ["TOTAL", "period_window", "window_for", "windows_for"]

TOTAL = Window(start=datetime(1970, 1, 1, tzinfo=UTC), end=datetime(9000, 1, 1, tzinfo=UTC))
"""The one period of a budget that never starts anew: from the store's first instant to one that nobody will see."""

_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)


def period_window(period: Period, zone_name: str, at: datetime) -> Window:
    """Return the period that contains an instant, in UTC, bounded by the zone's local midnights.

    Args:
        period: day, ISO week (from Monday), month, quarter, year, or total (:data:`TOTAL` in every zone).
        zone_name: IANA time zone.
        at: any instant with an offset from 1970 to 8999; an instant on a boundary lies in the period that starts.

    Raises:
        InvalidInput: the zone is unknown, or the instant is naive or out of range.

    Source: weeks as in ISO 8601-1:2019, 3.1.1.23 (a week starts on Monday).
    """
    at = require_utc(at, "the instant of a budget period")
    zone = time_zone(zone_name)
    if not TOTAL.contains(at):
        raise InvalidInput(f"budget periods reach from 1970 to 8999, got {at.isoformat()}; correct the instant.")
    if period is Period.TOTAL:
        return TOTAL
    first = _first_date(period, at.astimezone(zone).date())
    start, end = _boundary(zone, first), _boundary(zone, _next_date(period, first))
    # Where clocks fall back across midnight, local dates run backwards for a while: the boundaries decide.
    while at < start:
        first = _first_date(period, first - _DAY)
        start, end = _boundary(zone, first), start
    while at >= end:
        first = _next_date(period, first)
        start, end = end, _boundary(zone, _next_date(period, first))
    return Window(start=start, end=end)


def window_for(tx: Transaction, budget: Budget, at: datetime) -> Window:
    """Return the window of the budget's allotment at an instant, opened already or not. Opens nothing.

    An allotment that was opened keeps its window when the budget's time zone or the zone's rules change afterwards:
    the period that follows starts where it ends, and is longer or shorter for once. Two allotments of a budget
    therefore never overlap, and a change of zone never grants the same day twice.
    """
    (window,) = windows_for(tx, (budget,), at)
    return window


def windows_for(tx: Transaction, budgets: Sequence[Budget], at: datetime) -> list[Window]:
    """Return :func:`window_for` of each of several budgets, in the same order, by one look into the store."""
    at = require_utc(at, "the instant of a budget period")
    wanted = [(budget, period_window(budget.period, budget.time_zone, at)) for budget in budgets]
    return [_between(window, at, opened) for (_, window), opened in zip(wanted, tx.opened(wanted), strict=True)]


def _between(window: Window, at: datetime, opened: Sequence[Allotment]) -> Window:
    """Return the opened period that contains the instant, else what the opened ones leave of the window around it."""
    start, end = window.start, window.end
    for one in opened:
        if one.window.contains(at):
            return one.window
        if one.window.end <= at:
            start = max(start, one.window.end)
        else:
            end = min(end, one.window.start)
    return Window(start=start, end=end)


def _first_date(period: Period, day: date) -> date:
    match period:
        case Period.DAY | Period.TOTAL:
            return day
        case Period.WEEK:
            return day - timedelta(days=day.weekday())
        case Period.MONTH:
            return day.replace(day=1)
        case Period.QUARTER:
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        case Period.YEAR:
            return day.replace(month=1, day=1)
        case _:
            assert_never(period)


def _next_date(period: Period, first: date) -> date:
    match period:
        case Period.DAY | Period.TOTAL:
            return first + _DAY
        case Period.WEEK:
            return first + timedelta(days=7)
        case Period.MONTH:
            return _first_date(Period.MONTH, first + timedelta(days=31))
        case Period.QUARTER:
            return _first_date(Period.QUARTER, first + timedelta(days=92))
        case Period.YEAR:
            return first.replace(year=first.year + 1)
        case _:
            assert_never(period)


def _boundary(zone: ZoneInfo, day: date) -> datetime:
    """Return the first instant at which the zone's clocks show this date or a later one.

    fold=0 is the first of two midnights, and for a midnight that is skipped the end of the jump. That would be late
    only for a jump that begins before midnight and ends after it; no zone of the tz database had one from 1970 to
    2037, and then the periods would still meet without gap or overlap.
    """
    return datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC)
