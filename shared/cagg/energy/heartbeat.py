"""One background thread that calls a function at a period while it is wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cagg.ports import Clock

__all__ = ["Heartbeat"]


class Heartbeat:
    """A daemon thread between :meth:`start` and :meth:`stop`; none before and after.

    Should the function raise, the error goes to ``threading.excepthook`` and a new thread goes on: one caller's fault
    does not stop the meter for the others.

    Args:
        clock: time to wait on.
        beat: called once per period.
    """

    def __init__(self, *, clock: Clock, beat: Callable[[], None]) -> None:
        self._clock = clock
        self._beat = beat
        self._stop: threading.Event | None = None

    @property
    def running(self) -> bool:
        """True between start and stop."""
        return self._stop is not None

    def start(self, period_seconds: float) -> None:
        """Start beating; does nothing when it runs already."""
        if self._stop is None:
            self._stop = threading.Event()
            self._launch(self._stop, period_seconds)

    def stop(self) -> None:
        """Stop beating; returns at once, the thread ends by itself."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def _launch(self, stop: threading.Event, period_seconds: float) -> None:
        threading.Thread(target=self._run, args=(stop, period_seconds), name="cagg-heartbeat", daemon=True).start()

    def _run(self, stop: threading.Event, period_seconds: float) -> None:
        try:
            while not self._clock.wait(stop, period_seconds):
                self._beat()
        finally:
            if not stop.is_set():
                self._launch(stop, period_seconds)
