"""Processor time of one run: control group, process tree, or thread. Each implements :class:`cagg.ports.UsageReader`.

CPU clocks (``time.process_time_ns``, ``time.clock_gettime_ns`` on a pthread CPU clock) are read here directly and not
through the injected Clock: they count processor time, not wall time, they stand still while a test's clock moves, and
nothing but a process's own work makes them advance.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cagg.energy.processes import ProcessStat, ProcessTable
from cagg.errors import MeterUnavailable

__all__ = ["CgroupUsage", "OwnTimes", "ProcessTreeUsage", "Table", "ThreadUsage", "own_times_ns"]

_NS_PER_SECOND = 1_000_000_000


def own_times_ns() -> tuple[int, int]:
    """Return (this process with all its threads, its exited and reaped descendants) in nanoseconds."""
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time_ns(), round((reaped.ru_utime + reaped.ru_stime) * _NS_PER_SECOND)


OwnTimes = Callable[[], tuple[int, int]]
"""Returns the processor time of this process and of its children that have ended, in nanoseconds."""


class Table(Protocol):
    """What the process tree reader asks of the operating system."""

    def children(self, pid: int) -> list[int]:
        """Process ids of the live or zombie children."""
        ...

    def stat(self, pid: int) -> ProcessStat | None:
        """Times and memory of a process; None when it is gone."""
        ...

    def has_children(self) -> bool:
        """False only when this process certainly has none."""
        ...


class ProcessTreeUsage:
    """The process and all its descendants, exited ones included.

    Exited children are counted through RUSAGE_CHILDREN of the process, and of each live descendant; live ones by their
    own times. A descendant that was seen alive is followed after its parent died (double fork), until it ends. Process
    ids are paired with start times, so a reused id is another process. The sum never decreases. A daemon that detached
    before it was ever seen, and children under ``SIGCHLD`` ignored after they were last seen, are missed: a control
    group of one's own catches those.

    Args:
        table: the operating system's processes; None = this machine's ``/proc`` (without one, as on macOS, live
            children are not seen until they exit).
        own_times: (self, reaped) in nanoseconds.
        pid: the root of the tree; None = this process.
    """

    name = "process_tree"

    def __init__(
        self, *, table: Table | None = None, own_times: OwnTimes = own_times_ns, pid: int | None = None
    ) -> None:
        self._table: Table = ProcessTable() if table is None else table
        self._own_times = own_times
        self._pid = os.getpid() if pid is None else pid
        self._lock = threading.Lock()
        self._own, reaped = own_times()
        self._known = self._walk({})
        self._orphans: set[tuple[int, int]] = set()
        self._pool = reaped + sum(stat.reaped_ns for stat in self._known.values())
        self._total = 0

    def cpu_ns(self) -> int:
        """Nanoseconds used since the reader was made."""
        with self._lock:
            own, reaped = self._own_times()  # before the walk: a child that ends in between is then counted once
            live = self._walk(self._known)
            gained = max(0, own - self._own)
            counted_when_alive = 0
            for key, stat in live.items():
                before = self._known.get(key)
                gained += max(0, stat.cpu_ns - (before.cpu_ns if before else 0))
            for key, stat in self._known.items():
                if key in live:
                    continue
                if key in self._orphans:
                    self._pool -= stat.reaped_ns  # init reaped it: its times never reach our RUSAGE_CHILDREN
                    self._orphans.discard(key)
                else:
                    counted_when_alive += stat.cpu_ns
            pool = reaped + sum(stat.reaped_ns for stat in live.values())
            gained += max(0, pool - self._pool - counted_when_alive)
            self._own, self._pool, self._known = own, pool, live
            self._total += gained
            return self._total

    def pids(self) -> frozenset[int]:
        """The tree's process ids as of the last :meth:`cpu_ns`."""
        return frozenset({self._pid, *(pid for pid, _ in self._known)})

    def resident_bytes(self) -> int | None:
        """Resident memory of the tree as of the last :meth:`cpu_ns`; None when it cannot be read."""
        own = self._table.stat(self._pid)
        if own is None:
            return None
        return own.resident_bytes + sum(stat.resident_bytes for stat in self._known.values())

    def _walk(self, known: dict[tuple[int, int], ProcessStat]) -> dict[tuple[int, int], ProcessStat]:
        found: dict[tuple[int, int], ProcessStat] = {}
        if known or self._table.has_children():
            self._descend(self._pid, found)
        for key in known:
            if key in found:
                continue
            stat = self._table.stat(key[0])
            if stat is not None and stat.start_ticks == key[1]:
                found[key] = stat
                self._orphans.add(key)
                self._descend(key[0], found)
        return found

    def _descend(self, root: int, found: dict[tuple[int, int], ProcessStat]) -> None:
        pending = self._table.children(root)
        while pending:
            pid = pending.pop()
            stat = self._table.stat(pid)
            if stat is None or (pid, stat.start_ticks) in found:
                continue
            found[pid, stat.start_ticks] = stat
            pending.extend(self._table.children(pid))


class CgroupUsage:
    """Everything in a control group: exact for containers, and the only reader that sees double-forked daemons.

    Args:
        directory: the group's directory with ``cpu.stat`` (version 2) or ``cpuacct.usage`` (version 1).

    Raises:
        MeterUnavailable: neither file can be read.
    """

    name = "cgroup"

    def __init__(self, directory: Path) -> None:
        unified = directory / "cpu.stat"
        self._path = unified if unified.exists() else directory / "cpuacct.usage"
        self._unified = self._path is unified
        self._last = 0
        self._base = self._read()

    def cpu_ns(self) -> int:
        """Nanoseconds used since the reader was made."""
        try:
            self._last = max(self._last, self._read() - self._base)
        except MeterUnavailable:
            if not self._last:
                raise
        return self._last

    def _read(self) -> int:
        try:
            text = self._path.read_text()
            if not self._unified:
                return int(text)
            for line in text.splitlines():
                key, _, number = line.partition(" ")
                if key == "usage_usec":
                    return int(number) * 1_000
        except (OSError, ValueError) as error:
            raise MeterUnavailable(f"the control group's {self._path} cannot be read ({error}).") from None
        raise MeterUnavailable(f"the control group's {self._path} has no usage_usec; enable the cpu controller.")


class ThreadUsage:
    """The thread that made the reader, read from any thread.

    Works until the thread ends; then the last value stays (a thread id may be reused by the process). Work that the
    thread hands to pools of BLAS or torch is not in its clock.

    Raises:
        MeterUnavailable: this platform has no pthread CPU clocks (macOS).
    """

    name = "thread"

    def __init__(self) -> None:
        if not hasattr(time, "pthread_getcpuclockid"):
            raise MeterUnavailable("this platform has no CPU clock per thread; runs that overlap are divided equally.")
        self._thread = threading.current_thread()
        self._clock_id = time.pthread_getcpuclockid(threading.get_ident())
        self._base = time.clock_gettime_ns(self._clock_id)
        self._last = 0

    def cpu_ns(self) -> int:
        """Nanoseconds used since the reader was made."""
        if self._thread.is_alive():
            with contextlib.suppress(OSError):  # it ended between the two calls: the last reading stands
                self._last = max(self._last, time.clock_gettime_ns(self._clock_id) - self._base)
        return self._last
