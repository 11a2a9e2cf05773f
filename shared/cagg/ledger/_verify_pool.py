"""Checks pages of bodies, in this process or in several: results come in the order of the pages, and none is lost.

The helpers are started anew ("spawn"), read no store and are given their work as bytes. A helper that ends early is an
error, never a page that counts as checked.
"""

from __future__ import annotations

import marshal
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_context
from typing import Any

from cagg.errors import HelperLost
from cagg.ledger._verify_body import PageFound, Row, check_page

__all__ = ["WORTH_HELPERS", "checked_pages"]

WORTH_HELPERS = 20_000
"""Entries from which on helpers are started: that takes some 0.3 s, in which one process checks so many."""

_AHEAD = 3
"""Pages that wait for each helper: enough that none stands idle, and a bound for what lies in memory."""

Page = Sequence[Row]


def checked_pages(
    pages: Iterable[Page], names: Sequence[str], origin: str, *, workers: int
) -> Iterator[tuple[Page, PageFound]]:
    """Yield each page with what its check found, in order.

    Args:
        pages: rows as stored.
        names: the columns' names.
        origin: the log's name.
        workers: processes that check; 1 = this one.

    Raises:
        HelperLost: a helping process ended before its work was done.
    """
    if workers > 1:
        pool = _pool(workers)
        if pool is not None:
            yield from _helped(pool, pages, tuple(map(str.__str__, names)), str.__str__(origin), workers)
            return
    for page in pages:
        yield page, check_page(page, names, origin)


def _pool(workers: int) -> ProcessPoolExecutor | None:
    """Return helpers; None where the system has no semaphores for them, as in some sandboxes."""
    try:
        return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    except (OSError, ImportError, NotImplementedError):
        return None


def _helped(
    pool: ProcessPoolExecutor, pages: Iterable[Page], names: tuple[str, ...], origin: str, workers: int
) -> Iterator[tuple[Page, PageFound]]:
    waiting: deque[tuple[Page, Future[bytes]]] = deque()
    try:
        for page in chain(pages, [None] * (workers * _AHEAD)):
            if page is not None:
                load: Any = (page, names, origin)
                work = marshal.dumps(load)
                waiting.append((page, pool.submit(_check, work)))
            if waiting and (page is None or len(waiting) > workers * _AHEAD):
                done, future = waiting.popleft()
                yield done, marshal.loads(future.result())  # noqa: S302 - from our own helper
    except BrokenProcessPool:
        raise HelperLost(
            "a process that helped to verify ended before its work was done (killed, or out of memory), so the ledger "
            "was not verified; run it again, with '--workers 1' in one process."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Leave Ctrl-C to the process that was asked: it ends its helpers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _check(work: bytes) -> bytes:
    """Check one page in a helper."""
    page, names, origin = marshal.loads(work)  # noqa: S302 - from the process that started this one
    found: Any = check_page(page, names, origin)
    return marshal.dumps(found)
