"""The only module that reads the computer's clocks or sleeps."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

__all__ = ["SystemClock"]


class SystemClock:
    """The computer's own clocks; implements :class:`cagg.ports.Clock`."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never run backwards; only differences mean anything."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Block this thread; zero and negative times return at once."""
        if seconds > 0:
            time.sleep(seconds)

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Block until the event is set (True) or the timeout has passed (False)."""
        return event.wait(timeout_seconds)
