"""What a decision was based on: written into its ledger entry, read back to recompute it.

Quantities stand as decimal strings, instants of the question as whole milliseconds, so that nothing is rounded on
the way. The forecast is a content-addressed blob whose digest stands in the entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from cagg.budget.estimates import Estimate
from cagg.deciding import PLANNER_VERSION, Proposal, Question, conclude, propose, without_reviewer
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.grid.chain import GridAnswer
from cagg.grid.codec import decode_series, encode_series, series_digest
from cagg.intensity import IntensitySeries
from cagg.provenance import Convention
from cagg.quantities import Energy, Power, Unit
from cagg.records import Allotment, Budget, BudgetMode, Headroom, Period
from cagg.request import GateOptions, Purpose
from cagg.settings import Mode
from cagg.verdict import Admit, Defer, Deny, Review, Verdict
from cagg.windows import Window, format_instant, parse_instant, to_milliseconds

__all__ = [
    "Recomputed",
    "budgets_body",
    "convention_body",
    "estimate_body",
    "forecast_body",
    "forecast_digest",
    "options_body",
    "proposal_body",
    "question_body",
    "recompute",
    "verdict_body",
]

_BIG = ("_millijoules", "_micrograms")
_SAID_WHEN_TRUE = {"store_unshared"}
"""Fields that older entries do not have; absent means False."""


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, StrEnum):
        return str(value) if isinstance(value, StrEnum) else value
    if isinstance(value, int) and name.endswith(_BIG):
        return str(value)
    return value


def question_body(question: Question) -> dict[str, Any]:
    """Return a question as ledger values."""
    body = {item.name: _plain(item.name, getattr(question, item.name)) for item in fields(Question)}
    return {name: value for name, value in body.items() if name not in _SAID_WHEN_TRUE or value}


def _question(body: Mapping[str, Any]) -> Question:
    known = [item.name for item in fields(Question) if item.name in body or item.name not in _SAID_WHEN_TRUE]
    values = {name: body[name] for name in known}
    for name in values:
        if name.endswith(_BIG):
            values[name] = int(values[name])
    values["mode"], values["purpose"] = Mode(values["mode"]), Purpose(values["purpose"])
    return Question(**values)


def proposal_body(proposal: Proposal) -> dict[str, Any]:
    """Return a proposal as ledger values; carbon as decimal strings, intensities in mg/kWh."""

    def text(amount: int | None) -> str | None:
        return None if amount is None else str(amount)

    return {
        "reason": str(proposal.reason),
        "start_ms": proposal.start_ms,
        "now_micrograms": text(proposal.now_micrograms),
        "then_micrograms": text(proposal.then_micrograms),
        "now_intensity_milligrams_per_kwh": text(proposal.now_intensity),
        "then_intensity_milligrams_per_kwh": text(proposal.then_intensity),
        "candidates": 0 if proposal.plan is None else proposal.plan.candidates,
        "worst_start_ms": None if proposal.plan is None else proposal.plan.worst_start_ms,
        "searched_until_ms": None if proposal.plan is None else proposal.plan.searched_until_ms,
    }


def budgets_body(headrooms: Sequence[Headroom]) -> list[dict[str, Any]]:
    """Return the budgets on a path, with what was left and what was asked, as ledger values."""
    rows = []
    for item in headrooms:
        allotment, budget = item.allotment, item.allotment.budget
        rows.append(
            {
                "path": budget.path,
                "unit": str(budget.unit),
                "period": str(budget.period),
                "time_zone": budget.time_zone,
                "mode": str(budget.mode),
                "version": budget.version,
                "start": format_instant(allotment.window.start),
                "end": format_instant(allotment.window.end),
                "limit": str(allotment.limit),
                "extra": str(allotment.extra),
                "held": str(allotment.held),
                "spent": str(allotment.spent),
                "overrun": str(allotment.overrun),
                "amount": None if item.amount is None else str(item.amount),
                "assumed_intensity_milligrams_per_kwh": None
                if item.assumed_intensity_milligrams_per_kwh is None
                else str(item.assumed_intensity_milligrams_per_kwh),
            }
        )
    return rows


def _headrooms(rows: Sequence[Mapping[str, Any]]) -> tuple[Headroom, ...]:
    return tuple(
        Headroom(
            allotment=Allotment(
                allotment_id=0,
                budget=Budget(
                    path=row["path"],
                    unit=Unit(row["unit"]),
                    period=Period(row["period"]),
                    time_zone=row["time_zone"],
                    limit=int(row["limit"]),
                    mode=BudgetMode(row["mode"]),
                    version=row["version"],
                ),
                window=Window(start=parse_instant(row["start"]), end=parse_instant(row["end"])),
                limit=int(row["limit"]),
                extra=int(row["extra"]),
                held=int(row["held"]),
                spent=int(row["spent"]),
                overrun=int(row["overrun"]),
            ),
            amount=None if row["amount"] is None else int(row["amount"]),
        )
        for row in rows
    )


def verdict_body(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as ledger values."""
    body: dict[str, Any] = {
        "verdict": type(verdict).__name__.lower(),
        "reason": str(verdict.reason),
        "message": verdict.message,
    }
    match verdict:
        case Admit():
            body |= {"over_limit": list(verdict.over_limit), "unshifted": verdict.unshifted}
        case Defer():
            body |= {
                "until": format_instant(verdict.until),
                "deadline": format_instant(verdict.deadline),
                "window": {"start": format_instant(verdict.window.start), "end": format_instant(verdict.window.end)},
                "expected_difference_micrograms": str(verdict.expected_difference_micrograms),
                "over_limit": list(verdict.over_limit),
            }
        case Review() | Deny():
            pass
    return body


