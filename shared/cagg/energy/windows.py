"""The handle of one measured run."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cagg.quantities import Energy
from cagg.records import Reading

if TYPE_CHECKING:
    from cagg.energy.meter import Meter

__all__ = ["MeterWindow", "Progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What an open run has used so far, for the beats of its lease.

    Attributes:
        energy: since the window opened; zero while nothing is known.
        power_milliwatts: mean power since the last progress, or since the start when that was under a second ago.
        at: when.
        known: False when no energy source can be read, so that the zero is not a measurement.
    """

    energy: Energy
    power_milliwatts: int
    at: datetime
    known: bool = True


class MeterWindow:
    """One run under the meter. Close it from any thread, as often as you like; the first close counts.

    Attributes:
        name: as given.
        started_at: when it opened, UTC.
        pid: the process that opened it.
        key: number of the window in its meter.
    """

    def __init__(self, *, meter: Meter, key: int, name: str, started_at: datetime) -> None:
        self._meter = meter
        self._closing = threading.Lock()
        self._reading: Reading | None = None
        self.key = key
        self.name = name
        self.started_at = started_at
        self.pid = os.getpid()

    def progress(self) -> Progress:
        """Settle and return what was used so far; in a forked child zero, not known.

        Raises:
            InvalidInput: the window is closed.
        """
        if self._meter._foreign(self) is not None:
            return Progress(energy=Energy.ZERO, power_milliwatts=0, at=self._meter._clock.now(), known=False)
        return self._meter._progress(self)

    def close(self) -> Reading:
        """End the run and return its reading; the same one again on later calls.

        A forked child gets a reading without energy: the process that opened the window reports it.

        Raises:
            MeterUnavailable: the settings are strict and not everything was measured; the window is closed all the
                same, and the next call returns the reading.
        """
        foreign = self._meter._foreign(self)
        if foreign is not None:
            return foreign  # before any lock: a lock that was held while forking is never released in the child
        with self._closing:
            if self._reading is not None:
                return self._reading
            self._reading = self._meter._close(self)
        self._meter._check_strict(self.name, self._reading)
        return self._reading

    @property
    def reading(self) -> Reading | None:
        """The reading; None while the window is open."""
        return self._reading

    def key_in(self, meter: Meter) -> int | None:
        """The key, when the window belongs to this meter in this process and is open; else None."""
        here = self._meter is meter and self.pid == os.getpid() and self._reading is None
        return self.key if here else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
