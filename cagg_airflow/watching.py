"""What a sensor of the grid waits for, and the waiting itself: a window of clean power, or a threshold.

Everything is counted from a :class:`Moment` of absolute instants, so that a triggerer that takes over continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cagg.errors import CaggError, InvalidInput, ZoneUnknown
from cagg.quantities import CarbonIntensity
from cagg.request import GateOptions
from cagg.windows import format_instant, parse_instant
from cagg_airflow import waiting
from cagg_airflow.naming import WAKE_MARGIN
from cagg_airflow.sharing import shared

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.steps.outlook import Outlook

__all__ = [
    "DEADLINE",
    "DUE",
    "OFF_EVENT",
    "REFUSED",
    "Moment",
    "Wish",
    "look_once",
    "refused",
    "watch_window",
]

DUE: Final = "due"
"""status of an event: what was awaited is here"""
DEADLINE: Final = "deadline"
"""status of an event: the time for waiting is over"""
REFUSED: Final = "refused"
"""status of an event: what was asked cannot be awaited at all; ``message`` says why"""

OFF_EVENT: Final = MappingProxyType({"status": "off", "message": "cagg is off: [cagg] enabled is not set."})
"""what a sensor hears while nothing is enabled: it passes"""

_REPLAN: Final = timedelta(minutes=15)
"""A newer forecast may show another window: the sources publish every half hour, or every hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When the waiting began, and in which schedule.

    Attributes:
        asked_at: begin of this try, UTC.
        scheduled_start: when the schedule wanted the run; None for manual runs and backfills.
        time_zone: IANA zone of the schedule; None = the settings' one.
        not_before: nothing fires before it; None = at once.
    """

    asked_at: datetime
    scheduled_start: datetime | None = None
    time_zone: str | None = None
    not_before: datetime | None = None

    def as_values(self) -> dict[str, str | None]:
        """Return plain JSON values."""
        return {
            "asked_at": format_instant(self.asked_at),
            "scheduled_start": None if self.scheduled_start is None else format_instant(self.scheduled_start),
            "time_zone": self.time_zone,
            "not_before": None if self.not_before is None else format_instant(self.not_before),
        }

    @classmethod
    def from_values(cls, values: Mapping[str, str | None]) -> Moment:
        """Read what :meth:`as_values` wrote."""

        def instant(name: str) -> datetime | None:
            text = values.get(name)
            return None if text is None else parse_instant(text, name)

        asked_at = instant("asked_at")
        if asked_at is None:
            raise InvalidInput("a moment needs asked_at.")
        return cls(
            asked_at=asked_at,
            scheduled_start=instant("scheduled_start"),
            time_zone=values.get("time_zone"),
            not_before=instant("not_before"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a grid sensor waits for, with everything resolved.

    Attributes:
        zone: as people write it.
        duration: of the run that follows; None = the intensity of the moment is compared with ``below``.
        below: threshold; None = the cleanest window.
        latest: last instant of the wait.
    """

    zone: str
    duration: timedelta | None
    below: CarbonIntensity | None
    latest: datetime

    @classmethod
    def resolve(
        cls,
        parts: Components,
        moment: Moment,
        *,
        zone: str | None,
        duration: str | None,
        finish_by: str | None,
        max_wait: str | None,
        below: str | None,
        longest: timedelta,
    ) -> Wish:
        """Complete what the person said with the settings; empty text counts as not said.

        Raises:
            InvalidInput, ConfigurationError: a value cannot be used, or one that is needed is missing.
        """
        from cagg.steps.outlook import latest_start

        settings = parts.settings
        said = GateOptions(
            zone=zone or None, duration=duration or None, finish_by=finish_by or None, max_wait=max_wait or None
        )
        options = said.over(settings.defaults)
        zone_name = options.zone or settings.zone
        if zone_name is None:
            raise ZoneUnknown("no zone is set; give the sensor one, for example zone='neso:GB', or set CAGG_ZONE.")
        parts.grid.zone(zone_name)
        most = CarbonIntensity.parse(below) if below else None
        length = options.duration if isinstance(options.duration, timedelta) else None
        latest = latest_start(
            options,
            parts,
            first_asked_at=moment.asked_at,
            scheduled_start=moment.scheduled_start,
            time_zone=moment.time_zone,
            duration=length or (settings.default_duration if most is None else timedelta(0)),
            wake_margin=WAKE_MARGIN if options.finish_by is not None else timedelta(0),
        )
        if latest is None and most is None:
            raise InvalidInput("the cleanest window needs an end: give the sensor finish_by='06:00' or max_wait='8h'.")
        end = moment.asked_at + longest
        return cls(
            zone=zone_name,
            duration=length if most is not None else (length or settings.default_duration),
            below=most,
            latest=end if latest is None else min(latest, end),
        )

    def judge(self, answer: Any, now: datetime) -> Outlook:
        """Return when to start by a forecast."""
        from cagg.steps.outlook import cleanest, first_within

        if self.below is not None:
            return first_within(answer, now=now, duration=self.duration, latest=self.latest, most=self.below)
        assert self.duration is not None  # noqa: S101  (resolve sets it)
        return cleanest(answer, now=now, duration=self.duration, latest=self.latest)

    def is_over(self, now: datetime) -> bool:
        """True when nothing is to be awaited any more. A window that begins with the last instant still counts: it is
        looked at a moment after it, so the margin that was kept back is used."""
        return now > self.latest + (WAKE_MARGIN if self.below is None else timedelta(0))

    def event(self, outlook: Outlook, status: str) -> dict[str, Any]:
        """Return what the sensor pushes, in plain JSON values."""
        window = outlook.window
        return {
            "status": status,
            "zone": self.zone,
            "window": None
            if window is None
            else {"start": format_instant(window.start), "end": format_instant(window.end)},
            "intensity_milligrams_per_kwh": _milligrams(outlook.intensity),
            "now_intensity_milligrams_per_kwh": _milligrams(outlook.now_intensity),
            "below_milligrams_per_kwh": _milligrams(self.below),
            "source": outlook.source,
            "quality": outlook.quality,
            "unshifted": outlook.quality == "none",
            "message": self._sentence(outlook, status),
        }

    def _sentence(self, outlook: Outlook, status: str) -> str:
        wanted = "the cleanest window" if self.below is None else f"at most {self.below}"
        if outlook.quality == "none":
            why = f" ({'; '.join(step.rstrip('.') for step in outlook.steps)})" if outlook.steps else ""
            found = f"nothing is known of {self.zone}{why}, so nothing could be shifted"
        else:
            found = f"{outlook.now_intensity or 'an unknown intensity'} now in {self.zone} by {outlook.source}"
        return f"{'Waited for' if status == DUE else 'The time is over for'} {wanted}: {found}."


