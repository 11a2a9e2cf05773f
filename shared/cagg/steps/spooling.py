"""Puts records aside while the store is down, and brings them in later: entries first, then what they settle."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from cagg.budget import reservations
from cagg.composition import Components
from cagg.errors import BudgetUnknown, LedgerDamaged, ReservationConflict
from cagg.ports import Transaction
from cagg.quantities import CarbonMass, Energy
from cagg.records import EntryDraft, EntryKind, Reservation, ReservationState, Settlement
from cagg.spool import SpoolReport
from cagg.steps.provenance import append_occurrence
from cagg.steps.settlements import amounts_of, append_next, record_settlement, unheld_reservation, who_pays
from cagg.windows import format_instant, parse_instant, to_epoch_us

__all__ = ["replay_spool", "spool_record"]

_LATE = (ReservationState.EXPIRED, ReservationState.LATE_SETTLED)


def spool_record(
    components: Components,
    draft: EntryDraft,
    settle: Mapping[str, Any] | None,
    occurrence: Mapping[str, Any] | None = None,
) -> None:
    """Write one record to the spool.

    Args:
        components: where the spool is.
        draft: the entry to append later; it gets a name of its own, so that a replay is recognised as such.
        settle: what to settle with it; None = nothing.
        occurrence: what else happened, which the entry after it says; None = nothing.

    Raises:
        StoreUnavailable: the spool cannot be written either.
    """
    now = components.clock.now()
    body = {**draft.body, "spooled_at": format_instant(now), "spool_id": secrets.token_hex(8)}
    record = {
        "kind": str(draft.kind),
        "request_key": draft.request_key,
        "ordinal": draft.ordinal,
        "body": body,
        "settle": settle,
        "occurrence": occurrence,
        **({"private": dict(draft.private)} if draft.private else {}),  # the file is its owner's alone, and goes
    }
    components.spool.put(record, order=to_epoch_us(now))


def replay_spool(components: Components) -> SpoolReport:
    """Replay everything that waits; records that cannot be replayed are set aside and reported.

    A record that was replayed before, by a process that died before it could remove the file, changes nothing.
    """

    def apply(record: Mapping[str, Any]) -> None:
        kind, key, body = EntryKind(record["kind"]), str(record["request_key"]), record["body"]
        if not isinstance(body, dict):
            raise LedgerDamaged("the spooled body is not a JSON object.")
        with components.store.transaction() as tx:
            settle = record.get("settle")
            reservation = tx.reservation(key) if settle is not None else None
            if reservation is not None and reservation.state in _LATE and kind is EntryKind.MEASUREMENT:
                kind = EntryKind.CORRECTION
            private = record.get("private", {})
            draft = EntryDraft(kind=kind, request_key=key, ordinal=int(record["ordinal"]), body=body, private=private)
            entry = append_next(tx, draft)
            if (occurrence := record.get("occurrence")) is not None:
                append_occurrence(tx, key, occurrence, entry.entry_id)
            if settle is None:
                return
            try:
                reservation, settlement = _settle(tx, key, settle, reservation, components.settings.pue_ppm)
            except (ReservationConflict, BudgetUnknown):
                return  # somebody else settled it meanwhile, or nobody can pay; the measurement stands in the ledger
            record_settlement(tx, reservation, settlement, entry.entry_id)

    return components.spool.replay(apply)


def _settle(
    tx: Transaction, key: str, settle: Mapping[str, Any], reservation: Reservation | None, pue_ppm: int | None
) -> tuple[Reservation, Settlement]:
    energy, carbon = settle["energy_millijoules"], settle["carbon_micrograms"]
    amounts = amounts_of(
        energy=None if energy is None else Energy(millijoules=int(energy)),
        carbon=None if carbon is None else CarbonMass(micrograms=int(carbon)),
    )
    if settle["unheld"] is not None:
        unheld = unheld_reservation(settle["unheld"], key)
        at = parse_instant(settle["unheld"]["started_at"])
        return who_pays(reservation, unheld), reservations.charge_unheld(tx, unheld, amounts, at=at, pue_ppm=pue_ppm)
    if reservation is None:
        raise ReservationConflict(f"request {key[:12]} has no reservation; its measurement stands without a charge.")
    return reservation, reservations.settle(tx, key, int(settle["epoch"]), amounts, pue_ppm=pue_ppm)
