"""Brings spooled records into the store: entries first, then what they settle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cagg.budget import reservations
from cagg.composition import Components
from cagg.errors import LedgerDamaged, ReservationConflict
from cagg.ledger.entry import append
from cagg.quantities import CarbonMass, Energy
from cagg.records import EntryDraft, EntryKind, ReservationState
from cagg.spool import SpoolReport
from cagg.steps.settlements import amounts_of, record_settlement

__all__ = ["replay_spool"]


def replay_spool(components: Components) -> SpoolReport:
    """Replay everything that waits; records that cannot be replayed are set aside and reported."""

    def apply(record: Mapping[str, Any]) -> None:
        kind, key = EntryKind(record["kind"]), str(record["request_key"])
        body = record["body"]
        if not isinstance(body, dict):
            raise LedgerDamaged("the spooled body is not a JSON object.")
        with components.store.transaction() as tx:
            settle = record.get("settle")
            reservation = tx.reservation(key) if settle is not None else None
            late = reservation is not None and reservation.state is ReservationState.EXPIRED
            if late and kind is EntryKind.MEASUREMENT:
                kind = EntryKind.CORRECTION
            entry = append(tx, EntryDraft(kind=kind, request_key=key, ordinal=int(record["ordinal"]), body=body))
            if settle is None or reservation is None:
                return
            energy, carbon = settle["energy_millijoules"], settle["carbon_micrograms"]
            amounts = amounts_of(
                energy=None if energy is None else Energy(millijoules=int(energy)),
                carbon=None if carbon is None else CarbonMass(micrograms=int(carbon)),
            )
            try:
                settlement = reservations.settle(tx, key, int(settle["epoch"]), amounts)
            except ReservationConflict:
                return  # somebody else settled it meanwhile; the measurement stands in the ledger
            record_settlement(tx, reservation, settlement, entry.entry_id)

    return components.spool.replay(apply)
