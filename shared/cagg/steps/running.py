"""An admitted run under the meter: beats while it runs, settles when it ends, however it ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cagg.budget import reservations
from cagg.composition import Components
from cagg.errors import IdempotencyConflict, LedgerDamaged, ReservationConflict, StoreUnavailable
from cagg.intensity import IntensitySeries
from cagg.ledger.bodies import measurement_body, request_body
from cagg.quantities import CarbonMass, Unit
from cagg.records import EntryDraft, EntryKind, Reading, Settlement
from cagg.steps.pricing import Priced, price
from cagg.steps.settlements import amounts_of, append_next, carbon_if_moved, record_settlement
from cagg.verdict import Decision
from cagg.windows import Window, format_instant

if TYPE_CHECKING:
    from cagg.energy.meter import MeterWindow
    from cagg.ports import Transaction

__all__ = ["GatedRun", "RunSummary", "enclosing_run"]

logger = logging.getLogger("cagg")

_DAY = timedelta(days=1)

_CURRENT: ContextVar[GatedRun | None] = ContextVar("cagg_current_run", default=None)
_MAIN_THREAD_RUNS: list[GatedRun] = []


def enclosing_run() -> GatedRun | None:
    """Return the admitted run that this code is inside of; None outside of any.

    Code on another thread without a copy of the context counts as inside the run that the main thread has open.
    """
    run = _CURRENT.get()
    if run is None and threading.current_thread() is not threading.main_thread() and _MAIN_THREAD_RUNS:
        run = _MAIN_THREAD_RUNS[0]
    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a finished run came to.

    Attributes:
        reading: measured energy with its grade.
        carbon: None when unknown; ``carbon_reason`` says why.
        difference_micrograms: measured energy x (intensity at the first ask - actual), the intensity difference;
            positive = less carbon than at the first ask; None when unknown or not moved.
        charged: amounts charged to the budgets by unit.
        measurement_id, settlement_id: ledger entries; None while they wait in the spool.
        notes: what a person should know, for example that the record waits in the spool.
    """

    reading: Reading
    carbon: CarbonMass | None
    carbon_reason: str
    difference_micrograms: int | None
    charged: Mapping[Unit, int]
    measurement_id: str | None
    settlement_id: str | None
    notes: tuple[str, ...] = ()


