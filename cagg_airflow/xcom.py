"""The two XComs that a gated task leaves: what was decided, and what was used. Plain JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cagg.request import Kind, OnDeny, Purpose
from cagg.verdict import Admit, Decision, Defer, Deny, Review
from cagg.windows import format_instant

if TYPE_CHECKING:
    from cagg.steps.running import RunSummary

__all__ = ["decision_xcom", "group_xcom", "reading_xcom", "summary_line"]


def decision_xcom(decision: Decision) -> dict[str, Any]:
    """Return a decision as the XCom ``carbon_decision``.

    ``verdict`` is admit, defer, deny or review; ``not_validated`` is True for a validation that is left out, which
    gates of a release downstream treat as failed. Instants are UTC, carbon is in micrograms, positive = less later.
    """
    verdict, options = decision.verdict, decision.request.options
    value: dict[str, Any] = {
        "verdict": type(verdict).__name__.lower(),
        "reason": str(verdict.reason),
        "message": verdict.message,
        "decision_id": decision.decision_id,
        "asked_at": format_instant(decision.asked_at),
        "first_asked_at": format_instant(decision.first_asked_at),
        "attempt": decision.request.identity.attempt,
        "zone": options.zone,
        "budget": options.budget,
        "purpose": str(options.resolved_purpose),
        "not_validated": False,
        "until": None,
        "deadline": None,
        "expected_difference_micrograms": None,
        "over_limit": [],
        "notes": list(decision.notes),
    }
    match verdict:
        case Admit():
            value |= {"over_limit": list(verdict.over_limit), "unshifted": verdict.unshifted}
        case Defer():
            value |= {
                "until": format_instant(verdict.until),
                "deadline": format_instant(verdict.deadline),
                "expected_difference_micrograms": verdict.expected_difference_micrograms,
                "over_limit": list(verdict.over_limit),
            }
        case Deny() | Review():
            value["not_validated"] = options.kind == Kind.VALIDATION
            value["skipped"] = options.on_deny == OnDeny.SKIP and options.resolved_purpose is not Purpose.RELEASE
    return value


def reading_xcom(decision: Decision, summary: RunSummary, *, handed_over: bool) -> dict[str, Any]:
    """Return what a run used as the XCom ``carbon_reading``.

    Energy is in millijoules and carbon in micrograms; None with a reason where it is unknown. ``complete`` is False
    when the work left the process early, for example because the operator deferred itself: then the figures are those
    of the part that was metered.
    """
    reading = summary.reading
    return {
        **_used(summary),
        "low_millijoules": None if reading.low is None else reading.low.millijoules,
        "high_millijoules": None if reading.high is None else reading.high.millijoules,
        "grade": None if reading.grade is None else str(reading.grade),
        "carbon_reason": summary.carbon_reason,
        "difference_micrograms": summary.difference_micrograms,
        "started_at": format_instant(reading.window.start),
        "ended_at": format_instant(reading.window.end),
        "complete": not handed_over,
        "decision_id": decision.decision_id,
    }


def group_xcom(summary: RunSummary) -> dict[str, Any]:
    """Return what a group used as the XCom ``carbon_reading`` of its teardown; units as in :func:`reading_xcom`.

    ``charged`` is what each unit's budgets paid, in the ledger's units.
    """
    return {**_used(summary), "charged": {str(unit): amount for unit, amount in summary.charged.items()}}


def _used(summary: RunSummary) -> dict[str, Any]:
    energy, carbon = summary.reading.energy, summary.carbon
    return {
        "energy_millijoules": None if energy is None else energy.millijoules,
        "reason": summary.reading.reason,
        "carbon_micrograms": None if carbon is None else carbon.micrograms,
        "measurement_id": summary.measurement_id,
        "settlement_id": summary.settlement_id,
        "notes": list(summary.notes),
    }


def summary_line(summary: RunSummary) -> str:
    """Return what a run came to, for its log."""
    reading = summary.reading
    energy = f"an unknown energy ({reading.reason})" if reading.energy is None else f"{reading.energy}"
    grade = "" if reading.grade is None else f" (grade {reading.grade})"
    carbon = f"carbon unknown: {summary.carbon_reason}" if summary.carbon is None else f"{summary.carbon}"
    return f"{energy}{grade}, {carbon}"
