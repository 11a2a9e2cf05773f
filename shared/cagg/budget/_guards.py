"""Checks that the steps of a reservation's life share, and their words for people."""

from __future__ import annotations

from datetime import timedelta

from cagg.errors import InvalidInput, ReservationConflict
from cagg.ports import Transaction
from cagg.records import Reservation, ReservationState

__all__ = ["check_epoch", "ended", "existing", "lease_of", "replaced", "what_next"]


def existing(tx: Transaction, key: str) -> Reservation:
    found = tx.reservation(key)
    if found is None:
        raise ReservationConflict(f"request {key[:12]} has no reservation; ask the gate before running.")
    return found


def check_epoch(reservation: Reservation, epoch: int) -> None:
    if isinstance(epoch, bool) or not isinstance(epoch, int):
        raise InvalidInput(f"a lease epoch must be a whole number, got {epoch!r}.")
    if reservation.lease_epoch != epoch:
        raise ReservationConflict(replaced(reservation, epoch))


def replaced(reservation: Reservation, epoch: int) -> str:
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
