"""Everything the meter asks the operating system in one slice: our processor time, the host's, and memory."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cagg.energy.cgroups import own_cgroup, quota_milli_cpus
from cagg.energy.hardware import cpu_count, memory_bytes
from cagg.energy.sharing import UsageScope
from cagg.energy.usage import CgroupUsage, ProcessTreeUsage, ThreadUsage
from cagg.errors import MeterUnavailable
from cagg.ports import UsageReader

__all__ = ["HostBusy", "HostSample", "HostUsage", "SystemUsage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """One look at the operating system; times are cumulative.

    Attributes:
        own_ns: processor time of this process and what belongs to it.
        busy_ns: busy processor time of the whole host; None when it cannot be read.
        resident_bytes: memory of the process tree; None when unknown.
        used_bytes: memory in use on the host; None when unknown.
        pids: the process tree.
    """

    own_ns: int
    busy_ns: int | None
    resident_bytes: int | None
    used_bytes: int | None
    pids: frozenset[int]


class HostUsage(Protocol):
    """What the meter needs to know about processor time and memory.

    Attributes:
        reader: name of the reader in use: ``cgroup`` or ``process_tree``.
        cpus: logical processors of the host; None when unknown.
        quota_milli_cpus: processors this process may use, in thousandths; None = no limit.
    """

    reader: str
    cpus: int | None
    quota_milli_cpus: int | None

    def choose(self, scope: UsageScope) -> str:
        """Choose the reader of our processor time for the first of the open runs; returns a note, or nothing."""
        ...

    def sample(self) -> HostSample:
        """Look now."""
        ...

    def latest(self) -> HostSample:
        """The last look, so that models and attribution see the same; looks now when there was none."""
        ...

    def thread(self) -> UsageReader | None:
        """A reader of the calling thread; None where threads have no clock."""
        ...


class HostBusy:
    """Busy processor time of the host, exact in our own part.

    ``/proc/stat`` counts in ticks of 10 ms. The time of others is what it shows beyond our own, kept from running
    backwards; ours is known to the nanosecond. So slices shorter than a tick neither lose our work nor are charged
    for that of others. Busy = user + nice + system + irq + softirq; iowait, idle and steal are not, and guest time is
    already in user. Source: proc_stat(5), Linux man-pages 6.9 (2024).

    Args:
        proc: where ``/proc`` is mounted.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._path = proc / "stat"
        self._tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        self._lock = threading.Lock()
        self._base: tuple[int, int] | None = None
        self._others = 0

    def busy_ns(self, own_ns: int) -> int | None:
        """Return cumulative busy time since the first call, given our own cumulative time; None when unreadable."""
        raw = self._read()
        if raw is None:
            return None
        with self._lock:
            if self._base is None:
                self._base = (raw, own_ns)
            others = (raw - self._base[0]) - (own_ns - self._base[1])
            self._others = max(self._others, others)
            return self._others + own_ns - self._base[1]

    def rebase(self) -> None:
        """Start anew, after our own reader was exchanged."""
        with self._lock:
            self._base = None
            self._others = 0

    def _read(self) -> int | None:
        try:
            with self._path.open("rb") as file:
                field = file.readline().split()
            if field[0] != b"cpu":
                return None
            user, nice, system, irq, softirq = (int(field[index]) for index in (1, 2, 3, 6, 7))
        except (OSError, ValueError, IndexError):
            return None
        return (user + nice + system + irq + softirq) * self._tick_ns


class SystemUsage:
    """This machine.

    Args:
        proc: where ``/proc`` is mounted.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._tree = ProcessTreeUsage()
        self._own: UsageReader = self._tree
        self._busy = HostBusy(proc)
        self._cgroup = own_cgroup(proc)
        self._latest: HostSample | None = None
        self.reader = self._own.name
        self.cpus = cpu_count(proc)
        self.quota_milli_cpus = quota_milli_cpus(self._cgroup)

    def choose(self, scope: UsageScope) -> str:
        """Choose control group or process tree; the group is used when asked for, or when it is ours alone."""
        self._tree.cpu_ns()
        wanted = scope is UsageScope.CGROUP
        note = ""
        reader: UsageReader = self._tree
        if self._cgroup is not None and (wanted or scope is UsageScope.AUTO):
            if self._cgroup.is_root:
                note = "the control group is the whole host's, so the process tree is counted" if wanted else ""
            elif wanted or self._cgroup.exclusively_ours(self._tree.pids(), self._proc):
                try:
                    reader = CgroupUsage(self._cgroup.directory)
                except MeterUnavailable as error:
                    note = f"{error} The process tree is counted instead." if wanted else ""
        elif wanted:
            note = "no control group with processor accounting was found, so the process tree is counted"
        if reader.name != self._own.name or reader is not self._tree:
            self._busy.rebase()
        self._own = reader
        self.reader = reader.name
        return note

    def sample(self) -> HostSample:
        """Look now."""
        tree_ns = self._tree.cpu_ns()
        try:
            own_ns = tree_ns if self._own is self._tree else self._own.cpu_ns()
        except MeterUnavailable:
            self._own, own_ns = self._tree, tree_ns
            self._busy.rebase()
        memory = memory_bytes(self._proc)
        self._latest = HostSample(
            own_ns=own_ns,
            busy_ns=self._busy.busy_ns(own_ns),
            resident_bytes=self._tree.resident_bytes(),
            used_bytes=memory[1] if memory else None,
            pids=self._tree.pids(),
        )
        return self._latest

    def latest(self) -> HostSample:
        """The last look; looks now when there was none."""
        return self._latest or self.sample()

    def thread(self) -> UsageReader | None:
        """A reader of the calling thread; None where threads have no clock (macOS)."""
        try:
            return ThreadUsage()
        except MeterUnavailable:
            return None
