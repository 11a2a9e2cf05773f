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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cagg.budget._auditing import audit
from cagg.budget._locking import INT64_MAX, lock, lock_order, move
from cagg.budget._settling import check_amounts, end, settlement_of
from cagg.budget.periods import window_for
from cagg.budget.tree import ancestors, format_amount, require_path
from cagg.errors import InvalidInput, ReservationConflict
from cagg.ports import Transaction
from cagg.quantities import PPM, CarbonIntensity, Energy, Power, Unit, carbon_of
from cagg.records import (
    Allotment,
    Budget,
    BudgetMode,
    Headroom,
    Hold,
    Reservation,
    ReservationState,
    Settlement,
)
from cagg.windows import Window, require_utc

__all__ = [
    "LEASE_SECONDS",
    "OPEN_ENDED_GRACE_SECONDS",
    "WAITING_GRACE_SECONDS",
    "assess",
    "audit",
    "beat",
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

OPEN_ENDED_GRACE_SECONDS = WAITING_GRACE_SECONDS + 86_400
"""The same for one without a deadline, counted from its planned start. Own choice: a day for the host to wake it."""


# ---- asking -------------------------------------------------------------------------------------------------------


def assess(
    tx: Transaction,
    *,
    path: str,
    amounts: Mapping[Unit, int | None],
    energy: Energy,
    at: datetime,
    ignoring: str | None,
    pue_ppm: int = PPM,
) -> tuple[Headroom, ...]:
    """Return every budget from the path up to its root beside what is asked of it, root first, and lock them.

    Allotments of the periods that contain ``at`` are opened where they do not exist yet.

    Args:
        tx: the transaction in which :func:`hold` follows.
        path: who pays.
        amounts: what the run takes at most, by unit. Carbon that is missing or None is unknown: it is priced with the
            budget's assumed intensity, else it stays None and does not fit. Energy that is missing or None is
            ``energy``. Another unit that is missing is not used (0); None means unknown and does not fit.
        energy: upper bound of the energy at the IT equipment, for carbon at an assumed intensity.
        at: the planned start; it decides which periods pay.
        ignoring: request key whose present holds do not count against it; None = none.
        pue_ppm: power usage effectiveness for carbon at an assumed intensity, in parts per million.

    Raises:
        BudgetUnknown: the path has no budget of its own.
        InvalidInput: the path, an amount or the instant cannot be used.
    """
    at = require_utc(at, "the planned start")
    known = check_amounts(amounts, "what is asked")
    own: dict[int, int] = {}
    if ignoring is not None:
        present = tx.reservation(ignoring)
        if present is not None and present.open:
            own = {item.allotment_id: item.amount for item in present.holds}
    rules = list(require_path(tx, path))
    for above in ancestors(path)[1:]:
        rules.extend(tx.budgets(above))
    headrooms = []
    for allotment in _open_and_lock(tx, [(rule, window_for(tx, rule, at)) for rule in rules], own):
        amount, assumed = _asked(allotment.budget, known, set(amounts), energy, pue_ppm)
        others = replace(allotment, held=allotment.held - own.get(allotment.allotment_id, 0))
        headrooms.append(
            Headroom(allotment=others, amount=amount, assumed_intensity_milligrams_per_kwh=assumed)
        )
    order = {name: depth for depth, name in enumerate(reversed(ancestors(path)))}
    headrooms.sort(key=lambda item: (order[item.allotment.budget.path], *lock_order(item.allotment)[2:]))
    return tuple(headrooms)


def _open_and_lock(
    tx: Transaction, wanted: Sequence[tuple[Budget, Window]], held: Collection[int]
) -> tuple[Allotment, ...]:
    """Open and lock the wanted allotments and those already held, in the global order; return the wanted ones."""
    steps: list[tuple[tuple[datetime, str, str, str], Budget | None, Window, int]] = []
    for rule, window in wanted:
        steps.append(((window.start, rule.path, rule.unit.value, rule.period.value), rule, window, 0))
    asked = {key for key, *_ in steps}
    for one in tx.allotments_by_id(held):
        if lock_order(one) not in asked:
            steps.append((lock_order(one), None, one.window, one.allotment_id))
    locked = []
    for _, rule_or_none, window, allotment_id in sorted(steps, key=lambda step: step[0]):
        if rule_or_none is None:
            tx.allotment_by_id(allotment_id)
        else:
            locked.append(tx.allotment(rule_or_none, window))
    return tuple(locked)


def _asked(
    budget: Budget, known: Mapping[Unit, int], named: Collection[Unit], energy: Energy, pue_ppm: int
) -> tuple[int | None, int | None]:
    """Return what is asked of a budget, and the assumed intensity it was priced with."""
    if budget.unit in known:
        return known[budget.unit], None
    if budget.unit is Unit.ENERGY:
        return energy.millijoules, None
    if budget.unit is Unit.CARBON:
        price = budget.unknown_intensity_milligrams_per_kwh
        if price is None:
            return None, None
        return carbon_of(energy, CarbonIntensity(milligrams_per_kwh=price), pue_ppm=pue_ppm).micrograms, price
    return (None if budget.unit in named else 0), None


def refusals(headrooms: Sequence[Headroom]) -> tuple[Headroom, ...]:
    """Return the enforced budgets that the request does not fit, unknown amounts included."""
    return tuple(one for one in headrooms if one.allotment.budget.mode is BudgetMode.ENFORCE and not one.fits)


def let_past(headrooms: Sequence[Headroom]) -> tuple[Headroom, ...]:
    """Return the observing and warning budgets whose limit the request is known to pass."""
    return tuple(
        one
        for one in headrooms
        if one.allotment.budget.mode is not BudgetMode.ENFORCE and one.amount is not None and not one.fits
    )


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
    _check_same_request(before, reservation)
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
            _check_room(allotment, wanted[allotment.allotment_id], own.get(allotment.allotment_id, 0), allow_over)
    for allotment in locked:
        which = allotment.allotment_id
        amount = (wanted[which].amount or 0) if which in wanted else 0
        move(
            tx,
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
    tx.put_reservation(stored)
    return stored


def remember(tx: Transaction, reservation: Reservation) -> Reservation:
    """Store what the gate must remember of a request (asks, deferrals, plan) and leave its holds as they are.

    For an ask whose new amounts were refused while the old ones stay.

    Raises:
        ReservationConflict: as :func:`hold`.
    """
    before = tx.reservation(reservation.request_key)
    _check_same_request(before, reservation)
    stored = _merged(before, reservation, tx.now())
    stored = replace(stored, holds=() if before is None else before.holds)
    tx.put_reservation(stored)
    return stored


def _check_same_request(before: Reservation | None, after: Reservation) -> None:
    if not after.open:
        raise ReservationConflict(
            f"a reservation that is {after.state} cannot be stored here; settle or release the stored one instead."
        )
    if before is None:
        if after.state is ReservationState.RUNNING:
            raise ReservationConflict(
                f"request {after.request_key[:12]} has no reservation yet; place it as waiting, then start it."
            )
        return
    for name in ("series_key", "host", "root_run_id", "task_key", "attempt"):
        if getattr(before, name) != getattr(after, name):
            raise ReservationConflict(
                f"request key {after.request_key[:12]} belongs to another request ({name} {getattr(before, name)!r}, "
                f"asked was {getattr(after, name)!r}); ask with a key of its own."
            )
    if not before.open:
        raise ReservationConflict(f"{_ended(before)}; {_what_next(before)}")
    if before.state is not after.state:
        raise ReservationConflict(
            f"the reservation of request {before.request_key[:12]} is {before.state}, not {after.state}; "
            "read it again before changing it."
        )
    if before.lease_epoch != after.lease_epoch:
        raise ReservationConflict(_replaced(before, after.lease_epoch))


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


def _check_room(allotment: Allotment, asked: Headroom, own: int, allow_over: frozenset[int]) -> None:
    """Check the invariant a second time, against the counters as they are locked now."""
    others = replace(allotment, held=allotment.held - own)
    budget = allotment.budget
    if (asked.amount or 0) > INT64_MAX - others.held:
        raise InvalidInput(f"the holds on budget {budget.path} would pass 2^63-1; correct the amount {asked.amount}.")
    if budget.mode is not BudgetMode.ENFORCE or allotment.allotment_id in allow_over:
        return
    if not Headroom(allotment=others, amount=asked.amount).fits:
        wanted = "an unknown amount" if asked.amount is None else format_amount(budget.unit, asked.amount)
        raise ReservationConflict(
            f"budget {budget.path} has {format_amount(budget.unit, others.available)} left this {budget.period} and "
            f"is enforced, so {wanted} cannot be held; ask again or raise the limit with `cagg budget set`."
        )


# ---- the life of a reservation ------------------------------------------------------------------------------------


def start(
    tx: Transaction, key: str, lease_seconds: int = LEASE_SECONDS, *, expected_power_milliwatts: int = 0
) -> Reservation:
    """Turn a waiting reservation into a running one, with a lease and the next epoch as its fencing token.

    Args:
        tx: the transaction.
        key: the request key.
        lease_seconds: the lease's length unless the run beats.
        expected_power_milliwatts: what a run that dies before its first beat is charged with; 0 = unknown, then it
            is charged as held.

    Raises:
        ReservationConflict: there is no waiting reservation with this key.
    """
    lease = _lease(lease_seconds)
    power = Power(milliwatts=expected_power_milliwatts)
    before = _existing(tx, key)
    if before.state is not ReservationState.WAITING:
        raise ReservationConflict(f"{_ended(before)} and cannot be started; {_what_next(before)}")
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
    lease_seconds: int = LEASE_SECONDS,
) -> Reservation:
    """Extend the lease and remember what the run has used so far; an energy below an earlier beat's is not taken.

    Raises:
        ReservationConflict: the reservation is not running under this epoch; after an expiry the message says so.
    """
    lease = _lease(lease_seconds)
    power = Power(milliwatts=power_milliwatts)
    before = _existing(tx, key)
    _check_epoch(before, epoch)
    if before.state is not ReservationState.RUNNING:
        raise ReservationConflict(f"{_ended(before)} and takes no more beats; {_what_next(before)}")
    now = tx.now()
    assert before.lease_until is not None  # noqa: S101 - start sets it
    running = replace(
        before,
        lease_until=max(before.lease_until, now + lease),
        last_beat_at=now,
        used_energy=max(before.used_energy, used_energy),
        last_power_milliwatts=power.milliwatts,
        updated_at=now,
    )
    tx.put_reservation(running)
    return running


def settle(
    tx: Transaction, key: str, epoch: int, amounts: Mapping[Unit, int | None], now: datetime | None = None
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
        now: when it ended; None = the store's now.

    Raises:
        ReservationConflict: never started, released, settled with other amounts, or another epoch runs it now.
        InvalidInput: an amount is no whole number in 0..2^63-1.
    """
    actual = check_amounts(amounts, "what was used")
    at = tx.now() if now is None else require_utc(now, "the settlement's instant")
    reservation = _existing(tx, key)
    if reservation.lease_epoch == 0:
        raise ReservationConflict(
            f"the reservation of request {key[:12]} is {reservation.state} and never started; there is nothing to settle."
        )
    _check_epoch(reservation, epoch)
    if reservation.state is ReservationState.RUNNING:
        return end(tx, reservation, state=ReservationState.SETTLED, actual=actual, now=at)
    if reservation.state is ReservationState.EXPIRED:
        return end(tx, reservation, state=ReservationState.LATE_SETTLED, actual=actual, now=at)
    if reservation.state not in (ReservationState.SETTLED, ReservationState.LATE_SETTLED):
        raise ReservationConflict(f"{_ended(reservation)}; start it before settling.")
    first = settlement_of(tx, reservation, actual)
    recorded = {**first.amounts, Unit.ENERGY: reservation.used_energy.millijoules}
    for unit, amount in actual.items():
        if unit in recorded and recorded[unit] != amount:
            raise ReservationConflict(
                f"request {key[:12]} was settled with {recorded[unit]} of {unit} and is not settled again with "
                f"{amount}; record the change as a correction."
            )
    return first


def release(tx: Transaction, key: str) -> Settlement:
    """Give a waiting reservation's holds back and charge nothing; again for one that has ended at zero: the same.

    Raises:
        ReservationConflict: there is none with this key, or it has started.
    """
    reservation = _existing(tx, key)
    if reservation.lease_epoch > 0:
        remedy = "settle it, or let its lease end" if reservation.open else _what_next(reservation)
        raise ReservationConflict(f"{_ended(reservation)} and cannot be released; {remedy.rstrip('.')}.")
    if not reservation.open:
        return settlement_of(tx, reservation, {})
    return end(tx, reservation, state=ReservationState.RELEASED, actual={}, now=tx.now())


def reopen(tx: Transaction, key: str) -> Reservation:
    """Turn a reservation that ended at zero before it started back into a waiting one without holds.

    For a run that its host woke after its hold had lapsed: nothing was charged, so it may ask again.

    Raises:
        ReservationConflict: there is none with this key, or it has started.
    """
    reservation = _existing(tx, key)
    if reservation.open:
        return reservation
    if reservation.lease_epoch > 0:
        raise ReservationConflict(f"{_ended(reservation)} and cannot be taken up again; {_what_next(reservation)}")
    waiting = replace(reservation, state=ReservationState.WAITING, holds=(), updated_at=tx.now())
    tx.put_reservation(waiting)
    return waiting


def expire(
    tx: Transaction, *, now: datetime | None = None, path: str | None = None, limit: int = 100
) -> tuple[Settlement, ...]:
    """End reservations whose time is over and return how, oldest first.

    A running one past its lease is charged the energy of its last beat plus its last power from then to the lease's
    end, with carbon at the planning intensity; other units, and a run of which nothing is known, are charged as
    held. What passes the hold is charged as well. A waiting one past its deadline and grace ends at zero.

    Args:
        tx: a transaction of its own, so that locks stay in order.
        now: None = the store's now.
        path: only those that hold something from this path's budgets or from budgets above it; None = all.
        limit: how many at most.
    """
    at = tx.now() if now is None else require_utc(now, "the expiry's instant")
    due = tx.due(
        at,
        WAITING_GRACE_SECONDS,
        limit,
        open_ended_grace_seconds=OPEN_ENDED_GRACE_SECONDS,
        paths=None if path is None else ancestors(path),
    )
    lock(tx, {item.allotment_id for reservation in due for item in reservation.holds})
    return tuple(
        end(tx, reservation, state=ReservationState.EXPIRED, actual=_used_until_lease_end(reservation), now=at)
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


# ---- checks and words ---------------------------------------------------------------------------------------------


def _existing(tx: Transaction, key: str) -> Reservation:
    found = tx.reservation(key)
    if found is None:
        raise ReservationConflict(f"request {key[:12]} has no reservation; ask the gate before running.")
    return found


def _check_epoch(reservation: Reservation, epoch: int) -> None:
    if isinstance(epoch, bool) or not isinstance(epoch, int):
        raise InvalidInput(f"a lease epoch must be a whole number, got {epoch!r}.")
    if reservation.lease_epoch != epoch:
        raise ReservationConflict(_replaced(reservation, epoch))


def _replaced(reservation: Reservation, epoch: int) -> str:
    return (
        f"request {reservation.request_key[:12]} runs under epoch {reservation.lease_epoch}, not {epoch}: another "
        "worker took it over; stop this one."
    )


def _lease(seconds: int) -> timedelta:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 86_400 * 366:
        raise InvalidInput(f"a lease must last more than 0 and at most 31622400 seconds, got {seconds!r}.")
    return timedelta(seconds=seconds)


def _ended(reservation: Reservation) -> str:
    return (
        f"the reservation of request {reservation.request_key[:12]} is {reservation.state} "
        f"since {reservation.updated_at:%Y-%m-%d %H:%M:%S}Z"
    )


def _what_next(reservation: Reservation) -> str:
    if reservation.state is ReservationState.RUNNING:
        return "a worker runs it; settle it, or wait for its lease to end."
    if reservation.state is ReservationState.WAITING:
        return "start it first."
    if reservation.lease_epoch == 0:
        return "nothing was charged, so reopen it to ask again."
    if reservation.state is ReservationState.EXPIRED:
        return "its lease ended and it was charged for what it had used; settle it to book the difference."
    return "it is over; a new attempt asks with a key of its own."
