"""Values that are stored: readings, ledger entries, budgets, allotments and reservations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from cagg.entries import Entry, EntryDraft, EntryKind
from cagg.errors import InvalidInput
from cagg.provenance import Grade
from cagg.quantities import Energy, Unit
from cagg.windows import Window

__all__ = [
    "Allotment",
    "Budget",
    "BudgetMode",
    "Component",
    "Entry",
    "EntryDraft",
    "EntryKind",
    "Headroom",
    "Hold",
    "Period",
    "Reading",
    "ReadingSlice",
    "Reservation",
    "ReservationState",
    "Settlement",
]


# ---- energy -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingSlice:
    """Energy used in one stretch of a run; slices of a reading follow each other without overlap."""

    window: Window
    energy: Energy


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """What one part of the machine used for one run.

    Attributes:
        domain: ``cpu``, ``memory``, ``gpu:0`` …
        source: the energy source, for example ``rapl`` or ``cpu_model``.
        method: how the host's energy became this run's, in a few words.
        grade: how good it is.
        energy: dynamic plus idle; None with a reason when it could not be known.
        dynamic: the part caused by the run's activity.
        idle: the run's share of the idle energy.
        low, high: bounds of ``energy``; low <= energy <= high.
        share_ppm: the run's share of the host's dynamic energy in this domain.
        reason: why the energy is None, or what degraded it; empty otherwise.
    """

    domain: str
    source: str
    method: str
    grade: Grade
    energy: Energy | None
    dynamic: Energy | None
    idle: Energy | None
    low: Energy | None
    high: Energy | None
    share_ppm: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Measured energy over an interval.

    Attributes:
        window: the interval.
        energy: sum over the components that are known; None when none is.
        low, high: bounds of ``energy``.
        grade: worst grade among the components that hold at least a tenth of the energy; None when energy is None.
        components: one per domain.
        slices: the energy by stretches of time; their sum is exactly ``energy``; empty when energy is None.
        host_total: what the whole host used in the interval in the domains that were read.
        other: dynamic energy of the host that no run of ours caused.
        unowned_idle: idle energy that was assigned to no run.
        siblings: energy of our other runs on this process in the interval, so that
            energy + siblings + other + unowned_idle = host_total.
        cpu_milliseconds: processor time of the run; None when it could not be read.
        gpu_milliseconds: GPU time held; None without a GPU.
        reason: why energy is None; empty otherwise.
        notes: warnings for people, for example a coarse attribution.
        hardware: class of hardware and versions of the models and sources used.
    """

    window: Window
    energy: Energy | None
    low: Energy | None
    high: Energy | None
    grade: Grade | None
    components: tuple[Component, ...]
    slices: tuple[ReadingSlice, ...]
    host_total: Energy | None
    other: Energy | None
    unowned_idle: Energy | None
    siblings: Energy | None
    cpu_milliseconds: int | None
    gpu_milliseconds: int | None
    reason: str = ""
    notes: tuple[str, ...] = ()
    hardware: Mapping[str, str] = field(default_factory=dict)


# ---- budgets ------------------------------------------------------------------------------------------------------


class BudgetMode(StrEnum):
    """What a budget does at its limit."""

    OBSERVE = "observe"
    WARN = "warn"
    ENFORCE = "enforce"


