"""The part of the budget contract about rows that are handled several at a time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cagg.budget.periods import period_window
from cagg.budget.tree import set_budget
from cagg.errors import InvalidInput
from cagg.ports import JournalRow, Store, Transaction
from cagg.quantities import Unit
from cagg.records import Budget, Period
from cagg.testing._budget_case import LEAF, PATHS, BudgetCase, changed
from cagg.testing.budgets import ask, budget
from cagg.windows import Window

__all__ = ["RowsContract"]


class RowsContract(BudgetCase):
    """Sets of allotments, journal rows and rules behave as their members would one by one."""

    def _today(self, tx: Transaction, rule: Budget, *, days: int = 0) -> tuple[Budget, Window]:
        return rule, period_window(rule.period, rule.time_zone, tx.now() + timedelta(days=days))

    def test_rules_of_several_paths_are_the_current_ones_in_order(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            set_budget(tx, budget(LEAF, 7))
            set_budget(tx, budget(LEAF, 9, unit=Unit.ENERGY))
            found = tx.budgets_on([LEAF, "unknown", PATHS[0], LEAF])
            assert [(rule.path, rule.unit, rule.limit, rule.version) for rule in found] == [
                (PATHS[0], Unit.CARBON, 1_000, 1),
                (LEAF, Unit.CARBON, 7, 2),
                (LEAF, Unit.ENERGY, 9, 1),
            ]
            assert tx.budgets_on([]) == []

    def test_allotments_are_locked_once_each_in_the_documented_order(self, budgets: Store) -> None:
        """Period start, then path, unit and period: whoever locks several keeps to it, or two wait for each other."""
        with budgets.transaction() as tx:
            set_budget(tx, budget("acme-z", 5))
            set_budget(tx, budget(LEAF, 5, unit=Unit.ENERGY, period=Period.MONTH))
            rules = list(tx.budgets())
            tomorrow = tx.lock_allotments([self._today(tx, rule, days=1) for rule in tx.budgets(LEAF)])
            wanted = [self._today(tx, rule) for rule in reversed(rules)]
            found = tx.lock_allotments([*wanted, wanted[0]], {one.allotment_id for one in tomorrow} | {10**9})
            places = [
                (one.window.start, one.budget.path, one.budget.unit.value, one.budget.period.value) for one in found
            ]
            assert places == sorted(places)
            assert len(set(places)) == len(found)
            assert {one.allotment_id for one in found} >= {one.allotment_id for one in tomorrow}
            assert {(one.budget.path, one.window) for one in found} >= {(rule.path, window) for rule, window in wanted}
            assert {(one.held, one.spent, one.limit) for one in found} == {
                (0, 0, limit) for limit in (1_000, 500, 300, 5)
            }

    def test_what_is_open_is_answered_for_each_of_several_budgets(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 3)
            ask(tx, "b", LEAF, 4, at=tx.now() + timedelta(days=1))
            (rule,) = tx.budgets(LEAF)
            today, window = self._today(tx, rule)
            days = Window(start=window.start, end=window.end + timedelta(days=1))
            other = budget("acme", 1, period=Period.WEEK)
            whole, nothing, one = tx.opened([(today, days), (other, days), (today, window)])
            assert [item.held for item in whole] == [3, 4]
            assert list(nothing) == []
            assert [item.window for item in one] == [window]
            assert list(tx.opened([])) == []

    def test_rows_are_posted_all_or_none(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            _, headrooms = ask(tx, "a", LEAF, 10)
            which = headrooms[0].allotment.allotment_id
            rows = [
                JournalRow(
                    allotment_id=allotment_id,
                    request_key="a",
                    kind="settle",
                    d_held=-1,
                    d_spent=1,
                    d_overrun=0,
                    at=tx.now(),
                )
                for allotment_id in (which, 10**9)
            ]
            with pytest.raises(InvalidInput, match="does not exist"):
                tx.post_all(rows)
            tx.post_all([])
            (kept,) = tx.allotments_by_id([which])
            assert (kept.held, kept.spent) == (10, 0)
            assert len(tx.journal("a")) == len(PATHS)

    def test_a_booking_whose_rows_are_refused_stores_nothing(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            stored, _ = ask(tx, "a", LEAF, 10)
            assert stored is not None
            row = JournalRow(
                allotment_id=10**9, request_key="a", kind="settle", d_held=0, d_spent=1, d_overrun=0, at=tx.now()
            )
            with pytest.raises(InvalidInput, match="does not exist"):
                tx.book(changed(stored, asks=7), [row])
        with budgets.transaction() as tx:
            assert tx.reservation("a") == stored
            tx.book(changed(stored, asks=8), [])
        with budgets.snapshot() as tx:
            assert [one.asks for one in tx.reservations()] == [8]
