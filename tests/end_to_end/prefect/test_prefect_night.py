"""One night on a real Prefect: deferred without a slot, resumed under the same id, recorded, checked, cleaned up."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client

from cagg.maintenance import maintain
from cagg.quantities import Unit
from cagg.records import Budget, BudgetMode, Period, ReservationState
from cagg.steps.budgets import change_budget
from cagg_prefect import AWAITING_GREEN_WINDOW
from cagg_prefect.host import PrefectRuns
from cagg_prefect.testing import until

_DIRTY, _CLEAN = 400, 40


@pytest.fixture(autouse=True)
def _budget(stand: Any) -> None:
    with stand.components().store.transaction() as tx:
        change_budget(
            tx,
            Budget(
                path="acme/ml/nightly",
                unit=Unit.CARBON,
                period=Period.MONTH,
                time_zone="UTC",
                limit=10_000_000_000,
                mode=BudgetMode.ENFORCE,
            ),
        )


def _counters(stand: Any) -> tuple[int, int]:
    with stand.components().store.snapshot() as tx:
        allotments = tx.allotments("acme/ml/nightly")
    return sum(item.held for item in allotments), sum(item.spent for item in allotments)


def test_deferred_run_frees_its_slot_and_is_recorded_unforgeably(stand: Any, tmp_path: Path) -> None:
    marker = tmp_path / "pids"
    held_before, _ = _counters(stand)
    # 90 s of dirty hours: time for another run to start and end on a slow machine
    stand.configure([_DIRTY] * 6 + [_CLEAN] * 12 + [_DIRTY] * 60)
    night = stand.start("nightly", marker=str(marker))
    deferred = stand.wait_for(night, AWAITING_GREEN_WINDOW)
    assert deferred.state.is_scheduled()
    assert not marker.exists()
    held, _ = _counters(stand)
    assert held > held_before

    # the pool runs one flow at a time, so this one runs only because the slot is free
    between = stand.wait_for(stand.start("other"), "Completed")
    assert stand.run(night).state.name == AWAITING_GREEN_WINDOW

    done = stand.wait_for(night, "Completed")
    assert done.id == night
    assert done.run_count == 2
    assert marker.read_text().count("\n") == 1
    states = stand.states(night)
    names = [name for name, _ in states]
    assert names.count(AWAITING_GREEN_WINDOW) == 1
    assert names.count("Running") == 2
    resumed_at = max(instant for name, instant in states if name == "Running")
    assert between.end_time < resumed_at

    entries = stand.entries(night)
    assert [str(entry.kind) for entry, _ in entries] == ["decision", "decision", "measurement", "settlement"]
    bodies = [body for _, body in entries]
    assert ["defer" in str(body["verdict"]).lower() for body in bodies[:2]] == [True, False]
    assert int(bodies[2]["energy_millijoules"]) > 0
    assert bodies[2]["carbon_micrograms"] is not None
    held, spent = _counters(stand)
    assert held == held_before
    assert spent > 0

    report = maintain(stand.components(), hosts={"prefect": PrefectRuns()})
    assert report.problems == ()
    status, verified = stand.cagg("ledger", "verify")
    assert status == 0, verified

    _edit_one_byte(stand, entries[2][0].entry_id)
    status, broken = stand.cagg("ledger", "verify")
    assert status == 1, broken
    _edit_one_byte(stand, entries[2][0].entry_id)
    status, verified = stand.cagg("ledger", "verify")
    assert status == 0, verified


def _edit_one_byte(stand: Any, entry_id: str) -> None:
    """Swap one bit of the body behind the back of the store; twice restores it."""
    path = stand.components().settings.store_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f'DROP TRIGGER "{name}"')
        (body,) = connection.execute("SELECT body FROM cagg_entry WHERE entry_id = ?", (entry_id,)).fetchone()
        at = body.index(b'"energy_millijoules":"') + len(b'"energy_millijoules":"')
        edited = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        connection.execute("UPDATE cagg_entry SET body = ? WHERE entry_id = ?", (edited, entry_id))
        for _, sql in triggers:
            connection.execute(sql)


def test_deleted_deferred_run_is_released_at_zero(stand: Any) -> None:
    _, spent_before = _counters(stand)
    stand.configure([_DIRTY] * 12 + [_CLEAN] * 12 + [_DIRTY] * 60)
    night = stand.start("doomed")
    stand.wait_for(night, AWAITING_GREEN_WINDOW)
    assert _counters(stand)[0] > 0
    with get_client(sync_client=True) as client:
        client.delete_flow_run(night)

    report = maintain(stand.components(), hosts={"prefect": PrefectRuns()})
    assert report.reconciled == 1
    assert _counters(stand) == (0, spent_before)
    with stand.components().store.snapshot() as tx:
        (reservation,) = tx.reservations(host="prefect", root_run_id=str(night))
    assert reservation.state is ReservationState.RELEASED


def test_killed_run_is_charged_once_its_lease_has_ended(stand: Any, tmp_path: Path) -> None:
    _, spent_before = _counters(stand)
    stand.configure([_DIRTY] * 60)
    marker = tmp_path / "pid"
    run_id = stand.start("endless", marker=str(marker))
    pid = int(
        until("the flow to start", lambda: marker.read_text() if marker.exists() else None, timeout_seconds=200) or 0
    )
    assert pid > 1
    os.kill(pid, signal.SIGKILL)
    held, spent = _counters(stand)
    assert held > 0
    assert spent == spent_before

    components = stand.components()

    def expired() -> int | None:
        return maintain(components, hosts={"prefect": PrefectRuns()}).expired or None

    assert until("the lease to end", expired, timeout_seconds=30) == 1
    held, spent = _counters(stand)
    assert held == 0
    assert spent > spent_before
    with components.store.snapshot() as tx:
        (reservation,) = tx.reservations(host="prefect", root_run_id=str(run_id))
    assert reservation.state is ReservationState.EXPIRED
    status, verified = stand.cagg("ledger", "verify")
    assert status == 0, verified
