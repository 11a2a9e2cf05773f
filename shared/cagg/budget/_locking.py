"""The one order in which budget rows are locked, and how counters change."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from cagg.ports import JournalRow, Transaction
from cagg.records import Allotment

__all__ = ["INT64_MAX", "change", "lock", "lock_order"]

INT64_MAX = 2**63 - 1


def lock_order(allotment: Allotment) -> tuple[datetime, str, str, str]:
    """Return the key of the global lock order: period start, path, unit, period, all ascending.

    The start comes first so that a transaction that asks for several instants, the earliest first, keeps the order
    from ask to ask; then the path, which puts every ancestor before what lies below it.
    """
    budget = allotment.budget
    return allotment.window.start, budget.path, budget.unit.value, budget.period.value


def lock(tx: Transaction, allotment_ids: Collection[int]) -> tuple[Allotment, ...]:
    """Lock existing allotments in the global order and return them as they then stand, in that order."""
    return tuple(tx.lock_allotments((), allotment_ids)) if allotment_ids else ()


def change(
    allotment: Allotment, *, request_key: str, kind: str, d_held: int, d_spent: int, at: datetime
) -> Iterator[JournalRow]:
    """Return the row that changes a locked allotment's counters; a change of nothing leaves none.

    The overrun follows the excess of held + spent over the limit, up and down, but never below zero: what a lowered
    limit alone left above it was not overrun and is not taken back. A counter that would pass 2^63-1 stays there,
    because what was used is recorded in any case.
    """
    d_spent = min(d_spent, INT64_MAX - allotment.spent)
    if d_held == 0 and d_spent == 0:
        return
    committed = allotment.held + allotment.spent
    granted = allotment.limit + allotment.extra
    growth = max(0, committed + d_held + d_spent - granted) - max(0, committed - granted)
    d_overrun = min(max(growth, -allotment.overrun), INT64_MAX - allotment.overrun)
    yield JournalRow(
        allotment_id=allotment.allotment_id,
        request_key=request_key,
        kind=kind,
        d_held=d_held,
        d_spent=d_spent,
        d_overrun=d_overrun,
        at=at,
    )
