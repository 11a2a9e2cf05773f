"""Builders of budgets, reservations and asks for tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cagg.budget import reservations
from cagg.ports import Transaction
from cagg.quantities import Energy, Unit
from cagg.records import Budget, BudgetMode, Headroom, Period, Reservation, ReservationState

__all__ = ["ONE_MICROGRAM_PER_MILLIJOULE", "ask", "budget", "reservation"]

ONE_MICROGRAM_PER_MILLIJOULE = 3_600_000
"""A planning intensity in mg/kWh at which amounts of energy and carbon are the same number."""


def budget(path: str, limit: int, **changes: Any) -> Budget:
    """Return an enforced carbon budget per day in UTC, with any field changed."""
    fields: dict[str, Any] = {
        "path": path,
        "unit": Unit.CARBON,
        "period": Period.DAY,
        "time_zone": "UTC",
        "limit": limit,
        "mode": BudgetMode.ENFORCE,
    }
    return Budget(**{**fields, **changes})


def reservation(key: str, path: str, now: datetime, **changes: Any) -> Reservation:
    """Return a waiting reservation without holds, first asked now, with any field changed."""
    fields: dict[str, Any] = {
        "request_key": key,
        "series_key": f"series {key}",
        "host": "local",
        "root_run_id": "run 1",
        "task_key": "task",
        "attempt": 1,
        "budget_path": path,
        "state": ReservationState.WAITING,
        "first_asked_at": now,
        "deadline": None,
        "asks": 1,
        "deferrals": 0,
        "planning_intensity_milligrams_per_kwh": ONE_MICROGRAM_PER_MILLIJOULE,
        "planning_basis": "declared",
        "planned_start": now,
        "upper_energy": Energy(millijoules=1_000),
        "holds": (),
        "lease_until": None,
        "lease_epoch": 0,
        "last_beat_at": None,
        "started_at": None,
        "used_energy": Energy.ZERO,
        "last_power_milliwatts": 0,
        "encloses_run": False,
        "created_at": now,
        "updated_at": now,
    }
    return Reservation(**{**fields, **changes})


def ask(
    tx: Transaction,
    key: str,
    path: str,
    amount: int | None,
    *,
    at: datetime | None = None,
    amounts: Mapping[Unit, int | None] | None = None,
    allow_over: frozenset[int] = frozenset(),
    **changes: Any,
) -> tuple[Reservation | None, tuple[Headroom, ...]]:
    """Assess and, unless an enforced budget refuses, hold: what the gate does in one transaction.

    Returns the stored reservation, None when refused, and the headrooms. ``amount`` is carbon in micrograms.
    """
    now = tx.now()
    start = now if at is None else at
    wanted = reservation(key, path, now, **{"planned_start": start, **changes})
    headrooms = reservations.assess(
        tx,
        path=path,
        amounts={Unit.CARBON: amount} if amounts is None else amounts,
        energy=wanted.upper_energy,
        at=start,
        ignoring=key,
    )
    refused = [one for one in reservations.refusals(headrooms) if one.allotment.allotment_id not in allow_over]
    if refused:
        return None, headrooms
    return reservations.hold(tx, wanted, headrooms, allow_over=allow_over), headrooms
