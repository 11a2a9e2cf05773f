"""The end of a run: price what was measured, settle the reservation, append the entries; else spool them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from cagg.artefacts import Artefacts
from cagg.budget import reservations
from cagg.composition import Components
from cagg.errors import BudgetUnknown, CaggError, ReservationConflict, StoreUnavailable
from cagg.intensity import IntensitySeries
from cagg.ledger.bodies import measurement_body, request_body
from cagg.ports import Transaction
from cagg.quantities import CarbonIntensity, CarbonMass, Energy, Unit, carbon_of
from cagg.records import EntryDraft, EntryKind, Reading, Reservation, Settlement
from cagg.steps.pricing import Priced, price
from cagg.steps.provenance import Conclusion, append_occurrence, first_measurement, occurrence_of, software
from cagg.steps.settlements import (
    amounts_of,
    append_next,
    carbon_if_moved,
    record_settlement,
    unheld_body,
    unheld_reservation,
    who_pays,
)
from cagg.steps.spooling import spool_record
from cagg.steps.witness import untold_checkpoint
from cagg.verdict import Decision, Reason
from cagg.windows import Window

__all__ = ["Floor", "RunSummary", "Settler"]

logger = logging.getLogger("cagg")

_DAY = timedelta(days=1)


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
        occurrence_id: entry of the validation, inference or regeneration; None for other kinds, and in the spool.
        checkpoint: the log's newest checkpoint as a line for the task's log; empty when this process has told it.
    """

    reading: Reading
    carbon: CarbonMass | None
    carbon_reason: str
    difference_micrograms: int | None
    charged: Mapping[Unit, int]
    measurement_id: str | None
    settlement_id: str | None
    notes: tuple[str, ...] = ()
    occurrence_id: str | None = None
    checkpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What a reading that lacks a part is charged at least: unknown must never be cheaper than known.

    Attributes:
        held: amounts held by unit; less than that is never charged.
        lacking_energy: upper bound of the part that the reading lacks, charged on top of what was measured.
        planning_intensity_milligrams_per_kwh: price of that part; None = the carbon of the reading is kept.
    """

    held: Mapping[Unit, int]
    lacking_energy: Energy
    planning_intensity_milligrams_per_kwh: int | None

    def raised(self, amounts: Mapping[Unit, int | None]) -> Mapping[Unit, int | None]:
        """Return the amounts with the lacking part, at least as held; None stays unknown where no bound is above it."""
        energy, carbon = amounts[Unit.ENERGY], amounts[Unit.CARBON]
        bounded = max(self.held.get(Unit.ENERGY, 0), (energy or 0) + self.lacking_energy.millijoules)
        if energy is None and bounded <= self.held.get(Unit.ENERGY, 0):
            return amounts  # charged as held, in words of the budgets
        if carbon is not None:
            planning = self.planning_intensity_milligrams_per_kwh
            if planning is not None:
                carbon += carbon_of(self.lacking_energy, CarbonIntensity(milligrams_per_kwh=planning)).micrograms
            carbon = max(carbon, self.held.get(Unit.CARBON, 0))
        return {Unit.ENERGY: bounded, Unit.CARBON: carbon}


class Settler:
    """Settles one decision's run."""

    def __init__(
        self,
        components: Components,
        decision: Decision,
        *,
        floor: Floor | None = None,
        artefacts: Artefacts | None = None,
        conclusion: Conclusion | None = None,
    ) -> None:
        """Prepare to settle.

        Args:
            components: where.
            decision: what admitted the run.
            floor: what is charged beyond the reading, because it is known to lack something; None = nothing.
            artefacts: what the run read and made; None = nothing was said.
            conclusion: what a validation came to, as its code said; None = it said nothing.
        """
        self._components = components
        self._decision = decision
        self._floor = floor
        self._artefacts = artefacts or Artefacts()
        self._conclusion = conclusion
        self._series: Sequence[IntensitySeries] = ()
        self._zone = decision.request.options.zone

    def settle(self, reading: Reading, outcome: str) -> RunSummary:
        """Settle and record; never raises because of the store, the grid or the ledger: the work is done already."""
        settings = self._components.settings
        reading = replace(reading, notes=(*reading.notes, *self._artefacts.notes))
        try:
            with self._components.store.transaction() as tx:
                priced = self._price(tx, reading)
                summary, untold = self._record(tx, reading, priced, outcome), untold_checkpoint(tx)
            return replace(summary, checkpoint=untold.tell())
        except (CaggError, OSError) as problem:
            why = "the store was down" if isinstance(problem, StoreUnavailable) else "the record was refused"
            priced = price(reading, self._series, pue_ppm=settings.pue_ppm, why_none=why)
            return self._spooled(reading, priced, outcome, str(problem))

    def _price(self, tx: Transaction, reading: Reading) -> Priced:
        settings, grid = self._components.settings, self._components.grid
        if self._zone is None:
            return price(reading, (), pue_ppm=settings.pue_ppm, why_none="no zone is set")
        names = grid.accounting_names(self._zone)
        why = f"no data from {', '.join(names)}" if names else "no accounting source is set"
        since = min(reading.window.start, self._decision.first_asked_at)
        cached = [
            row
            for provider, zone in grid.cache_keys(self._zone)
            if provider in names
            for row in tx.forecasts(provider, zone, since - _DAY)
        ]
        self._series = grid.on_hand(self._zone, Window(start=since, end=reading.window.end), cached)
        return price(reading, self._series, pue_ppm=settings.pue_ppm, why_none=why)

    def _record(self, tx: Transaction, reading: Reading, priced: Priced, outcome: str) -> RunSummary:
        reservation, settlement, notes = self._charge(tx, reading, priced)
        late = settlement is not None and settlement.late
        corrects = first_measurement(tx, self._decision.request.identity.key) if late else None
        entry = append_next(tx, self._draft(reading, priced, outcome, corrects))
        occurrence, happened = self._occurrence(outcome), None
        if occurrence is not None:
            happened = append_occurrence(tx, self._decision.request.identity.key, occurrence, entry.entry_id)
        settled = None
        if settlement is not None and reservation is not None:
            settled = record_settlement(tx, reservation, settlement, entry.entry_id)
        return RunSummary(
            reading=reading,
            carbon=priced.carbon,
            carbon_reason=priced.reason,
            difference_micrograms=self._difference(priced),
            charged={} if settlement is None else settlement.amounts,
            measurement_id=entry.entry_id,
            settlement_id=None if settled is None else settled.entry_id,
            occurrence_id=None if happened is None else happened.entry_id,
            notes=(
                *reading.notes,
                *notes,
                *([f"the budget is charged {settlement.note}"] if settlement is not None and settlement.note else []),
            ),
        )

    def _charge(
        self, tx: Transaction, reading: Reading, priced: Priced
    ) -> tuple[Reservation | None, Settlement | None, list[str]]:
        decision, settings = self._decision, self._components.settings
        amounts = self._amounts(reading, priced)
        try:
            if decision.lease_epoch is not None:
                key = decision.request.identity.key
                reservation = tx.reservation(key)
                settlement = reservations.settle(tx, key, decision.lease_epoch, amounts, pue_ppm=settings.pue_ppm)
                return reservation, settlement, []
            if self._runs_unheld():
                key = decision.request.identity.key
                unheld = unheld_reservation(unheld_body(decision, reading.window.start), key)
                reservation = who_pays(tx.reservation(key), unheld)
                settlement = reservations.charge_unheld(
                    tx, unheld, amounts, at=reading.window.start, pue_ppm=settings.pue_ppm
                )
                return reservation, settlement, []
        except (ReservationConflict, BudgetUnknown) as problem:
            return None, None, [str(problem)]
        return None, None, []

    def _amounts(self, reading: Reading, priced: Priced) -> Mapping[Unit, int | None]:
        """Return what to charge: what was measured, and at least the floor."""
        amounts = amounts_of(energy=reading.energy, carbon=priced.carbon)
        return amounts if self._floor is None else self._floor.raised(amounts)

    def _runs_unheld(self) -> bool:
        """True when the run was let through while the store was down, and a budget is to pay after all."""
        decision = self._decision
        return decision.verdict.reason is Reason.STORE_DOWN and decision.request.options.budget is not None

    def _occurrence(self, outcome: str) -> dict[str, Any] | None:
        return occurrence_of(self._decision, outcome, self._artefacts, self._conclusion)

    def _draft(self, reading: Reading, priced: Priced, outcome: str, corrects: Sequence[str] | None) -> EntryDraft:
        """Return the measurement, or the correction of ``corrects``; None = it is the first word on the run."""
        decision = self._decision
        before = [] if decision.decision_id is None else [decision.decision_id]
        difference = self._difference(priced)
        extra: dict[str, Any] = {
            "decision_id": decision.decision_id,
            "work_item": decision.request.options.work_item,
            "budget_path": decision.request.options.budget,
            "zone": self._zone,
            "intensity_difference_micrograms": None if difference is None else str(difference),
            "inputs": self._artefacts.inputs(),
            "outputs": self._artefacts.outputs(),
            "parents": [*before, *(corrects or ())],
            "software": software(),
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
        kind = EntryKind.MEASUREMENT if corrects is None else EntryKind.CORRECTION
        return EntryDraft(kind=kind, request_key=decision.request.identity.key, ordinal=0, body=body)

    def _difference(self, priced: Priced) -> int | None:
        """Measured energy x (actual intensity had it started at the first ask - actual); None unless it was moved."""
        decision = self._decision
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
        decision = self._decision
        amounts = self._amounts(reading, priced)
        settle = None
        if decision.lease_epoch is not None or self._runs_unheld():
            settle = {
                "epoch": decision.lease_epoch,
                "energy_millijoules": _text(amounts[Unit.ENERGY]),
                "carbon_micrograms": _text(amounts[Unit.CARBON]),
                "unheld": unheld_body(decision, reading.window.start) if self._runs_unheld() else None,
            }
        try:
            draft = self._draft(reading, priced, outcome, None)
            spool_record(self._components, draft, settle, self._occurrence(outcome))
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


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
