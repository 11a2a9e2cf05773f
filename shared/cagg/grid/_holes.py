"""What a series must know to steer, and what it leaves open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from cagg.grid.series import gaps
from cagg.intensity import IntensitySeries
from cagg.windows import Window

__all__ = ["Looked"]

_INSTANT = timedelta(microseconds=1)
_MOST_REMARKS = 4
"""A source with a hole in every hour is not listed hour by hour in every decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The window that planning looks at, and the part from its start that a series must know without a gap."""

    window: Window
    needed: Window

    @classmethod
    def over(cls, window: Window, needed: timedelta | None) -> Looked:
        """Return what is looked at; None or less than an instant needs the window's first instant only."""
        length = min(window.duration, max(_INSTANT, needed or _INSTANT))
        return cls(window=window, needed=Window(start=window.start, end=window.start + length))

    def lack(self, series: IntensitySeries) -> str:
        """Say what keeps a series from steering; empty when nothing does."""
        if not gaps(series, self.needed):
            return ""
        hole = gaps(series, self.window)[0]
        if hole == self.window:
            return f"knows nothing of {hole}"
        return f"gap from {hole}, so that a start now cannot be compared with a later one"

    def remarks(self, series: IntensitySeries) -> Iterator[str]:
        """Name the gaps of a series that steers, and its end if the window goes on."""
        holes = gaps(series, self.window)
        tail = holes[-1] if holes and holes[-1].end == self.window.end else None
        inner = holes if tail is None else holes[:-1]
        for hole in inner[:_MOST_REMARKS]:
            yield f"{series.source}: gap from {hole}"
        if len(inner) > _MOST_REMARKS:
            yield f"{series.source}: {len(inner) - _MOST_REMARKS} more gaps until {inner[-1].end:%Y-%m-%d %H:%M:%S}Z"
        if tail is not None:
            yield f"{series.source}: knows nothing from {tail.start:%Y-%m-%d %H:%M:%S}Z on"
