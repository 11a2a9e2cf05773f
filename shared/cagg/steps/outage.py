"""What happens without the rules (mode off) and without the store: a stated policy, journalled, never silent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cagg import evidence
from cagg.composition import Components
from cagg.errors import StoreUnavailable
from cagg.ledger.bodies import request_body
from cagg.ledger.entry import append, idempotency_key
from cagg.records import EntryDraft, EntryKind
from cagg.request import Purpose, Request
from cagg.settings import Mode, OnStoreDown, Settings
from cagg.steps.situation import Situation
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

    def bypass(self, request: Request) -> Decision:
        """Mode off: run, unmetered, journalled."""
        now = self._components.clock.now()
        verdict = Admit(reason=Reason.MODE_OFF, message="Runs now: the mode is off, nothing is asked or metered.")
        body = {"request": request_body(request), "what": "mode off", "asked_at": format_instant(now)}
        draft = EntryDraft(kind=EntryKind.OVERRIDE, request_key=request.identity.key, ordinal=0, body=body)
        entry_id = None
        try:
            with self._components.store.transaction() as tx:
                ordinal = 0
                while tx.entry_by_key(idempotency_key(EntryKind.OVERRIDE, request.identity.key, ordinal)) is not None:
                    ordinal += 1
                entry_id = append(tx, replace(draft, ordinal=ordinal)).entry_id
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
            "store_down": why,
            "verdict": evidence.verdict_body(verdict),
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
            or (purpose is Purpose.WORK and request.options.budget is None)
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

    def _spool(self, draft: EntryDraft, why: str) -> None:
        record = {
            "kind": str(draft.kind),
            "request_key": draft.request_key,
            "ordinal": draft.ordinal,
            "body": {**draft.body, "spooled_at": format_instant(self._components.clock.now())},
            "settle": None,
        }
        try:
            self._components.spool.put(record, order=to_epoch_ms(self._components.clock.now()) * 1_000)
        except StoreUnavailable as error:
            logger.critical("cagg lost a record: %s", error)
        else:
            logger.warning("cagg: the store is down, the record waits in the spool: %s", why)
