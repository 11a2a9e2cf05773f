"""A hold for several tasks of one run that no single process is around: extended, then settled by a later task.

The group's gate is admitted as a request that encloses its run, so gated tasks inside draw on its reservation. No
process beats for it: its lease reaches to the end of what was planned instead. What the group used is the sum of what
the tasks inside of it measured. Where nothing was measured, and where nobody settles, it is charged as it was held.
Where some of the tasks that were admitted inside left no measurement, because they died or could not be measured, it is
charged at least as held, and at least what was measured with the upper bounds of those tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cagg.budget import reservations
from cagg.composition import Components
from cagg.energy.merging import merge_slices
from cagg.ledger.bodies import request_body
from cagg.ledger.entry import read_body
from cagg.ledger.lineage import entries_of_all_logs
from cagg.ports import Transaction
from cagg.provenance import Grade
from cagg.quantities import Energy, Unit
from cagg.records import Entry, EntryDraft, EntryKind, Reading, ReadingSlice, Reservation, ReservationState
from cagg.request import Request, RequestIdentity
from cagg.steps.settlements import amounts_of, append_next, record_settlement
from cagg.steps.settling import Floor, RunSummary, Settler
from cagg.steps.situation import complete
from cagg.verdict import Admit, Decision, Reason
from cagg.windows import Window, parse_instant

__all__ = ["end_check", "extend_group", "settle_admitted", "settle_group"]

_GRACE = timedelta(minutes=15)
"""How long after the planned end a group keeps its hold; the same as a waiting reservation after its deadline."""

_SEQUENCING_LAG = timedelta(hours=1)
"""Entries are read back to this long before the group began: stores that sequence later number them later."""

_LONGEST = timedelta(days=366)
"""The longest lease that a reservation can have."""

_SHORTEST = timedelta(microseconds=1)
_MOST_INCARNATIONS = 10_000
_UNSETTLED = (ReservationState.RUNNING, ReservationState.EXPIRED)


def extend_group(components: Components, decision: Decision) -> datetime | None:
    """Let the lease of an admitted group reach to its deadline, or to the bound of its duration if that is later, and
    15 minutes on; return until when. None without a lease, for example while the store is down.

    A group that nobody settles is then charged as held: no power is reported, so nothing else is known of it.
    """
    if decision.lease_epoch is None:
        return None
    key = decision.request.identity.key
    with components.store.transaction() as tx:
        own = tx.reservation(key)
        if own is None:
            return None
        now = tx.now()
        end = max(now + _upper_duration(own), own.deadline or now) + _GRACE
        lease_seconds = max(min(end - now, _LONGEST).total_seconds(), components.settings.lease.total_seconds())
        held = reservations.beat(
            tx, key, decision.lease_epoch, used_energy=Energy.ZERO, power_milliwatts=0, lease_seconds=lease_seconds
        )
        return held.lease_until


def _upper_duration(reservation: Reservation) -> timedelta:
    """Return how long the bound of the energy lasts at the power that was expected when the lease began."""
    if reservation.last_power_milliwatts == 0:
        return timedelta(0)
    return min(timedelta(seconds=reservation.upper_energy.millijoules / reservation.last_power_milliwatts), _LONGEST)


def end_check(components: Components, decision: Decision) -> None:
    """End an admission that only asked whether there is room: nothing ran, nothing is charged, and no measurement is
    recorded from which estimates would learn."""
    if decision.lease_epoch is None:
        if decision.outer_key is not None:
            with components.store.transaction() as tx:
                append_next(tx, _check_draft(decision))
        return
    key = decision.request.identity.key
    with components.store.transaction() as tx:
        own = tx.reservation(key)
        if own is None or own.state is not ReservationState.RUNNING:
            return
        nothing = amounts_of(energy=Energy.ZERO, carbon=None)
        settlement = reservations.settle(tx, key, decision.lease_epoch, nothing, pue_ppm=components.settings.pue_ppm)
        record_settlement(tx, own, settlement, None)


def _check_draft(decision: Decision) -> EntryDraft:
    """Return the end of an admission that drew on the gate around it: that one shall not wait for a measurement."""
    body: dict[str, Any] = {
        "request": request_body(decision.request),
        "outcome": str(ReservationState.SETTLED),
        "budget_path": None,
        "measurement_id": None,
        "parents": [] if decision.decision_id is None else [decision.decision_id],
        "held": [],
        "charged": {},
        "differences": {},
        "overrun": [],
        "planning_intensity_milligrams_per_kwh": None,
        "planning_basis": "none: nothing was held",
        "lease_ms": None,
        "late": False,
        "unpriced": [],
        "note": "only asked whether there is room; nothing ran",
    }
    key = decision.request.identity.key
    return EntryDraft(kind=EntryKind.SETTLEMENT, request_key=key, ordinal=0, body=body)


def settle_group(components: Components, request: Request) -> tuple[RunSummary, ...]:
    """End what a group holds: settle what was admitted, release what still waits; again for an ended one: nothing.

    Args:
        components: where to work.
        request: the gate's request, of any attempt.

    Returns:
        One summary per admission that was open; empty when the gate was never admitted, or all is settled.

    Raises:
        StoreUnavailable: the store cannot be read; call it again later. The lease bounds the hold until then.
    """
    with components.store.transaction() as tx:
        for item in tx.reservations(series_key=request.identity.series_key, open_only=True):
            if item.encloses_run and item.state is ReservationState.WAITING:
                record_settlement(tx, item, reservations.release(tx, item.request_key), None)
    return settle_admitted(components, request)


def settle_admitted(components: Components, request: Request) -> tuple[RunSummary, ...]:
    """Settle the admissions of a group that nobody settled, for example before its gate, run anew, asks again.

    Arguments, result and errors as of :func:`settle_group`; what waits goes on waiting.
    """
    request = complete(request, components.settings)
    with components.store.snapshot() as tx:
        found = [
            item
            for item in tx.reservations(series_key=request.identity.series_key)
            if item.encloses_run and item.started_at is not None and item.state in _UNSETTLED
        ]
    settled = []
    for item in found:
        identity = _identity(request.identity, item)
        if identity is None:
            continue
        with components.store.snapshot() as tx:
            decision = _decision(tx, replace(request, identity=identity), item)
            reading, outcome, floor = _reading(tx, item, tx.now())
        settled.append(Settler(components, decision, floor=floor).settle(reading, outcome))
    return tuple(settled)


def _identity(stated: RequestIdentity, reservation: Reservation) -> RequestIdentity | None:
    """Return the identity under which the reservation was made: its attempt is known, its incarnation is tried."""
    for number in range(_MOST_INCARNATIONS):
        identity = replace(stated, attempt=reservation.attempt, incarnation=number)
        if identity.key == reservation.request_key:
            return identity
    return None


def _decision(tx: Transaction, request: Request, reservation: Reservation) -> Decision:
    newest = next(_newest(tx, EntryKind.DECISION, reservation.request_key), None)
    verdict = Admit(reason=Reason.NOW_IS_BEST, message="")
    return Decision(
        verdict=verdict,
        request=request,
        decision_id=None if newest is None else newest.entry_id,
        asked_at=reservation.started_at or reservation.updated_at,
        first_asked_at=reservation.first_asked_at,
        lease_epoch=reservation.lease_epoch,
    )


def _newest(tx: Transaction, kind: EntryKind, request_key: str) -> Iterator[Entry]:
    """The newest entry of a kind and request, in whichever log it stands; nothing when there is none."""
    return entries_of_all_logs(tx, kind=kind, request_key=request_key, newest_first=True, limit=1)


def _inner(tx: Transaction, reservation: Reservation, began: datetime) -> Iterator[Mapping[str, Any]]:
    """Yield what was measured inside, the newest word on each run only."""
    seen: set[str] = set()
    for kind in (EntryKind.CORRECTION, EntryKind.MEASUREMENT):
        for entry in entries_of_all_logs(tx, kind=kind, newest_first=True):
            if entry.recorded_at < began - _SEQUENCING_LAG:
                break
            body = read_body(tx, entry)
            if body.get("part_of") != reservation.request_key:
                continue
            key = str((body.get("request") or {}).get("key", entry.entry_id))
            if key not in seen:
                seen.add(key)
                yield body


def _unmeasured(
    tx: Transaction, reservation: Reservation, began: datetime, measured: Collection[str]
) -> Mapping[str, Energy]:
    """Return the upper bounds of what was admitted inside and is not among the measured, by request key."""
    found: dict[str, Energy] = {}
    for entry in entries_of_all_logs(tx, kind=EntryKind.DECISION, newest_first=True):
        if entry.recorded_at < began - _SEQUENCING_LAG:
            break
        body = read_body(tx, entry)
        if body.get("outer_key") != reservation.request_key or body["verdict"]["verdict"] != "admit":
            continue
        key = str(body["request"]["key"])
        if key not in measured and key not in found and not _only_looked(tx, key):
            found[key] = Energy(millijoules=int(body["estimate"]["upper_energy_millijoules"]))
    return found


def _only_looked(tx: Transaction, request_key: str) -> bool:
    """True when the newest admission of a request was ended by :func:`end_check`: settled without a measurement."""
    for entry in _newest(tx, EntryKind.SETTLEMENT, request_key):
        body = read_body(tx, entry)
        return body["outcome"] == str(ReservationState.SETTLED) and body["measurement_id"] is None
    return False


def _reading(tx: Transaction, reservation: Reservation, now: datetime) -> tuple[Reading, str, Floor | None]:
    """Return the sum of what the tasks inside measured, how they ended, and what to charge at least; None = nothing."""
    began = reservation.started_at or reservation.created_at
    inner = list(_inner(tx, reservation, began))
    known = [body for body in inner if body.get("energy_millijoules") is not None]
    unmeasured = _unmeasured(tx, reservation, began, {str(body["request"]["key"]) for body in known})
    floor = _floor(reservation, unmeasured.values()) if unmeasured else None
    notes = _notes(len(known), len(inner) - len(known), len(unmeasured))
    window = Window(start=began, end=max(now, began + _SHORTEST))
    if not known:
        reason = (
            "no task inside of the gate was measured; gate them too, or declare what they use"
            if not inner
            else "none of the tasks inside of the gate could be measured"
        )
        return _sum(window, [], (), reason, notes), "interrupted", floor
    slices = merge_slices(
        ReadingSlice(
            window=Window(start=parse_instant(item["start"]), end=parse_instant(item["end"])),
            energy=Energy(millijoules=int(item["energy_millijoules"])),
        )
        for body in known
        for item in body["slices"]
    )
    if slices:
        window = Window(start=min(began, slices[0].window.start), end=max(window.end, slices[-1].window.end))
    outcome = "completed" if all(body.get("outcome") == "completed" for body in inner) else "failed"
    # estimates learn from completed runs only: a part of one would teach them too little
    return _sum(window, known, slices, "", notes), "interrupted" if unmeasured else outcome, floor


def _floor(reservation: Reservation, bounds: Iterable[Energy]) -> Floor:
    held = {Unit.ENERGY: reservation.upper_energy.millijoules}
    for hold in reservation.holds:
        held[hold.unit] = max(held.get(hold.unit, 0), hold.amount)
    return Floor(
        held=held,
        lacking_energy=Energy(millijoules=sum(bound.millijoules for bound in bounds)),
        planning_intensity_milligrams_per_kwh=reservation.planning_intensity_milligrams_per_kwh,
    )


def _notes(known: int, lacking: int, unmeasured: int) -> tuple[str, ...]:
    notes = []
    if known:
        notes.append(f"the sum of {known} readings inside of the gate; tasks without a gate are not in it")
    if known and lacking:
        notes.append(f"{lacking} tasks inside could not be measured and are not in it")
    if unmeasured:
        notes.append(
            f"not fully measured: {unmeasured} runs admitted inside of the gate left no measured energy; charged is at "
            "least what was held, and at least what was measured with their upper bounds"
        )
    return tuple(notes)


def _sum(
    window: Window,
    known: list[Mapping[str, Any]],
    slices: tuple[ReadingSlice, ...],
    reason: str,
    notes: tuple[str, ...],
) -> Reading:
    def total(name: str) -> Energy | None:
        return Energy(millijoules=sum(int(body[name] or 0) for body in known)) if known else None

    def milliseconds(name: str) -> int | None:
        stated = [body[name] for body in known if body.get(name) is not None]
        return sum(stated) if stated else None

    return Reading(
        window=window,
        energy=total("energy_millijoules"),
        low=total("energy_low_millijoules"),
        high=total("energy_high_millijoules"),
        grade=max((Grade(body["grade"]) for body in known if body["grade"]), default=None),
        components=(),
        slices=slices,
        host_total=None,
        other=None,
        unowned_idle=None,
        siblings=None,
        cpu_milliseconds=milliseconds("cpu_milliseconds"),
        gpu_milliseconds=milliseconds("gpu_milliseconds"),
        reason=reason,
        notes=notes,
    )