def convention_body(convention: Convention) -> dict[str, str]:
    """Return signal, basis and gas as ledger values."""
    return {"signal": str(convention.signal), "basis": str(convention.basis), "gas": str(convention.gas)}


def forecast_body(answer: GridAnswer) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the steering forecast's provenance and the blob that holds it.

    The body names the blob as ``{"blob": digest}``, the one form in which ``cagg ledger verify`` looks for blobs.
    """
    body: dict[str, Any] = {"quality": str(answer.quality), "steps": list(answer.steps)}
    if answer.series is None:
        return body | {"series": None}, {}
    series = answer.series
    data = encode_series(series)
    digest = series_digest(data)
    body |= {
        "series": {"blob": digest},
        "zone": str(series.zone),
        "source": series.source,
        "kind": str(series.kind),
        "convention": convention_body(series.convention),
        "issued_at": None if series.issued_at is None else format_instant(series.issued_at),
        "fetched_at": format_instant(series.fetched_at),
        "licence": series.licence,
    }
    return body, {digest: data}


def forecast_digest(body: Mapping[str, Any]) -> str | None:
    """Return the digest of the forecast that a decision's body names; None when it was made without one.

    Raises:
        LedgerDamaged: the body says neither.
    """
    try:
        series = body["forecast"]["series"]
        return None if series is None else str(series["blob"])
    except (KeyError, TypeError):
        raise LedgerDamaged("the decision does not say which forecast it rests on; run 'cagg ledger verify'.") from None


def estimate_body(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate with its method as ledger values."""
    return {
        "method": str(estimate.method),
        "sample_size": estimate.sample_size,
        "note": estimate.note,
        "expected_energy_millijoules": str(estimate.expected_energy.millijoules),
        "upper_energy_millijoules": str(estimate.upper_energy.millijoules),
        "expected_duration_ms": to_milliseconds(estimate.expected_duration),
        "upper_duration_ms": to_milliseconds(estimate.upper_duration),
    }


def options_body(options: GateOptions) -> dict[str, Any]:
    """Return the options as they stood after merging, as ledger values."""
    body: dict[str, Any] = {}
    for item in fields(GateOptions):
        value = getattr(options, item.name)
        if value is None:
            continue
        match value:
            case Energy():
                body[f"{item.name}_millijoules"] = str(value.millijoules)
            case Power():
                body[f"{item.name}_milliwatts"] = str(value.milliwatts)
            case bool() | str():
                body[item.name] = value if isinstance(value, bool) else str(value)
            case float():
                body[f"{item.name}_ppm"] = round(value * 1_000_000)
            case _ if hasattr(value, "total_seconds"):
                body[f"{item.name}_ms"] = to_milliseconds(value)
            case _:
                body[item.name] = format_instant(value)
    return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """A decision's stored verdict beside the one that its inputs give today.

    Attributes:
        stored, again: verdicts as ledger values.
        same: True when they are equal.
        planner: version that decided.
    """

    stored: Mapping[str, Any]
    again: Mapping[str, Any]
    planner: str

    @property
    def same(self) -> bool:
        """True when the stored verdict follows from the stored inputs."""
        return dict(self.stored) == dict(self.again)


def recompute(body: Mapping[str, Any], series_data: bytes | None) -> Recomputed:
    """Decide again from a decision entry's own evidence.

    Args:
        body: decoded body of a decision entry.
        series_data: the forecast blob that the body names; None when it names none.

    Raises:
        LedgerDamaged: the blob does not have the digest that the entry names, or evidence is missing.
        InvalidInput: the decision was made by a planner that this version does not know.
    """
    if body["planner"] != PLANNER_VERSION:
        raise InvalidInput(f"the decision was made by planner {body['planner']}; this version knows {PLANNER_VERSION}.")
    digest = forecast_digest(body)
    series: IntensitySeries | None = None
    if digest is not None:
        if series_data is None or series_digest(series_data) != digest:
            raise LedgerDamaged(f"the forecast {digest[:16]}… that the decision names is missing or was changed.")
        series = decode_series(series_data)
    question = _question(body["question"])
    proposal = propose(question, series)
    at_plan, at_now = _headrooms(body["budgets"]), _headrooms(body["budgets_now"])
    verdict = without_reviewer(conclude(question, proposal, at_plan, at_now))
    return Recomputed(stored=body["verdict"], again=verdict_body(verdict), planner=PLANNER_VERSION)
