"""Who of several runs in one process used the processor: pure arithmetic on one slice.

A process tells its threads apart, not the runs on one thread, and not whose call woke a thread of a BLAS or torch pool.
Rules, from exact to coarse:

- one run alone: everything the process (with its children, or its control group) used;
- several, one of them opened by the main thread or for the whole process: the others by their thread's clock, the
  remainder to that one;
- several threads: each its thread's clock; when the clocks explain less than 80 % of the process, pool threads worked
  for someone, and the remainder is spread pro rata (marked ambiguous, graded down);
- several runs on one thread (asyncio tasks): the thread's time in equal parts (marked grouped, grade C).

A run inside a run is a view: its part is taken out of its parent's, by the same rules, and never added to the sum.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Claimant", "Share", "UsageScope", "share_usage", "thread_identity"]

_identities = itertools.count(1)
_here = threading.local()


def thread_identity() -> int:
    """Return a number of the calling thread that no other thread of this process ever gets.

    ``threading.get_ident`` is given to a new thread as soon as an old one has ended, while its run may still be open.
    """
    identity: int | None = getattr(_here, "identity", None)
    if identity is None:
        identity = _here.identity = next(_identities)
    return identity


class UsageScope(StrEnum):
    """What counts as the run's own processor time."""

    AUTO = "auto"
    """control group if it is exclusively ours, else process tree, else thread when runs overlap"""
    CGROUP = "cgroup"
    """everything in the process's control group"""
    PROCESS = "process"
    """the process, its threads and its children"""
    THREAD = "thread"
    """the thread that opened the window, and its part of the thread pools"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """One open run in one slice.

    Attributes:
        key: the run.
        scope: what counts as its own.
        thread: identity of the opening thread, never used again for another (see :func:`thread_identity`).
        on_main_thread: it was opened by the main thread.
        thread_ns: what that thread used in the slice; None when threads have no readable clock.
    """

    key: int
    scope: UsageScope
    thread: int
    on_main_thread: bool
    thread_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One run's processor time in one slice.

    Attributes:
        usage_ns: in all.
        ambiguous_ns: the part of it that was spread or divided equally because nothing told the runs apart.
        method: how it was found, in a few words.
    """

    usage_ns: int
    ambiguous_ns: int
    method: str


_EXPLAINED_PERCENT = 80


def share_usage(pool_ns: int, runs: Sequence[Claimant], parent: Claimant | None = None) -> dict[int, Share]:
    """Divide what a process (or a parent run) used among the runs directly below it.

    Args:
        pool_ns: processor time of the process, or of the parent run, in the slice.
        runs: the open runs at this level.
        parent: the run that holds them; None at the top.

    Returns:
        A share by run key; the shares sum to at most ``pool_ns``.
    """
    if len(runs) == 1 and (parent is None or runs[0].thread == parent.thread) and _takes_all(runs[0]):
        return {runs[0].key: Share(usage_ns=pool_ns, ambiguous_ns=0, method="process")}
    if any(run.thread_ns is None for run in runs):
        return _equally(pool_ns, runs, "equal parts: threads have no clock here")
    owners = [run for run in runs if _owns_process(run, top=parent is None)]
    threads = [run for run in runs if run not in owners]
    by_thread = _thread_times(pool_ns, threads, parent)
    explained = sum(by_thread.values())
    if owners:
        shares = _on_threads(by_thread, threads, {})
        shares.update(_equally(pool_ns - sum(share.usage_ns for share in shares.values()), owners, "process remainder"))
        return shares
    spread: dict[int, int] = {}
    if explained * 100 < pool_ns * _EXPLAINED_PERCENT:
        spread = _spread(pool_ns - explained, by_thread)
    return _on_threads(by_thread, threads, spread)


def _takes_all(run: Claimant) -> bool:
    return run.scope is not UsageScope.THREAD or run.thread_ns is None


def _owns_process(run: Claimant, *, top: bool) -> bool:
    if run.scope in (UsageScope.PROCESS, UsageScope.CGROUP):
        return True
    return run.scope is UsageScope.AUTO and run.on_main_thread and top


def _thread_times(pool_ns: int, runs: Sequence[Claimant], parent: Claimant | None) -> dict[int, int]:
    """Time by thread, cut down when the clocks together show more than the pool; the parent's own thread is one."""
    times = {run.thread: run.thread_ns or 0 for run in runs}
    if parent is not None and parent.thread not in times:
        times[parent.thread] = parent.thread_ns or 0
    total = sum(times.values())
    if total > pool_ns:
        times = {thread: used * pool_ns // total for thread, used in times.items()}
    return times


def _spread(remainder_ns: int, by_thread: dict[int, int]) -> dict[int, int]:
    total = sum(by_thread.values())
    if total == 0:
        return {thread: remainder_ns // len(by_thread) for thread in by_thread}
    return {thread: remainder_ns * used // total for thread, used in by_thread.items()}


def _on_threads(by_thread: dict[int, int], runs: Sequence[Claimant], spread: dict[int, int]) -> dict[int, Share]:
    shares: dict[int, Share] = {}
    for thread in by_thread:
        here = [run for run in runs if run.thread == thread]
        used, extra = by_thread[thread], spread.get(thread, 0)
        if len(here) > 1:
            shares.update(_equally(used + extra, here, "equal parts of one thread"))
        elif here:
            method = "thread and its part of the pools" if extra else "thread"
            shares[here[0].key] = Share(usage_ns=used + extra, ambiguous_ns=extra, method=method)
    return shares


def _equally(pool_ns: int, runs: Sequence[Claimant], method: str) -> dict[int, Share]:
    part = max(0, pool_ns) // len(runs)
    ambiguous = part if len(runs) > 1 else 0
    return {run.key: Share(usage_ns=part, ambiguous_ns=ambiguous, method=method) for run in runs}
