"""Instants carry their offset; durations their unit; local times of day survive the clock changes."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import InvalidInput
from cagg.windows import (
    Window,
    format_duration,
    format_instant,
    from_epoch_ms,
    next_time_of_day,
    parse_duration,
    parse_instant,
    parse_time_of_day,
    require_utc,
    time_zone,
    to_epoch_ms,
    to_milliseconds,
)

INSTANTS = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    max_value=datetime(2090, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    timezones=st.just(UTC),
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_naive_instants_are_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInput, match=r"finish_by 2026-11-23T06:00:00 has no UTC offset; write it as .*\+00:00"):
        parse_instant("2026-11-23T06:00:00", "finish_by")
    with pytest.raises(InvalidInput, match="no UTC offset"):
        require_utc(datetime(2026, 11, 23))  # noqa: DTZ001 - the point of the test
    with pytest.raises(InvalidInput, match="must be a date and time"):
        require_utc("2026-11-23T06:00:00Z")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "06:00", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "1764000000"]
)
def test_other_text_is_no_instant(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a date and time"):
        parse_instant(text)


@pytest.mark.parametrize(
    "text",
    ["2026-11-23T06:00:00Z", "2026-11-23T07:00:00+01:00", " 2026-11-23 06:00+00:00 ", "2026-11-22T22:00:00-08:00"],
)
def test_offsets_are_converted(text: str) -> None:
    instant = parse_instant(text)
    assert instant == datetime(2026, 11, 23, 6, tzinfo=UTC)
    assert instant.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1_800),
        ("30 min", 1_800),
        ("1h30m", 5_400),
        ("1 h 30 m", 5_400),
        ("90 s", 90),
        ("1.5h", 5_400),
        ("2d", 172_800),
        ("250ms", 0.25),
        ("PT30M", 1_800),
        ("pt1h", 3_600),
        ("P1DT2H", 93_600),
        ("P1W", 604_800),
        ("PT0.5S", 0.5),
        ("PT1,5H", 5_400),
        ("P0.5D", 43_200),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "m",
        "-30m",
        "0m",
        "0 s",
        "PT0S",
        "P1M",
        "P1Y",
        "P",
        "PT",
        "1h30",
        "30m1h",
        "nan s",
        "inf",
        "P-1D",
        "P1DT",
        "PT1H/2026-01-01",
    ],
)
def test_other_durations_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_duration(text, "duration")
    assert str(caught.value).startswith(f"duration {text!r}")
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("duration", [timedelta(0), timedelta(seconds=-1)])
def test_a_duration_is_longer_than_zero(duration: timedelta) -> None:
    with pytest.raises(InvalidInput, match="longer than zero"):
        parse_duration(duration)


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        assert parse_duration(text) > timedelta(0)


@pytest.mark.parametrize("digits", ["9" * 16, "9" * 30, "9" * 400])
@pytest.mark.parametrize("form", ["{}d", "{}h", "{}s", "{}ms", "P{}D", "PT{}S"])
def test_absurdly_long_durations_are_refused(digits: str, form: str) -> None:
    with pytest.raises(InvalidInput, match=r"longer than a century|needs a number"):
        parse_duration(form.format(digits))


def test_a_century_is_the_longest_duration() -> None:
    assert parse_duration("36525d") == timedelta(days=36_525)
    with pytest.raises(InvalidInput, match="longer than a century"):
        parse_duration(timedelta(days=36_525, microseconds=1))


@given(st.from_regex(r"P[0-9YMWDTHS.,]{0,12}", fullmatch=True))
def test_any_iso_duration_is_read_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        assert parse_duration(text) > timedelta(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("06:00", (6, 0, 0)),
        ("6:00", (6, 0, 0)),
        ("23:59:59", (23, 59, 59)),
        (" 00:00 ", (0, 0, 0)),
        ("24:00", None),
        ("06:60", None),
        ("0600", None),
        ("06:00Z", None),
        ("2026-11-23T06:00:00Z", None),
    ],
)
def test_times_of_day(text: str, expected: tuple[int, int, int] | None) -> None:
    assert parse_time_of_day(text) == expected


@pytest.mark.parametrize(
    ("time_of_day", "after", "expected"),
    [
        # an ordinary night, London in winter
        ((6, 0, 0), "2026-01-10T22:00:00Z", "2026-01-11T06:00:00Z"),
        # strictly after: asked at six it is tomorrow's six
        ((6, 0, 0), "2026-01-10T06:00:00Z", "2026-01-11T06:00:00Z"),
        ((6, 0, 0), "2026-01-10T05:59:59.999999Z", "2026-01-10T06:00:00Z"),
        # spring: clocks go from 01:00 GMT to 02:00 BST on 2026-03-29, so six comes an hour earlier in UTC
        ((6, 0, 0), "2026-03-28T22:00:00Z", "2026-03-29T05:00:00Z"),
        # ... and 01:30 does not exist that night: 01:30 at midnight's offset, shown as 02:30 BST
        ((1, 30, 0), "2026-03-28T22:00:00Z", "2026-03-29T01:30:00Z"),
        ((1, 30, 0), "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"),
        # the last instant before the gap and the first after it
        ((0, 59, 59), "2026-03-28T22:00:00Z", "2026-03-29T00:59:59Z"),
        ((2, 0, 0), "2026-03-28T22:00:00Z", "2026-03-29T01:00:00Z"),
        # autumn: clocks go from 02:00 BST back to 01:00 GMT on 2026-10-25
        ((6, 0, 0), "2026-10-24T21:00:00Z", "2026-10-25T06:00:00Z"),
        # ... and 01:30 comes twice: the first one counts
        ((1, 30, 0), "2026-10-24T21:00:00Z", "2026-10-25T00:30:00Z"),
        # asked between the two, the next day's is meant
        ((1, 30, 0), "2026-10-25T00:45:00Z", "2026-10-26T01:30:00Z"),
    ],
)
def test_the_next_time_of_day_in_london(time_of_day: tuple[int, int, int], after: str, expected: str) -> None:
    assert next_time_of_day(time_of_day, utc(after), "Europe/London") == utc(expected)


def test_the_local_date_counts_and_not_the_date_in_utc() -> None:
    # 21:00 UTC is already the next morning in Tokyo
    assert next_time_of_day((6, 0, 0), utc("2026-01-10T20:00:00Z"), "Asia/Tokyo") == utc("2026-01-10T21:00:00Z")
    assert next_time_of_day((6, 0, 0), utc("2026-01-10T22:00:00Z"), "Asia/Tokyo") == utc("2026-01-11T21:00:00Z")


@given(
    INSTANTS,
    st.tuples(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)),
    st.sampled_from(["UTC", "Europe/London", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_the_next_time_of_day_is_near_and_shows_that_time(
    after: datetime, time_of_day: tuple[int, int, int], zone: str
) -> None:
    found = next_time_of_day(time_of_day, after, zone)
    assert timedelta(0) < found - after <= timedelta(hours=49)
    local = found.astimezone(time_zone(zone))
    in_gap = (local.hour, local.minute, local.second) != time_of_day
    if in_gap:  # the clocks sprang forward over it that night
        assert local.utcoffset() != (local - timedelta(hours=3)).astimezone(UTC).astimezone(time_zone(zone)).utcoffset()


def test_naive_and_unknown_input_to_the_next_time_of_day() -> None:
    with pytest.raises(InvalidInput, match="no UTC offset"):
        next_time_of_day((6, 0, 0), datetime(2026, 1, 1), "UTC")  # noqa: DTZ001 - the point of the test
    for name in ("Europe/Atlantis", "", "../etc/passwd", "/etc/localtime", "Europe"):
        with pytest.raises(InvalidInput, match="use an IANA name"):
            next_time_of_day((6, 0, 0), datetime(2026, 1, 1, tzinfo=UTC), name)


def test_the_ledgers_form_of_an_instant() -> None:
    instant = datetime(2026, 3, 29, 7, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert format_instant(instant) == "2026-03-29T06:00:00.000005Z"


@given(INSTANTS)
def test_the_ledgers_form_reads_back(instant: datetime) -> None:
    text = format_instant(instant)
    assert len(text) == 27
    assert parse_instant(text) == instant


@given(st.integers(min_value=-(10**12), max_value=4 * 10**12))
def test_milliseconds_read_back(milliseconds: int) -> None:
    assert to_epoch_ms(from_epoch_ms(milliseconds)) == milliseconds
    assert to_epoch_ms(from_epoch_ms(milliseconds), up=True) == milliseconds


@given(INSTANTS)
def test_milliseconds_round_down_or_up(instant: datetime) -> None:
    down, up = to_epoch_ms(instant), to_epoch_ms(instant, up=True)
    assert from_epoch_ms(down) <= instant <= from_epoch_ms(up)
    assert up - down in (0, 1)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10_000)))
def test_durations_in_milliseconds_round_up(duration: timedelta) -> None:
    assert timedelta(0) <= timedelta(milliseconds=to_milliseconds(duration)) - duration < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 01 s"), (3_600, "1 h 00 min"), (7_500, "2 h 05 min")],
)
def test_durations_for_people(seconds: int, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


A, B = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 6, tzinfo=UTC)


def test_a_window_is_half_open() -> None:
    window = Window(start=A, end=B)
    assert window.contains(A)
    assert not window.contains(B)
    assert window.contains(B - timedelta(microseconds=1))
    assert window.duration == timedelta(hours=6)
    assert str(window) == "2026-01-01 00:00:00Z to 2026-01-01 06:00:00Z"


@pytest.mark.parametrize(("start", "end"), [(A, A), (B, A)])
def test_a_window_ends_after_it_starts(start: datetime, end: datetime) -> None:
    with pytest.raises(InvalidInput, match="must end after it starts"):
        Window(start=start, end=end)


def test_a_window_keeps_utc() -> None:
    local = timezone(timedelta(hours=5))
    assert Window(start=A.astimezone(local), end=B.astimezone(local)) == Window(start=A, end=B)
    assert Window(start=A.astimezone(local), end=B).start.tzinfo is UTC
    with pytest.raises(InvalidInput, match=r"a window's start .* no UTC offset"):
        Window(start=A.replace(tzinfo=None), end=B)
    with pytest.raises(InvalidInput, match="no UTC offset"):
        Window(start=A, end=B).contains(A.replace(tzinfo=None))


@given(st.lists(INSTANTS, min_size=4, max_size=4, unique=True))
def test_overlap_is_symmetric_and_bounded(instants: list[datetime]) -> None:
    first = Window(start=min(instants[:2]), end=max(instants[:2]))
    second = Window(start=min(instants[2:]), end=max(instants[2:]))
    common = first.overlap(second)
    assert common == second.overlap(first)
    assert timedelta(0) <= common <= min(first.duration, second.duration)
    assert first.overlap(first) == first.duration
    assert (common > timedelta(0)) == (first.start < second.end and second.start < first.end)


def test_neighbours_do_not_overlap() -> None:
    later = Window(start=B, end=B + timedelta(hours=1))
    assert Window(start=A, end=B).overlap(later) == timedelta(0)
