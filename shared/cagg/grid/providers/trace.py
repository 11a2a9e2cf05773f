"""A trace file as a provider: recorded intensities, moved and compressed onto the wall clock.

The trace's first interval begins at the anchor, and ``time_scale`` seconds of the trace pass in one second of the
clock. Everything else, planner, gate and ledger, sees ordinary windows of ordinary time and knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

from cagg.errors import ConfigurationError, IntensityUnavailable
from cagg.grid.providers._trace_file import Trace, read_trace
from cagg.grid.zones import ZoneEntry
from cagg.intensity import IntensityPoint, IntensitySeries, Zone
from cagg.ports import Clock
from cagg.windows import Window, from_epoch_ms, require_utc, to_epoch_ms

__all__ = ["TraceProvider"]


class TraceProvider:
    """One trace file, zone ``trace:NAME``.

    Args:
        trace: what the file says.
        clock: time; only stamps ``fetched_at``.
        time_scale: seconds of the trace per second of the clock; 1 plays it as it was, 60 an hour in a minute.
        anchor: instant of the clock at which the trace begins; None = its own start, so the past stays the past.
        name: zone code; None = as the file says.

    Raises:
        ConfigurationError: the scale is not above zero, or so large that every interval vanishes.
    """

    name = "trace"
    local = True

    def __init__(
        self,
        trace: Trace,
        *,
        clock: Clock,
        time_scale: float | Fraction = 1,
        anchor: datetime | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(time_scale, float) and not 0 < time_scale < float("inf"):
            raise ConfigurationError(f"the time scale of a trace must be above zero, got {time_scale}.")
        scale = Fraction(time_scale).limit_denominator(1_000_000)
        if scale <= 0:
            raise ConfigurationError(f"the time scale of a trace must be above zero, got {time_scale}.")
        self.convention = trace.convention
        self.kind = trace.kind
        self._trace = trace
        self._clock = clock
        self._scale = scale
        self._begin = trace.points[0].window.start
        self._anchor = self._begin if anchor is None else require_utc(anchor, "the anchor of a trace")
        self._zone = Zone(provider=self.name, code=name or trace.name)
        self._points = self._moved(trace.points)
        if not self._points:
            raise ConfigurationError(
                f"with the time scale {float(scale):g} no interval of {self._zone} is left; lower it."
            )
        self.horizon = self._points[-1].window.end - self._points[0].window.start

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        clock: Clock,
        time_scale: float | Fraction = 1,
        anchor: datetime | None = None,
        name: str | None = None,
    ) -> TraceProvider:
        """Read a CSV or JSON file; raises ConfigurationError naming file and line."""
        return cls(read_trace(path), clock=clock, time_scale=time_scale, anchor=anchor, name=name)

    def zones(self) -> tuple[ZoneEntry, ...]:
        """The one zone of this file."""
        # a trace without an area is a place of its own: nothing else stands in for it
        area = self._trace.area or str(self._zone)
        return (
            ZoneEntry(
                zone=self._zone,
                name=self._trace.title,
                area=area,
                wider=area.split("-", 1)[0] if self._trace.area and "-" in area else None,
                convention=self.convention,
                kind=self.kind,
            ),
        )

    def knows(self, zone: Zone) -> bool:
        """True for this file's zone."""
        return zone == self._zone

    def fresh_until(self, fetched_at: datetime) -> datetime:
        """The file is read once: a day."""
        return fetched_at + timedelta(days=1)

    def fetch(self, zone: Zone, window: Window) -> IntensitySeries:
        """Return the intervals that overlap the window; raises IntensityUnavailable when there is none."""
        if not self.knows(zone):
            raise IntensityUnavailable(f"the trace file holds {self._zone}, not {zone}; name the zone {self._zone}.")
        points = tuple(point for point in self._points if point.window.overlap(window) > timedelta(0))
        if all(point.intensity is None for point in points):
            first, last = self._points[0].window.start, self._points[-1].window.end
            raise IntensityUnavailable(
                f"{self._zone} reaches from {first:%Y-%m-%d %H:%M:%S}Z to {last:%Y-%m-%d %H:%M:%S}Z and knows "
                f"nothing of {window}; set grid.trace.anchor to where it should begin."
            )
        issued = self._trace.issued_at
        return IntensitySeries(
            zone=self._zone,
            points=points,
            convention=self.convention,
            kind=self.kind,
            source=f"{self.name} {self._zone.code} sha256:{self._trace.digest[:16]}",
            issued_at=None if issued is None else from_epoch_ms(self._wall_ms(issued)),
            fetched_at=self._clock.now(),
            licence=self._trace.licence,
        )

    async def fetch_async(self, zone: Zone, window: Window) -> IntensitySeries:
        """As :meth:`fetch`; it never blocks."""
        return self.fetch(zone, window)

    def _wall_ms(self, instant: datetime) -> int:
        """Clock time of an instant of the trace, in whole milliseconds: one rounding per edge, so edges still meet."""
        micros = (instant - self._begin) // timedelta(microseconds=1)
        return to_epoch_ms(self._anchor) + int(micros / self._scale // 1_000)

    def _moved(self, points: Sequence[IntensityPoint]) -> tuple[IntensityPoint, ...]:
        if self._scale == 1 and self._anchor == self._begin:
            return tuple(points)
        moved = []
        for point in points:
            start, end = self._wall_ms(point.window.start), self._wall_ms(point.window.end)
            if start < end:
                window = Window(start=from_epoch_ms(start), end=from_epoch_ms(end))
                moved.append(IntensityPoint(window=window, intensity=point.intensity))
        return tuple(moved)
