"""The part of the budget contract about the life of a reservation, from its start to a late settlement."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.errors import ReservationConflict
from cagg.ports import Store
from cagg.quantities import Energy, Unit
from cagg.records import BudgetMode, ReservationState
from cagg.testing._budget_case import LEAF, BudgetCase
from cagg.testing.budgets import ask, budget
from cagg.testing.clock import ManualClock

__all__ = ["LifeContract"]


class LifeContract(BudgetCase):
    """Start, beats, settlement, release and expiry."""

    # ---- the life of a reservation ----

    def test_settling_frees_the_hold_and_charges_what_was_used(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 300)
            running = reservations.start(tx, "a", 300, expected_power_milliwatts=5)
            assert running.lease_epoch == 1
            assert running.lease_until == clock.now() + timedelta(seconds=300)
        clock.advance(60)
        with budgets.transaction() as tx:
            beaten = reservations.beat(tx, "a", 1, Energy(millijoules=40), 7)
            assert beaten.lease_until == clock.now() + timedelta(seconds=300)
            assert (beaten.used_energy.millijoules, beaten.last_power_milliwatts) == (40, 7)
            assert reservations.beat(tx, "a", 1, Energy(millijoules=30), 7).used_energy.millijoules == 40
        with budgets.transaction() as tx:
            first = reservations.settle(tx, "a", 1, {Unit.CARBON: 80, Unit.ENERGY: 90})
        assert first.amounts == {Unit.CARBON: 80, Unit.ENERGY: 90}
        assert first.differences == first.amounts
        assert first.overrun == {}
        assert first.lease == timedelta(seconds=60)
        assert first.note == ""
        assert self.counters(budgets, "acme") == (0, 80, 0)
        clock.advance(600)
        with budgets.transaction() as tx:
            assert reservations.settle(tx, "a", 1, {Unit.CARBON: 80, Unit.ENERGY: 90}) == first
            for other in ({Unit.CARBON: 81}, {Unit.ENERGY: 91}):
                with pytest.raises(ReservationConflict, match="correction"):
                    reservations.settle(tx, "a", 1, other)
            with pytest.raises(ReservationConflict):
                reservations.beat(tx, "a", 1, Energy.ZERO, 0)
            with pytest.raises(ReservationConflict):
                ask(tx, "a", LEAF, 1)

    def test_more_than_held_is_charged_and_blocks_the_next(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 300)
            reservations.start(tx, "a")
            done = reservations.settle(tx, "a", 1, {Unit.CARBON: 450})
            assert done.overrun == {f"{LEAF}:carbon": 150}
            assert ask(tx, "b", LEAF, 1)[0] is None
        assert self.counters(budgets, LEAF) == (0, 450, 150)
        assert self.counters(budgets, "acme/ml") == (0, 450, 0)

    def test_a_worker_of_an_older_epoch_is_fenced_off(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 10)
            reservations.start(tx, "a")
            assert reservations.start(tx, "a").lease_epoch == 2, "it never reported, so it may be started again"
            for call in (
                lambda: reservations.beat(tx, "a", 1, Energy.ZERO, 0),
                lambda: reservations.settle(tx, "a", 1, {Unit.CARBON: 1}),
            ):
                with pytest.raises(ReservationConflict, match="another worker"):
                    call()
            reservations.settle(tx, "a", 2, {Unit.CARBON: 1})

    def test_a_run_that_reported_is_not_started_again(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 10)
            reservations.start(tx, "a")
        clock.advance(60)
        with budgets.transaction() as tx:
            reservations.beat(tx, "a", 1, Energy.ZERO, 0)
            with pytest.raises(ReservationConflict, match="a worker runs it"):
                reservations.start(tx, "a")

    def test_what_was_not_measured_is_charged_as_held_or_as_planned(self, store: Store) -> None:
        with store.transaction() as tx:
            set_budget(tx, budget("a", 10_000))
            set_budget(tx, budget("a", 10_000, unit=Unit.ENERGY))
            for key in ("energy only", "nothing"):
                ask(tx, key, "a", None, amounts={Unit.CARBON: 700, Unit.ENERGY: 900})
                reservations.start(tx, key)
            done = reservations.settle(tx, "energy only", 1, {Unit.ENERGY: 400, Unit.CARBON: None})
            assert done.amounts == {Unit.CARBON: 400, Unit.ENERGY: 400}
            assert "planning intensity" in done.note
            done = reservations.settle(tx, "nothing", 1, {})
            assert done.amounts == {Unit.CARBON: 700, Unit.ENERGY: 900}
            assert "not measured" in done.note
            assert reservations.settle(tx, "nothing", 1, {}) == done

    def test_releasing_charges_nothing_and_only_what_waits_can_be_released(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 300)
            done = reservations.release(tx, "a")
            assert (done.state, done.amounts, done.lease) == (ReservationState.RELEASED, {Unit.CARBON: 0}, None)
            assert reservations.release(tx, "a") == done
            for call in (
                lambda: reservations.start(tx, "a"),
                lambda: reservations.settle(tx, "a", 0, {Unit.CARBON: 1}),
                lambda: ask(tx, "a", LEAF, 1),
            ):
                with pytest.raises(ReservationConflict):
                    call()
            ask(tx, "b", LEAF, 300)
            reservations.start(tx, "b")
            with pytest.raises(ReservationConflict, match="cannot be released"):
                reservations.release(tx, "b")
        assert self.counters(budgets, LEAF) == (300, 0, 0)

    def test_keys_without_a_reservation_are_named(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            for call in (
                lambda: reservations.start(tx, "nobody"),
                lambda: reservations.beat(tx, "nobody", 1, Energy.ZERO, 0),
                lambda: reservations.settle(tx, "nobody", 1, {}),
                lambda: reservations.release(tx, "nobody"),
                lambda: reservations.reopen(tx, "nobody"),
            ):
                with pytest.raises(ReservationConflict, match="has no reservation"):
                    call()

    # ---- expiry ----

    def test_a_dead_run_is_charged_to_the_end_of_its_lease(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 300)
            reservations.start(tx, "a")
        clock.advance(60)
        with budgets.transaction() as tx:
            reservations.beat(tx, "a", 1, Energy(millijoules=20), 1)
        clock.advance(299)
        with budgets.transaction() as tx:
            assert reservations.expire(tx) == ()
        clock.advance(1)
        with budgets.transaction() as tx:
            (done,) = reservations.expire(tx)
            assert reservations.expire(tx) == ()
        assert done.state is ReservationState.EXPIRED
        assert done.amounts == {Unit.CARBON: 320, Unit.ENERGY: 320}
        assert done.lease == timedelta(seconds=360)
        assert "planning intensity" in done.note
        assert done.overrun == {f"{LEAF}:carbon": 20}
        assert self.counters(budgets, LEAF) == (0, 320, 20)

    @pytest.mark.parametrize(("actual", "difference"), [(90, -110), (200, 0), (350, 150)])
    def test_a_late_settlement_books_the_difference(
        self, budgets: Store, clock: ManualClock, actual: int, difference: int
    ) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 300)
            reservations.start(tx, "a", 100, expected_power_milliwatts=2)
        clock.advance(100)
        with budgets.transaction() as tx:
            reservations.expire(tx)
            with pytest.raises(ReservationConflict, match="settle it to book the difference"):
                reservations.beat(tx, "a", 1, Energy.ZERO, 0)
        assert self.counters(budgets, LEAF) == (0, 200, 0)
        with budgets.transaction() as tx:
            late = reservations.settle(tx, "a", 1, {Unit.CARBON: actual})
            assert reservations.settle(tx, "a", 1, {Unit.CARBON: actual}) == late
            with pytest.raises(ReservationConflict):
                reservations.settle(tx, "a", 1, {Unit.CARBON: actual + 1})
        assert (late.late, late.state) == (True, ReservationState.LATE_SETTLED)
        assert late.amounts == {Unit.CARBON: actual}
        assert late.differences == {Unit.CARBON: difference}
        assert self.counters(budgets, LEAF) == (0, actual, max(0, actual - 300))

    def test_a_run_of_which_nothing_is_known_is_charged_as_held(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 123)
            reservations.start(tx, "a")
        clock.advance(300)
        with budgets.transaction() as tx:
            (done,) = reservations.expire(tx)
        assert done.amounts == {Unit.CARBON: 123}

    def test_a_dead_run_may_be_charged_more_than_it_held(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", LEAF, 10)
            reservations.start(tx, "a", 100, expected_power_milliwatts=4)
        clock.advance(5_000)
        with budgets.transaction() as tx:
            (done,) = reservations.expire(tx)
        assert done.amounts[Unit.CARBON] == 400
        assert done.overrun == {f"{LEAF}:carbon": 100}

    def test_a_dead_run_without_intensity_is_priced_as_the_budget_says(self, store: Store, clock: ManualClock) -> None:
        kwh = Energy.parse("1 kWh")
        with store.transaction() as tx:
            set_budget(tx, budget("assume", 10**9, unknown_intensity_milligrams_per_kwh=500_000))
            set_budget(tx, budget("watch", 10**9, mode=BudgetMode.OBSERVE))
            for path in ("assume", "watch"):
                ask(tx, path, path, None, planning_intensity_milligrams_per_kwh=None, upper_energy=kwh)
                reservations.start(tx, path)
                reservations.beat(tx, path, 1, Energy.parse("0.1 kWh"), 0)
        clock.advance(300)
        with store.transaction() as tx:
            done = {one.request_key: one for one in reservations.expire(tx)}
        assert done["assume"].amounts[Unit.CARBON] == 50_000_000
        assert done["watch"].amounts == {Unit.ENERGY: Energy.parse("0.1 kWh").millijoules}, "unknown is not zero"
        assert done["watch"].unpriced == ("watch:carbon",)
        assert "no intensity is known" in done["watch"].note
        with store.transaction() as tx:
            late = reservations.settle(tx, "watch", 1, {Unit.ENERGY: 7})
            assert (late.unpriced, late.amounts) == (("watch:carbon",), {Unit.ENERGY: 7})

    def test_a_waiting_one_lapses_at_zero_after_its_grace(self, budgets: Store, clock: ManualClock) -> None:
        deadline = clock.now() + timedelta(hours=2)
        with budgets.transaction() as tx:
            ask(tx, "with deadline", LEAF, 100, deadline=deadline)
            ask(tx, "without", LEAF, 100, at=clock.now() + timedelta(hours=1))
        clock.advance_to(deadline + timedelta(minutes=15) - timedelta(microseconds=1))
        with budgets.transaction() as tx:
            assert reservations.expire(tx) == ()
        clock.advance(timedelta(microseconds=1))
        with budgets.transaction() as tx:
            (done,) = reservations.expire(tx)
            assert (done.request_key, done.amounts, done.lease) == ("with deadline", {Unit.CARBON: 0}, None)
            with pytest.raises(ReservationConflict, match="never started"):
                reservations.settle(tx, "with deadline", 0, {Unit.CARBON: 5})
        clock.advance_to(datetime(2026, 11, 24, 13, 15, tzinfo=UTC) - timedelta(microseconds=1))
        with budgets.transaction() as tx:
            assert reservations.expire(tx) == ()
        clock.advance(timedelta(microseconds=1))
        with budgets.transaction() as tx:
            (done,) = reservations.expire(tx)
            assert done.request_key == "without"
            assert reservations.reopen(tx, "without").holds == ()
            assert ask(tx, "without", LEAF, 50)[0] is not None

    def test_a_sweep_is_bounded_and_may_keep_to_a_path(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            set_budget(tx, budget("other", 1_000))
            set_budget(tx, budget("acme/ops", 1_000))
            for number, path in enumerate((LEAF, "acme/ops", "other", LEAF)):
                ask(tx, f"{number}", path, 10)
                reservations.start(tx, f"{number}")
                clock.advance(1)
        clock.advance(300)
        with budgets.transaction() as tx:
            found = reservations.expire(tx, path=LEAF, limit=2)
            assert [one.request_key for one in found] == ["0", "1"], "acme/ops also takes from acme"
            assert [one.request_key for one in reservations.expire(tx, path=LEAF)] == ["3"]
            assert [one.request_key for one in reservations.expire(tx)] == ["2"]
