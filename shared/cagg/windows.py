"""Instants, durations and half-open windows. Aware UTC inside; naive input raises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cagg.errors import InvalidInput

__all__ = [
    "Window",
    "format_duration",
    "format_instant",
    "from_epoch_ms",
    "next_time_of_day",
    "parse_duration",
    "parse_instant",
    "parse_time_of_day",
    "require_utc",
    "time_zone",
    "to_epoch_ms",
    "to_epoch_us",
    "to_milliseconds",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = timedelta(days=36_525)
"""A century: nothing we plan lasts longer, and instants computed from it stay in the calendar's range."""
_SHORT = re.compile(
    r"^\s*(?:(?P<d>\d+(?:\.\d+)?)\s*d)?\s*(?:(?P<h>\d+(?:\.\d+)?)\s*h)?\s*(?:(?P<m>\d+(?:\.\d+)?)\s*m(?:in)?)?"
    r"\s*(?:(?P<s>\d+(?:\.\d+)?)\s*s)?\s*(?:(?P<ms>\d+)\s*ms)?\s*$"
)
_ISO_SHAPE = re.compile(r"^P(?!.*[0-9]{10})[0-9WDTHMS.,]{1,40}[WDHMS]$")
"""What is handed to pendulum: a lone duration, and no ten digits in a row, which its 3.3 reads modulo 2^32."""
_TIME_OF_DAY = re.compile(r"^\s*([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?\s*$")


def require_utc(instant: datetime, what: str = "an instant") -> datetime:
    """Return the instant in UTC; raises InvalidInput if it carries no offset."""
    if not isinstance(instant, datetime):
        raise InvalidInput(f"{what} must be a date and time, got {instant!r}.")
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise InvalidInput(
            f"{what} {instant.isoformat()} has no UTC offset; "
            f"write it as {instant.isoformat()}+00:00 or with another offset."
        )
    return instant.astimezone(UTC)


def parse_instant(value: str | datetime, what: str = "an instant") -> datetime:
    """Read an ISO 8601 date and time with an offset, or check a datetime; returns UTC."""
    if isinstance(value, datetime):
        return require_utc(value, what)
    try:
        instant = datetime.fromisoformat(value.strip())
    except ValueError:
        raise InvalidInput(f"{what} {value!r} is not a date and time; write it as 2026-11-23T06:00:00+00:00.") from None
    return require_utc(instant, what)


def parse_duration(value: str | timedelta, what: str = "a duration") -> timedelta:
    """Read ``"30m"``, ``"1h30m"``, ``"90 s"`` or ISO 8601 ``"PT30M"``; returns a positive timedelta.

    Raises InvalidInput for text without a unit, zero and negative durations. Calendar months and years are
    refused because their length is not fixed.
    """
    if isinstance(value, timedelta):
        duration = value
    else:
        try:
            duration = _parse_duration_text(value, what)
        except OverflowError:
            raise InvalidInput(f"{what} {value[:40]!r} must not be longer than a century, for example '30m'.") from None
    if duration <= timedelta(0):
        raise InvalidInput(f"{what} {value!r} must be longer than zero, for example '30m'.")
    if duration > _LONGEST:
        raise InvalidInput(f"{what} {value!r} must not be longer than a century, for example '30m'.")
    return duration


def _parse_duration_text(text: str, what: str) -> timedelta:
    match = _SHORT.match(text)
    if match is not None and any(match.groupdict().values()):
        part = {name: float(number or 0) for name, number in match.groupdict().items()}
        return timedelta(days=part["d"], hours=part["h"], minutes=part["m"], seconds=part["s"], milliseconds=part["ms"])
    if _ISO_SHAPE.match(text.strip().upper()):
        import pendulum  # here, because only ISO 8601 durations need it

        try:
            parsed = pendulum.parse(text.strip().upper())
        except (ValueError, AttributeError):
            parsed = None
        if isinstance(parsed, pendulum.Duration) and not parsed.years and not parsed.months:
            return timedelta(microseconds=round(parsed.total_seconds() * 1_000_000))
    raise InvalidInput(f"{what} {text!r} needs a number and a unit, for example '30m', '1h30m' or 'PT30M'.")


