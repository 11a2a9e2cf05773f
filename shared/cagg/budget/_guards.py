"""Checks that the steps of a reservation's life share, and their words for people."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cagg.budget._locking import INT64_MAX
from cagg.budget.tree import format_amount
from cagg.errors import InvalidInput, ReservationConflict
from cagg.ports import Transaction
from cagg.records import Allotment, BudgetMode, Headroom, Reservation, ReservationState

__all__ = ["check_epoch", "check_room", "check_same_request", "ended", "existing", "lease_of", "what_next"]


def check_same_request(before: Reservation | None, after: Reservation) -> None:
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
        raise ReservationConflict(f"{ended(before)}; {what_next(before)}")
    if before.state is not after.state:
        raise ReservationConflict(
            f"the reservation of request {before.request_key[:12]} is {before.state}, not {after.state}; "
            "read it again before changing it."
        )
    if before.lease_epoch != after.lease_epoch:
        raise ReservationConflict(_replaced(before, after.lease_epoch))


def check_room(allotment: Allotment, asked: Headroom, own: int, allow_over: frozenset[int]) -> None:
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


def existing(tx: Transaction, key: str) -> Reservation:
    found = tx.reservation(key)
    if found is None:
        raise ReservationConflict(f"request {key[:12]} has no reservation; ask the gate before running.")
    return found


def check_epoch(reservation: Reservation, epoch: int) -> None:
    if isinstance(epoch, bool) or not isinstance(epoch, int):
        raise InvalidInput(f"a lease epoch must be a whole number, got {epoch!r}.")
    if reservation.lease_epoch != epoch:
        raise ReservationConflict(_replaced(reservation, epoch))


def _replaced(reservation: Reservation, epoch: int) -> str:
    return (
        f"request {reservation.request_key[:12]} runs under epoch {reservation.lease_epoch}, not {epoch}: another "
        "worker took it over; stop this one."
    )


def lease_of(seconds: float) -> timedelta:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 86_400 * 366:
        raise InvalidInput(f"a lease must last more than 0 and at most 31622400 seconds, got {seconds!r}.")
    return timedelta(seconds=seconds)


def ended(reservation: Reservation) -> str:
    return (
        f"the reservation of request {reservation.request_key[:12]} is {reservation.state} "
        f"since {reservation.updated_at:%Y-%m-%d %H:%M:%S}Z"
    )


def what_next(reservation: Reservation) -> str:
    if reservation.state is ReservationState.RUNNING:
        return "a worker runs it; settle it, or wait for its lease to end."
    if reservation.state is ReservationState.WAITING:
        return "start it first."
    if reservation.lease_epoch == 0:
        return "nothing was charged, so reopen it to ask again."
    if reservation.state is ReservationState.EXPIRED:
        return "its lease ended and it was charged for what it had used; settle it to book the difference."
    return "it is over; a new attempt asks with a key of its own."
