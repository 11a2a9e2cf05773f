"""What a run is charged, and the ledger entry that says so: shared by the gate, its spool and maintenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cagg.errors import IdempotencyConflict
from cagg.grid.series import slice_energy
from cagg.intensity import IntensitySeries
from cagg.ledger.entry import append
from cagg.ports import Transaction
from cagg.quantities import PPM, CarbonMass, Energy, Unit, ceil_div
from cagg.records import Entry, EntryDraft, EntryKind, ReadingSlice, Reservation, ReservationState, Settlement
from cagg.steps.pricing import Priced
from cagg.verdict import Decision
from cagg.windows import Window, format_instant, parse_instant, to_milliseconds

__all__ = [
    "amounts_of",
    "append_next",
    "carbon_if_moved",
    "record_settlement",
    "reservation_identity",
    "unheld_body",
    "unheld_reservation",
    "who_pays",
]


def amounts_of(*, energy: Energy | None, carbon: CarbonMass | None) -> Mapping[Unit, int | None]:
    """Return what to charge by unit; None where it is unknown.

    The budgets charge unknown energy as it was held and unknown carbon at the planning price: an actual is never
    charged as zero because nobody knew it.
    """
    return {
        Unit.ENERGY: None if energy is None else energy.millijoules,
        Unit.CARBON: None if carbon is None else carbon.micrograms,
    }


def append_next(tx: Transaction, draft: EntryDraft) -> Entry:
    """Append under the first ordinal, from the draft's own on, that is free or holds the same body already."""
    ordinal = draft.ordinal
    while True:
        try:
            return append(tx, replace(draft, ordinal=ordinal))
        except IdempotencyConflict:
            ordinal += 1


def carbon_if_moved(
    priced: Priced, series: IntensitySeries, shift: timedelta, pue_ppm: int | None
) -> CarbonMass | None:
    """Return the carbon of the same energy profile at another time; None where the series has no data.

    Args:
        priced: the run as it was.
        series: intensities of the same convention.
        shift: how far to move it; negative = earlier.
        pue_ppm: power usage effectiveness; None = not applied.
    """
    moved = [
        ReadingSlice(window=Window(start=window.start + shift, end=window.end + shift), energy=energy)
        for window, energy, _, _ in priced.slices
    ]
    total = 0
    for _, energy, intensity in slice_energy(moved, series):
        if intensity is None:
            return None
        total += energy.millijoules * intensity.milligrams_per_kwh
    return CarbonMass(micrograms=ceil_div(total * (pue_ppm or PPM), 3_600_000_000_000))


def unheld_body(decision: Decision, started_at: datetime) -> dict[str, Any]:
    """Return what a run that was let through without a hold must remember, as JSON values."""
    identity = decision.request.identity
    return {
        "series_key": identity.series_key,
        "host": identity.host,
        "root_run_id": identity.root_run_id,
        "task_key": identity.task_key,
        "attempt": identity.attempt,
        "budget_path": decision.request.options.budget,
        "first_asked_at": format_instant(decision.first_asked_at),
        "started_at": format_instant(started_at),
    }


def who_pays(stored: Reservation | None, unheld: Reservation) -> Reservation:
    """Return what a run that went on without a hold settles: the admission whose answer was lost, else its own."""
    return stored if stored is not None and stored.lease_until is not None else unheld


def unheld_reservation(body: Mapping[str, Any], request_key: str) -> Reservation:
    """Return the reservation that such a run would have had; it holds nothing."""
    started_at = parse_instant(body["started_at"])
    return Reservation(
        request_key=request_key,
        series_key=body["series_key"],
        host=body["host"],
        root_run_id=body["root_run_id"],
        task_key=body["task_key"],
        attempt=int(body["attempt"]),
        budget_path=body["budget_path"],
        state=ReservationState.WAITING,
        first_asked_at=parse_instant(body["first_asked_at"]),
        deadline=None,
        asks=1,
        deferrals=0,
        planning_intensity_milligrams_per_kwh=None,
        planning_basis="none: the store was down",
        planned_start=started_at,
        upper_energy=Energy.ZERO,
        holds=(),
        lease_until=None,
        lease_epoch=0,
        last_beat_at=None,
        started_at=started_at,
        used_energy=Energy.ZERO,
        last_power_milliwatts=0,
        encloses_run=False,
        created_at=started_at,
        updated_at=started_at,
    )


def reservation_identity(reservation: Reservation) -> dict[str, Any]:
    """Return the identity in clear that a reservation carries, as ledger values."""
    return {
        "key": reservation.request_key,
        "host": reservation.host,
        "root_run_id": reservation.root_run_id,
        "task_key": reservation.task_key,
        "attempt": reservation.attempt,
    }


def record_settlement(
    tx: Transaction, reservation: Reservation, settlement: Settlement, measurement_id: str | None
) -> Entry:
    """Append the entry that says how a reservation ended; a late settlement or a second release is a further one."""
    body = {
        "request": reservation_identity(reservation),
        "outcome": str(settlement.state),
        "budget_path": reservation.budget_path,
        "measurement_id": measurement_id,
        "parents": [] if measurement_id is None else [measurement_id],
        "held": [
            {"allotment": hold.allotment_id, "unit": str(hold.unit), "amount": str(hold.amount)}
            for hold in reservation.holds
        ],
        "charged": {str(unit): str(amount) for unit, amount in settlement.amounts.items()},
        "differences": {str(unit): str(amount) for unit, amount in settlement.differences.items()},
        "overrun": [
            {"budget": name, "amount": str(amount)} for name, amount in sorted(settlement.overrun.items()) if amount
        ],
        "planning_intensity_milligrams_per_kwh": None
        if reservation.planning_intensity_milligrams_per_kwh is None
        else str(reservation.planning_intensity_milligrams_per_kwh),
        "planning_basis": reservation.planning_basis,
        "lease_ms": None if settlement.lease is None else to_milliseconds(settlement.lease),
        "late": settlement.late,
        "unpriced": list(settlement.unpriced),
        "note": settlement.note,
    }
    draft = EntryDraft(kind=EntryKind.SETTLEMENT, request_key=reservation.request_key, ordinal=0, body=body)
    return append_next(tx, draft)
