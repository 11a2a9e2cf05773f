"""Bodies of the kinds that say what happened: inference, validation, waiver, approval, key and log events ….

They hold no energy and no carbon; they point to the measurements that do. What each must say is in cagg.ledger.kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from cagg.errors import InvalidInput
from cagg.ledger.encoding import quantity
from cagg.windows import format_instant

__all__ = [
    "ApprovalDecision",
    "KeyEvent",
    "LogEvent",
    "ValidationOutcome",
    "approval_body",
    "key_body",
    "log_body",
    "occurrence_body",
    "override_body",
    "redaction_body",
    "reservation_body",
    "validation_body",
    "waiver_body",
]


class ValidationOutcome(StrEnum):
    """What a check of an artefact came to."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    """it ran and could not tell, for example because it was interrupted"""
    NOT_VALIDATED = "not_validated"
    """it was left out; whoever depends on it treats that as a failure"""


class ApprovalDecision(StrEnum):
    """What a person said."""

    APPROVED = "approved"
    REJECTED = "rejected"


class KeyEvent(StrEnum):
    """What became of a signing key."""

    ANNOUNCED = "announced"
    """its signatures count from a size of the log on"""
    RETIRED = "retired"
    """its signatures count up to a size; what it signed before stays valid"""
    REVOKED = "revoked"
    """it may be in the wrong hands: its signatures count up to a size only, and nobody may trust later ones"""


class LogEvent(StrEnum):
    """What became of a log."""

    BEGUN = "begun"
    FROZEN = "frozen"


# ---- bodies ---------------------------------------------------------------------------------------------------------


def occurrence_body(
    *,
    request: Mapping[str, Any],
    outcome: str,
    measurements: Sequence[str],
    inputs: Iterable[Mapping[str, Any]] = (),
    outputs: Iterable[Mapping[str, Any]] = (),
    work_item: str | None = None,
) -> dict[str, Any]:
    """Return the body of an inference (a model was asked) or a regeneration (an artefact was made once more).

    Args:
        request: what :func:`cagg.ledger.bodies.request_body` returned.
        outcome: completed, failed, interrupted ….
        measurements: ids of the entries that hold what it used.
        inputs, outputs: artefacts as {name, digest, role}; the model is an input of the role ``model``.
        work_item: what it was for; None = not said.
    """
    return {
        "request": dict(request),
        "outcome": outcome,
        "measurements": list(measurements),
        "parents": list(measurements),
        "inputs": [dict(item) for item in inputs],
        "outputs": [dict(item) for item in outputs],
        "work_item": work_item,
    }


def validation_body(
    *,
    request: Mapping[str, Any],
    subject: Mapping[str, Any] | None,
    validator: str | None,
    tier: str | None,
    outcome: ValidationOutcome,
    measurements: Sequence[str],
    inputs: Iterable[Mapping[str, Any]] = (),
    outputs: Iterable[Mapping[str, Any]] = (),
    work_item: str | None = None,
) -> dict[str, Any]:
    """Return the body of a validation: an artefact was checked.

    Args:
        request: what :func:`cagg.ledger.bodies.request_body` returned.
        subject: {name, digest} of what was checked; None = not said.
        validator: which check; None = not said.
        tier: how thoroughly; None = it has no tiers.
        outcome: what it came to.
        measurements: ids of the entries that hold what it used.
        inputs, outputs: artefacts as {name, digest, role}.
        work_item: the change that it is for; None = not said.
    """
    return {
        **occurrence_body(
            request=request,
            outcome=str(outcome),
            measurements=measurements,
            inputs=inputs,
            outputs=outputs,
            work_item=work_item,
        ),
        "subject": None if subject is None else dict(subject),
        "validator": validator,
        "tier": tier,
    }


def reservation_body(
    *, request: Mapping[str, Any] | None, budget_path: str, held: Iterable[tuple[str, int]], reason: str
) -> dict[str, Any]:
    """Return the body of amounts that were held otherwise than by a decision.

    Args:
        request: for whom; None = for nobody in particular.
        budget_path: who pays.
        held: (unit, amount) in the unit's smallest part.
        reason: why there is no decision.
    """
    return {
        "request": None if request is None else dict(request),
        "budget_path": budget_path,
        "held": [{"unit": str(unit), "amount": quantity(amount)} for unit, amount in held],
        "reason": reason,
    }


def override_body(
    *, request: Mapping[str, Any] | None, what: str, reason: str, parents: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the body of what let a run past the rules: ``what`` is mode off, break-glass …; ``reason`` why."""
    return {
        "request": None if request is None else dict(request),
        "what": what,
        "reason": reason,
        "parents": list(parents),
    }


