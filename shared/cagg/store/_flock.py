"""Writers of one SQLite file take turns: an advisory lock on ``<file>.lock`` around each writing transaction.

SQLite's own busy handler sleeps and retries, which lets a busy process starve the others; a blocking ``flock``
queues them in the kernel. The lock only orders writers: SQLite still protects its file by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading

from cagg.errors import StoreBusy
from cagg.ports import Clock

__all__ = ["WriterLock"]

_NS = 1_000_000_000


class _Waiter:
    """A thread that blocks in the kernel for the lock, so that the caller's wait can end before it."""

    def __init__(self, descriptor: int) -> None:
        self.got = threading.Event()
        self.guard = threading.Lock()
        self.wanted = True
        self.thread = threading.Thread(target=self._wait, args=(descriptor,), name="cagg-store-lock", daemon=True)
        self.thread.start()

    def _wait(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with self.guard:
            self.got.set()
            if not self.wanted:
                _unlock(descriptor)


class WriterLock:
    """One process's share in the queue of writers; threads of the process pass through it one by one."""

    def __init__(self, path: str, *, clock: Clock, timeout_seconds: float) -> None:
        self._path = path
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._turn = threading.Lock()
        self._descriptor: int | None = None
        self._waiter: _Waiter | None = None

    def acquire(self) -> None:
        """Wait for the turn.

        Raises:
            StoreBusy: another writer holds the lock for longer than the timeout.
            OSError: the lock file cannot be opened.
        """
        started_ns = self._clock.monotonic_ns()
        if not self._turn.acquire(timeout=self._timeout_seconds):
            raise self._too_long()
        held = False
        try:
            waited = (self._clock.monotonic_ns() - started_ns) / _NS
            held = self._lock(max(0.0, self._timeout_seconds - waited))
        finally:
            if not held:
                self._turn.release()
        if not held:
            raise self._too_long()

    def _lock(self, timeout_seconds: float) -> bool:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        waiter = self._waiter
        if waiter is not None and not self._claim(waiter):
            self._waiter = waiter = None
        if waiter is None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._waiter = waiter = _Waiter(self._descriptor)
            else:
                return True
        if waiter.got.wait(timeout_seconds):
            self._waiter = None
            return True
        with waiter.guard:
            if waiter.got.is_set():
                self._waiter = None
                return True
            waiter.wanted = False
        return False

    @staticmethod
    def _claim(waiter: _Waiter) -> bool:
        """Take over a thread that an earlier caller left waiting; False if it has ended meanwhile."""
        with waiter.guard:
            if waiter.got.is_set():
                return False
            waiter.wanted = True
            return True

    def release(self) -> None:
        """Let the next writer in."""
        if self._descriptor is not None:
            _unlock(self._descriptor)
        self._turn.release()

    def pause(self) -> bool:
        """Keep this process's threads from writing until :meth:`resume`; False if one went on for too long."""
        return self._turn.acquire(timeout=self._timeout_seconds)

    def resume(self) -> None:
        """Let this process's threads write again."""
        self._turn.release()

    def close(self) -> None:
        """Close the lock file, unless a thread still waits in it."""
        if self._descriptor is not None and self._waiter is None:
            os.close(self._descriptor)
            self._descriptor = None

    def forget(self) -> None:
        """Start anew in a forked child, which shares the parent's descriptor and with it the parent's lock."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None
        self._waiter = None
        self._turn = threading.Lock()

    def _too_long(self) -> StoreBusy:
        return StoreBusy(
            f"another program has been writing to the store for more than {self._timeout_seconds:g} s and holds "
            f"{self._path}; find it with 'fuser -v {self._path}' (or lsof) and end it if it hangs."
        )


def _unlock(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
