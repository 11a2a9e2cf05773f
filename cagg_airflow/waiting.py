"""Sleeping to an absolute instant on an event loop, and leaving it for what blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from cagg.clock import SystemClock
from cagg.ports import Clock

__all__ = ["LONGEST_SLEEP_SECONDS", "as_utc", "clock", "in_thread", "sleep_until"]

LONGEST_SLEEP_SECONDS: Final = 240.0
"""How long a sleep goes on without a look at the clock: a clock that was set, or a machine that was suspended, shifts
the end of a sleep by no more than this. A thousand triggers then wake about four times a second together."""

_T = TypeVar("_T")

_clock: Clock = SystemClock()


def clock() -> Clock:
    """Return the clock of this process's triggers."""
    return _clock


def as_utc(instant: datetime) -> datetime:
    """Return an instant of Airflow's database in UTC; SQLite hands them out without an offset, and they are UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


async def sleep_until(instant: datetime) -> None:
    """Sleep until the clock shows an instant; returns at once when it has passed.

    Args:
        instant: aware, UTC.
    """
    while (left := clock().now()) < instant:
        await _sleep(min((instant - left) / timedelta(seconds=1), LONGEST_SLEEP_SECONDS))


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def in_thread(function: Callable[..., _T], /, *arguments: Any) -> _T:
    """Run what blocks in a thread, where Airflow's connections can be read from too.

    ``sync_to_async`` and not ``asyncio.to_thread``, because Airflow 3.2's look-ups find the triggerer's loop by it.
    """
    from asgiref.sync import sync_to_async

    return await sync_to_async(function, thread_sensitive=False)(*arguments)
