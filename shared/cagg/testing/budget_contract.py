"""The contract of budgets as a pytest suite; a backend subclasses it and gives a ``store`` fixture."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cagg.budget import reservations
from cagg.budget.tree import set_budget, tree
from cagg.errors import BudgetUnknown, InvalidInput, ReservationConflict
from cagg.ports import JournalRow, Store
from cagg.quantities import Energy, Unit
from cagg.records import Allotment, BudgetMode, Hold, Period, ReservationState
from cagg.testing.budgets import ask, budget
from cagg.testing.clock import ManualClock

__all__ = ["BudgetContract"]

_PATHS = ("acme", "acme/ml", "acme/ml/nightly")
_LEAF = _PATHS[-1]


class BudgetContract:
    """What every store's budgets must do. Subclasses override the ``store`` fixture."""

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
            for path, limit in zip(_PATHS, (1_000, 500, 300), strict=True):
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

    # ---- asking and holding ----

    def test_a_hold_takes_from_every_level(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            stored, headrooms = ask(tx, "a", _LEAF, 120)
            assert stored == tx.reservation("a")
        assert [one.allotment.budget.path for one in headrooms] == list(_PATHS)
        assert [one.allotment.available for one in headrooms] == [1_000, 500, 300]
        assert {self.counters(budgets, path) for path in _PATHS} == {(120, 0, 0)}

    def test_the_last_unit_is_admitted_and_the_next_is_refused_with_its_place(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            assert ask(tx, "a", _LEAF, 300)[0] is not None
        with budgets.transaction() as tx:
            stored, headrooms = ask(tx, "b", _LEAF, 1)
            assert stored is None
            assert [one.allotment.budget.path for one in reservations.refusals(headrooms)] == [_LEAF]
            assert tx.reservation("b") is None

    def test_an_ancestor_refuses_what_the_leaf_would_allow(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            set_budget(tx, budget("acme/ml/eval", 10_000))
            assert ask(tx, "a", "acme/ml/eval", 450)[0] is not None
            _, headrooms = ask(tx, "b", _LEAF, 51)
            assert [one.allotment.budget.path for one in reservations.refusals(headrooms)] == ["acme/ml"]

    def test_hold_itself_refuses_to_pass_an_enforced_limit(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            stored, headrooms = ask(tx, "a", _LEAF, 300)
            assert stored is not None
            with pytest.raises(ReservationConflict, match="is enforced"):
                reservations.hold(
                    tx, _with_key(stored, "b"), [_asking(one, 1) for one in headrooms if one.amount is not None]
                )
            assert tx.reservation("b") is None
        assert self.counters(budgets, _LEAF) == (300, 0, 0)

    def test_asking_the_same_again_changes_nothing(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 300)
            rows = len(tx.journal("a"))
            again, headrooms = ask(tx, "a", _LEAF, 300, asks=2)
            assert again is not None
            assert again.asks == 2
            assert len(tx.journal("a")) == rows
            assert headrooms[-1].allotment.available == 300, "its own hold does not count against it"

    def test_another_request_with_the_same_key_is_refused(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 10)
            with pytest.raises(ReservationConflict, match="belongs to another request"):
                ask(tx, "a", _LEAF, 10, task_key="other task")

    def test_a_failing_transaction_leaves_nothing(self, budgets: Store) -> None:
        with pytest.raises(RuntimeError), budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 10)
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
                ask(tx, "a", _LEAF, amount)
            with pytest.raises(InvalidInput):
                ask(tx, "a", _LEAF, None, amounts={"carbon": 1})  # type: ignore[dict-item]
            ask(tx, "b", _LEAF, 1)
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
            _, headrooms = ask(tx, "a", _LEAF, 400)
            leaf = headrooms[-1].allotment.allotment_id
            assert ask(tx, "a", _LEAF, 400, allow_over=frozenset({leaf}))[0] is not None
            assert ask(tx, "b", _LEAF, 600, allow_over=frozenset({leaf}))[0] is None
        assert self.counters(budgets, _LEAF) == (400, 0, 100)

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
                set_budget(tx, budget("all", limit, unit=unit))
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
            assert ask(tx, "b", "all", None, amounts={Unit.CARBON: 1, Unit.GPU_TIME: None})[0] is None
            reservations.start(tx, "a")
            done = reservations.settle(tx, "a", 1, {Unit.CARBON: 9, Unit.ENERGY: 900, Unit.TOKENS: 19, Unit.MONEY: 3})
            assert done.amounts == {
                Unit.CARBON: 9,
                Unit.ENERGY: 900,
                Unit.GPU_TIME: 0,
                Unit.TOKENS: 19,
                Unit.MONEY: 3,
            }
        assert self.counters(store, "all", unit=Unit.MONEY) == (0, 3, 0)

    # ---- moving ----

    def test_a_hold_moves_to_another_day_and_back(self, budgets: Store, clock: ManualClock) -> None:
        tomorrow = clock.now() + timedelta(days=1)
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 200)
            moved, _ = ask(tx, "a", _LEAF, 250, at=tomorrow)
            assert moved is not None
        with budgets.snapshot() as tx:
            assert [(one.window.start.day, one.held) for one in tx.allotments(_LEAF)] == [(24, 250), (23, 0)]
        with budgets.transaction() as tx:
            assert ask(tx, "a", _LEAF, 300)[0] is not None
        with budgets.snapshot() as tx:
            assert [one.held for one in tx.allotments(_LEAF)] == [0, 300]

    def test_a_move_that_does_not_fit_leaves_the_old_hold(self, budgets: Store, clock: ManualClock) -> None:
        tomorrow = clock.now() + timedelta(days=1)
        with budgets.transaction() as tx:
            ask(tx, "other", _LEAF, 200, at=tomorrow)
            before, _ = ask(tx, "a", _LEAF, 150)
            assert before is not None
            assert ask(tx, "a", _LEAF, 150, at=tomorrow)[0] is None
            remembered = reservations.remember(tx, _changed(before, asks=2, deferrals=1))
            assert remembered.holds == before.holds
            assert remembered.asks == 2
            assert tx.reservation("a") == remembered

    def test_a_running_hold_may_be_raised(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 100)
            running = reservations.start(tx, "a")
            raised, _ = ask(
                tx, "a", _LEAF, 280, state=ReservationState.RUNNING, lease_epoch=1, lease_until=None, started_at=None
            )
            assert raised is not None
            assert raised.lease_until == running.lease_until
            assert {hold.amount for hold in raised.holds} == {280}

    # ---- the life of a reservation ----

    def test_settling_frees_the_hold_and_charges_what_was_used(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 300)
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
                ask(tx, "a", _LEAF, 1)

    def test_more_than_held_is_charged_and_blocks_the_next(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 300)
            reservations.start(tx, "a")
            done = reservations.settle(tx, "a", 1, {Unit.CARBON: 450})
            assert done.overrun == {f"{_LEAF}:carbon": 150}
            assert ask(tx, "b", _LEAF, 1)[0] is None
        assert self.counters(budgets, _LEAF) == (0, 450, 150)
        assert self.counters(budgets, "acme/ml") == (0, 450, 0)

    def test_a_worker_of_an_older_epoch_is_fenced_off(self, budgets: Store) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 10)
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
            ask(tx, "a", _LEAF, 10)
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
            ask(tx, "a", _LEAF, 300)
            done = reservations.release(tx, "a")
            assert (done.state, done.amounts, done.lease) == (ReservationState.RELEASED, {Unit.CARBON: 0}, None)
            assert reservations.release(tx, "a") == done
            for call in (
                lambda: reservations.start(tx, "a"),
                lambda: reservations.settle(tx, "a", 0, {Unit.CARBON: 1}),
                lambda: ask(tx, "a", _LEAF, 1),
            ):
                with pytest.raises(ReservationConflict):
                    call()
            ask(tx, "b", _LEAF, 300)
            reservations.start(tx, "b")
            with pytest.raises(ReservationConflict, match="cannot be released"):
                reservations.release(tx, "b")
        assert self.counters(budgets, _LEAF) == (300, 0, 0)

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
            ask(tx, "a", _LEAF, 300)
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
        assert done.overrun == {f"{_LEAF}:carbon": 20}
        assert self.counters(budgets, _LEAF) == (0, 320, 20)

    @pytest.mark.parametrize(("actual", "difference"), [(90, -110), (200, 0), (350, 150)])
    def test_a_late_settlement_books_the_difference(
        self, budgets: Store, clock: ManualClock, actual: int, difference: int
    ) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 300)
            reservations.start(tx, "a", 100, expected_power_milliwatts=2)
        clock.advance(100)
        with budgets.transaction() as tx:
            reservations.expire(tx)
            with pytest.raises(ReservationConflict, match="settle it to book the difference"):
                reservations.beat(tx, "a", 1, Energy.ZERO, 0)
        assert self.counters(budgets, _LEAF) == (0, 200, 0)
        with budgets.transaction() as tx:
            late = reservations.settle(tx, "a", 1, {Unit.CARBON: actual})
            assert reservations.settle(tx, "a", 1, {Unit.CARBON: actual}) == late
            with pytest.raises(ReservationConflict):
                reservations.settle(tx, "a", 1, {Unit.CARBON: actual + 1})
        assert (late.late, late.state) == (True, ReservationState.LATE_SETTLED)
        assert late.amounts == {Unit.CARBON: actual}
        assert late.differences == {Unit.CARBON: difference}
        assert self.counters(budgets, _LEAF) == (0, actual, max(0, actual - 300))

    def test_a_run_of_which_nothing_is_known_is_charged_as_held(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 123)
            reservations.start(tx, "a")
        clock.advance(300)
        with budgets.transaction() as tx:
            (done,) = reservations.expire(tx)
        assert done.amounts == {Unit.CARBON: 123}

    def test_a_dead_run_may_be_charged_more_than_it_held(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 10)
            reservations.start(tx, "a", 100, expected_power_milliwatts=4)
        clock.advance(5_000)
        with budgets.transaction() as tx:
            (done,) = reservations.expire(tx)
        assert done.amounts[Unit.CARBON] == 400
        assert done.overrun == {f"{_LEAF}:carbon": 100}

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
        assert done["watch"].amounts[Unit.CARBON] == 0
        assert "no intensity is known" in done["watch"].note

    def test_a_waiting_one_lapses_at_zero_after_its_grace(self, budgets: Store, clock: ManualClock) -> None:
        deadline = clock.now() + timedelta(hours=2)
        with budgets.transaction() as tx:
            ask(tx, "with deadline", _LEAF, 100, deadline=deadline)
            ask(tx, "without", _LEAF, 100, at=clock.now() + timedelta(hours=1))
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
            assert ask(tx, "without", _LEAF, 50)[0] is not None

    def test_a_sweep_is_bounded_and_may_keep_to_a_path(self, budgets: Store, clock: ManualClock) -> None:
        with budgets.transaction() as tx:
            set_budget(tx, budget("other", 1_000))
            set_budget(tx, budget("acme/ops", 1_000))
            for number, path in enumerate((_LEAF, "acme/ops", "other", _LEAF)):
                ask(tx, f"{number}", path, 10)
                reservations.start(tx, f"{number}")
                clock.advance(1)
        clock.advance(300)
        with budgets.transaction() as tx:
            found = reservations.expire(tx, path=_LEAF, limit=2)
            assert [one.request_key for one in found] == ["0", "1"], "acme/ops also takes from acme"
            assert [one.request_key for one in reservations.expire(tx, path=_LEAF)] == ["3"]
            assert [one.request_key for one in reservations.expire(tx)] == ["2"]

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
            ask(tx, "a", _LEAF, 200)
            set_budget(tx, budget(_LEAF, 50))
            _, headrooms = ask(tx, "b", _LEAF, 1)
            assert headrooms[-1].allotment.available == -150
            assert reservations.refusals(headrooms)
            assert [row.kind for row in tx.journal("")] == ["limit"]
        assert self.counters(budgets, _LEAF) == (200, 0, 0)
        with budgets.transaction() as tx:
            set_budget(tx, budget(_LEAF, 300))
            ask(tx, "gone", _LEAF, 80)
            set_budget(tx, budget(_LEAF, 50))
            reservations.release(tx, "gone")
        assert self.counters(budgets, _LEAF) == (200, 0, 0), "what a lowered limit left above it is not taken back"
        with budgets.transaction() as tx:
            reservations.start(tx, "a")
            assert reservations.settle(tx, "a", 1, {Unit.CARBON: 210}).overrun == {f"{_LEAF}:carbon": 10}
            set_budget(tx, budget(_LEAF, 1_000))
            assert ask(tx, "b", _LEAF, 200)[0] is not None

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
        path = wrong.pop("path", "a")
        with store.transaction() as tx:
            with pytest.raises(InvalidInput):
                set_budget(tx, budget(path, 1, **wrong))
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
            ask(tx, "a", _LEAF, 100)
            reservations.start(tx, "a", 3 * 86_400)
        clock.advance(timedelta(days=2))
        with budgets.transaction() as tx:
            ask(tx, "b", _LEAF, 5)
            reservations.settle(tx, "a", 1, {Unit.CARBON: 70})
            assert [(one.held, one.spent) for one in tx.allotments(_LEAF)] == [(5, 0), (0, 70)]

    def test_showing_the_tree_writes_nothing(self, budgets: Store) -> None:
        with budgets.snapshot() as tx:
            assert [(line.path, line.available) for line in tree(tx)] == list(
                zip(_PATHS, (1_000, 500, 300), strict=True)
            )
            assert tx.allotments() == []
        with budgets.transaction() as tx:
            ask(tx, "a", _LEAF, 150)
            reservations.start(tx, "a")
            reservations.settle(tx, "a", 1, {Unit.CARBON: 60})
            ask(tx, "b", _LEAF, 15)
        with budgets.snapshot() as tx:
            (line,) = tree(tx, path=_LEAF)
        assert (line.depth, line.spent, line.held, line.available, line.used_percent) == (2, 60, 15, 225, 25.0)

    # ---- the audit ----

    def test_the_audit_finds_a_counter_without_its_hold(self, budgets: Store) -> None:
        self.broken_on_purpose = True
        with budgets.transaction() as tx:
            stored, headrooms = ask(tx, "a", _LEAF, 10)
            assert stored is not None
            which = headrooms[0].allotment.allotment_id
            tx.put_reservation(
                _changed(stored, holds=(Hold(allotment_id=which, unit=Unit.CARBON, amount=9), *stored.holds[1:]))
            )
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


def _changed(value: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(value, **changes)


def _with_key(value: Any, key: str) -> Any:
    return _changed(value, request_key=key, series_key=key)


def _asking(headroom: Any, amount: int) -> Any:
    return _changed(headroom, amount=amount)
