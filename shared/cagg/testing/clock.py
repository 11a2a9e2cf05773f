"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from cagg.errors import InvalidInput
from cagg.windows import require_utc

__all__ = ["ManualClock"]

_POLL_SECONDS = 0.002
"""How often a blocked background wait looks whether its event was set; real time."""

_PATIENCE_POLLS = 500
"""How long ``advance`` lets a woken background thread work before it goes on: about a second of real time."""


class ManualClock:
    """Implements :class:`cagg.ports.Clock` without the computer's clocks: wall and monotonic time move together.

    ``sleep`` and ``wait`` move the time instead of blocking, so a test that waits for hours ends at once. The one
    exception is ``wait`` in a *daemon* thread, which is how heartbeats run: it blocks until another thread has
    moved the time far enough, or its event is set. ``advance`` stops at each such due instant, in order, until the
    woken thread waits again or has ended: five minutes with a beat every 60 s are five beats, at the right times.

    Args:
        start: the first instant, with an offset; None = 2026-01-05 00:00 UTC, a Monday.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._start = datetime(2026, 1, 5, tzinfo=UTC) if start is None else require_utc(start, "the clock's start")
        self._elapsed_ns = 0
        self._wall_offset = timedelta(0)
        self._changed = threading.Condition()
        self._due_ns: dict[threading.Thread, int] = {}

    def now(self) -> datetime:
        """Return the instant the clock shows, UTC."""
        with self._changed:
            return self._start + self._wall_offset + timedelta(microseconds=self._elapsed_ns // 1_000)

    def monotonic_ns(self) -> int:
        """Return nanoseconds since the clock was made."""
        with self._changed:
            return self._elapsed_ns

    def sleep(self, seconds: float) -> None:
        """Move the time by that much; zero and negative times do nothing."""
        if seconds > 0:
            self.advance(timedelta(seconds=seconds))

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Return True if the event is set; else let the timeout pass and return whether it is set by then."""
        if event.is_set() or timeout_seconds <= 0:
            return event.is_set()
        if threading.current_thread().daemon:
            return self._wait_in_background(event, timeout_seconds)
        self.advance(timedelta(seconds=timeout_seconds))
        return event.is_set()

    def advance(self, by: timedelta | float) -> None:
        """Move the time forward by a timedelta or by seconds.

        Raises:
            InvalidInput: the amount is negative; time that runs backwards is :meth:`step_wall_clock`.
        """
        duration = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if duration < timedelta(0):
            raise InvalidInput(f"time advances by zero or more, got {by!r}; use step_wall_clock to set it back.")
        with self._changed:
            target_ns = self._elapsed_ns + duration // timedelta(microseconds=1) * 1_000
            while (due := self._next_due(target_ns)) is not None:
                thread, due_ns = due
                self._elapsed_ns = max(self._elapsed_ns, due_ns)
                self._let_run(thread, due_ns)
            self._elapsed_ns = max(self._elapsed_ns, target_ns)
            self._changed.notify_all()

    def advance_to(self, instant: datetime) -> None:
        """Move the time forward to an instant with an offset; raises InvalidInput if it has passed."""
        self.advance(require_utc(instant) - self.now())

    def step_wall_clock(self, by: timedelta) -> None:
        """Set the wall clock forward or back, as a time server does; monotonic time does not notice."""
        with self._changed:
            self._wall_offset += by

    def _wait_in_background(self, event: threading.Event, timeout_seconds: float) -> bool:
        me = threading.current_thread()
        with self._changed:
            due_ns = self._elapsed_ns + max(1, round(timeout_seconds * 1_000_000)) * 1_000
            self._due_ns[me] = due_ns
            self._changed.notify_all()
            while not event.is_set() and self._elapsed_ns < due_ns:
                self._changed.wait(_POLL_SECONDS)
            self._due_ns.pop(me, None)
            return event.is_set()

    def _next_due(self, target_ns: int) -> tuple[threading.Thread, int] | None:
        waiting = [item for item in self._due_ns.items() if item[1] <= target_ns and item[0].is_alive()]
        return min(waiting, key=lambda item: item[1], default=None)

    def _let_run(self, thread: threading.Thread, due_ns: int) -> None:
        self._changed.notify_all()
        for _ in range(_PATIENCE_POLLS):
            if not thread.is_alive() or self._due_ns.get(thread, due_ns) > due_ns:
                return
            self._changed.wait(_POLL_SECONDS)
        self._due_ns.pop(thread, None)
