"""Contract of a store's budgets: a suite, a state machine against a reference model, and races between processes.

A backend runs them all by subclassing and giving a store::

    class TestBudgetsOnMyStore(BudgetContract):
        @pytest.fixture
        def store(self, clock): return open_store(url, clock=clock)

    class MyBudgetMachine(BudgetMachine):
        def open_store(self, clock): return open_store(url, clock=clock)

    TestMyBudgetMachine = MyBudgetMachine.TestCase
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cagg.budget import reservations
from cagg.budget.tree import ancestors, set_budget
from cagg.clock import SystemClock
from cagg.errors import ReservationConflict
from cagg.ports import Store
from cagg.quantities import Energy, Unit
from cagg.records import Reservation, ReservationState, Settlement
from cagg.store.engine import open_store
from cagg.testing._budget_builders import ONE_MICROGRAM_PER_MILLIJOULE, ask, budget, reservation
from cagg.testing.clock import ManualClock

__all__ = [
    "ONE_MICROGRAM_PER_MILLIJOULE",
    "BudgetMachine",
    "ReferenceBudgets",
    "ask",
    "budget",
    "die_holding",
    "race",
    "reservation",
    "work_until_killed",
]

# ---- the reference model and the state machine --------------------------------------------------------------------

Account = tuple[str, str]
"""(path, local date): one allotment of a budget per day."""


class ReferenceBudgets:
    """What budgets must do, in plain integers: no store, no periods but a date, no order of locks."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.rules = dict(limits)
        self.granted: dict[Account, int] = {}
        self.held: dict[Account, dict[str, int]] = defaultdict(dict)
        self.spent: dict[Account, dict[str, int]] = defaultdict(dict)

    def ask(self, key: str, path: str, date: str, amount: int) -> bool:
        accounts = [(node, date) for node in ancestors(path)]
        for account in accounts:
            self.granted.setdefault(account, self.rules[account[0]])
        if amount and any(amount > self.left(account, key) for account in accounts):
            return False
        self.free(key)
        for account in accounts:
            self.held[account][key] = amount
        return True

    def left(self, account: Account, ignoring: str) -> int:
        others = sum(amount for key, amount in self.held[account].items() if key != ignoring)
        return self.granted[account] - others - sum(self.spent[account].values())

    def free(self, key: str) -> list[Account]:
        accounts = [account for account, holds in self.held.items() if key in holds]
        for account in accounts:
            del self.held[account][key]
        return accounts

    def charge(self, key: str, accounts: Sequence[Account], amount: int) -> None:
        for account in accounts:
            self.spent[account][key] = amount


_BERLIN = ZoneInfo("Europe/Berlin")
_LIMITS = {"acme": 900, "acme/ml": 600, "acme/ml/nightly": 300, "acme/ml/eval": 400, "acme/ops": 500}
_KEYS = [f"request {number}" for number in range(6)]