def _milligrams(intensity: CarbonIntensity | None) -> int | None:
    return None if intensity is None else intensity.milligrams_per_kwh


def look_once(parts: Components, wish: Wish) -> tuple[dict[str, Any] | None, datetime]:
    """Look at the grid now, from a worker; return the event if the wait is over, and when to look again."""
    from cagg.steps.outlook import look_ahead

    now = parts.clock.now()
    until = wish.latest + (wish.duration or timedelta(0))
    return _weigh(wish, wish.judge(look_ahead(parts, wish.zone, until), now), now)


def _weigh(wish: Wish, outlook: Outlook, now: datetime) -> tuple[dict[str, Any] | None, datetime]:
    from cagg.steps.outlook import Readiness

    if wish.is_over(now):
        return wish.event(outlook, DEADLINE), now
    if outlook.readiness is Readiness.NOW:
        return wish.event(outlook, DUE), now
    if outlook.readiness is Readiness.UNKNOWN and wish.below is None:
        return wish.event(outlook, DUE), now  # nothing to wait for: the run is not held back
    if wish.below is not None and now >= wish.latest:
        return wish.event(outlook, DEADLINE), now
    wake = min(now + _REPLAN, wish.latest)
    return None, wake if outlook.start is None else min(wake, outlook.start)


async def watch_window(parts: Components, wish: Wish) -> dict[str, Any]:
    """Wait for the window or threshold, or until the time is over; return the event."""
    until = wish.latest + (wish.duration or timedelta(0))
    while True:
        now = waiting.clock().now()
        outlook = wish.judge(await shared().forecast(parts, wish.zone, until), now)
        event, wake = _weigh(wish, outlook, now)
        if event is not None:
            return event
        await waiting.sleep_until(wake)


def refused(problem: CaggError) -> dict[str, Any]:
    """Return the event of a wait that cannot begin or go on."""
    return {"status": REFUSED, "message": str(problem)}