class GatedRun:
    """Context manager around the work of one admitted request; made by ``Gate.run``.

    Attributes:
        decision: the admission.
        summary: what it came to; None until the block has ended, and with metering off.
    """

    def __init__(self, components: Components, decision: Decision) -> None:
        self.decision = decision
        self.summary: RunSummary | None = None
        self._components = components
        self._series: Sequence[IntensitySeries] = ()
        self._zone = decision.request.options.zone
        self._token: Token[GatedRun | None] | None = None
        self._window: MeterWindow | None = None
        self._last_beat_ns = 0
        self._fenced = ""

    @property
    def key(self) -> str:
        """Request key of the reservation that pays."""
        return self.decision.outer_key or self.decision.request.identity.key

    @property
    def _name(self) -> str:
        return self.decision.request.identity.task_key

    @property
    def reading(self) -> Reading | None:
        """The finished reading; None before the end."""
        return self.summary.reading if self.summary else None

    def __enter__(self) -> Self:
        if self.decision.metered:
            outer = enclosing_run()
            self._last_beat_ns = self._components.clock.monotonic_ns()
            self._window = self._components.meter().open(
                self.decision.request.identity.task_key,
                parent=outer._window if outer is not None else None,
                on_beat=self._beat,
            )
        self._token = _CURRENT.set(self)
        if threading.current_thread() is threading.main_thread():
            _MAIN_THREAD_RUNS.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)
        if self in _MAIN_THREAD_RUNS:
            _MAIN_THREAD_RUNS.remove(self)
        if self._window is None:
            return
        if kind is None:
            outcome = "completed"
        else:
            outcome = "failed" if issubclass(kind, Exception) else "interrupted"
        self.summary = self._settle(self._window.close(), outcome)

    def _beat(self, window: MeterWindow) -> None:
        """Report to the reservation's lease; called by the meter's heartbeat thread."""
        clock, settings = self._components.clock, self._components.settings
        now_ns = clock.monotonic_ns()
        if self.decision.lease_epoch is None or self._fenced:
            return
        if now_ns - self._last_beat_ns < settings.beat.total_seconds() * 1e9:
            return
        self._last_beat_ns = now_ns
        progress = window.progress()
        try:
            with self._components.store.transaction() as tx:
                reservations.beat(
                    tx,
                    self.decision.request.identity.key,
                    self.decision.lease_epoch,
                    used_energy=progress.energy,
                    power_milliwatts=progress.power_milliwatts,
                    lease_seconds=int(settings.lease.total_seconds()),
                )
        except StoreUnavailable as problem:
            logger.warning(
                "cagg could not extend the lease of %s: %s", self.decision.request.identity.task_key, problem
            )
        except ReservationConflict as problem:
            self._fenced = str(problem)
            logger.warning("cagg: the reservation of %s is gone: %s", self._name, problem)

    # ---- settlement ----------------------------------------------------------------------------------------------

    def _settle(self, reading: Reading, outcome: str) -> RunSummary:
        settings = self._components.settings
        try:
            with self._components.store.transaction() as tx:
                priced = self._price(tx, reading)
                return self._record(tx, reading, priced, outcome)
        except StoreUnavailable as problem:
            priced = price(reading, self._series, pue_ppm=settings.pue_ppm, why_none="the store was down")
            return self._spooled(reading, priced, outcome, str(problem))
        except (IdempotencyConflict, LedgerDamaged) as problem:
            priced = price(reading, self._series, pue_ppm=settings.pue_ppm, why_none="the ledger refused the record")
            return self._spooled(reading, priced, outcome, str(problem))

    def _price(self, tx: Transaction, reading: Reading) -> Priced:
        settings, grid, decision = self._components.settings, self._components.grid, self.decision
        if self._zone is None:
            return price(reading, (), pue_ppm=settings.pue_ppm, why_none="no zone is set")
        names = grid.accounting_names(self._zone)
        why = f"no data from {', '.join(names)}" if names else "no accounting source is set"
        since = min(reading.window.start, decision.first_asked_at)
        cached = [
            row
            for provider, zone in grid.cache_keys(self._zone)
            if provider in names
            for row in tx.forecasts(provider, zone, since - _DAY)
        ]
        self._series = grid.on_hand(self._zone, Window(start=since, end=reading.window.end), cached)
        return price(reading, self._series, pue_ppm=settings.pue_ppm, why_none=why)

    def _record(self, tx: Transaction, reading: Reading, priced: Priced, outcome: str) -> RunSummary:
        decision = self.decision
        key = decision.request.identity.key
        reservation = tx.reservation(key) if decision.outer_key is None else None
        settlement: Settlement | None = None
        charged: Mapping[Unit, int] = {}
        notes: list[str] = []
        if reservation is not None and decision.lease_epoch is not None:
            amounts = amounts_of(energy=reading.energy, carbon=priced.carbon)
            try:
                settlement = reservations.settle(tx, key, decision.lease_epoch, amounts)
                charged = settlement.amounts
            except ReservationConflict as problem:
                notes.append(str(problem))
        late = settlement is not None and settlement.late
        draft = self._draft(reading, priced, outcome, late=late)
        entry = append_next(tx, draft)
        settled = None
        if settlement is not None and reservation is not None:
            settled = record_settlement(tx, reservation, settlement, entry.entry_id)
        return RunSummary(
            reading=reading,
            carbon=priced.carbon,
            carbon_reason=priced.reason,
            difference_micrograms=self._difference(priced),
            charged=charged,
            measurement_id=entry.entry_id,
            settlement_id=None if settled is None else settled.entry_id,
            notes=(*reading.notes, *notes),
        )

    def _draft(self, reading: Reading, priced: Priced, outcome: str, *, late: bool) -> EntryDraft:
        decision = self.decision
        difference = self._difference(priced)
        extra: dict[str, Any] = {
            "decision_id": decision.decision_id,
            "work_item": decision.request.options.work_item,
            "budget_path": decision.request.options.budget,
            "zone": self._zone,
            "intensity_difference_micrograms": None if difference is None else str(difference),
        }
        body = measurement_body(
            request=request_body(decision.request),
            reading=reading,
            priced=priced.slices,
            convention=priced.convention,
            pue_ppm=self._components.settings.pue_ppm,
            outcome=outcome,
            part_of=decision.outer_key,
            carbon_reason=priced.reason,
            extra=extra,
        )
        kind = EntryKind.CORRECTION if late else EntryKind.MEASUREMENT
        return EntryDraft(kind=kind, request_key=decision.request.identity.key, ordinal=0, body=body)

    def _difference(self, priced: Priced) -> int | None:
        """Measured energy x (actual intensity had it started at the first ask - actual); None unless it was moved."""
        decision = self.decision
        if priced.carbon is None or decision.first_asked_at >= decision.asked_at or not priced.slices:
            return None
        shift = priced.slices[0][0].start - decision.first_asked_at
        for series in self._series:
            if series.convention != priced.convention:
                continue
            carbon = carbon_if_moved(priced, series, -shift, self._components.settings.pue_ppm)
            if carbon is not None:
                return carbon.micrograms - priced.carbon.micrograms
        return None

    def _spooled(self, reading: Reading, priced: Priced, outcome: str, why: str) -> RunSummary:
        decision, clock = self.decision, self._components.clock
        draft = self._draft(reading, priced, outcome, late=False)
        energy = reading.energy
        record = {
            "kind": str(draft.kind),
            "request_key": draft.request_key,
            "ordinal": draft.ordinal,
            "body": {**draft.body, "spooled_at": format_instant(clock.now())},
            "settle": None
            if decision.lease_epoch is None
            else {
                "epoch": decision.lease_epoch,
                "energy_millijoules": None if energy is None else str(energy.millijoules),
                "carbon_micrograms": None if priced.carbon is None else str(priced.carbon.micrograms),
            },
        }
        try:
            self._components.spool.put(record, order=int(clock.now().timestamp() * 1_000_000))
            note = f"the record waits in the spool because {why}"
        except StoreUnavailable as problem:
            note = str(problem)
        logger.warning("cagg: %s", note)
        return RunSummary(
            reading=reading,
            carbon=priced.carbon,
            carbon_reason=priced.reason,
            difference_micrograms=None,
            charged={},
            measurement_id=None,
            settlement_id=None,
            notes=(*reading.notes, note),
        )
