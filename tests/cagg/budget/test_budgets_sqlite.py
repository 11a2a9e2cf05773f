"""The budget contract, the state machine and the races on SQLite."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import text

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.clock import SystemClock
from cagg.ports import Store
from cagg.quantities import Energy
from cagg.records import Period, ReservationState
from cagg.store.engine import open_store
from cagg.testing.budget_contract import BudgetContract
from cagg.testing.budgets import BudgetMachine, budget, die_holding, race, work_until_killed
from cagg.testing.clock import ManualClock

PROCESSES = 8
LEVELS = {
    # which level binds: limits of organisation, team, leaf
    "leaf": (1_000, 1_000, 30),
    "team": (1_000, 30, 1_000),
    "root": (30, 1_000, 1_000),
}


class TestBudgetsOnSqlite(BudgetContract):
    @pytest.fixture
    def store(self, tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
        store = open_store(f"sqlite:///{tmp_path}/cagg.db", clock=clock)
        with store.transaction():
            pass
        yield store
        store.close()

    @pytest.mark.parametrize("column", ["held", "spent", "overrun"])
    def test_the_audit_finds_an_edited_counter(self, budgets: Store, column: str) -> None:
        self.broken_on_purpose = True
        with budgets.transaction() as tx:
            set_budget(tx, budget("x", 10))
            reservations.assess(tx, path="x", amounts={}, energy=Energy(millijoules=1), at=tx.now(), ignoring=None)
            tx.connection.execute(text(f"update cagg_allotment set {column} = 3"))  # type: ignore[attr-defined]
            findings = reservations.audit(tx)
        assert any(f"{column} is 3, but its journal sums to 0" in finding for finding in findings)


class SqliteBudgetMachine(BudgetMachine):
    def open_store(self, clock: ManualClock) -> Store:
        self.folder = tempfile.mkdtemp()
        return open_store(f"sqlite:///{self.folder}/cagg.db", clock=clock)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestSqliteBudgetMachine = SqliteBudgetMachine.TestCase
TestSqliteBudgetMachine.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture
def shared_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shared.db"


def test_eight_processes_race_for_the_last_microgram_at_each_level(shared_url: str) -> None:
    store = open_store(shared_url, clock=SystemClock())
    with store.transaction() as tx:
        for name, limits in LEVELS.items():
            for path, limit in zip((name, f"{name}/team", f"{name}/team/leaf"), limits, strict=True):
                set_budget(tx, budget(path, limit, period=Period.TOTAL))
    paths = [f"{name}/team/leaf" for name in LEVELS]
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        admitted = pool.starmap(race, [(shared_url, worker, paths, 6) for worker in range(PROCESSES)], chunksize=1)
    totals = [sum(column) for column in zip(*admitted, strict=True)]
    assert totals == [30, 30, 30], "each level admits exactly its limit, although 48 were asked"
    with store.snapshot() as tx:
        assert reservations.audit(tx) == ()
        for allotment in tx.allotments():
            assert allotment.held + allotment.spent == 30
            assert allotment.overrun == 0
    store.close()


def test_processes_that_are_killed_leave_agreeing_counters(shared_url: str) -> None:
    store = open_store(shared_url, clock=SystemClock())
    with store.transaction() as tx:
        set_budget(tx, budget("acme", 10**6, period=Period.TOTAL))
        set_budget(tx, budget("acme/dying", 100, period=Period.TOTAL))
    context = multiprocessing.get_context("fork")
    acknowledged = 0
    for stop_after in (7, 12):
        reader, writer = os.pipe()
        worker = context.Process(target=work_until_killed, args=(shared_url, "acme", writer))
        worker.start()
        os.close(writer)
        for _ in range(stop_after):
            assert os.read(reader, 1) == b"."
        worker.kill()
        worker.join()
        acknowledged += stop_after + sum(len(chunk) for chunk in iter(lambda: os.read(reader, 64), b""))  # noqa: B023
        os.close(reader)
    for when in ("before", "after"):
        worker = context.Process(target=die_holding, args=(shared_url, "acme/dying", when))
        worker.start()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    with store.snapshot() as tx:
        assert reservations.audit(tx) == ()
        (allotment,) = tx.allotments("acme")
        assert acknowledged <= allotment.spent + allotment.held - 5 <= acknowledged + 2
        assert tx.reservation("killed before") is None
        left = tx.reservation("killed after")
        assert left is not None
        assert left.state is ReservationState.RUNNING
    with store.transaction() as tx:
        later = tx.now() + timedelta(minutes=10)
        ended = {one.request_key: one for one in reservations.expire(tx, now=later)}
        assert set(ended["killed after"].amounts.values()) == {5}
        assert reservations.audit(tx) == ()
        assert tx.reservations(open_only=True) == []
    store.close()
