"""The part of the budget contract about what nobody knew or asked: unknown amounts, assumed prices, unheld runs."""

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
from cagg.testing.budgets import ask, budget, reservation
from cagg.testing.clock import ManualClock

__all__ = ["UnknownContract"]

_KWH = Energy.parse("1 kWh")
_PUE = 1_500_000
_ASSUMED = 500_000
_ASSUMED_CHARGE = 750_000_000
"""1 kWh at 500 g/kWh and a PUE of 1.5, in micrograms."""


class UnknownContract(BudgetCase):
    """Unknown is never zero, one price for what is unknown, and runs that nobody held anything for."""

    # ---- unknown is never zero ----

    @pytest.mark.parametrize("mode", [BudgetMode.OBSERVE, BudgetMode.WARN])
    def test_carbon_that_nobody_could_price_is_named_and_not_charged_as_zero(
        self, store: Store, mode: BudgetMode
    ) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10, mode=mode))
            set_budget(tx, budget("a/b", 10, mode=mode))
            ask(tx, "x", "a/b", None, planning_intensity_milligrams_per_kwh=None)
            reservations.start(tx, "x")
            done = reservations.settle(tx, "x", 1, {Unit.ENERGY: 40, Unit.CARBON: None})
            assert Unit.CARBON not in done.amounts
            assert Unit.CARBON not in done.differences
            assert done.amounts == {Unit.ENERGY: 40}
            assert done.unpriced == ("a/b:carbon", "a:carbon")
            assert "no intensity is known" in done.note
            assert reservations.settle(tx, "x", 1, {Unit.ENERGY: 40}) == done
            with pytest.raises(ReservationConflict, match="settled with nothing of carbon"):
                reservations.settle(tx, "x", 1, {Unit.CARBON: 3})

    def test_a_measured_zero_is_a_zero(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "x", LEAF, 5)
            reservations.start(tx, "x")
            done = reservations.settle(tx, "x", 1, {Unit.CARBON: 0})
            assert (done.amounts, done.unpriced, done.note) == ({Unit.CARBON: 0}, (), "")

    def test_energy_without_carbon_costs_a_known_nothing(self, store: Store) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10))
            ask(tx, "x", "a", 0, planning_intensity_milligrams_per_kwh=0)
            reservations.start(tx, "x")
            done = reservations.settle(tx, "x", 1, {})
            assert (done.amounts, done.unpriced) == ({Unit.CARBON: 0}, ())

    def test_only_the_budget_without_a_price_is_left_out(self, store: Store) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10**9, mode=BudgetMode.OBSERVE))
            set_budget(tx, budget("a/b", 10**9, unknown_intensity_milligrams_per_kwh=_ASSUMED))
            ask(tx, "x", "a/b", None, planning_intensity_milligrams_per_kwh=None, upper_energy=_KWH)
            reservations.start(tx, "x")
            done = reservations.settle(tx, "x", 1, {Unit.ENERGY: _KWH.millijoules})
            assert done.amounts[Unit.CARBON] == 500_000_000
            assert done.unpriced == ("a:carbon",)
        assert self.counters(store, "a") == (0, 0, 0)
        assert self.counters(store, "a/b") == (0, 500_000_000, 0)

    def test_a_known_actual_is_charged_late_where_the_expiry_could_not(self, store: Store, clock: ManualClock) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10, mode=BudgetMode.OBSERVE))
            ask(tx, "x", "a", None, planning_intensity_milligrams_per_kwh=None)
            reservations.start(tx, "x", 100, expected_power_milliwatts=2)
        clock.advance(100)
        with store.transaction() as tx:
            (lost,) = reservations.expire(tx)
            assert (lost.amounts, lost.unpriced) == ({Unit.ENERGY: 200}, ("a:carbon",))
            late = reservations.settle(tx, "x", 1, {Unit.CARBON: 30})
            assert (late.amounts, late.unpriced, late.overrun) == ({Unit.CARBON: 30}, (), {"a:carbon": 20})

    # ---- one price for what is unknown ----

    @pytest.mark.parametrize("end", ["settle", "expire", "late", "unheld"])
    def test_hold_and_charge_at_the_assumed_price_contain_the_pue_once(
        self, store: Store, clock: ManualClock, end: str
    ) -> None:
        used = {Unit.ENERGY: _KWH.millijoules}
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10**10, unknown_intensity_milligrams_per_kwh=_ASSUMED))
            asked = reservation("x", "a", tx.now(), planning_intensity_milligrams_per_kwh=None, upper_energy=_KWH)
            if end == "unheld":
                done = reservations.charge_unheld(tx, asked, used, at=tx.now(), pue_ppm=_PUE)
            else:
                headrooms = reservations.assess(
                    tx, path="a", amounts={}, energy=_KWH, at=tx.now(), ignoring="x", pue_ppm=_PUE
                )
                held = reservations.hold(tx, asked, headrooms)
                assert [one.amount for one in held.holds] == [_ASSUMED_CHARGE]
                reservations.start(tx, "x")
                reservations.beat(tx, "x", 1, _KWH, 0)
        clock.advance(300)
        with store.transaction() as tx:
            if end == "settle":
                done = reservations.settle(tx, "x", 1, used, pue_ppm=_PUE)
            elif end != "unheld":
                (done,) = reservations.expire(tx, pue_ppm=_PUE)
            if end == "late":
                twice = {Unit.ENERGY: 2 * _KWH.millijoules}
                done = reservations.settle(tx, "x", 1, twice, pue_ppm=_PUE)
                assert done.differences[Unit.CARBON] == _ASSUMED_CHARGE
                assert done.amounts[Unit.CARBON] == 2 * _ASSUMED_CHARGE
            else:
                assert done.amounts[Unit.CARBON] == _ASSUMED_CHARGE
            assert "price for unknown intensity" in done.note

    @pytest.mark.parametrize("end", ["settle", "expire", "unheld"])
    def test_the_planning_intensity_contains_the_pue_already(self, store: Store, clock: ManualClock, end: str) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10**10, unknown_intensity_milligrams_per_kwh=_ASSUMED))
            if end == "unheld":
                asked = reservation("x", "a", tx.now())
                done = reservations.charge_unheld(tx, asked, {Unit.ENERGY: 700}, at=tx.now(), pue_ppm=_PUE)
            else:
                ask(tx, "x", "a", 1_000)
                reservations.start(tx, "x")
                reservations.beat(tx, "x", 1, Energy(millijoules=700), 0)
        clock.advance(300)
        with store.transaction() as tx:
            if end == "settle":
                done = reservations.settle(tx, "x", 1, {Unit.ENERGY: 700}, pue_ppm=_PUE)
            elif end == "expire":
                (done,) = reservations.expire(tx, pue_ppm=_PUE)
        assert done.amounts == {Unit.CARBON: 700, Unit.ENERGY: 700}

    # ---- runs that nobody held anything for ----

    def test_an_unheld_run_is_charged_once_at_every_level(self, budgets: Store, clock: ManualClock) -> None:
        at = clock.now() - timedelta(hours=1)
        used = {Unit.CARBON: 350, Unit.ENERGY: 900}
        with budgets.transaction() as tx:
            first = reservations.charge_unheld(tx, reservation("x", LEAF, at), used, at=at)
            assert first.state is ReservationState.SETTLED
            assert first.amounts == first.differences == used
            assert first.overrun == {f"{LEAF}:carbon": 50}
            assert (first.lease, first.late, first.unpriced, first.note) == (None, False, (), "")
        assert {path: self.counters(budgets, path) for path in PATHS} == {
            "acme": (0, 350, 0),
            "acme/ml": (0, 350, 0),
            LEAF: (0, 350, 50),
        }
        clock.advance(60)
        with budgets.transaction() as tx:
            assert reservations.charge_unheld(tx, reservation("x", LEAF, clock.now()), used, at=clock.now()) == first
            stored = tx.reservation("x")
            assert stored is not None
            assert (stored.state, stored.lease_epoch, stored.started_at) == (ReservationState.SETTLED, 1, at)
            assert {hold.amount for hold in stored.holds} == {0}
            assert {row.kind for row in tx.journal("x")} == {"settle"}
            assert reservations.settle(tx, "x", 1, used) == first
            assert ask(tx, "next", LEAF, 1)[0] is None, "what was used blocks the next admission"
            assert reservations.expire(tx, now=clock.now() + timedelta(days=9)) == ()

    def test_an_unheld_run_pays_in_the_period_in_which_it_ran(self, budgets: Store, clock: ManualClock) -> None:
        at = clock.now() - timedelta(days=3)
        with budgets.transaction() as tx:
            ask(tx, "today", LEAF, 5)
            reservations.charge_unheld(tx, reservation("x", LEAF, at), {Unit.CARBON: 70}, at=at)
            assert [(one.window.start.day, one.held, one.spent) for one in tx.allotments(LEAF)] == [
                (23, 5, 0),
                (20, 0, 70),
            ]

    def test_an_unheld_run_is_not_charged_beside_a_reservation(self, budgets: Store, clock: ManualClock) -> None:
        used = {Unit.CARBON: 7}
        with budgets.transaction() as tx:
            ask(tx, "waiting", LEAF, 5)
            ask(tx, "settled", LEAF, 5)
            reservations.start(tx, "settled")
            reservations.settle(tx, "settled", 1, used)
            ask(tx, "released", LEAF, 5)
            reservations.release(tx, "released")
            for key in ("waiting", "settled", "released"):
                rows = tx.journal(key)
                with pytest.raises(ReservationConflict, match="settle that reservation"):
                    reservations.charge_unheld(tx, reservation(key, LEAF, clock.now()), used, at=clock.now())
                assert tx.journal(key) == rows

    def test_an_unheld_run_with_other_amounts_or_another_identity_is_refused(
        self, budgets: Store, clock: ManualClock
    ) -> None:
        now = clock.now()
        with budgets.transaction() as tx:
            one = reservation("x", LEAF, now)
            reservations.charge_unheld(tx, one, {Unit.CARBON: 7}, at=now)
            with pytest.raises(ReservationConflict, match="correction"):
                reservations.charge_unheld(tx, one, {Unit.CARBON: 8}, at=now)
            for other in ({"task_key": "other"}, {"budget_path": "acme"}):
                with pytest.raises(ReservationConflict, match="another request"):
                    reservations.charge_unheld(tx, changed(one, **other), {Unit.CARBON: 7}, at=now)
        assert self.counters(budgets, LEAF) == (0, 7, 0)

    def test_an_unheld_run_that_nobody_measured_pays_its_upper_bound(self, store: Store, clock: ManualClock) -> None:
        now = clock.now()
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10**6))
            set_budget(tx, budget("a", 10**6, unit=Unit.ENERGY))
            set_budget(tx, budget("a", 10**6, unit=Unit.TOKENS))
            done = reservations.charge_unheld(tx, reservation("x", "a", now), {}, at=now)
            assert done.amounts == {Unit.CARBON: 1_000, Unit.ENERGY: 1_000}
            assert done.unpriced == ("a:tokens",)
            assert "upper bound" in done.note
            nothing = reservation("y", "a", now, upper_energy=Energy.ZERO)
            done = reservations.charge_unheld(tx, nothing, {Unit.CARBON: None}, at=now)
            assert (done.amounts, done.unpriced) == ({}, ("a:carbon", "a:energy", "a:tokens"))
            assert reservations.charge_unheld(tx, nothing, {}, at=now) == done

    def test_an_unheld_run_needs_a_budget_and_amounts_that_exist(self, budgets: Store, clock: ManualClock) -> None:
        now = clock.now()
        with budgets.transaction() as tx:
            with pytest.raises(BudgetUnknown, match="cagg budget set acme/new"):
                reservations.charge_unheld(tx, reservation("x", "acme/new", now), {Unit.CARBON: 1}, at=now)
            wrong: Any
            for path, wrong, at in (
                (None, 1, now),
                (LEAF, -1, now),
                (LEAF, 1.5, now),
                (LEAF, 1, now.replace(tzinfo=None)),
            ):
                one = changed(reservation("x", LEAF, now), budget_path=path)
                with pytest.raises(InvalidInput):
                    reservations.charge_unheld(tx, one, {Unit.CARBON: wrong}, at=at)
            assert tx.reservation("x") is None