def waiver_body(
    *, owner: str | None, reason: str, scope: str, expires_at: datetime, parents: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the body of a permission to pass a gate.

    Args:
        owner: the role or team that answers for it; None = a person, whose name the draft holds in
            ``private={"owner": …}``: names never stand in a body.
        reason: why.
        scope: what it lets pass.
        expires_at: until when, aware.
        parents: ids of the entries that it refers to, for example the decision that was denied.
    """
    body = {"reason": reason, "scope": scope, "expires_at": format_instant(expires_at), "parents": list(parents)}
    return body if owner is None else {**body, "owner": owner}


def approval_body(
    *,
    subject: Mapping[str, Any],
    decision: ApprovalDecision,
    approver: str | None,
    risk: str | None,
    reason: str = "",
    parents: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the body of a person's yes or no.

    Args:
        subject: {name, digest} of what was approved; the digest is None for what has none, such as a budget.
        decision: approved or rejected.
        approver: a role or team; None = a person, whose name the draft holds in ``private={"approver": …}``.
        risk: risk class of the subject, which decides how long the name is kept; None = it has none.
        reason: what the person gave as the reason.
        parents: ids of the entries that it refers to.
    """
    body = {
        "subject": dict(subject),
        "decision": str(decision),
        "risk": risk,
        "reason": reason,
        "parents": list(parents),
    }
    return body if approver is None else {**body, "approver": approver}


def redaction_body(*, entry_id: str, field: str, reason: str) -> dict[str, Any]:
    """Return the body that says that a personal value was deleted: of which entry, which field, and why."""
    return {"redacted": {"entry_id": entry_id, "field": field}, "reason": reason, "parents": [entry_id]}


def key_body(
    *, event: KeyEvent, key: str, from_size: int, replaces: str | None = None, reason: str | None = None
) -> dict[str, Any]:
    """Return the body of what became of a signing key.

    Args:
        event: announced, retired or revoked.
        key: the verifier key as text.
        from_size: size of the log from which the event holds: an announced key's signatures count from it on, those of
            a retired or revoked one below it only.
        replaces: verifier key whose place it takes; None = none.
        reason: why; None = not said.
    """
    return {"event": str(event), "key": key, "from_size": from_size, "replaces": replaces, "reason": reason}


def log_body(
    *, event: LogEvent, predecessor: tuple[str, int, bytes] | None = None, successor: str | None = None
) -> dict[str, Any]:
    """Return the body of a log's beginning or end.

    Args:
        event: begun or frozen.
        predecessor: (origin, size, root) of the log before it; None = it is the first, or the event is its end.
        successor: name of the log that goes on; None = none yet.

    Raises:
        InvalidInput: the root has not 32 bytes.
    """
    if predecessor is not None and len(predecessor[2]) != 32:
        raise InvalidInput(f"the root of the log before has 32 bytes, got {len(predecessor[2])}.")
    return {
        "event": str(event),
        "predecessor": None
        if predecessor is None
        else {"origin": predecessor[0], "size": predecessor[1], "root": predecessor[2].hex()},
        "successor": successor,
    }
