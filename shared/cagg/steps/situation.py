"""What is known when a request is asked: read from the store, and from the grid, before anything is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cagg.budget.estimates import Estimate, estimate
from cagg.composition import Components, code_version
from cagg.errors import StoreUnavailable
from cagg.grid.chain import GridAnswer, GridQuality
from cagg.ports import HistoryPoint, StoredForecast
from cagg.quantities import Energy, Power
from cagg.records import Reservation, ReservationState
from cagg.request import GateOptions, Request, RequestIdentity
from cagg.settings import Settings
from cagg.steps.deadlines import resolve_deadline
from cagg.steps.running import GatedRun
from cagg.windows import Window

__all__ = ["Situation", "complete", "survey"]

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


@dataclass(slots=True, kw_only=True)
class _Known:
    """What the store knew of a request: the reservation that it continues, and the first of its series."""

    own: Reservation | None = None
    first: Reservation | None = None
    outer: Reservation | None = None
    history: Sequence[HistoryPoint] = ()
    cached: list[StoredForecast] = field(default_factory=list)
    store_down: str = ""


def complete(request: Request, settings: Settings) -> Request:
    """Return the request with the settings' defaults and zone, and the version of the code that asks."""
    options = request.options.over(settings.defaults)
    if options.zone is None and settings.zone is not None:
        options = options.over(GateOptions(zone=settings.zone))
    return replace(request, options=options, code=request.code or code_version())


def survey(components: Components, request: Request, enclosing: GatedRun | None) -> Situation:
    """Collect what is known. A store that cannot be read is reported in the result, not raised.

    Raises:
        InvalidInput, ConfigurationError: the request cannot be used.
    """
    clock, settings = components.clock, components.settings
    now = clock.now()
    options = request.options
    if options.zone is not None:
        components.grid.zone(options.zone)  # an unknown zone is the caller's error, before anything is stored
    known = _read(components, request, now)
    guess = estimate(
        known.history,
        declared_energy=options.energy if isinstance(options.energy, Energy) else None,
        declared_power=options.power if isinstance(options.power, Power) else None,
        declared_duration=options.duration if isinstance(options.duration, timedelta) else None,
        default_duration=settings.default_duration,
        default_power=settings.default_power,
    )
    first_asked_at = known.own.first_asked_at if known.own is not None else now
    if known.first is not None:
        deadline = known.first.deadline
    else:
        deadline = resolve_deadline(
            options,
            first_asked_at=now,
            scheduled_start=request.scheduled_start,
            time_zone=request.schedule_time_zone or settings.timezone,
            upper_duration=guess.upper_duration,
            wake_margin=request.host.wake_margin,
        )
    outer_key = enclosing.key if enclosing is not None else None
    if outer_key is None and known.outer is not None:
        outer_key = known.outer.request_key
    grid = _NO_GRID
    planning: tuple[int | None, str] = (None, "no zone is set")
    if options.zone is not None:
        end = max(deadline or now, now + guess.upper_duration)
        window = Window(start=now, end=end)
        grid = components.grid.forecast(options.zone, window, known.cached)
        if known.first is not None:
            planning = known.first.planning_intensity_milligrams_per_kwh, known.first.planning_basis
        else:
            planning = components.grid.planning(options.zone, window, grid.series)
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
        zone_known=options.zone is not None,
        store_down=known.store_down,
    )


def _read(components: Components, request: Request, now: datetime) -> _Known:
    known = _Known()
    identity = request.identity
    try:
        with components.store.snapshot() as tx:
            series = tx.reservations(series_key=identity.series_key)
            known.first = series[0] if series else None
            known.own = next((item for item in reversed(series) if _continues(item, identity)), None)
            if not request.encloses_run:
                for item in tx.reservations(host=identity.host, root_run_id=identity.root_run_id, open_only=True):
                    if item.encloses_run and item.state is ReservationState.RUNNING:
                        known.outer = item
            known.history = tx.history(identity.task_key, _HISTORY)
            if request.options.zone is not None:
                for provider, zone in components.grid.cache_keys(request.options.zone):
                    known.cached.extend(tx.forecasts(provider, zone, now - _CACHE_REACH))
    except StoreUnavailable as error:
        known.store_down = str(error)
    return known


def _continues(item: Reservation, identity: RequestIdentity) -> bool:
    """True for the reservation with which this attempt waits, or waited until it lapsed."""
    return item.attempt == identity.attempt and item.lease_epoch == 0
