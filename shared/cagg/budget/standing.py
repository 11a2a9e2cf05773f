"""Where all budgets stand at one instant, read once and compared with any number of needs. Locks and writes nothing.

For those who wait for headroom: many of them share one reading. Only the gate's own ``assess`` holds anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cagg.budget._pricing import check_pue
from cagg.budget._settling import check_amounts
from cagg.budget.headroom import asked
from cagg.budget.periods import windows_for
from cagg.budget.tree import ancestors, unknown_budget
from cagg.ports import Transaction
from cagg.quantities import Energy, Unit
from cagg.records import Allotment, Budget, Headroom
from cagg.windows import Window

__all__ = ["Standing", "read_standing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Every budget in the period that contains one instant.

    Attributes:
        at: the instant, UTC.
        allotments: by path, in the order of unit and period; one that nobody has asked yet has its whole limit.
    """

    at: datetime
    allotments: Mapping[str, tuple[Allotment, ...]]

    def headroom(
        self, path: str, amounts: Mapping[Unit, int | None], energy: Energy, *, pue_ppm: int | None = None
    ) -> tuple[Headroom, ...]:
        """Return every budget from the path up to its root beside what is asked of it, root first.

        Args:
            path, amounts, energy, pue_ppm: as for :func:`cagg.budget.headroom.assess`.

        Raises:
            BudgetUnknown: the path has no budget of its own.
            InvalidInput: the path, an amount or the PUE cannot be used.
        """
        pue_ppm = check_pue(pue_ppm)
        known = check_amounts(amounts, "what is asked")
        above = ancestors(path)
        if not self.allotments.get(path):
            raise unknown_budget(path)
        found = []
        for name in reversed(above):
            for allotment in self.allotments.get(name, ()):
                amount, assumed = asked(allotment.budget, known, set(amounts), energy, pue_ppm)
                found.append(Headroom(allotment=allotment, amount=amount, assumed_intensity_milligrams_per_kwh=assumed))
        return tuple(found)


def read_standing(tx: Transaction, *, at: datetime | None = None) -> Standing:
    """Read every budget as it stands; a snapshot will do.

    Args:
        tx: where to read.
        at: which period; None = the store's now.
    """
    at = tx.now() if at is None else at
    rules = tx.budgets()
    wanted = list(zip(rules, windows_for(tx, rules, at), strict=True))
    found: dict[str, list[Allotment]] = {}
    for (rule, window), opened in zip(wanted, tx.opened(wanted), strict=True):
        own = next((one for one in opened if one.window == window), None)
        found.setdefault(rule.path, []).append(own or _untouched(rule, window))
    return Standing(at=at, allotments={path: tuple(items) for path, items in found.items()})


def _untouched(rule: Budget, window: Window) -> Allotment:
    return Allotment(allotment_id=0, budget=rule, window=window, limit=rule.limit, extra=0, held=0, spent=0, overrun=0)
