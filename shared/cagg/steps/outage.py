"""What happens without the rules (mode off) and without the store: a stated policy, journalled, never silent."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cagg import evidence
from cagg.budget import reservations
from cagg.composition import Components
from cagg.errors import StoreUnavailable
from cagg.folders import private_folder
from cagg.ledger.bodies import request_body
from cagg.records import BudgetMode, EntryDraft, EntryKind, Headroom, ReservationState
from cagg.request import Purpose, Request
from cagg.settings import Mode, OnStoreDown, Settings
from cagg.steps.provenance import software
from cagg.steps.settlements import append_next, record_settlement
from cagg.steps.situation import Situation
from cagg.steps.spooling import spool_record
from cagg.verdict import Admit, Decision, Deny, Reason, Verdict
from cagg.windows import format_instant, to_epoch_ms

__all__ = ["Outage", "policy_body"]

logger = logging.getLogger("cagg")


def policy_body(settings: Settings) -> Mapping[str, Any]:
    """Return the rules in force as ledger values."""
    return {
        "mode": str(settings.mode),
        "materiality_millijoules": str(settings.materiality.millijoules),
        "max_deferrals": settings.max_deferrals,
        "on_store_down": str(settings.on_store_down),
        "pue_ppm": settings.pue_ppm,
    }


class Outage:
    """Decides where the gate's own transaction cannot."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self._enforced: dict[str, bool] = {}

    def bypass(self, request: Request) -> Decision:
        """Mode off: run, unmetered, journalled."""
        now = self._components.clock.now()
        verdict = Admit(reason=Reason.MODE_OFF, message="Runs now: the mode is off, nothing is asked or metered.")
        body = {
            "request": request_body(request),
            "what": "mode off",
            "asked_at": format_instant(now),
            "software": software(),
        }
        draft = EntryDraft(kind=EntryKind.OVERRIDE, request_key=request.identity.key, ordinal=0, body=body)
        entry_id = None
        try:
            with self._components.store.transaction() as tx:
                entry_id = append_next(tx, draft).entry_id
                own = tx.reservation(request.identity.key)
                if own is not None and own.state is ReservationState.WAITING:
                    record_settlement(tx, own, reservations.release(tx, own.request_key), None)
        except StoreUnavailable as error:
            self._spool(draft, str(error))
        return Decision(
            verdict=verdict, request=request, decision_id=entry_id, asked_at=now, first_asked_at=now, metered=False
        )

    def decide(self, situation: Situation, why: str) -> Decision:
        """Apply ``on_store_down`` to a request; the decision waits in the spool."""
        request = situation.request
        verdict = self._verdict(request, why)
        body = {
            "request": request_body(request),
            "ask": 0,
            "asked_at": format_instant(situation.now),
            "policy": policy_body(self._components.settings),
            "options": evidence.options_body(request.options),
            "store_down": True,
            "parents": [] if situation.outer_decision_id is None else [situation.outer_decision_id],
            "software": software(),
            # the full message names the store's address, which may hold a person's name: not for the ledger
            "verdict": {**evidence.verdict_body(verdict), "message": "the store was down"},
        }
        # the store may hold earlier asks of this request that cannot be read now, so this one counts by its instant
        ordinal = to_epoch_ms(situation.now)
        draft = EntryDraft(kind=EntryKind.DECISION, request_key=request.identity.key, ordinal=ordinal, body=body)
        self._spool(draft, why)
        return Decision(
            verdict=verdict,
            request=request,
            decision_id=None,
            asked_at=situation.now,
            first_asked_at=situation.first_asked_at,
            outer_key=situation.outer_key,
        )

    def _verdict(self, request: Request, why: str) -> Verdict:
        settings, purpose = self._components.settings, request.options.resolved_purpose
        runs = (
            purpose is Purpose.MONITOR
            or settings.mode is Mode.OBSERVE
            or (purpose is Purpose.WORK and not self._may_be_enforced(request.options.budget))
            or (purpose is Purpose.WORK and settings.on_store_down is OnStoreDown.RUN)
        )
        if runs:
            return Admit(
                reason=Reason.STORE_DOWN,
                message=f"Runs now, unshifted and without a hold: {why}",
                unshifted=True,
            )
        rule = (
            "a release fails closed"
            if purpose is Purpose.RELEASE
            else 'on_store_down = "deny" applies to work that a budget pays'
        )
        return Deny(reason=Reason.STORE_DOWN, message=f"Not admitted because {rule}: {why}")

    def remember(self, path: str, headrooms: Sequence[Headroom]) -> None:
        """Note beside the store whether a path is enforced, for the time when the store cannot say."""
        enforced = any(item.allotment.budget.mode is BudgetMode.ENFORCE for item in headrooms)
        if self._enforced.get(path) is enforced:
            return
        self._enforced = {**self._read_enforced(), path: enforced}
        file = self._file()
        with suppress(OSError):
            private_folder(file.parent)
            temporary = file.with_name(f".{file.name}.{os.getpid()}")
            temporary.write_text(json.dumps(self._enforced, sort_keys=True), encoding="utf-8")
            temporary.replace(file)

    def _may_be_enforced(self, path: str | None) -> bool:
        """True unless the path is None or was last seen without any enforced budget on it."""
        return path is not None and self._read_enforced().get(path, True)

    def _file(self) -> Path:
        return self._components.settings.home / "enforced-paths.json"

    def _read_enforced(self) -> dict[str, bool]:
        try:
            stored = json.loads(self._file().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(path): bool(value) for path, value in stored.items()} if isinstance(stored, dict) else {}

    def _spool(self, draft: EntryDraft, why: str) -> None:
        try:
            spool_record(self._components, draft, None)
        except StoreUnavailable as error:
            logger.critical("cagg lost a record: %s", error)
        else:
            logger.warning("cagg: the store is down, the record waits in the spool: %s", why)
