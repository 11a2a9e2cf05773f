"""Processes as ``/proc`` shows them: children, times, memory. Source: proc_pid_stat(5), Linux man-pages 6.9 (2024)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessStat", "ProcessTable"]

_NS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """One process.

    Attributes:
        parent: process id of the parent.
        start_ticks: when it started, in clock ticks since boot; with the process id it is unique.
        cpu_ns: user and system time of all its threads.
        reaped_ns: the same of descendants that it has waited for.
        resident_bytes: memory in RAM; pages shared with others count fully.
    """

    parent: int
    start_ticks: int
    cpu_ns: int
    reaped_ns: int
    resident_bytes: int


class ProcessTable:
    """The processes below one ``/proc``.

    Args:
        proc: where it is mounted.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._tick_ns = _NS_PER_SECOND // os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._children_files = (proc / "self" / "task").is_dir() and any(
            (task / "children").exists() for task in (proc / "self" / "task").iterdir()
        )

    def has_children(self) -> bool:
        """False only when this process certainly has no child; costs no directory walk and reaps nothing."""
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return True
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def stat(self, pid: int) -> ProcessStat | None:
        """Times and memory of a process; None when it is gone or hidden."""
        try:
            with open(f"{self._proc}/{pid}/stat", "rb") as file:  # noqa: PTH123 - a quarter of Path.read_bytes's cost
                text = file.read()
            # The command's name is in parentheses and may hold anything, also parentheses and blanks.
            field = text[text.rindex(b")") + 2 :].split()
            return ProcessStat(
                parent=int(field[1]),
                start_ticks=int(field[19]),
                cpu_ns=(int(field[11]) + int(field[12])) * self._tick_ns,
                reaped_ns=(int(field[13]) + int(field[14])) * self._tick_ns,
                resident_bytes=int(field[21]) * self._page_bytes,
            )
        except (OSError, ValueError, IndexError):
            return None

    def children(self, pid: int) -> list[int]:
        """Process ids of the children; scans every process on kernels built without CONFIG_PROC_CHILDREN."""
        if not self._children_files:
            return [child for child in self._every_pid() if (stat := self.stat(child)) and stat.parent == pid]
        found: list[int] = []
        try:
            for task in os.listdir(f"{self._proc}/{pid}/task"):  # noqa: PTH208 - hot path, strings suffice
                found.extend(self._children_of_thread(pid, task))
        except OSError:
            pass  # the process ended while it was walked: what was found stands
        return found

    def _children_of_thread(self, pid: int, task: str) -> list[int]:
        try:
            with open(f"{self._proc}/{pid}/task/{task}/children", "rb") as file:  # noqa: PTH123 - hot path
                return [int(child) for child in file.read().split()]
        except (OSError, ValueError):
            return []

    def _every_pid(self) -> list[int]:
        try:
            return [int(name) for name in os.listdir(self._proc) if name.isdigit()]  # noqa: PTH208 - hot path
        except OSError:
            return []
