"""What a run is charged, and the ledger entry that says so: shared by the gate, its spool and maintenance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cagg.grid.series import slice_energy
from cagg.intensity import IntensitySeries
from cagg.pricing import Priced
from cagg.quantities import PPM, CarbonIntensity, CarbonMass, Energy, Unit, carbon_of, ceil_div
from cagg.records import EntryDraft, EntryKind, ReadingSlice, Reservation, Settlement
from cagg.windows import Window, to_milliseconds

__all__ = ["amounts_of", "carbon_if_moved", "reservation_identity", "settlement_draft"]


def amounts_of(
    reservation: Reservation, *, energy: Energy | None, carbon: CarbonMass | None, pue_ppm: int | None
) -> Mapping[Unit, int]:
    """Return what to charge by unit.

    Unknown energy is charged at the bound that was held; unknown carbon at the planning price; without a planning
    price at what the hold assumed. An actual is never charged as zero because nobody knew it.

    Args:
        reservation: with its holds.
        energy: measured; None = unknown.
        carbon: priced; None = unknown.
        pue_ppm: power usage effectiveness; None = not applied.
    """
    charged_energy = reservation.upper_energy if energy is None else energy
    amounts: dict[Unit, int] = {Unit.ENERGY: charged_energy.millijoules}
    if carbon is not None:
        amounts[Unit.CARBON] = carbon.micrograms
    elif reservation.planning_intensity_milligrams_per_kwh is not None:
        planning = CarbonIntensity(milligrams_per_kwh=reservation.planning_intensity_milligrams_per_kwh)
        amounts[Unit.CARBON] = carbon_of(charged_energy, planning, pue_ppm=pue_ppm or PPM).micrograms
    else:
        held = [hold.amount for hold in reservation.holds if hold.unit is Unit.CARBON]
        if held and reservation.upper_energy.millijoules:
            amounts[Unit.CARBON] = ceil_div(max(held) * charged_energy.millijoules, reservation.upper_energy.millijoules)
    return amounts


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


def reservation_identity(reservation: Reservation) -> dict[str, Any]:
    """Return the identity in clear that a reservation carries, as ledger values."""
    return {
        "key": reservation.request_key,
        "host": reservation.host,
        "root_run_id": reservation.root_run_id,
        "task_key": reservation.task_key,
        "attempt": reservation.attempt,
    }


def settlement_draft(
    reservation: Reservation, settlement: Settlement, measurement_id: str | None, *, ordinal: int
) -> EntryDraft:
    """Return the entry that says how a reservation ended; ordinal 0 for the first end, 1 for a late settlement."""
    body = {
        "request": reservation_identity(reservation),
        "outcome": str(settlement.state),
        "budget_path": reservation.budget_path,
        "measurement_id": measurement_id,
        "held": {str(hold.allotment_id): {"unit": str(hold.unit), "amount": str(hold.amount)} for hold in reservation.holds},
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
    }
    return EntryDraft(kind=EntryKind.SETTLEMENT, request_key=reservation.request_key, ordinal=ordinal, body=body)
