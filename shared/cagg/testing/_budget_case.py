"""What the parts of the budget contract share: a clock, a store with budgets, and a check after every test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.ports import Store
from cagg.records import Allotment
from cagg.testing.budgets import budget
from cagg.testing.clock import ManualClock

__all__ = ["LEAF", "PATHS", "BudgetCase", "changed"]

PATHS = ("acme", "acme/ml", "acme/ml/nightly")
"""The budgets that the fixture sets, root first."""

LEAF = PATHS[-1]


def changed(value: Any, **changes: Any) -> Any:
    """Return a copy of a frozen value with some fields changed."""
    return replace(value, **changes)


class BudgetCase:
    """Fixtures and looks into a store that the parts of the contract share."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Monday, 2026-11-23, noon UTC."""
        return ManualClock(datetime(2026, 11, 23, 12, tzinfo=UTC))

    @pytest.fixture
    def store(self, clock: ManualClock) -> Iterator[Store]:
        """An empty store on that clock."""
        raise NotImplementedError

    @pytest.fixture
    def budgets(self, store: Store) -> Store:
        """The store with 1000 a day for acme, 500 for its team and 300 for the leaf, all enforced."""
        with store.transaction() as tx:
            for path, limit in zip(PATHS, (1_000, 500, 300), strict=True):
                set_budget(tx, budget(path, limit))
        return store

    @pytest.fixture(autouse=True)
    def _agreement(self, store: Store) -> Iterator[None]:
        """After every test: counters, journal and open holds agree, unless the test broke them on purpose."""
        self.broken_on_purpose = False
        yield
        with store.snapshot() as tx:
            assert bool(reservations.audit(tx)) == self.broken_on_purpose

    @staticmethod
    def counters(store: Store, path: str, **changes: Any) -> tuple[int, int, int]:
        """Return (held, spent, overrun) of the newest allotment of a path."""
        with store.snapshot() as tx:
            found: list[Allotment] = [
                one
                for one in tx.allotments(path)
                if all(getattr(one.budget, name) == value for name, value in changes.items())
            ]
        return found[0].held, found[0].spent, found[0].overrun