class Period(StrEnum):
    """How long one allotment lasts; boundaries are local midnights."""

    DAY = "day"
    WEEK = "week"
    """ISO week, from Monday"""
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The rule: so much of a unit per period for a path and everything below it.

    Attributes:
        path: ``acme/ml/nightly``.
        unit: what is counted.
        period: how long an allotment lasts.
        time_zone: IANA zone whose midnights bound the periods.
        limit: amount per period in the unit's integers; zero is a real limit.
        mode: what happens at the limit.
        unknown_intensity_milligrams_per_kwh: what a kilowatt-hour costs while no intensity is known;
            None = such a request is refused (under enforce).
        version: counts up with each change of the same (path, unit, period).
    """

    path: str
    unit: Unit
    period: Period
    time_zone: str
    limit: int
    mode: BudgetMode = BudgetMode.OBSERVE
    unknown_intensity_milligrams_per_kwh: int | None = None
    version: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or not 0 <= self.limit < 2**63:
            raise InvalidInput(f"the limit of {self.path} must be a whole amount from 0 to 2^63-1, got {self.limit!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """What one budget grants for one period, with its counters; all amounts in the budget's unit.

    Attributes:
        allotment_id: store's id.
        budget: the rule as it was read.
        window: the period.
        limit: granted at the start of the period or by the latest change of the budget.
        extra: granted on top.
        held: sum of the holds of requests that have not settled.
        spent: sum of what settled.
        overrun: how far ``held + spent`` passed ``limit + extra`` through settlements and let-past admissions; falls
            again when a hold turns out smaller, and never counts what a lowered limit alone leaves above it.
    """

    allotment_id: int
    budget: Budget
    window: Window
    limit: int
    extra: int
    held: int
    spent: int
    overrun: int

    @property
    def available(self) -> int:
        """What a new hold may take; negative after an overrun."""
        return self.limit + self.extra - self.held - self.spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """One allotment on a request's path, beside what the request asks of it.

    Attributes:
        allotment: counters without the request's own present hold.
        amount: asked, in the unit; None when it cannot be priced (unknown intensity).
        assumed_intensity_milligrams_per_kwh: the budget's price for unknown intensity, when the amount was computed
            with it; None otherwise.
        fits: the amount is known and within what is available; a request that takes nothing always fits.
    """

    allotment: Allotment
    amount: int | None
    assumed_intensity_milligrams_per_kwh: int | None = None

    @property
    def fits(self) -> bool:
        """True when the amount is known and does not pass the limit."""
        return self.amount is not None and (self.amount == 0 or self.amount <= self.allotment.available)


class ReservationState(StrEnum):
    """Where a reservation stands."""

    WAITING = "waiting"
    RUNNING = "running"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"
    LATE_SETTLED = "late_settled"
    """it had expired and was charged; the late settlement booked the difference"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What a reservation takes from one allotment."""

    allotment_id: int
    unit: Unit
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Amounts held for one request, and what the gate must remember of it between asks.

    Attributes:
        request_key: the request's key; unique.
        series_key: the key shared by all attempts.
        host, root_run_id, task_key, attempt: identity in clear, for lookups and reconciliation.
        budget_path: who pays; None without a budget.
        state: where it stands.
        first_asked_at: instant of the first ask.
        deadline: when the work must be finished; None without one.
        asks: how many times the gate was asked so far.
        deferrals: how many of the asks ended in Defer.
        planning_intensity_milligrams_per_kwh: the price fixed at the first ask; None when unknown.
        planning_basis: where that price came from.
        planned_start: start of the planned window.
        upper_energy: the energy the hold was computed from.
        holds: what it takes, by allotment; empty without budgets; after the end: what it took.
        lease_until: when a running reservation expires unless it beats; None while waiting.
        lease_epoch: fencing token, counts up with each start.
        last_beat_at: when the run last reported, at first the start itself; None before the start.
        used_energy: energy reported by the last beat.
        last_power_milliwatts: mean power reported by the last beat, at first the expected mean power.
        encloses_run: gates in the same root run draw on it.
        run_reference: how the engine names the very task run (Request.run_reference); empty = the root run.
        created_at, updated_at: store time.
    """

    request_key: str
    series_key: str
    host: str
    root_run_id: str
    task_key: str
    attempt: int
    budget_path: str | None
    state: ReservationState
    first_asked_at: datetime
    deadline: datetime | None
    asks: int
    deferrals: int
    planning_intensity_milligrams_per_kwh: int | None
    planning_basis: str
    planned_start: datetime
    upper_energy: Energy
    holds: tuple[Hold, ...]
    lease_until: datetime | None
    lease_epoch: int
    last_beat_at: datetime | None
    started_at: datetime | None
    used_energy: Energy
    last_power_milliwatts: int
    encloses_run: bool
    created_at: datetime
    updated_at: datetime
    run_reference: str = ""

    @property
    def open(self) -> bool:
        """True while it is waiting or running."""
        return self.state in (ReservationState.WAITING, ReservationState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a reservation ended.

    Attributes:
        request_key: whose.
        state: settled, released, expired or late_settled.
        amounts: charged by unit, in total (an expired one: what was booked so far plus the difference); a unit that
            no budget could be charged in is not in it.
        differences: change against what had been charged before; equals ``amounts`` unless late.
        overrun: excess over the limit by budget path and unit, as ``path:unit`` -> amount.
        unpriced: budgets, as ``path:unit``, that could not be charged because the amount is unknown and nothing was
            held that bounds it; sorted, empty when all were charged.
        lease: how long the lease ran; None for released ones and for runs that never had one.
        late: True when the reservation had expired before.
        note: how an amount that nobody measured was charged, or why it was not; empty when all were measured.
    """

    request_key: str
    state: ReservationState
    amounts: Mapping[Unit, int]
    differences: Mapping[Unit, int]
    overrun: Mapping[str, int]
    unpriced: tuple[str, ...] = ()
    lease: timedelta | None = None
    late: bool = False
    note: str = ""
