"""The one order in which budget rows are locked, and how counters move."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cagg.ports import JournalRow, Transaction
from cagg.records import Allotment

__all__ = ["INT64_MAX", "lock", "lock_order", "move"]

INT64_MAX = 2**63 - 1


def lock_order(allotment: Allotment) -> tuple[datetime, str, str, str]:
    """Return the key of the global lock order: period start, path, unit, period, all ascending.

    The start comes first so that a transaction that asks for several instants, the earliest first, keeps the order
    from ask to ask; then the path, which puts every ancestor before what lies below it.
    """
    budget = allotment.budget
    return allotment.window.start, budget.path, budget.unit.value, budget.period.value


def lock(tx: Transaction, allotment_ids: Iterable[int]) -> tuple[Allotment, ...]:
    """Lock existing allotments in the global order and return them as they then stand, in that order."""
    found = sorted(tx.allotments_by_id(set(allotment_ids)), key=lock_order)
    return tuple(tx.allotment_by_id(one.allotment_id) for one in found)


def move(
    tx: Transaction, allotment: Allotment, *, request_key: str, kind: str, d_held: int, d_spent: int, at: datetime
) -> None:
    """Post one change of a locked allotment's counters; a change of nothing leaves no row.

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
    tx.post(
        JournalRow(
            allotment_id=allotment.allotment_id,
            request_key=request_key,
            kind=kind,
            d_held=d_held,
            d_spent=d_spent,
            d_overrun=d_overrun,
            at=at,
        )
    )
