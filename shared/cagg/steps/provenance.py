"""What entries say about where they come from: the entries before them, and what a run read, made and came to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cagg.artefacts import Artefacts
from cagg.entries import Entry, EntryDraft, EntryKind
from cagg.errors import InvalidInput
from cagg.ledger.bodies import clean_text, request_body
from cagg.ledger.entry import idempotency_key
from cagg.ledger.events import ValidationOutcome, occurrence_body, validation_body
from cagg.ledger.lineage import entries_of_all_logs
from cagg.ports import Transaction
from cagg.request import Kind, Request
from cagg.software import software_body
from cagg.steps.settlements import append_next
from cagg.verdict import Decision

__all__ = [
    "Conclusion",
    "append_occurrence",
    "append_unvalidated",
    "before",
    "first_measurement",
    "newest_decision",
    "occurrence_of",
    "software",
]

_SUBJECT = "subject"
"""Role of the input that a validation checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What the code of a validation says it came to.

    Attributes:
        outcome: passed, failed, inconclusive or not_validated.
        validator: which check; None = the task.
        tier: how thoroughly; None = it has no tiers.
    """

    outcome: ValidationOutcome
    validator: str | None = None
    tier: str | None = None

    @classmethod
    def of(cls, outcome: str, validator: str | None, tier: str | None) -> Conclusion:
        """Return a conclusion; raises InvalidInput for an unknown outcome, or for what is no text."""
        for name, value in (("validator", validator), ("tier", tier)):
            if value is not None and not isinstance(value, str):
                raise InvalidInput(f"the {name} of a validation must be text, got {value!r}.")
        try:
            return cls(outcome=ValidationOutcome(outcome), validator=validator, tier=tier)
        except ValueError:
            known = ", ".join(ValidationOutcome)
            raise InvalidInput(f"a validation cannot end {outcome!r}; use one of {known}.") from None


def software() -> dict[str, Any]:
    """Return image and library versions of this process as ledger values."""
    return software_body(os.environ)


# ---- the entries before ---------------------------------------------------------------------------------------------


def newest_decision(tx: Transaction, request_key: str) -> Entry | None:
    """Return the newest decision on a request; None when there is none."""
    found = entries_of_all_logs(tx, kind=EntryKind.DECISION, request_key=request_key, newest_first=True, limit=1)
    return next(found, None)


def before(
    tx: Transaction, outer_decision_id: str | None, outer_key: str | None, request: Request, asks: int
) -> list[str]:
    """Return the ids of the decisions before an ask: on the run around it, and the last one on the same request.

    Args:
        tx: open transaction.
        outer_decision_id: decision on the run around it in this process; None = it is in another one, or there is none.
        outer_key: request key of the outermost run around it; None = there is none.
        request: what is asked.
        asks: how often it was asked already.
    """
    found = []
    if outer_decision_id is not None:
        found.append(outer_decision_id)
    elif outer_key is not None and (outer := newest_decision(tx, outer_key)) is not None:
        found.append(outer.entry_id)
    if asks > 0:
        last = tx.entry_by_key(idempotency_key(EntryKind.DECISION, request.identity.key, asks - 1))
        found.extend([] if last is None else [last.entry_id])
    return found


def first_measurement(tx: Transaction, request_key: str) -> list[str]:
    """Return the id of a request's first measurement, which a later word on the same run corrects; none without one."""
    found = tx.entry_by_key(idempotency_key(EntryKind.MEASUREMENT, request_key, 0))
    return [] if found is None else [found.entry_id]


# ---- what happened --------------------------------------------------------------------------------------------------


def occurrence_of(
    decision: Decision, outcome: str, artefacts: Artefacts, conclusion: Conclusion | None
) -> dict[str, Any] | None:
    """Return what a run's kind wants recorded beside its measurement, as JSON values; None for the other kinds.

    A validation that says nothing passed when its block ended, failed when it raised, and is inconclusive when it was
    interrupted.

    Args:
        decision: the admission.
        outcome: how the run ended: completed, failed, interrupted.
        artefacts: what it read and made.
        conclusion: what its code said; None = nothing.
    """
    options = decision.request.options
    said: dict[str, Any] = {
        "request": request_body(decision.request),
        "measurements": [],
        "inputs": artefacts.inputs(),
        "outputs": artefacts.outputs(),
        "work_item": None if options.work_item is None else clean_text(options.work_item),
    }
    match options.kind:
        case Kind.INFERENCE:
            return {"kind": str(EntryKind.INFERENCE), "body": occurrence_body(outcome=outcome, **said)}
        case Kind.REGENERATION:
            return {"kind": str(EntryKind.REGENERATION), "body": occurrence_body(outcome=outcome, **said)}
        case Kind.VALIDATION:
            body = validation_body(
                subject=_subject(said["inputs"]),
                validator=clean_text((conclusion and conclusion.validator) or decision.request.identity.task_key),
                tier=None if conclusion is None or conclusion.tier is None else clean_text(conclusion.tier),
                outcome=_validated(outcome) if conclusion is None else conclusion.outcome,
                **said,
            )
            return {"kind": str(EntryKind.VALIDATION), "body": {**body, "ended": outcome}}
        case _:
            return None


def append_occurrence(tx: Transaction, request_key: str, said: Mapping[str, Any], measurement_id: str) -> Entry:
    """Append what :func:`occurrence_of` returned, pointing to the measurement."""
    body = {**said["body"], "measurements": [measurement_id], "parents": [measurement_id]}
    return append_next(tx, EntryDraft(kind=EntryKind(said["kind"]), request_key=request_key, ordinal=0, body=body))


def append_unvalidated(tx: Transaction, request: Request, decision_id: str) -> None:
    """Append that a validation was refused and did not run: whoever depends on it treats that as a failure.

    Nothing is appended for work of another kind.
    """
    if request.options.kind != Kind.VALIDATION:
        return
    work_item = request.options.work_item
    body = validation_body(
        request=request_body(request),
        subject=None,
        validator=clean_text(request.identity.task_key),
        tier=None,
        outcome=ValidationOutcome.NOT_VALIDATED,
        measurements=[],
        work_item=None if work_item is None else clean_text(work_item),
    )
    key = request.identity.key
    body |= {"parents": [decision_id], "ended": None}
    append_next(tx, EntryDraft(kind=EntryKind.VALIDATION, request_key=key, ordinal=0, body=body))


def _subject(inputs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the only input of the role ``subject``, or the only model; None when nobody can tell which it was."""
    for role in (_SUBJECT, "model"):
        found = [item for item in inputs if item["role"] == role]
        if len(found) == 1:
            return {"name": found[0]["name"], "digest": found[0]["digest"]}
    return None


def _validated(outcome: str) -> ValidationOutcome:
    match outcome:
        case "completed":
            return ValidationOutcome.PASSED
        case "failed":
            return ValidationOutcome.FAILED
        case _:
            return ValidationOutcome.INCONCLUSIVE
