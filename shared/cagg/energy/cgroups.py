"""Find the process's own control group, decide whether it is ours alone, and read its limit of processors.

Sources: Linux kernel documentation "Control Group v2" (6.10, 2024) for ``cgroup.type`` (absent in the root group),
``cpu.max`` and ``cgroup.procs``; "Control Groups version 1" for ``release_agent`` (present only in the root group) and
``cpu.cfs_quota_us``.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cgroup", "own_cgroup", "quota_milli_cpus"]

_INIT_SHIMS = frozenset({"tini", "dumb-init", "docker-init", "catatonit", "tini-static", "podman-init"})
"""Processes that only wait for their one child, so that their presence leaves the group ours."""

_MOST_SUBGROUPS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """A control group that counts processor time.

    Attributes:
        directory: where its files lie.
        is_root: it is the root group of the host: everybody's time, never one run's.
    """

    directory: Path
    is_root: bool

    def exclusively_ours(self, own_pids: Collection[int], proc: Path = Path("/proc")) -> bool:
        """True when every process in it, and in the groups below, is one of ours or a waiting init shim."""
        if self.is_root:
            return False
        pids: set[int] = set()
        for count, (folder, _, files) in enumerate(os.walk(self.directory)):
            if count >= _MOST_SUBGROUPS:
                return False
            if "cgroup.procs" in files:
                listed = _pids(Path(folder) / "cgroup.procs")
                if listed is None:
                    return False
                pids |= listed
        return bool(pids & set(own_pids)) and all(pid in own_pids or _is_init_shim(pid, proc) for pid in pids)


def own_cgroup(proc: Path = Path("/proc")) -> Cgroup | None:
    """Return the group that counts this process's processor time; None when there is none that can be read."""
    memberships = _memberships(proc / "self" / "cgroup")
    root: Cgroup | None = None  # on hosts with both versions one of the two may be the root group, the other ours
    for mount, mount_root, controllers in _mounts(proc / "self" / "mountinfo"):
        path = memberships.get("" if controllers is None else "cpuacct")
        if path is None or (controllers is not None and "cpuacct" not in controllers):
            continue
        below = os.path.relpath(path, mount_root) if mount_root != "/" else path.lstrip("/")
        directory = mount if below.startswith("..") else mount / below
        if controllers is None and (directory / "cpu.stat").is_file():
            group = Cgroup(directory=directory, is_root=not (directory / "cgroup.type").exists())
        elif controllers is not None and (directory / "cpuacct.usage").is_file():
            group = Cgroup(directory=directory, is_root=(directory / "release_agent").exists())
        else:
            continue
        if not group.is_root:
            return group
        root = root or group
    return root


def quota_milli_cpus(cgroup: Cgroup | None) -> int | None:
    """Return the tightest limit of processors, in thousandths, of the group and those above it; None = unlimited."""
    if cgroup is None:
        return None
    tightest: int | None = None
    directory = cgroup.directory
    while (directory / "cgroup.procs").exists():
        limit = _limit_v2(directory / "cpu.max")
        if limit is None:
            limit = _limit_v1(directory)
        if limit is not None:
            tightest = limit if tightest is None else min(tightest, limit)
        if directory.parent == directory:
            break
        directory = directory.parent
    return tightest


def _limit_v2(path: Path) -> int | None:
    try:
        quota, period = path.read_text().split()
        return None if quota == "max" else max(1, int(quota) * 1_000 // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _limit_v1(directory: Path) -> int | None:
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text())
        period = int((directory / "cpu.cfs_period_us").read_text())
        return None if quota <= 0 else max(1, quota * 1_000 // period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _memberships(path: Path) -> dict[str, str]:
    """Map controller (empty for version 2) to the path of the group."""
    found: dict[str, str] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        for controller in controllers.split(",") if number != "0" else [""]:
            found[controller] = group
    return found


def _mounts(path: Path) -> list[tuple[Path, str, frozenset[str] | None]]:
    """Return (mount point, root of the mount, controllers or None for version 2), version 2 first.

    Source: proc_pid_mountinfo(5), Linux man-pages 6.9.
    """
    found: list[tuple[Path, str, frozenset[str] | None]] = []
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        left, separator, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if not separator or len(before) < 5 or len(after) < 3:
            continue
        mount = Path(before[4].replace("\\040", " "))
        if after[0] == "cgroup2":
            found.insert(0, (mount, before[3], None))
        elif after[0] == "cgroup":
            found.append((mount, before[3], frozenset(after[2].split(","))))
    return found


def _pids(path: Path) -> set[int] | None:
    try:
        return {int(line) for line in path.read_text().split()}
    except (OSError, ValueError):
        return None


def _is_init_shim(pid: int, proc: Path) -> bool:
    try:
        return (proc / str(pid) / "comm").read_text().strip() in _INIT_SHIMS
    except OSError:
        return True  # it has ended meanwhile
