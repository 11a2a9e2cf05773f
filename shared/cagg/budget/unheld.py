"""Books a run that went on without asking: the budgets are charged what it used, although nothing was held for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from cagg.budget._guards import ended
from cagg.budget._locking import change
from cagg.budget._pricing import check_pue
from cagg.budget._settling import charge_of, check_amounts, end, had_hold, settled_before, settlement_of
from cagg.budget.headroom import open_path
from cagg.errors import InvalidInput, ReservationConflict
from cagg.ports import JournalRow, Transaction
from cagg.quantities import Energy, Unit
from cagg.records import Hold, Reservation, ReservationState, Settlement
from cagg.windows import require_utc

__all__ = ["charge_unheld"]

_IDENTITY = ("series_key", "host", "root_run_id", "task_key", "attempt", "budget_path")


def charge_unheld(
    tx: Transaction,
    reservation: Reservation,
    amounts: Mapping[Unit, int | None],
    *,
    at: datetime,
    pue_ppm: int | None = None,
) -> Settlement:
    """Charge a run that never had a hold, such as one let through while the store was down, exactly once by its key.

    Every budget from the path up to its root pays in the period that contains ``at``, opened where it does not exist
    yet; a limit never stops the charge, what lies above it becomes overrun. The reservation is stored settled, under
    epoch 1, with ``started_at``, without a lease and with holds of zero: it shows what paid, and that nothing was held.

    A second call with the same key and amounts charges nothing and returns what the first did.

    A run whose admission was kept although its answer was lost has a reservation under an epoch that nobody ever knew:
    it has never beaten, and is running or has expired. What the run used then settles that one, in the periods that it
    holds, instead of being charged beside it or not at all.

    Args:
        tx: a transaction of its own, so that locks stay in order.
        reservation: identity, path, planning intensity and ``upper_energy``; ``started_at`` None = ``at``. State,
            epoch, lease, holds, and the times of creation and change are set here.
        amounts: what was used, by unit. A unit that is missing or None could not be measured: carbon is then priced
            from the energy, at the planning intensity, else at the budget's price for unknown intensity; without any
            measurement energy and carbon are charged from ``upper_energy`` (zero = no bound is known). What stays
            unknown is ``unpriced`` in the settlement and not charged.
        at: when it ran, normally its start; it decides which periods pay.
        pue_ppm: power usage effectiveness for carbon at a budget's price for unknown intensity, in parts per million;
            None = 1 000 000. The planning intensity contains it already.

    Raises:
        BudgetUnknown: the path has no budget of its own.
        ReservationConflict: the request has another reservation of its own, or was charged with other amounts.
        InvalidInput: there is no path, or an amount, the instant or the PUE cannot be used.
    """
    actual = check_amounts(amounts, "what was used")
    at = require_utc(at, "the instant of the run")
    factor = check_pue(pue_ppm)
    key, path = reservation.request_key, reservation.budget_path
    if path is None:
        raise InvalidInput(f"request {key[:12]} names no budget path, so nothing can be charged; name who pays.")
    before = tx.reservation(key)
    if before is None:
        opened = open_path(tx, path, at=at)
        # Again, because another process may have booked the same run while this one waited for the locks.
        before = tx.reservation(key)
    if before is not None and _never_known(before):
        _check_identity(before, reservation)
        late = before.state is ReservationState.EXPIRED
        state = ReservationState.LATE_SETTLED if late else ReservationState.SETTLED
        return end(tx, before, state=state, actual=actual, now=tx.now(), pue_ppm=pue_ppm)
    if before is not None:
        _check_same(before, reservation)
        return settled_before(tx, before, actual)
    now = tx.now()
    started = require_utc(reservation.started_at or at, "the start of the run")
    used = Energy(millijoules=actual[Unit.ENERGY]) if Unit.ENERGY in actual else reservation.used_energy
    settled = replace(
        reservation,
        state=ReservationState.SETTLED,
        holds=tuple(Hold(allotment_id=one.allotment_id, unit=one.budget.unit, amount=0) for one in opened),
        lease_until=None,
        lease_epoch=1,
        last_beat_at=None,
        started_at=started,
        used_energy=used,
        created_at=now,
        updated_at=now,
    )
    tx.put_reservation(settled)
    rows: list[JournalRow] = []
    for allotment, hold in zip(opened, settled.holds, strict=True):
        charge, _ = charge_of(settled, allotment.budget, hold, actual, factor)
        rows += change(allotment, request_key=key, kind="settle", d_held=0, d_spent=charge or 0, at=now)
    tx.post_all(rows)
    return settlement_of(tx, settled, actual)


def _never_known(reservation: Reservation) -> bool:
    """True for an admission under whose epoch nobody ever reported, and that nobody settled."""
    unsettled = reservation.state in (ReservationState.RUNNING, ReservationState.EXPIRED)
    return unsettled and reservation.started_at is not None and reservation.last_beat_at == reservation.started_at


def _check_same(before: Reservation, after: Reservation) -> None:
    """Check that what is stored is this very booking, not a reservation that the run took out itself."""
    if had_hold(before) or before.state is not ReservationState.SETTLED:
        raise ReservationConflict(f"{ended(before)}, so the run had asked; settle that reservation instead.")
    _check_identity(before, after)


def _check_identity(before: Reservation, after: Reservation) -> None:
    for name in _IDENTITY:
        if getattr(before, name) != getattr(after, name):
            raise ReservationConflict(
                f"request key {after.request_key[:12]} belongs to another request ({name} {getattr(before, name)!r}, "
                f"charged was {getattr(after, name)!r}); charge it with a key of its own."
            )
