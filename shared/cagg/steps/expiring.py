"""Charges runs that died: the reservation is settled at what it used, and the ledger says that it is an estimate."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from cagg.budget import reservations
from cagg.errors import LedgerDamaged
from cagg.ledger.entry import read_body
from cagg.ports import Transaction
from cagg.quantities import Unit
from cagg.records import Entry, EntryDraft, EntryKind, Reservation, Settlement
from cagg.steps.provenance import newest_decision
from cagg.steps.settlements import append_next, record_settlement, reservation_identity
from cagg.windows import format_instant

__all__ = ["book_expired"]


def book_expired(tx: Transaction, *, now: datetime, limit: int, pue_ppm: int | None) -> tuple[Settlement, ...]:
    """Expire what is due and write the entries in the same transaction.

    Args:
        tx: open transaction.
        now: the store's time.
        limit: at most so many.
        pue_ppm: power usage effectiveness; None = not applied.
    """
    ended = reservations.expire(tx, now=now, limit=limit, pue_ppm=pue_ppm)
    for settlement in ended:
        reservation = tx.reservation(settlement.request_key)
        if reservation is None:
            continue
        lost = None
        if reservation.started_at is not None:
            admission = newest_decision(tx, reservation.request_key)
            lost = append_next(tx, _lost_draft(tx, reservation, settlement, admission)).entry_id
        record_settlement(tx, reservation, settlement, lost)
    return ended


def _admitted_inside(tx: Transaction, admission: Entry | None) -> str | None:
    """Return the request key of the gate that a run was admitted inside of, as its newest decision says."""
    if admission is None:
        return None
    try:
        outer_key = read_body(tx, admission).get("outer_key")
    except LedgerDamaged:
        return None  # `cagg ledger verify` tells that; the hold of a run that died is given back all the same
    return None if outer_key is None else str(outer_key)


def _lost_draft(
    tx: Transaction, reservation: Reservation, settlement: Settlement, admission: Entry | None
) -> EntryDraft:
    """Return the measurement of a run that died: last beat plus last power to the end of the lease, grade D."""
    energy = settlement.amounts.get(Unit.ENERGY)
    known = None if energy is None else str(energy)
    carbon = settlement.amounts.get(Unit.CARBON)
    start = reservation.started_at or reservation.created_at
    end = max(reservation.lease_until or start, start + timedelta(milliseconds=1))
    planning = reservation.planning_intensity_milligrams_per_kwh
    body: dict[str, Any] = {
        "request": reservation_identity(reservation),
        "outcome": "lost",
        "start": format_instant(start),
        "end": format_instant(end),
        "energy_millijoules": known,
        "energy_low_millijoules": None if energy is None else "0",
        "energy_high_millijoules": None if energy is None else str(max(energy, reservation.upper_energy.millijoules)),
        "energy_reason": "the run died; this is what its lease was charged" if known else "the run died before it beat",
        "grade": "D" if known else None,
        "method": "last beat + last power x time to the end of the lease",
        # one slice of unknown intensity, so that the recorded energy and the missing carbon follow from the slices
        "slices": []
        if known is None
        else [
            {
                "start": format_instant(start),
                "end": format_instant(end),
                "energy_millijoules": known,
                "intensity_milligrams_per_kwh": None,
                "source": "",
            }
        ],
        "pue_ppm": None,
        "carbon_micrograms": None,
        "carbon_reason": "the run died before it was priced",
        "charged_carbon_micrograms": None if carbon is None else str(carbon),
        "planning_intensity_milligrams_per_kwh": None if planning is None else str(planning),
        "budget_path": reservation.budget_path,
        "part_of": _admitted_inside(tx, admission),
        "parents": [] if admission is None else [admission.entry_id],
    }
    return EntryDraft(kind=EntryKind.MEASUREMENT, request_key=reservation.request_key, ordinal=0, body=body)
