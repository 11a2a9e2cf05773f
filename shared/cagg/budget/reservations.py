"""Reservations against budgets: what a request may take, holds, leases, settlement and expiry.

Every function here is part of the caller's transaction and leaves it consistent: for each allotment the counters equal
the journal's sums, and ``held`` equals the holds of open reservations. No enforced limit is passed through an
admission; what was used is always charged, and what lies above a limit becomes overrun.

Locks. Reservations first, then allotments in one global order: period start, path (ancestors before what lies below
them), unit, period, all ascending. One transaction handles one request (or one sweep); when it asks about several
instants it asks for the earliest first. Kept so, transactions of any number of processes cannot wait for each other in
a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cagg.budget._auditing import audit
from cagg.budget._guards import (
    check_epoch,
    check_room,
    check_same_request,
    ended,
    existing,
    lease_of,
    what_next,
)
from cagg.budget._locking import INT64_MAX, change, lock
from cagg.budget._settling import check_amounts, end, settled_before, settlement_of
from cagg.budget.headroom import assess, let_past, refusals
from cagg.budget.tree import ancestors, require_path
from cagg.budget.unheld import charge_unheld
from cagg.errors import InvalidInput, ReservationConflict
from cagg.ports import JournalRow, Transaction
from cagg.quantities import Energy, Power, Unit
from cagg.records import Headroom, Hold, Reservation, ReservationState, Settlement
from cagg.windows import require_utc

__all__ = [
    "LEASE_SECONDS",
    "WAITING_GRACE_SECONDS",
    "assess",
    "audit",
    "beat",
    "charge_unheld",
    "expire",
    "hold",
    "let_past",
    "refusals",
    "release",
    "remember",
    "reopen",
    "require_path",
    "settle",
    "start",
]

LEASE_SECONDS = 300
"""How long a running reservation lives without a beat. Own choice: five missed beats of one a minute."""

WAITING_GRACE_SECONDS = 900
"""How long after its deadline a waiting reservation keeps its hold. Own choice."""

_OPEN_ENDED_SECONDS = 86_400
"""How much longer one without a deadline lives, from its planned start. Own choice: a day for the host to wake it."""


# ---- holding ------------------------------------------------------------------------------------------------------


def hold(
    tx: Transaction,
    reservation: Reservation,
    headrooms: Sequence[Headroom],
    *,
    allow_over: frozenset[int] = frozenset(),
) -> Reservation:
    """Place what is asked, or move and change what the request holds already, and return what is stored.

    All or nothing: when it raises, nothing has changed. The lease, the beats, the first ask and the creation time of a
    stored reservation are kept; the rest is taken from ``reservation``, whose own ``holds`` are not looked at.

    Args:
        tx: the transaction in which :func:`assess` gave the headrooms.
        reservation: waiting, or running to change the hold of a run under way.
        headrooms: what to take. An amount of None takes nothing now; what is used is charged in the end.
        allow_over: ids of enforced allotments that this request may pass (monitor, break-glass): booked as overrun.

    Raises:
        ReservationConflict: the key belongs to another request, its reservation has ended, its state differs, or an
            enforced budget would be passed.
        InvalidInput: an amount or a counter would leave 0..2^63-1, or an allotment is named twice.
    """
    now = tx.now()
    before = tx.reservation(reservation.request_key)
    check_same_request(before, reservation)
    wanted: dict[int, Headroom] = {}
    for item in headrooms:
        unit = item.allotment.budget.unit
        check_amounts({unit: item.amount}, "a hold")
        if item.allotment.allotment_id in wanted:
            raise InvalidInput(f"allotment {item.allotment.allotment_id} is asked twice; merge the two amounts.")
        wanted[item.allotment.allotment_id] = item
    own = {} if before is None else {item.allotment_id: item.amount for item in before.holds}
    locked = lock(tx, {*wanted, *own})
    for allotment in locked:
        if allotment.allotment_id in wanted:
            check_room(allotment, wanted[allotment.allotment_id], own.get(allotment.allotment_id, 0), allow_over)
    rows: list[JournalRow] = []
    for allotment in locked:
        which = allotment.allotment_id
        amount = (wanted[which].amount or 0) if which in wanted else 0
        rows += change(
            allotment,
            request_key=reservation.request_key,
            kind="hold" if before is None else "amend",
            d_held=amount - own.get(which, 0),
            d_spent=0,
            at=now,
        )
    stored = _merged(before, reservation, now)
    units = {one.allotment_id: one.budget.unit for one in locked}
    holds = tuple(
        Hold(allotment_id=which, unit=units[which], amount=wanted[which].amount or 0) for which in sorted(wanted)
    )
    stored = replace(stored, holds=holds)
    tx.book(stored, rows, allow_over=allow_over)
    return stored


def remember(tx: Transaction, reservation: Reservation) -> Reservation:
    """Store what the gate must remember of a request (asks, deferrals, plan) and leave its holds as they are.

    For an ask whose new amounts were refused while the old ones stay.

    Raises:
        ReservationConflict: as :func:`hold`.
    """
    before = tx.reservation(reservation.request_key)
    check_same_request(before, reservation)
    stored = _merged(before, reservation, tx.now())
    stored = replace(stored, holds=() if before is None else before.holds)
    tx.put_reservation(stored)
    return stored


def _merged(before: Reservation | None, after: Reservation, now: datetime) -> Reservation:
    if before is None:
        return replace(after, created_at=now, updated_at=now)
    return replace(
        after,
        first_asked_at=before.first_asked_at,
        lease_until=before.lease_until,
        last_beat_at=before.last_beat_at,
        started_at=before.started_at,
        used_energy=before.used_energy,
        last_power_milliwatts=before.last_power_milliwatts,
        created_at=before.created_at,
        updated_at=now,
    )


# ---- the life of a reservation ------------------------------------------------------------------------------------


def start(
    tx: Transaction, key: str, lease_seconds: float = LEASE_SECONDS, *, expected_power_milliwatts: int = 0
) -> Reservation:
    """Turn a waiting reservation into a running one, with a lease and the next epoch as its fencing token.

    One that runs but never reported since its start may be started again, because the worker that was told so may
    have died before it heard. The first epoch is then fenced off for good: it can neither beat nor settle.

    Args:
        tx: the transaction.
        key: the request key.
        lease_seconds: the lease's length unless the run beats.
        expected_power_milliwatts: what a run that dies before its first beat is charged with; 0 = unknown, then it
            is charged as held.

    Raises:
        ReservationConflict: there is none with this key, it has ended, or its run has reported already.
    """
    lease = lease_of(lease_seconds)
    power = Power(milliwatts=expected_power_milliwatts)
    before = existing(tx, key)
    silent = before.state is ReservationState.RUNNING and before.last_beat_at == before.started_at
    if before.state is not ReservationState.WAITING and not silent:
        raise ReservationConflict(f"{ended(before)} and cannot be started; {what_next(before)}")
    now = tx.now()
    running = replace(
        before,
        state=ReservationState.RUNNING,
        lease_until=now + lease,
        lease_epoch=before.lease_epoch + 1,
        last_beat_at=now,
        started_at=now,
        used_energy=Energy.ZERO,
        last_power_milliwatts=power.milliwatts,
        updated_at=now,
    )
    tx.put_reservation(running)
    return running


def beat(
    tx: Transaction,
    key: str,
    epoch: int,
    used_energy: Energy,
    power_milliwatts: int,
    lease_seconds: float = LEASE_SECONDS,
) -> Reservation:
    """Extend the lease and remember what the run has used so far; an energy below an earlier beat's is not taken.

    Raises:
        ReservationConflict: the reservation is not running under this epoch; after an expiry the message says so.
    """
    lease = lease_of(lease_seconds)
    power = Power(milliwatts=power_milliwatts)
    before = existing(tx, key)
    check_epoch(before, epoch)
    if before.state is not ReservationState.RUNNING:
        raise ReservationConflict(f"{ended(before)} and takes no more beats; {what_next(before)}")
    now = tx.now()
    running = replace(
        before,
        lease_until=max(before.lease_until or now, now + lease),
        last_beat_at=now,
        used_energy=max(before.used_energy, used_energy),
        last_power_milliwatts=power.milliwatts,
        updated_at=now,
    )
    tx.put_reservation(running)
    return running


def settle(
    tx: Transaction,
    key: str,
    epoch: int,
    amounts: Mapping[Unit, int | None],
    now: datetime | None = None,
    *,
    pue_ppm: int | None = None,
) -> Settlement:
    """Charge what a run used to the allotments that it holds, and end its reservation, exactly once.

    The first call decides; an identical second one returns what the first did. After an expiry the difference
    against what was charged then is booked, which may be negative. A limit never stops a settlement.

    Args:
        tx: the transaction.
        key: the request key.
        epoch: the fencing token that :func:`start` gave.
        amounts: what was used, by unit. Units without a hold are not charged. A unit that is missing or None could
            not be measured: carbon is then priced from the energy as it was planned, anything else is charged as held.
            Where nothing was held either (the amount was unknown already), nothing is charged and the settlement's
            ``unpriced`` names the budget: unknown is never a charge of zero.
        now: when it ended; None = the store's now.
        pue_ppm: power usage effectiveness for carbon at a budget's price for unknown intensity, in parts per million;
            None = 1 000 000. The planning intensity contains it already.

    Raises:
        ReservationConflict: never started, released, settled with other amounts, or another epoch runs it now.
        InvalidInput: an amount is no whole number in 0..2^63-1.
    """
    actual = check_amounts(amounts, "what was used")
    at = tx.now() if now is None else require_utc(now, "the settlement's instant")
    reservation = existing(tx, key)
    if reservation.lease_epoch == 0:
        raise ReservationConflict(
            f"the reservation of request {key[:12]} is {reservation.state} and never started; start it before settling."
        )
    check_epoch(reservation, epoch)
    if reservation.state is ReservationState.RUNNING:
        return end(tx, reservation, state=ReservationState.SETTLED, actual=actual, now=at, pue_ppm=pue_ppm)
    if reservation.state is ReservationState.EXPIRED:
        return end(tx, reservation, state=ReservationState.LATE_SETTLED, actual=actual, now=at, pue_ppm=pue_ppm)
    if reservation.state not in (ReservationState.SETTLED, ReservationState.LATE_SETTLED):
        raise ReservationConflict(f"{ended(reservation)}; start it before settling.")
    return settled_before(tx, reservation, actual)


def release(tx: Transaction, key: str) -> Settlement:
    """Give a waiting reservation's holds back and charge nothing; again for one that has ended at zero: the same.

    Raises:
        ReservationConflict: there is none with this key, or it has started.
    """
    reservation = existing(tx, key)
    if reservation.lease_epoch > 0:
        remedy = "settle it, or let its lease end" if reservation.open else what_next(reservation)
        raise ReservationConflict(f"{ended(reservation)} and cannot be released; {remedy.rstrip('.')}.")
    if not reservation.open:
        return settlement_of(tx, reservation, {})
    return end(tx, reservation, state=ReservationState.RELEASED, actual={}, now=tx.now(), pue_ppm=None)


def reopen(tx: Transaction, key: str) -> Reservation:
    """Turn a reservation that ended at zero before it started back into a waiting one without holds.

    For a run that its host woke after its hold had lapsed: nothing was charged, so it may ask again.

    Raises:
        ReservationConflict: there is none with this key, or it has started.
    """
    reservation = existing(tx, key)
    if reservation.open:
        return reservation
    if reservation.lease_epoch > 0:
        raise ReservationConflict(f"{ended(reservation)} and cannot be taken up again; {what_next(reservation)}")
    waiting = replace(reservation, state=ReservationState.WAITING, holds=(), updated_at=tx.now())
    tx.put_reservation(waiting)
    return waiting


def expire(
    tx: Transaction,
    *,
    now: datetime | None = None,
    path: str | None = None,
    limit: int = 100,
    grace_seconds: float = WAITING_GRACE_SECONDS,
    pue_ppm: int | None = None,
) -> tuple[Settlement, ...]:
    """End reservations whose time is over and return how, oldest first.

    A running one past its lease is charged the energy of its last beat plus its last power from then to the lease's
    end, with carbon at the planning intensity, else at the budget's price for unknown intensity; other units, and a run
    of which nothing is known, are charged as held. What passes the hold is charged as well. What was not held either
    is ``unpriced``, as in :func:`settle`. A waiting one past its deadline and grace ends at zero.

    Args:
        tx: a transaction of its own, so that locks stay in order.
        now: None = the store's now.
        path: only those that hold something from this path's budgets or from budgets above it; None = all.
        limit: how many at most.
        grace_seconds: how long a waiting one lives past its deadline; without a deadline: past its planned start,
            and a day longer.
        pue_ppm: as in :func:`settle`.
    """
    at = tx.now() if now is None else require_utc(now, "the expiry's instant")
    due = tx.due(
        at,
        grace_seconds,
        limit,
        open_ended_grace_seconds=grace_seconds + _OPEN_ENDED_SECONDS,
        paths=None if path is None else ancestors(path),
    )
    lock(tx, {item.allotment_id for reservation in due for item in reservation.holds})
    return tuple(
        end(
            tx,
            reservation,
            state=ReservationState.EXPIRED,
            actual=_used_until_lease_end(reservation),
            now=at,
            pue_ppm=pue_ppm,
        )
        for reservation in due
    )


def _used_until_lease_end(reservation: Reservation) -> dict[Unit, int]:
    if reservation.lease_until is None or reservation.last_beat_at is None:
        return {}
    if reservation.last_power_milliwatts == 0 and reservation.used_energy == Energy.ZERO:
        return {}
    silent_us = max(0, (reservation.lease_until - reservation.last_beat_at) // timedelta(microseconds=1))
    # 1 mW over 1 µs is 1e-6 mJ; rounded up to a millijoule.
    after_beat = -(-reservation.last_power_milliwatts * silent_us // 1_000_000)
    return {Unit.ENERGY: min(INT64_MAX, reservation.used_energy.millijoules + after_beat)}
