"""What is known when a request is asked: read from the store, and from the grid, before anything is decided."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cagg.budget.estimates import Estimate, estimate
from cagg.checkout import code_version
from cagg.composition import Components
from cagg.errors import StoreUnavailable
from cagg.grid.chain import GridAnswer, GridQuality
from cagg.ledger.entry import read_body
from cagg.ledger.lineage import entries_of_all_logs
from cagg.ports import HistoryPoint, StoredForecast, Transaction
from cagg.quantities import Energy, Power
from cagg.records import EntryKind, Reservation, ReservationState
from cagg.request import GateOptions, Request, RequestIdentity
from cagg.settings import Settings
from cagg.steps.deadlines import resolve_deadline
from cagg.steps.running import ENCLOSING_VARIABLE, enclosing_run
from cagg.windows import Window, from_epoch_ms

__all__ = ["Situation", "complete", "is_alive", "store_unshared", "survey"]

_NO_GRID = GridAnswer(series=None, quality=GridQuality.NONE, steps=(), age=None, fetched=None)
_HISTORY = 200
_CACHE_REACH = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything a decision needs beside the budgets, which are read in the deciding transaction.

    Attributes:
        request: completed, with the identity's current incarnation.
        now: instant of the ask.
        first_asked_at: instant of this attempt's first ask.
        deadline: fixed at the first ask of the first attempt.
        estimate: bounds of energy and duration.
        grid: the steering answer.
        planning_intensity: price of holds, mg/kWh; None when unknown.
        planning_basis: where it came from.
        outer_key: request key of the enclosing admitted request; None outside of any.
        zone_known: a zone was given.
        store_down: why the store could not be read; empty when it could.
    """

    request: Request
    now: datetime
    first_asked_at: datetime
    deadline: datetime | None
    estimate: Estimate
    grid: GridAnswer
    planning_intensity: int | None
    planning_basis: str
    outer_key: str | None
    zone_known: bool
    store_down: str = ""
    outer_decision_id: str | None = None


@dataclass(slots=True, kw_only=True)
class _Known:
    """What the store knew of a request.

    Attributes:
        own: the reservation with which this attempt waits.
        first: the first reservation of its series.
        asked_before: some attempt was asked before, and ``deadline`` is what that fixed.
        outer_key: request key of the run around it, in this or another process.
        history: past runs of the task.
        cached: forecasts of its zone.
        store_down: why it could not be read.
    """

    own: Reservation | None = None
    first: Reservation | None = None
    asked_before: bool = False
    deadline: datetime | None = None
    outer_key: str | None = None
    history: Sequence[HistoryPoint] = ()
    cached: list[StoredForecast] = field(default_factory=list)
    store_down: str = ""


def complete(request: Request, settings: Settings) -> Request:
    """Return the request with the settings' defaults and zone, and the version of the code that asks."""
    options = request.options.over(settings.defaults)
    if options.zone is None and settings.zone is not None:
        options = options.over(GateOptions(zone=settings.zone))
    return replace(request, options=options, code=request.code or code_version().facts())


def store_unshared(components: Components, request: Request) -> bool:
    """True when runs may land on several machines and the store is a file, so that no limit could hold."""
    return request.host.remote_workers and components.store.url.partition(":")[0].startswith("sqlite")


