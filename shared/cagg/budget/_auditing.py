"""The check that counters, journal and open holds agree."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from cagg.ports import Transaction

__all__ = ["audit"]


def audit(tx: Transaction) -> tuple[str, ...]:
    """Return one sentence for every place where the budget rows contradict each other; empty when they agree.

    Checked for each allotment: held, spent and overrun equal the journal's sums, and held equals the holds of open
    reservations; for each budget: its periods do not overlap. Run it in one snapshot.
    """
    sums = tx.journal_sums()
    held: dict[int, int] = defaultdict(int)
    for reservation in tx.reservations(open_only=True):
        for hold in reservation.holds:
            held[hold.allotment_id] += hold.amount
    found: list[str] = []
    windows = defaultdict(list)
    allotments = tx.allotments()
    for one in sorted(allotments, key=lambda item: (item.budget.path, item.window.start, item.allotment_id)):
        rule = one.budget
        name = f"allotment {one.allotment_id} ({rule.path}, {rule.unit} per {rule.period}, {one.window})"
        in_journal = sums.get(one.allotment_id, (0, 0, 0))
        for what, counter, total in zip(
            ("held", "spent", "overrun"), (one.held, one.spent, one.overrun), in_journal, strict=True
        ):
            if counter != total:
                found.append(f"{name}: {what} is {counter}, but its journal sums to {total}.")
        if one.held != held[one.allotment_id]:
            found.append(f"{name}: held is {one.held}, but open reservations hold {held[one.allotment_id]}.")
        windows[one.budget.path, one.budget.unit, one.budget.period].append(one.window)
    known = {one.allotment_id for one in allotments}
    missing = (set(sums) | {which for which, amount in held.items() if amount}) - known
    found.extend(
        f"allotment {which} does not exist, but the journal or an open reservation names it."
        for which in sorted(missing)
    )
    for (path, unit, period), periods in windows.items():
        for earlier, later in pairwise(sorted(periods)):
            if later.start < earlier.end:
                found.append(f"budget {path} ({unit} per {period}): the periods {earlier} and {later} overlap.")
    return tuple(found)
