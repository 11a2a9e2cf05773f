"""How a reservation ends: what is charged to each allotment it held, and the settlement that says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from cagg.budget._locking import INT64_MAX, lock, move
from cagg.errors import InvalidInput
from cagg.ports import Transaction
from cagg.quantities import PPM, CarbonIntensity, Energy, Unit, carbon_of
from cagg.records import Allotment, Hold, Reservation, ReservationState, Settlement

__all__ = ["check_amounts", "end", "settlement_of"]

_KIND = {
    ReservationState.SETTLED: "settle",
    ReservationState.RELEASED: "release",
    ReservationState.EXPIRED: "expire",
    ReservationState.LATE_SETTLED: "late_settle",
}


def check_amounts(amounts: Mapping[Unit, int | None], what: str) -> dict[Unit, int]:
    """Return the known amounts; raises InvalidInput for unknown units and for what is no whole amount in 0..2^63-1."""
    known: dict[Unit, int] = {}
    for unit, amount in amounts.items():
        if not isinstance(unit, Unit):
            raise InvalidInput(f"{what} has the unknown unit {unit!r}; use one of {', '.join(Unit)}.")
        if amount is None:
            continue
        if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= INT64_MAX:
            raise InvalidInput(f"{what} in {unit} must be a whole amount from 0 to 2^63-1, got {amount!r}.")
        known[unit] = amount
    return known


def end(
    tx: Transaction,
    reservation: Reservation,
    *,
    state: ReservationState,
    actual: Mapping[Unit, int],
    now: datetime,
    pue_ppm: int | None,
) -> Settlement:
    """Free what is held, charge what was used, and store the reservation in its last state.

    A unit that ``actual`` doesn't name is charged by :func:`_charge`; nothing is charged to a reservation that never
    started. A late settlement books the difference against what the expiry charged.
    """
    late = state is ReservationState.LATE_SETTLED
    booked: dict[int, int] = defaultdict(int)
    if late:
        for row in tx.journal(reservation.request_key):
            booked[row.allotment_id] += row.d_spent
    holds = {hold.allotment_id: hold for hold in reservation.holds}
    for allotment in lock(tx, holds):
        hold = holds[allotment.allotment_id]
        before = booked[allotment.allotment_id]
        if reservation.lease_epoch == 0:
            charge = 0
        elif late and hold.unit not in actual:
            charge = before
        else:
            charge = _charge(reservation, allotment, hold, actual, pue_ppm)[0]
        move(
            tx,
            allotment,
            request_key=reservation.request_key,
            kind=_KIND[state],
            d_held=0 if late else -hold.amount,
            d_spent=charge - before,
            at=now,
        )
    used = reservation.used_energy
    if Unit.ENERGY in actual and state is not ReservationState.EXPIRED:
        used = Energy(millijoules=actual[Unit.ENERGY])
    ended = replace(reservation, state=state, used_energy=used, updated_at=now)
    tx.put_reservation(ended)
    return settlement_of(tx, ended, actual)


def _charge(
    reservation: Reservation, allotment: Allotment, hold: Hold, actual: Mapping[Unit, int], pue_ppm: int | None
) -> tuple[int, str]:
    """Return what one allotment is charged, and in words how, when nobody measured it in its unit.

    Carbon without an accounting intensity is priced as it was planned, from the energy that is known: at the
    reservation's planning intensity, else at the budget's price for unknown intensity. Everything else that is
    unknown is charged as held: the hold is an upper bound, and unknown must never be cheaper than known.
    """
    unit = hold.unit
    if unit in actual:
        return actual[unit], ""
    if unit is Unit.CARBON and Unit.ENERGY in actual:
        energy = Energy(millijoules=actual[Unit.ENERGY])
        for price, name in (
            (reservation.planning_intensity_milligrams_per_kwh, "the planning intensity"),
            (allotment.budget.unknown_intensity_milligrams_per_kwh, "the budget's price for unknown intensity"),
        ):
            if price is not None:
                intensity = CarbonIntensity(milligrams_per_kwh=price)
                return _priced(energy, intensity, pue_ppm), f"carbon at {name} ({intensity})"
        return hold.amount, "carbon as held, because no intensity is known and no price for that is set"
    return hold.amount, f"{unit} as held, because it was not measured"


def _priced(energy: Energy, intensity: CarbonIntensity, pue_ppm: int | None) -> int:
    """Return micrograms, cut off at 2^63-1: a charge is recorded in any case."""
    try:
        return carbon_of(energy, intensity, pue_ppm=pue_ppm or PPM).micrograms
    except InvalidInput:
        return INT64_MAX


def settlement_of(tx: Transaction, reservation: Reservation, actual: Mapping[Unit, int]) -> Settlement:
    """Return how an ended reservation was settled, as its journal tells: the same each time it is asked.

    Amounts are those of the allotments that it held, and the energy in any case where ``actual`` names it.
    """
    last = _KIND[reservation.state]
    spent: dict[int, int] = defaultdict(int)
    newest: dict[int, int] = defaultdict(int)
    overrun: dict[int, int] = defaultdict(int)
    for row in tx.journal(reservation.request_key):
        spent[row.allotment_id] += row.d_spent
        overrun[row.allotment_id] += row.d_overrun
        if row.kind == last:
            newest[row.allotment_id] += row.d_spent
    late = reservation.state is ReservationState.LATE_SETTLED
    never_started = reservation.lease_epoch == 0
    amounts: dict[Unit, int] = {}
    differences: dict[Unit, int] = {}
    excess: dict[str, int] = {}
    notes: set[str] = set()
    holds = {hold.allotment_id: hold for hold in reservation.holds}
    for allotment in tx.allotments_by_id(set(holds)):
        which, unit = allotment.allotment_id, holds[allotment.allotment_id].unit
        # Budgets of one unit are charged alike, but for carbon at unlike prices for unknown intensity.
        if unit not in amounts or spent[which] > amounts[unit]:
            amounts[unit], differences[unit] = spent[which], newest[which]
        if overrun[which] > 0:
            name = f"{allotment.budget.path}:{unit}"
            excess[name] = max(excess.get(name, 0), overrun[which])
        if not never_started and not (late and unit not in actual):
            notes.add(_charge(reservation, allotment, holds[which], actual, None)[1])
    if Unit.ENERGY in actual and Unit.ENERGY not in amounts:
        amounts[Unit.ENERGY] = actual[Unit.ENERGY]
        if not late:
            differences[Unit.ENERGY] = actual[Unit.ENERGY]
    return Settlement(
        request_key=reservation.request_key,
        state=reservation.state,
        amounts=amounts,
        differences=differences,
        overrun=excess,
        lease=_lease(reservation),
        late=late,
        note="; ".join(sorted(notes - {""})),
    )


def _lease(reservation: Reservation) -> timedelta | None:
    if reservation.started_at is None or reservation.lease_until is None:
        return None
    if reservation.state is ReservationState.SETTLED:
        return max(timedelta(0), reservation.updated_at - reservation.started_at)
    return reservation.lease_until - reservation.started_at
