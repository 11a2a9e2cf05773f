"""How a reservation ends: what is charged to each allotment it held, and the settlement that says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from cagg.budget._locking import INT64_MAX, change, lock
from cagg.budget._pricing import carbon_without_intensity, check_pue, price_is_zero
from cagg.errors import InvalidInput, ReservationConflict
from cagg.ports import JournalRow, Transaction
from cagg.quantities import PPM, Energy, Unit
from cagg.records import Budget, Hold, Reservation, ReservationState, Settlement

__all__ = ["charge_of", "check_amounts", "end", "had_hold", "settled_before", "settlement_of"]

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

    A unit that ``actual`` doesn't name is charged by :func:`charge_of`; nothing is charged to a reservation that never
    started. A late settlement books the difference against what the expiry charged, and keeps that where it brings
    nothing better.
    """
    pue_ppm = check_pue(pue_ppm)
    late = state is ReservationState.LATE_SETTLED
    booked: dict[int, int] = defaultdict(int)
    if late:
        for row in tx.journal(reservation.request_key):
            booked[row.allotment_id] += row.d_spent
    holds = {hold.allotment_id: hold for hold in reservation.holds}
    rows: list[JournalRow] = []
    for allotment in lock(tx, holds.keys()):
        hold = holds[allotment.allotment_id]
        before = booked[allotment.allotment_id]
        charge: int | None = 0
        if reservation.lease_epoch > 0:
            how = _known if late else charge_of
            charge = how(reservation, allotment.budget, hold, actual, pue_ppm)[0]
        rows += change(
            allotment,
            request_key=reservation.request_key,
            kind=_KIND[state],
            d_held=0 if late else -hold.amount,
            d_spent=0 if charge is None else charge - before,
            at=now,
        )
    used = reservation.used_energy
    if Unit.ENERGY in actual and state is not ReservationState.EXPIRED:
        used = Energy(millijoules=actual[Unit.ENERGY])
    ended = replace(reservation, state=state, used_energy=used, updated_at=now)
    tx.book(ended, rows)
    return settlement_of(tx, ended, actual)


def had_hold(reservation: Reservation) -> bool:
    """True unless the run went on without asking, so that it never had a lease and what it holds is not a bound."""
    return reservation.lease_until is not None or reservation.started_at is None


def _known(
    reservation: Reservation, budget: Budget, hold: Hold, actual: Mapping[Unit, int], pue_ppm: int
) -> tuple[int | None, str]:
    """Return what was measured, or carbon priced from the measured energy; None where neither is known."""
    if hold.unit in actual:
        return actual[hold.unit], ""
    if hold.unit is not Unit.CARBON or (Unit.ENERGY not in actual and not price_is_zero(reservation, budget)):
        return None, ""
    energy = Energy(millijoules=actual.get(Unit.ENERGY, 0))
    return carbon_without_intensity(energy, reservation, budget, pue_ppm=pue_ppm) or (None, "")


def charge_of(
    reservation: Reservation, budget: Budget, hold: Hold, actual: Mapping[Unit, int], pue_ppm: int
) -> tuple[int | None, str]:
    """Return what one allotment is charged, None when that is unknown, and in words how, when nobody measured it.

    Carbon without an accounting intensity is priced as it was planned, from the energy that is known: at the
    reservation's planning intensity, else at the budget's price for unknown intensity. Everything else that is
    unknown is charged as held (a run that never had a hold: from the upper bound of its energy), because unknown must
    never be cheaper than known. Where there is no bound either, the charge is unknown: never a zero.
    """
    charge, words = _known(reservation, budget, hold, actual, pue_ppm)
    if charge is not None:
        return charge, words
    unpriced = hold.unit is Unit.CARBON and Unit.ENERGY in actual
    why = "no intensity is known and no price for that is set" if unpriced else "it was not measured"
    if not had_hold(reservation) and not unpriced and reservation.upper_energy > Energy.ZERO:
        bound = {Unit.ENERGY: reservation.upper_energy.millijoules}
        charge, _ = _known(reservation, budget, hold, bound, pue_ppm)
        if charge is not None:
            return charge, f"{hold.unit} at the estimate's upper bound, because {why}"
    if hold.amount > 0:
        return hold.amount, f"{hold.unit} as held, because {why}"
    if hold.unit is Unit.CARBON and carbon_without_intensity(Energy.ZERO, reservation, budget, pue_ppm=PPM) is None:
        why = "no intensity is known and no price for that is set"
    return None, f"{hold.unit} not charged to {budget.path}, because {why}"


def settlement_of(tx: Transaction, reservation: Reservation, actual: Mapping[Unit, int]) -> Settlement:
    """Return how an ended reservation was settled, as its journal tells: the same each time it is asked.

    Amounts are those of the allotments that it held, and the energy in any case where ``actual`` names it; what could
    not be charged is in ``unpriced`` instead.
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
    amounts: dict[Unit, int] = {}
    differences: dict[Unit, int] = {}
    excess: dict[str, int] = {}
    unpriced: set[str] = set()
    notes: set[str] = set()
    holds = {hold.allotment_id: hold for hold in reservation.holds}
    for allotment in tx.allotments_by_id(set(holds)):
        which, unit = allotment.allotment_id, holds[allotment.allotment_id].unit
        name = f"{allotment.budget.path}:{unit}"
        if reservation.lease_epoch > 0:
            # The PUE only changes the amount, and that stands in the journal.
            charge, words = charge_of(reservation, allotment.budget, holds[which], actual, PPM)
            kept = late and _known(reservation, allotment.budget, holds[which], actual, PPM)[0] is None
            if charge is None and spent[which] == 0:
                unpriced.add(name)
                notes.add(words)
                continue
            notes.add("" if kept else words)
        # Budgets of one unit are charged alike, but for carbon at unlike prices for unknown intensity.
        if unit not in amounts or spent[which] > amounts[unit]:
            amounts[unit], differences[unit] = spent[which], newest[which]
        if overrun[which] > 0:
            excess[name] = max(excess.get(name, 0), overrun[which])
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
        unpriced=tuple(sorted(unpriced)),
        lease=_lease(reservation),
        late=late,
        note="; ".join(sorted(notes - {""})),
    )


def settled_before(tx: Transaction, reservation: Reservation, actual: Mapping[Unit, int]) -> Settlement:
    """Return the settlement that a reservation had already, for a second call with the same amounts.

    Raises:
        ReservationConflict: it was settled with other amounts.
    """
    first = settlement_of(tx, reservation, actual)
    recorded = {**first.amounts, Unit.ENERGY: reservation.used_energy.millijoules}
    for unit, amount in actual.items():
        if unit in recorded and recorded[unit] != amount:
            raise ReservationConflict(
                f"request {reservation.request_key[:12]} was settled with {recorded[unit] or 'nothing'} of {unit} and "
                f"is not settled again with {amount}; record the change as a correction."
            )
    return first


def _lease(reservation: Reservation) -> timedelta | None:
    if reservation.started_at is None or reservation.lease_until is None:
        return None
    if reservation.state is ReservationState.SETTLED:
        return max(timedelta(0), reservation.updated_at - reservation.started_at)
    return reservation.lease_until - reservation.started_at