class BudgetMachine(RuleBasedStateMachine):
    """Any order of asks, wakes, beats, settlements, deaths and changes of limits leaves the store as the model says.

    It starts the day before Berlin's clocks fall back, so that holds move across a day of 25 hours. Subclasses give
    :meth:`open_store`.
    """

    def open_store(self, clock: ManualClock) -> Store:
        """Return an empty store on this clock."""
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.clock = ManualClock(datetime(2026, 10, 24, 12, tzinfo=UTC))
        self.store = self.open_store(self.clock)
        self.model = ReferenceBudgets(_LIMITS)
        self.accounts: dict[str, list[Account]] = {}
        self.unheld: dict[str, int] = {}
        with self.store.transaction() as tx:
            for path, limit in _LIMITS.items():
                set_budget(tx, budget(path, limit, time_zone="Europe/Berlin"))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    # -- steps --

    @rule(
        key=st.sampled_from(_KEYS),
        path=st.sampled_from([path for path in _LIMITS if path.count("/")]),
        amount=st.integers(0, 400),
        hours=st.integers(0, 60),
    )
    def ask_or_move(self, key: str, path: str, amount: int, hours: int) -> None:
        at = self.clock.now() + timedelta(hours=hours)
        with self.store.transaction() as tx:
            before = tx.reservation(key)
            if before is not None and not (before.open and before.state is ReservationState.WAITING):
                return
            stored, _ = ask(tx, key, path, amount, at=at)
        expected = self.model.ask(key, path, at.astimezone(_BERLIN).date().isoformat(), amount)
        assert (stored is not None) == expected
        if stored is not None:
            assert {hold.amount for hold in stored.holds} == {amount}

    @rule(key=st.sampled_from(_KEYS), power=st.integers(0, 2))
    def start(self, key: str, power: int) -> None:
        with self.store.transaction() as tx:
            before = tx.reservation(key)
            if before is None or before.state is not ReservationState.WAITING:
                return
            reservations.start(tx, key, expected_power_milliwatts=power)

    @rule(key=st.sampled_from(_KEYS), energy=st.integers(0, 300), power=st.integers(0, 2))
    def beat(self, key: str, energy: int, power: int) -> None:
        with self.store.transaction() as tx:
            before = tx.reservation(key)
            if before is None or before.state is not ReservationState.RUNNING:
                return
            after = reservations.beat(tx, key, before.lease_epoch, Energy(millijoules=energy), power)
        assert after.used_energy == max(before.used_energy, Energy(millijoules=energy))

    @rule(key=st.sampled_from(_KEYS), amount=st.integers(0, 500))
    def settle(self, key: str, amount: int) -> None:
        with self.store.transaction() as tx:
            before = tx.reservation(key)
            if before is None or before.lease_epoch == 0:
                return
            try:
                done = reservations.settle(tx, key, before.lease_epoch, {Unit.CARBON: amount})
            except ReservationConflict:
                assert before.state in (ReservationState.SETTLED, ReservationState.LATE_SETTLED)
                return
            assert done == reservations.settle(tx, key, before.lease_epoch, {Unit.CARBON: amount})
        assert done.amounts[Unit.CARBON] == amount
        if before.state is ReservationState.RUNNING:
            self.accounts[key] = self.model.free(key)
            self.model.charge(key, self.accounts[key], amount)
        elif before.state is ReservationState.EXPIRED:
            assert done.late
            self.model.charge(key, self.accounts[key], amount)

    @rule(
        number=st.integers(0, 2),
        path=st.sampled_from([path for path in _LIMITS if path.count("/")]),
        amount=st.integers(0, 500),
        hours=st.integers(0, 30),
    )
    def charge_unheld(self, number: int, path: str, amount: int, hours: int) -> None:
        key, at = f"unheld {number}", self.clock.now() - timedelta(hours=hours)
        with self.store.transaction() as tx:
            before = tx.reservation(key)
            if before is not None:
                again = reservations.charge_unheld(tx, before, {Unit.CARBON: self.unheld[key]}, at=at)
                assert again.amounts == {Unit.CARBON: self.unheld[key]}
                return
            done = reservations.charge_unheld(tx, reservation(key, path, at), {Unit.CARBON: amount}, at=at)
        assert done.amounts == {Unit.CARBON: amount}
        self.unheld[key] = amount
        date = at.astimezone(_BERLIN).date().isoformat()
        accounts = [(node, date) for node in ancestors(path)]
        for account in accounts:
            self.model.granted.setdefault(account, self.model.rules[account[0]])
        self.model.charge(key, accounts, amount)

    @rule(key=st.sampled_from(_KEYS))
    def release(self, key: str) -> None:
        with self.store.transaction() as tx:
            before = tx.reservation(key)
            if before is None or before.lease_epoch:
                return
            done = reservations.release(tx, key)
        assert not any(done.amounts.values())
        self.model.free(key)

    @rule(key=st.sampled_from(_KEYS))
    def reopen(self, key: str) -> None:
        with self.store.transaction() as tx:
            before = tx.reservation(key)
            if before is None or before.open or before.lease_epoch:
                return
            assert reservations.reopen(tx, key).state is ReservationState.WAITING

    @rule(path=st.sampled_from(list(_LIMITS)), limit=st.integers(0, 1_000))
    def change_limit(self, path: str, limit: int) -> None:
        with self.store.transaction() as tx:
            set_budget(tx, budget(path, limit, time_zone="Europe/Berlin"))
        self.model.rules[path] = limit
        today = self.clock.now().astimezone(_BERLIN).date().isoformat()
        for account in self.model.granted:
            if account[0] == path and account[1] >= today:
                self.model.granted[account] = limit

    @rule(minutes=st.sampled_from([1, 4, 6, 61, 24 * 60]))
    def let_time_pass(self, minutes: int) -> None:
        self.clock.advance(timedelta(minutes=minutes))

    @rule()
    def sweep(self) -> None:
        with self.store.transaction() as tx:
            before = {one.request_key: one for one in tx.reservations(open_only=True)}
            ended = reservations.expire(tx)
        for done in ended:
            self._compare_expiry(before[done.request_key], done)

    def _compare_expiry(self, before: Reservation, done: Settlement) -> None:
        accounts = self.model.free(before.request_key)
        if before.state is ReservationState.WAITING:
            assert not any(done.amounts.values())
            return
        assert before.lease_until is not None
        assert before.last_beat_at is not None
        assert before.lease_until <= self.clock.now()
        seconds = int((before.lease_until - before.last_beat_at).total_seconds())
        charge = before.used_energy.millijoules + before.last_power_milliwatts * seconds
        if charge == 0 and before.last_power_milliwatts == 0:
            charge = before.holds[0].amount
        if charge == 0 and before.last_power_milliwatts == 0:
            assert Unit.CARBON not in done.amounts, "nothing measured and nothing held is unknown, not zero"
            assert done.unpriced == tuple(sorted(f"{account[0]}:carbon" for account in accounts))
        else:
            assert (done.amounts[Unit.CARBON], done.unpriced) == (charge, ())
        self.accounts[before.request_key] = accounts
        self.model.charge(before.request_key, accounts, charge)

    # -- what holds after each step --

    @invariant()
    def counters_are_the_model_s(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.store.snapshot() as tx:
            assert reservations.audit(tx) == ()
            opened = tx.allotments()
        assert len(opened) == len(self.model.granted)
        for one in opened:
            noon = one.window.start + (one.window.end - one.window.start) / 2
            account = (one.budget.path, noon.astimezone(_BERLIN).date().isoformat())
            assert one.limit == self.model.granted[account]
            assert one.held == sum(self.model.held[account].values())
            assert one.spent == sum(self.model.spent[account].values())
            assert one.overrun >= 0


# ---- other processes ----------------------------------------------------------------------------------------------


def race(url: str, worker: int, paths: Sequence[str], tries: int) -> list[int]:
    """Ask for one unit again and again on each path in turn; return how many were admitted on each.

    Runs in a process of its own, against the store at the address. Every third admitted request is started and
    settled at what it held, so that holds become spending under the same race.
    """
    store = open_store(url, clock=SystemClock())
    admitted = [0] * len(paths)
    try:
        for number in range(tries):
            for index, path in enumerate(paths):
                key = f"{worker} {index} {number}"
                with store.transaction() as tx:
                    stored, _ = ask(tx, key, path, 1)
                    if stored is not None and number % 3 == 0:
                        reservations.start(tx, key)
                        reservations.settle(tx, key, 1, {Unit.CARBON: 1})
                admitted[index] += stored is not None
    finally:
        store.close()
    return admitted


def work_until_killed(url: str, path: str, acknowledge: int) -> None:
    """Hold, start and settle one unit per request until killed; write one byte to the descriptor after each."""
    store = open_store(url, clock=SystemClock())
    number = 0
    while True:
        key = f"{os.getpid()} {number}"
        with store.transaction() as tx:
            stored, _ = ask(tx, key, path, 1)
            if stored is None:
                os._exit(1)
            reservations.start(tx, key)
        with store.transaction() as tx:
            reservations.settle(tx, key, 1, {Unit.CARBON: 1})
        os.write(acknowledge, b".")
        number += 1


def die_holding(url: str, path: str, when: str) -> None:
    """Hold 5 units and die by SIGKILL: ``before`` the commit, or ``after`` it while running."""
    store = open_store(url, clock=SystemClock())
    with store.transaction() as tx:
        ask(tx, f"killed {when}", path, 5)
        reservations.start(tx, f"killed {when}", lease_seconds=1)
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