def parse_time_of_day(text: str) -> tuple[int, int, int] | None:
    """Read ``"06:00"`` or ``"06:00:30"`` as (hour, minute, second); None if the text is something else."""
    match = _TIME_OF_DAY.match(text)
    if match is None:
        return None
    return int(match[1]), int(match[2]), int(match[3] or 0)


def time_zone(name: str) -> ZoneInfo:
    """Return an IANA time zone; raises InvalidInput for an unknown name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(f"time zone {name!r} is unknown; use an IANA name such as 'Europe/London'.") from None


def next_time_of_day(time_of_day: tuple[int, int, int], after: datetime, zone_name: str) -> datetime:
    """Return the first instant strictly after ``after`` at which local clocks show the given time, in UTC.

    A time that the spring change skips is taken as the instant that many minutes after local midnight's offset
    would give (Python's fold=0 reading); one that the autumn change repeats is its first occurrence.
    """
    zone = time_zone(zone_name)
    after = require_utc(after)
    local = after.astimezone(zone)
    hour, minute, second = time_of_day
    for days in (0, 1, 2):
        day = (local + timedelta(days=days)).date()
        candidate = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=zone).astimezone(UTC)
        if candidate > after:
            return candidate
    raise InvalidInput(f"no time {hour:02}:{minute:02} was found after {after.isoformat()} in {zone_name}.")


def format_instant(instant: datetime) -> str:
    """Return ``YYYY-MM-DDTHH:MM:SS.ffffffZ`` in UTC: the one form that ledger bodies use."""
    return require_utc(instant).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_milliseconds(duration: timedelta) -> int:
    """Return a duration in whole milliseconds, rounded up."""
    return -(-(duration // timedelta(microseconds=1)) // 1_000)


def to_epoch_ms(instant: datetime, *, up: bool = False) -> int:
    """Return whole milliseconds since 1970-01-01T00:00Z, rounded down, or up on request."""
    micros = (require_utc(instant) - _EPOCH) // timedelta(microseconds=1)
    return -(-micros // 1_000) if up else micros // 1_000


def to_epoch_us(instant: datetime) -> int:
    """Return whole microseconds since 1970-01-01T00:00Z."""
    return (require_utc(instant) - _EPOCH) // timedelta(microseconds=1)


def from_epoch_ms(milliseconds: int) -> datetime:
    """Return the UTC instant that lies that many milliseconds after 1970-01-01T00:00Z."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """Return a short text such as ``"2 h 05 min"`` for people."""
    seconds = int(duration.total_seconds() + 0.5)
    hours, rest = divmod(abs(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    if minutes:
        return f"{minutes} min {seconds:02} s" if seconds else f"{minutes} min"
    return f"{seconds} s"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Window:
    """A half-open stretch of time ``[start, end)``; both instants are UTC and start lies before end."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", require_utc(self.start, "a window's start"))
        object.__setattr__(self, "end", require_utc(self.end, "a window's end"))
        if self.end <= self.start:
            raise InvalidInput(
                f"a window must end after it starts, got {self.start.isoformat()} to {self.end.isoformat()}."
            )

    @property
    def duration(self) -> timedelta:
        """Length of the window."""
        return self.end - self.start

    def contains(self, instant: datetime) -> bool:
        """True when the instant lies in the window; the end does not."""
        return self.start <= require_utc(instant) < self.end

    def overlap(self, other: Window) -> timedelta:
        """Length of the common part, zero when there is none."""
        return max(timedelta(0), min(self.end, other.end) - max(self.start, other.start))

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M:%S}Z to {self.end:%Y-%m-%d %H:%M:%S}Z"
