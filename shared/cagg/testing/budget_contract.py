"""The contract of budgets as a pytest suite; a backend subclasses it and gives a ``store`` fixture."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cagg.budget import reservations
from cagg.budget.tree import above_limit, set_budget, tree
from cagg.errors import InvalidInput
from cagg.ports import JournalRow, Store
from cagg.quantities import Unit
from cagg.records import Period
from cagg.testing._budget_case import LEAF, PATHS
from cagg.testing._budget_holding import HoldingContract
from cagg.testing._budget_life import LifeContract
from cagg.testing._budget_rows import RowsContract
from cagg.testing._budget_unknown import UnknownContract
from cagg.testing.budgets import ask, budget
from cagg.testing.clock import ManualClock

__all__ = ["BudgetContract"]


class BudgetContract(HoldingContract, LifeContract, RowsContract, UnknownContract):
    """What every store's budgets must do. Subclasses override the ``store`` fixture."""

    # ---- setting budgets and periods ----

    def test_budgets_have_versions_and_the_same_again_is_none(self, store: Store) -> None:
        with store.transaction() as tx:
            assert set_budget(tx, budget("a", 5, version=9)).version == 1
            assert set_budget(tx, budget("a", 5)).version == 1
            assert set_budget(tx, budget("a", 6)).version == 2
            assert set_budget(tx, budget("a", 6, period=Period.WEEK)).version == 1
            assert [(one.period, one.limit) for one in tx.budgets("a")] == [(Period.DAY, 6), (Period.WEEK, 6)]

    def test_a_lowered_limit_holds_at_once_and_is_no_overrun(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 200)
            set_budget(tx, budget(LEAF, 50))
            _, headrooms = ask(tx, "b", LEAF, 1)
            assert headrooms[-1].allotment.available == -150
            assert reservations.refusals(headrooms)
            assert [row.kind for row in tx.journal("")] == ["limit"]
            assert [-one.available for one in above_limit(tx, budget(LEAF, 50))] == [150]
            assert above_limit(tx, budget(PATHS[0], 1_000)) == ()
        assert self.counters(budgets, LEAF) == (200, 0, 0)
        with budgets.transaction() as tx:
            set_budget(tx, budget(LEAF, 300))
            ask(tx, "gone", LEAF, 80)
            set_budget(tx, budget(LEAF, 50))
            reservations.release(tx, "gone")
        assert self.counters(budgets, LEAF) == (200, 0, 0), "what a lowered limit left above it is not taken back"
        with budgets.transaction() as tx:
            reservations.start(tx, "a")
            assert reservations.settle(tx, "a", 1, {Unit.CARBON: 210}).overrun == {f"{LEAF}:carbon": 10}
            set_budget(tx, budget(LEAF, 1_000))
            assert ask(tx, "b", LEAF, 200)[0] is not None

    @pytest.mark.parametrize(
        "wrong",
        [
            {"path": "a//b"},
            {"path": ""},
            {"time_zone": "Europe/Atlantis"},
            {"unit": "carbon"},
            {"period": "fortnight"},
            {"mode": "hard"},
            {"unknown_intensity_milligrams_per_kwh": -1},
            {"unknown_intensity_milligrams_per_kwh": True},
        ],
    )
    def test_budgets_that_make_no_sense_are_refused(self, store: Store, wrong: dict[str, Any]) -> None:
        with store.transaction() as tx:
            with pytest.raises(InvalidInput):
                set_budget(tx, budget(**{"path": "a", "limit": 1, **wrong}))
            assert tx.budgets() == []

    def test_a_changed_time_zone_never_grants_a_day_twice(self, store: Store, clock: ManualClock) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a", 100, time_zone="Pacific/Auckland"))
            assert ask(tx, "a", "a", 100)[0] is not None
            set_budget(tx, budget("a", 100, time_zone="America/Los_Angeles"))
            assert ask(tx, "b", "a", 1)[0] is None
            (opened,) = tx.allotments("a")
        clock.advance_to(opened.window.end)
        with store.transaction() as tx:
            assert ask(tx, "b", "a", 1)[0] is not None
            newest, _ = tx.allotments("a")
        assert newest.window.start == opened.window.end
        assert newest.window.end == datetime(2026, 11, 25, 8, tzinfo=UTC)

    def test_the_hour_that_autumn_repeats_belongs_to_the_longer_day(self, store: Store, clock: ManualClock) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10, time_zone="Europe/Berlin"))
            long_day = datetime(2027, 10, 30, 22, tzinfo=UTC)
            for number, hours in enumerate((0, 1, 24)):
                ask(tx, f"{number}", "a", 3, at=long_day + timedelta(hours=hours))
            ask(tx, "next", "a", 3, at=long_day + timedelta(hours=25))
            assert [(one.window.duration, one.held) for one in tx.allotments("a")] == [
                (timedelta(hours=24), 3),
                (timedelta(hours=25), 9),
            ]

    def test_a_settlement_after_the_period_stays_in_it(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 100)
            reservations.start(tx, "a", 3 * 86_400)
        clock.advance(timedelta(days=2))
        with budgets.transaction() as tx:
            ask(tx, "b", LEAF, 5)
            reservations.settle(tx, "a", 1, {Unit.CARBON: 70})
            assert [(one.held, one.spent) for one in tx.allotments(LEAF)] == [(5, 0), (0, 70)]

    def test_showing_the_tree_writes_nothing(self, budgets: Store) -> None:
        with budgets.snapshot() as tx:
            assert [(line.path, line.available) for line in tree(tx)] == list(
                zip(PATHS, (1_000, 500, 300), strict=True)
            )
            assert tx.allotments() == []
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 150)
            reservations.start(tx, "a")
            reservations.settle(tx, "a", 1, {Unit.CARBON: 60})
            ask(tx, "b", LEAF, 15)
        with budgets.snapshot() as tx:
            (line,) = tree(tx, path=LEAF)
        assert (line.depth, line.spent, line.held, line.available, line.used_percent) == (2, 60, 15, 225, 25.0)

    # ---- the audit ----

    def test_the_audit_finds_a_counter_without_its_hold(self, budgets: Store) -> None:
        self.broken_on_purpose = True
        with budgets.transaction() as tx:
            stored, headrooms = ask(tx, "a", LEAF, 10)
            assert stored is not None
            which = headrooms[0].allotment.allotment_id
            behind = tx.connection.exec_driver_sql  # type: ignore[attr-defined]  # the store itself may refuse it
            behind(f"UPDATE cagg_hold SET amount = 9 WHERE allotment_id = {which:d}")  # noqa: S608 - a number
            (finding,) = reservations.audit(tx)
            assert "held is 10, but open reservations hold 9" in finding

    def test_rows_that_do_not_exist_are_named(self, store: Store) -> None:
        with store.transaction() as tx:
            with pytest.raises(InvalidInput, match="does not exist"):
                tx.allotment_by_id(99)
            row = JournalRow(
                allotment_id=99, request_key="a", kind="hold", d_held=1, d_spent=0, d_overrun=0, at=tx.now()
            )
            with pytest.raises(InvalidInput, match="does not exist"):
                tx.post(row)
