"""The least that an entry of each kind must say, for tests that need entries and not what they say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from cagg.entries import EntryKind
from cagg.ledger.events import (
    ApprovalDecision,
    KeyEvent,
    LogEvent,
    ValidationOutcome,
    approval_body,
    key_body,
    log_body,
    occurrence_body,
    override_body,
    redaction_body,
    reservation_body,
    validation_body,
    waiver_body,
)

__all__ = ["LEAST", "reading_body"]

_POINTED_AT = "019b902c-9700-7000-8203-040506070809"
_EXPIRES = datetime(2027, 1, 1, tzinfo=UTC)


def reading_body(
    *, start: str, end: str, energy: str | None, outcome: str | None = "completed", **more: Any
) -> dict[str, Any]:
    """Return the least body of a reading without carbon: one slice of unknown intensity.

    Args:
        start, end: instants in the form of the ledger.
        energy: millijoules as text; None = unknown, hence no slice.
        outcome: how the run ended; None makes a correction of something else than a run, without a reading.
        more: further fields.
    """
    if outcome is None:
        return {"request": {"task_key": "nightly"}, "start": start, "end": end, "outcome": None, "evidence": [], **more}
    piece = {"start": start, "end": end, "energy_millijoules": energy, "intensity_milligrams_per_kwh": None}
    return {
        "request": {"task_key": "nightly"},
        "start": start,
        "end": end,
        "outcome": outcome,
        "energy_millijoules": energy,
        "carbon_micrograms": None,
        "slices": [] if energy is None else [{**piece, "source": ""}],
        **more,
    }


LEAST: Mapping[EntryKind, Mapping[str, Any]] = MappingProxyType(
    {
        EntryKind.DECISION: {"request": {}, "verdict": "admit"},
        EntryKind.MEASUREMENT: reading_body(
            start="2026-01-05T22:00:00.000000Z", end="2026-01-05T23:00:00.000000Z", energy="7"
        ),
        EntryKind.CORRECTION: {"evidence": []},
        EntryKind.INFERENCE: occurrence_body(request={}, outcome="completed", measurements=[_POINTED_AT]),
        EntryKind.REGENERATION: occurrence_body(request={}, outcome="completed", measurements=[_POINTED_AT]),
        EntryKind.VALIDATION: validation_body(
            request={},
            subject=None,
            validator=None,
            tier=None,
            outcome=ValidationOutcome.PASSED,
            measurements=[_POINTED_AT],
        ),
        EntryKind.RESERVATION: reservation_body(
            request=None, budget_path="acme", held=[("carbon", 1)], reason="held by hand"
        ),
        EntryKind.SETTLEMENT: {"outcome": "settled", "measurement_id": None, "charged": {}},
        EntryKind.BUDGET: {
            "budget_path": "acme",
            "unit": "carbon",
            "period": "month",
            "version": 1,
            "limit": "1",
            "mode": "enforce",
        },
        EntryKind.OVERRIDE: override_body(request=None, what="mode off", reason=""),
        EntryKind.WAIVER: waiver_body(owner="ml platform", reason="known", scope="acme", expires_at=_EXPIRES),
        EntryKind.APPROVAL: approval_body(
            subject={"name": "model", "digest": None},
            decision=ApprovalDecision.APPROVED,
            approver="ml platform",
            risk=None,
        ),
        EntryKind.REDACTION: redaction_body(entry_id=_POINTED_AT, field="owner", reason="asked for"),
        EntryKind.KEY: key_body(event=KeyEvent.ANNOUNCED, key="example.org+00000000+AAAA", from_size=0),
        EntryKind.LOG: log_body(event=LogEvent.BEGUN),
    }
)
"""A body of every kind that :func:`cagg.ledger.kinds.check_kind` accepts with an envelope around it."""
