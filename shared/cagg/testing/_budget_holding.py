"""The part of the budget contract about asking, holding, modes and moving."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.errors import BudgetUnknown, InvalidInput, ReservationConflict
from cagg.ports import Store
from cagg.quantities import Energy, Unit
from cagg.records import BudgetMode, ReservationState
from cagg.testing._budget_case import LEAF, PATHS, BudgetCase, changed
from cagg.testing.budgets import ask, budget
from cagg.testing.clock import ManualClock

__all__ = ["HoldingContract"]


class HoldingContract(BudgetCase):
    """Asking, holding, modes and moving."""

    # ---- asking and holding ----

    def test_a_hold_takes_from_every_level(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            stored, headrooms = ask(tx, "a", LEAF, 120)
            assert stored == tx.reservation("a")
        assert [one.allotment.budget.path for one in headrooms] == list(PATHS)
        assert [one.allotment.available for one in headrooms] == [1_000, 500, 300]
        assert {self.counters(budgets, path) for path in PATHS} == {(120, 0, 0)}

    def test_the_last_unit_is_admitted_and_the_next_is_refused_with_its_place(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            assert ask(tx, "a", LEAF, 300)[0] is not None
        with budgets.transaction() as tx:
            stored, headrooms = ask(tx, "b", LEAF, 1)
            assert stored is None
            assert [one.allotment.budget.path for one in reservations.refusals(headrooms)] == [LEAF]
            assert tx.reservation("b") is None

    def test_an_ancestor_refuses_what_the_leaf_would_allow(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            set_budget(tx, budget("acme/ml/eval", 10_000))
            assert ask(tx, "a", "acme/ml/eval", 450)[0] is not None
            _, headrooms = ask(tx, "b", LEAF, 51)
            assert [one.allotment.budget.path for one in reservations.refusals(headrooms)] == ["acme/ml"]

    def test_hold_itself_refuses_to_pass_an_enforced_limit(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            stored, headrooms = ask(tx, "a", LEAF, 300)
            assert stored is not None
            with pytest.raises(ReservationConflict, match="is enforced"):
                reservations.hold(
                    tx,
                    changed(stored, request_key="b", series_key="b"),
                    [changed(one, amount=1) for one in headrooms if one.amount is not None],
                )
            assert tx.reservation("b") is None
        assert self.counters(budgets, LEAF) == (300, 0, 0)

    def test_asking_the_same_again_changes_nothing(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 300)
            rows = len(tx.journal("a"))
            again, headrooms = ask(tx, "a", LEAF, 300, asks=2)
            assert again is not None
            assert again.asks == 2
            assert len(tx.journal("a")) == rows
            assert headrooms[-1].allotment.available == 300, "its own hold does not count against it"

    def test_another_request_with_the_same_key_is_refused(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 10)
            with pytest.raises(ReservationConflict, match="belongs to another request"):
                ask(tx, "a", LEAF, 10, task_key="other task")

    def test_a_failing_transaction_leaves_nothing(self, budgets: Store) -> None:
        with pytest.raises(RuntimeError), budgets.transaction() as tx:
            ask(tx, "a", LEAF, 10)
            raise RuntimeError
        with budgets.snapshot() as tx:
            assert tx.reservation("a") is None
            assert all(one.held == 0 for one in tx.allotments())

    def test_a_path_nobody_created_is_named_with_the_remedy(self, budgets: Store) -> None:
        with budgets.transaction() as tx, pytest.raises(BudgetUnknown, match="cagg budget set acme/ml/new 2kg/month"):
            ask(tx, "a", "acme/ml/new", 1)

    def test_levels_without_a_budget_are_passed_over(self, store: Store) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a/b/c/d", 5))
            set_budget(tx, budget("a", 4))
            _, headrooms = ask(tx, "x", "a/b/c/d", 5)
            assert [one.allotment.budget.path for one in reservations.refusals(headrooms)] == ["a"]

    @pytest.mark.parametrize("amount", [-1, True, 2**63, 1.5, float("nan"), "5"])
    def test_amounts_that_are_no_whole_amounts_are_refused(self, budgets: Store, amount: Any) -> None:
        with budgets.transaction() as tx:
            with pytest.raises(InvalidInput):
                ask(tx, "a", LEAF, amount)
            with pytest.raises(InvalidInput):
                ask(tx, "a", LEAF, None, amounts={"carbon": 1})  # type: ignore[dict-item]
            ask(tx, "b", LEAF, 1)
            reservations.start(tx, "b")
            with pytest.raises(InvalidInput):
                reservations.settle(tx, "b", 1, {Unit.CARBON: amount})

    def test_the_largest_amounts_do_not_overflow(self, store: Store) -> None:
        most = 2**63 - 1
        with store.transaction() as tx:
            set_budget(tx, budget("big", most))
            assert ask(tx, "a", "big", most)[0] is not None
            assert ask(tx, "b", "big", 1)[0] is None
            set_budget(tx, budget("big", most, mode=BudgetMode.OBSERVE))
            with pytest.raises(InvalidInput, match="2\\^63-1"):
                ask(tx, "b", "big", 1)
            ask(tx, "b", "big", 0)
            for key in ("a", "b"):
                reservations.start(tx, key)
                reservations.settle(tx, key, 1, {Unit.CARBON: most})
        assert self.counters(store, "big") == (0, most, 0)

    # ---- modes ----

    def test_zero_is_a_real_budget(self, store: Store) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("none", 0))
            assert ask(tx, "a", "none", 1)[0] is None
            assert ask(tx, "a", "none", 0)[0] is not None

    @pytest.mark.parametrize("mode", [BudgetMode.OBSERVE, BudgetMode.WARN])
    def test_what_is_let_past_a_limit_is_overrun_until_less_is_used(self, store: Store, mode: BudgetMode) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("soft", 100, mode=mode))
            stored, headrooms = ask(tx, "a", "soft", 150)
            assert stored is not None
            assert [one.allotment.budget.path for one in reservations.let_past(headrooms)] == ["soft"]
        assert self.counters(store, "soft") == (150, 0, 50)
        with store.transaction() as tx:
            reservations.start(tx, "a")
            done = reservations.settle(tx, "a", 1, {Unit.CARBON: 120})
            assert done.overrun == {"soft:carbon": 20}
        assert self.counters(store, "soft") == (0, 120, 20)

    def test_an_enforced_limit_is_passed_only_by_name(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            _, headrooms = ask(tx, "a", LEAF, 400)
            leaf = headrooms[-1].allotment.allotment_id
            assert ask(tx, "a", LEAF, 400, allow_over=frozenset({leaf}))[0] is not None
            assert ask(tx, "b", LEAF, 600, allow_over=frozenset({leaf}))[0] is None
        assert self.counters(budgets, LEAF) == (400, 0, 100)

    def test_unknown_intensity_is_refused_or_priced_as_the_budget_says(self, store: Store) -> None:
        energy = Energy.parse("1 kWh")
        with store.transaction() as tx:
            set_budget(tx, budget("deny", 10**9))
            set_budget(tx, budget("assume", 10**9, unknown_intensity_milligrams_per_kwh=500_000))
            stored, headrooms = ask(tx, "a", "deny", None, upper_energy=energy)
            assert stored is None
            assert headrooms[0].amount is None
            stored, headrooms = ask(tx, "b", "assume", None, upper_energy=energy)
            assert stored is not None
            assert headrooms[0].amount == 500_000_000
            assert headrooms[0].assumed_intensity_milligrams_per_kwh == 500_000

    def test_each_unit_pays_its_own_budgets(self, store: Store) -> None:
        with store.transaction() as tx:
            for unit, limit in zip(Unit, (1_000, 10_000, 100, 50, 7), strict=True):
                watched = unit in (Unit.GPU_TIME, Unit.MONEY)
                mode = BudgetMode.OBSERVE if watched else BudgetMode.ENFORCE
                set_budget(tx, budget("all", limit, unit=unit, mode=mode))
            stored, headrooms = ask(tx, "a", "all", None, amounts={Unit.CARBON: 10, Unit.TOKENS: 20})
            assert stored is not None
            by_unit = {one.allotment.budget.unit: one.amount for one in headrooms}
            assert by_unit == {
                Unit.CARBON: 10,
                Unit.ENERGY: 1_000,
                Unit.GPU_TIME: 0,
                Unit.TOKENS: 20,
                Unit.MONEY: 0,
            }
            assert ask(tx, "b", "all", None, amounts={Unit.CARBON: 1, Unit.TOKENS: 31})[0] is None
            _, headrooms = ask(tx, "b", "all", None, amounts={Unit.CARBON: 1, Unit.TOKENS: 0, Unit.GPU_TIME: None})
            assert [one.amount for one in headrooms if one.allotment.budget.unit is Unit.GPU_TIME] == [None]
            reservations.release(tx, "b")
            reservations.start(tx, "a")
            done = reservations.settle(tx, "a", 1, {Unit.CARBON: 9, Unit.ENERGY: 900, Unit.TOKENS: 19, Unit.MONEY: 3})
            assert done.amounts == {
                Unit.CARBON: 9,
                Unit.ENERGY: 900,
                Unit.TOKENS: 19,
                Unit.MONEY: 3,
            }
            assert done.unpriced == ("all:gpu_time",), "nobody measured it and nothing was held: that is not a zero"
        assert self.counters(store, "all", unit=Unit.MONEY) == (0, 3, 0)

    @pytest.mark.parametrize("unit", [Unit.GPU_TIME, Unit.TOKENS, Unit.MONEY])
    def test_an_enforced_budget_refuses_a_request_that_does_not_state_its_unit(self, store: Store, unit: Unit) -> None:
        with store.transaction() as tx:
            for mode, amount in ((BudgetMode.OBSERVE, 0), (BudgetMode.WARN, 0), (BudgetMode.ENFORCE, None)):
                set_budget(tx, budget("a", 10, unit=unit, mode=mode))
                _, headrooms = ask(tx, f"{mode}", "a", 1)
                assert [one.amount for one in headrooms] == [amount]
            (refused,) = reservations.refusals(headrooms)
            assert not refused.fits
            assert ask(tx, "stated", "a", 1, amounts={unit: 10})[0] is not None

    @pytest.mark.parametrize("pue_ppm", [0, -1, 999_999, True, 1.5, 2**63])
    def test_a_pue_below_one_is_refused(self, budgets: Store, pue_ppm: Any) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 1)
            reservations.start(tx, "a")
            with pytest.raises(InvalidInput, match="usage effectiveness"):
                reservations.assess(
                    tx, path=LEAF, amounts={}, energy=Energy.ZERO, at=tx.now(), ignoring=None, pue_ppm=pue_ppm
                )
            with pytest.raises(InvalidInput, match="usage effectiveness"):
                reservations.settle(tx, "a", 1, {Unit.CARBON: 1}, pue_ppm=pue_ppm)

    # ---- moving ----

    def test_a_hold_moves_to_another_day_and_back(self, budgets: Store, clock: ManualClock) -> None:
        tomorrow = clock.now() + timedelta(days=1)
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 200)
            moved, _ = ask(tx, "a", LEAF, 250, at=tomorrow)
            assert moved is not None
        with budgets.snapshot() as tx:
            assert [(one.window.start.day, one.held) for one in tx.allotments(LEAF)] == [(24, 250), (23, 0)]
        with budgets.transaction() as tx:
            assert ask(tx, "a", LEAF, 300)[0] is not None
        with budgets.snapshot() as tx:
            assert [one.held for one in tx.allotments(LEAF)] == [0, 300]

    def test_a_move_that_does_not_fit_leaves_the_old_hold(self, budgets: Store, clock: ManualClock) -> None:
        tomorrow = clock.now() + timedelta(days=1)
        with budgets.transaction() as tx:
            ask(tx, "other", LEAF, 200, at=tomorrow)
            before, _ = ask(tx, "a", LEAF, 150)
            assert before is not None
            assert ask(tx, "a", LEAF, 150, at=tomorrow)[0] is None
            remembered = reservations.remember(tx, changed(before, asks=2, deferrals=1))
            assert remembered.holds == before.holds
            assert remembered.asks == 2
            assert tx.reservation("a") == remembered

    def test_a_running_hold_may_be_raised(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 100)
            running = reservations.start(tx, "a")
            raised, _ = ask(
                tx, "a", LEAF, 280, state=ReservationState.RUNNING, lease_epoch=1, lease_until=None, started_at=None
            )
            assert raised is not None
            assert raised.lease_until == running.lease_until
            assert {hold.amount for hold in raised.holds} == {280}
