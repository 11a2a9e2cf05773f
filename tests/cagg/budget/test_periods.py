"""Periods of budgets: local midnights, odd clocks, calendar edges."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.budget.periods import TOTAL, period_window
from cagg.errors import InvalidInput
from cagg.records import Period

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/Havana",
    "Africa/Cairo",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "America/St_Johns",
    "America/Toronto",
    "America/Asuncion",
)
MICROSECOND = timedelta(microseconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "instant", "start", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", 25),
        ("Europe/London", "2026-03-29T00:30", "2026-03-29T00:00", 23),
        # Havana's clocks jump from 00:00 to 01:00 and fall back from 01:00 to 00:00.
        ("America/Havana", "2026-03-08T12:00", "2026-03-08T05:00", 23),
        ("America/Havana", "2026-11-01T12:00", "2026-11-01T04:00", 25),
        # Cairo's jump from 00:00 to 01:00 on the last Friday of April, back at 24:00 on the last Thursday of October.
        ("Africa/Cairo", "2026-04-24T12:00", "2026-04-23T22:00", 23),
        ("Africa/Cairo", "2026-10-29T12:00", "2026-10-28T21:00", 25),
        ("Australia/Lord_Howe", "2026-04-04T20:00", "2026-04-04T13:00", 24.5),
        # Apia skipped 30 December 2011 altogether.
        ("Pacific/Apia", "2011-12-30T09:59", "2011-12-29T10:00", 24),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-30T10:00", 24),
        # St. John's changed its clocks at 00:01 until 2011: back to 23:01 of the day before.
        ("America/St_Johns", "2010-11-07T12:00", "2010-11-07T02:30", 25),
        ("America/St_Johns", "2010-11-07T03:00", "2010-11-07T02:30", 25),
    ],
)
def test_days_are_as_long_as_local_clocks_make_them(zone: str, instant: str, start: str, hours: float) -> None:
    window = period_window(Period.DAY, zone, at(instant))
    assert window.start == at(start)
    assert window.duration == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("period", "instant", "start", "end"),
    [
        (Period.WEEK, "2026-12-31T12:00", "2026-12-28", "2027-01-04"),  # ISO week 53 of 2026
        (Period.WEEK, "2027-01-03T23:59:59.999999", "2026-12-28", "2027-01-04"),
        (Period.WEEK, "2027-01-04T00:00", "2027-01-04", "2027-01-11"),
        (Period.MONTH, "2028-02-29T12:00", "2028-02-01", "2028-03-01"),
        (Period.MONTH, "2026-12-31T23:59:59.999999", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "2026-01-31T00:00", "2026-01-01", "2026-02-01"),
        (Period.QUARTER, "2026-03-31T23:00", "2026-01-01", "2026-04-01"),
        (Period.QUARTER, "2026-11-23T12:00", "2026-10-01", "2027-01-01"),
        (Period.YEAR, "2028-02-29T00:00", "2028-01-01", "2029-01-01"),
        (Period.DAY, "2028-02-29T00:00", "2028-02-29", "2028-03-01"),
    ],
)
def test_calendar_edges(period: Period, instant: str, start: str, end: str) -> None:
    window = period_window(period, "UTC", at(instant))
    assert (window.start, window.end) == (at(start), at(end))


def test_total_is_one_period_for_ever() -> None:
    for instant in ("1970-01-01", "2026-11-23", "8999-12-31"):
        assert period_window(Period.TOTAL, "Europe/Berlin", at(instant)) == TOTAL


@given(
    zone=st.sampled_from(ZONES),
    period=st.sampled_from([one for one in Period if one is not Period.TOTAL]),
    instant=st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_periods_tile_time_and_start_on_their_local_dates(zone: str, period: Period, instant: datetime) -> None:
    window = period_window(period, zone, instant)
    assert window.contains(instant)
    assert period_window(period, zone, window.start) == window
    assert period_window(period, zone, window.end - MICROSECOND) == window
    if window.start > TOTAL.start:
        assert period_window(period, zone, window.start - MICROSECOND).end == window.start
    assert period_window(period, zone, window.end).start == window.end
    first = window.start.astimezone(ZoneInfo(zone)).date()
    skipped = zone == "Pacific/Apia" and first == date(2011, 12, 31)
    match period:
        case Period.WEEK:
            assert first.isoweekday() == 1
        case Period.MONTH:
            assert first.day == 1
        case Period.QUARTER:
            assert (first.month % 3, first.day) == (1, 1)
        case Period.YEAR:
            assert (first.month, first.day) == (1, 1)
        case _:
            assert skipped or (window.start - MICROSECOND).astimezone(ZoneInfo(zone)).date() < first


@given(zone=st.sampled_from(ZONES), day=st.dates(date(1971, 1, 1), date(2037, 12, 31)))
def test_a_day_holds_exactly_the_minutes_that_show_its_date(zone: str, day: date) -> None:
    clock = ZoneInfo(zone)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=clock)
    if noon.astimezone(UTC).astimezone(clock).date() != day:
        return  # the country skipped this date
    window = period_window(Period.DAY, zone, noon.astimezone(UTC))
    for minutes in range(-90, 27 * 60, 15):
        instant = window.start + timedelta(minutes=minutes)
        shown = instant.astimezone(clock).date()
        if window.contains(instant):
            # Where clocks fall back over midnight, a date may come back for an hour after the next has begun.
            assert shown == day or shown == day - timedelta(days=1)
        elif instant < window.start:
            assert shown < day


@pytest.mark.parametrize(
    ("zone", "instant"),
    [
        ("Europe/Atlantis", at("2026-01-01")),
        ("UTC", datetime(2026, 1, 1)),  # noqa: DTZ001
        ("UTC", at("1969-12-31")),
        ("UTC", at("9000-01-01")),
        ("UTC", "2026-01-01"),
    ],
)
def test_what_is_no_instant_or_no_zone_is_refused(zone: str, instant: datetime) -> None:
    with pytest.raises(InvalidInput):
        period_window(Period.DAY, zone, instant)