def survey(components: Components, request: Request) -> Situation:
    """Collect what is known. A store that cannot be read is reported in the result, not raised.

    Raises:
        InvalidInput, ConfigurationError: the request cannot be used.
    """
    clock, settings = components.clock, components.settings
    now = clock.now()
    options = request.options
    if options.zone is not None:
        components.grid.zone(options.zone)  # an unknown zone is the caller's error, before anything is stored
    enclosing = enclosing_run(request.identity)
    known = _read(components, request, now, None if enclosing is None else enclosing.key)
    guess = estimate(
        known.history,
        declared_energy=options.energy if isinstance(options.energy, Energy) else None,
        declared_power=options.power if isinstance(options.power, Power) else None,
        declared_duration=options.duration if isinstance(options.duration, timedelta) else None,
        default_duration=settings.default_duration,
        default_power=settings.default_power,
    )
    outer_key = enclosing.key if enclosing is not None else known.outer_key
    first_asked_at = known.own.first_asked_at if known.own is not None else now
    deadline = known.deadline
    if not known.asked_before and outer_key is None:
        deadline = resolve_deadline(
            options,
            first_asked_at=now,
            scheduled_start=request.scheduled_start,
            time_zone=request.schedule_time_zone or settings.timezone,
            upper_duration=guess.upper_duration,
            wake_margin=request.host.wake_margin,
            config_file=settings.config_file,
        )
    grid = _NO_GRID
    planning: tuple[int | None, str]
    end = max(deadline or now, now + guess.upper_duration)
    if options.zone is not None:
        window = Window(start=now, end=end)
        grid = components.grid.forecast(options.zone, window, known.cached, needed=guess.expected_duration)
    if known.first is not None:
        planning = known.first.planning_intensity_milligrams_per_kwh, known.first.planning_basis
    else:
        planning = components.grid.planning(options.zone, Window(start=now, end=end), grid.series)
    return Situation(
        request=request,
        now=now,
        first_asked_at=first_asked_at,
        deadline=deadline,
        estimate=guess,
        grid=grid,
        planning_intensity=planning[0],
        planning_basis=planning[1],
        outer_key=outer_key,
        outer_decision_id=None if enclosing is None else enclosing.decision.decision_id,
        zone_known=options.zone is not None,
        store_down=known.store_down,
    )


def _read(components: Components, request: Request, now: datetime, enclosing_key: str | None) -> _Known:
    known = _Known()
    identity = request.identity
    try:
        with components.store.snapshot() as tx:
            series = tx.reservations(series_key=identity.series_key)
            known.first = series[0] if series else None
            known.own = next((item for item in reversed(series) if _continues(item, identity)), None)
            known.asked_before, known.deadline = _fixed_deadline(tx, identity, known.first)
            known.outer_key = enclosing_key or _outer_key(tx, request, now)
            known.history = tx.history(identity.task_key, _HISTORY)
            if request.options.zone is not None:
                for provider, zone in components.grid.cache_keys(request.options.zone):
                    known.cached.extend(tx.forecasts(provider, zone, now - _CACHE_REACH))
    except StoreUnavailable as error:
        known.store_down = str(error)
    return known


def _fixed_deadline(
    tx: Transaction, identity: RequestIdentity, first: Reservation | None
) -> tuple[bool, datetime | None]:
    """Return whether the series was asked before, and the deadline that its first ask fixed.

    A first ask that was denied left no reservation, but its decision stands in the ledger.
    """
    if first is not None:
        return True, first.deadline
    key = replace(identity, attempt=1, incarnation=0).key
    for entry in entries_of_all_logs(tx, kind=EntryKind.DECISION, request_key=key, limit=1):
        question = read_body(tx, entry).get("question")
        if question is not None and question["deadline_ms"] is not None:
            return True, from_epoch_ms(question["deadline_ms"])
        return question is not None, None
    return False, None


def _outer_key(tx: Transaction, request: Request, now: datetime) -> str | None:
    """Return the request key of a run in another process that this one is inside of; None without one."""
    told = os.environ.get(ENCLOSING_VARIABLE)
    if told:
        outer = tx.reservation(told)
        if outer is not None and is_alive(outer, now):
            return outer.request_key
    if request.encloses_run:
        return None
    identity = request.identity
    alive = [
        item
        for item in tx.reservations(host=identity.host, root_run_id=identity.root_run_id, open_only=True)
        if item.encloses_run and is_alive(item, now)
    ]
    return alive[-1].request_key if alive else None


def is_alive(reservation: Reservation, now: datetime) -> bool:
    """True for an admitted run whose lease has not ended."""
    return (
        reservation.state is ReservationState.RUNNING
        and reservation.lease_until is not None
        and reservation.lease_until > now
    )


def _continues(item: Reservation, identity: RequestIdentity) -> bool:
    """True for the reservation with which this attempt waits, or waited until it lapsed."""
    return item.attempt == identity.attempt and item.lease_epoch == 0
