"""Changing a budget is a versioned act: the rule and its ledger entry are one transaction."""

from __future__ import annotations

from cagg.budget.tree import set_budget
from cagg.ledger.entry import append
from cagg.ports import Transaction
from cagg.records import Budget, EntryDraft, EntryKind

__all__ = ["change_budget"]


def change_budget(tx: Transaction, budget: Budget) -> Budget:
    """Create or change a budget and record it; setting what it is already leaves no entry.

    Args:
        tx: open transaction.
        budget: the wanted rule; its version is counted by the store.

    Raises:
        InvalidInput: the path, the limit or the time zone cannot be used.
    """
    before = next(
        (item for item in tx.budgets(budget.path) if (item.unit, item.period) == (budget.unit, budget.period)), None
    )
    stored = set_budget(tx, budget)
    if before is not None and stored.version == before.version:
        return stored
    body = {
        "request": None,
        "budget_path": stored.path,
        "unit": str(stored.unit),
        "period": str(stored.period),
        "version": stored.version,
        **_rule(stored),
        "previous": None if before is None else _rule(before),
    }
    key = f"budget:{stored.path}:{stored.unit}:{stored.period}"
    append(tx, EntryDraft(kind=EntryKind.BUDGET, request_key=key, ordinal=stored.version - 1, body=body))
    return stored


def _rule(budget: Budget) -> dict[str, str | None]:
    assumed = budget.unknown_intensity_milligrams_per_kwh
    return {
        "limit": str(budget.limit),
        "mode": str(budget.mode),
        "time_zone": budget.time_zone,
        "unknown_intensity_milligrams_per_kwh": None if assumed is None else str(assumed),
    }
