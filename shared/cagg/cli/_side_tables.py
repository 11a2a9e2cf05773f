"""Compares the tables beside the ledger with each other and with the ledger's own entries.

Limits and balances are kept in tables that change, so no signed checkpoint covers them. What can be said about them
is whether counters, journal and holds agree, and whether every limit in force is the one that the ledger's newest
``budget`` entry set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cagg.errors import CaggError
from cagg.records import EntryKind

if TYPE_CHECKING:
    from cagg.ports import Transaction
    from cagg.records import Allotment, Budget

__all__ = ["SIDE_TABLES", "side_table_problems"]

SIDE_TABLES = "limits and balances (budgets, allotments, reservations, journal)"
"""What the ledger's signature does not cover."""

_Rule = tuple[str, str, str]
"""Path, unit and period: what tells one budget from another."""


def side_table_problems(tx: Transaction) -> list[str]:
    """Return one sentence for every contradiction, in one snapshot; empty when the tables agree."""
    from cagg.budget.reservations import audit

    found: list[str] = []
    for check in (_limits, _allotments, audit):
        try:
            found.extend(check(tx))
        except (CaggError, ValueError, TypeError) as error:
            # the tables were edited to values that nothing of ours writes, for example an unknown unit
            found.append(f"the budget tables cannot be read: {str(error).rstrip('.')}.")
    return list(dict.fromkeys(found))


def _limits(tx: Transaction) -> Iterator[str]:
    """Compare each budget in force with the newest entry that set it."""
    newest = dict(_recorded(tx))
    stored = {_rule_of(budget): budget for budget in tx.budgets()}
    for rule in sorted(stored.keys() | newest.keys()):
        name = f"budget {rule[0]} ({rule[1]} per {rule[2]})"
        if rule not in newest:
            yield f"{name} stands in the table, and no entry of the ledger set it."
        elif rule not in stored:
            yield f"{name} was set by the ledger, and is missing from the table."
        else:
            yield from _differences(name, stored[rule], newest[rule])


def _allotments(tx: Transaction) -> Iterator[str]:
    """Compare what each period grants with the limit in force, and for periods that are over with any there was."""
    limits: dict[_Rule, list[str]] = defaultdict(list)
    for rule, body in _recorded(tx):
        limits[rule].append(str(body.get("limit")))
    now = tx.now()
    for one in tx.allotments():
        recorded = limits[_rule_of(one.budget)]
        yield from _granted(one, set(recorded[-1:] if one.window.end > now else recorded))


def _recorded(tx: Transaction) -> Iterator[tuple[_Rule, Mapping[str, Any]]]:
    """Yield what the ledger says of budgets, oldest first."""
    from cagg.ledger.entry import read_body
    from cagg.ledger.lineage import entries_of_all_logs

    for entry in entries_of_all_logs(tx, kind=EntryKind.BUDGET):
        body = read_body(tx, entry)
        yield (str(body.get("budget_path")), str(body.get("unit")), str(body.get("period"))), body


def _rule_of(budget: Budget) -> _Rule:
    return budget.path, str(budget.unit), str(budget.period)


def _differences(name: str, budget: Budget, body: Mapping[str, Any]) -> Iterator[str]:
    price = budget.unknown_intensity_milligrams_per_kwh
    now = {
        "limit": str(budget.limit),
        "mode": str(budget.mode),
        "time_zone": budget.time_zone,
        "unknown_intensity_milligrams_per_kwh": None if price is None else str(price),
        "version": budget.version,
    }
    for field, value in now.items():
        if value != body.get(field):
            yield f"{name}: {field} is {value!r} in the table, and {body.get(field)!r} in the ledger's newest entry."


def _granted(one: Allotment, granted: set[str]) -> Iterator[str]:
    rule = one.budget
    name = f"allotment {one.allotment_id} ({rule.path}, {rule.unit} per {rule.period}, {one.window})"
    if granted and str(one.limit) not in granted:
        yield f"{name} grants {one.limit}, and the ledger's entries grant {' or '.join(sorted(granted))}."
    if one.extra != 0:
        yield f"{name} grants {one.extra} on top, and no entry of the ledger does."
