"""Rows of the budget tables as values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Table

from cagg.quantities import Energy, Unit
from cagg.records import Allotment, Budget, BudgetMode, Hold, Period, Reservation, ReservationState
from cagg.store._instants import from_us, to_us
from cagg.windows import Window

__all__ = ["allotment_of", "budget_of", "hold_of", "in_lock_order", "named", "reservation_of", "values_of"]


def in_lock_order(allotments: Iterable[Allotment]) -> list[Allotment]:
    """Return allotments in the order that ``cagg.budget.reservations`` documents."""
    return sorted(
        allotments, key=lambda one: (one.window.start, one.budget.path, one.budget.unit.value, one.budget.period.value)
    )


def named(table: Table, row: Sequence[Any]) -> SimpleNamespace:
    """Return a row of all columns of a table with its fields by name; the driver gives bare tuples."""
    return SimpleNamespace(**dict(zip(table.c.keys(), row, strict=True)))


def budget_of(row: Any) -> Budget:
    return Budget(
        path=row.path,
        unit=Unit(row.unit),
        period=Period(row.period),
        time_zone=row.time_zone,
        limit=row.limit_amount,
        mode=BudgetMode(row.mode),
        unknown_intensity_milligrams_per_kwh=row.unknown_intensity_milligrams_per_kwh,
        version=row.version,
    )


def allotment_of(row: Any, budget: Budget) -> Allotment:
    return Allotment(
        allotment_id=row.allotment_id,
        budget=budget,
        window=Window(start=from_us(row.starts_us), end=from_us(row.ends_us)),
        limit=row.limit_amount,
        extra=row.extra,
        held=row.held,
        spent=row.spent,
        overrun=row.overrun,
    )


def hold_of(row: Any) -> Hold:
    allotment_id, unit, amount = row
    return Hold(allotment_id=allotment_id, unit=Unit(unit), amount=amount)


def _us(instant: datetime | None) -> int | None:
    return None if instant is None else to_us(instant)


def _instant(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_us(microseconds)


def values_of(reservation: Reservation) -> dict[str, str | int | None]:
    return {
        "series_key": reservation.series_key,
        "host": reservation.host,
        "root_run_id": reservation.root_run_id,
        "task_key": reservation.task_key,
        "attempt": reservation.attempt,
        "budget_path": reservation.budget_path,
        "state": reservation.state.value,
        "first_asked_us": to_us(reservation.first_asked_at),
        "deadline_us": _us(reservation.deadline),
        "asks": reservation.asks,
        "deferrals": reservation.deferrals,
        "planning_intensity_milligrams_per_kwh": reservation.planning_intensity_milligrams_per_kwh,
        "planning_basis": reservation.planning_basis,
        "planned_start_us": to_us(reservation.planned_start),
        "upper_energy_millijoules": reservation.upper_energy.millijoules,
        "lease_until_us": _us(reservation.lease_until),
        "lease_epoch": reservation.lease_epoch,
        "last_beat_us": _us(reservation.last_beat_at),
        "started_us": _us(reservation.started_at),
        "used_energy_millijoules": reservation.used_energy.millijoules,
        "last_power_milliwatts": reservation.last_power_milliwatts,
        "encloses_run": int(reservation.encloses_run),
        "created_us": to_us(reservation.created_at),
        "updated_us": to_us(reservation.updated_at),
        "run_reference": reservation.run_reference,
    }


def reservation_of(row: Any, holds: Iterable[Hold]) -> Reservation:
    return Reservation(
        request_key=row.request_key,
        series_key=row.series_key,
        host=row.host,
        root_run_id=row.root_run_id,
        task_key=row.task_key,
        attempt=row.attempt,
        budget_path=row.budget_path,
        state=ReservationState(row.state),
        first_asked_at=from_us(row.first_asked_us),
        deadline=_instant(row.deadline_us),
        asks=row.asks,
        deferrals=row.deferrals,
        planning_intensity_milligrams_per_kwh=row.planning_intensity_milligrams_per_kwh,
        planning_basis=row.planning_basis,
        planned_start=from_us(row.planned_start_us),
        upper_energy=Energy(millijoules=row.upper_energy_millijoules),
        holds=tuple(holds),
        lease_until=_instant(row.lease_until_us),
        lease_epoch=row.lease_epoch,
        last_beat_at=_instant(row.last_beat_us),
        started_at=_instant(row.started_us),
        used_energy=Energy(millijoules=row.used_energy_millijoules),
        last_power_milliwatts=row.last_power_milliwatts,
        encloses_run=bool(row.encloses_run),
        created_at=from_us(row.created_us),
        updated_at=from_us(row.updated_us),
        run_reference=row.run_reference or "",
    )
