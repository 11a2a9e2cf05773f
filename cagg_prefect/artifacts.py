"""Say what a run came to: a log line always, a markdown artifact beside gated flow runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
from prefect.artifacts import MarkdownArtifact
from prefect.exceptions import PrefectException

from cagg.quantities import CarbonMass
from cagg.verdict import Decision
from cagg_prefect.compat import run_logger

if TYPE_CHECKING:
    from cagg.steps.running import RunSummary

__all__ = ["markdown", "report"]


def report(decision: Decision, summary: RunSummary, *, artifact: bool) -> None:
    """Log the summary and, when asked for, store it as an artifact; a failure to do so never fails the run."""
    run_logger().info("carbon gate: used %s", _line(summary))
    for note in summary.notes:
        run_logger().info("carbon gate: %s", note)
    if summary.checkpoint:
        run_logger().info("%s", summary.checkpoint)
    if not artifact:
        return
    key = "carbon-" + (re.sub(r"[^a-z0-9]+", "-", decision.request.identity.task_key.lower()).strip("-") or "run")
    try:
        made = MarkdownArtifact(
            key=key, markdown=markdown(decision, summary), description="Energy and carbon of this run"
        )
        made.create(_sync=True)  # type: ignore[call-arg]  # create() is dual; _sync picks the blocking half
    except (httpx.HTTPError, PrefectException, OSError, RuntimeError, ValueError) as problem:
        run_logger().warning("carbon gate: the artifact could not be stored: %s", problem)


def markdown(decision: Decision, summary: RunSummary) -> str:
    """Return the decision and the reading as a small table."""
    reading = summary.reading
    energy = "unknown" if reading.energy is None else str(reading.energy)
    if reading.energy is not None and reading.low is not None and reading.high is not None:
        energy += f" ({reading.low} to {reading.high})"
    rows = [
        ("Decision", f"{type(decision.verdict).__name__}: {decision.verdict.message}"),
        ("Asked", f"{decision.asked_at:%Y-%m-%d %H:%M:%S} UTC, first {decision.first_asked_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Ran", str(reading.window)),
        ("Energy", energy),
        ("Grade", str(reading.grade) if reading.grade is not None else f"none: {reading.reason}"),
        ("Carbon", str(summary.carbon) if summary.carbon is not None else f"unknown: {summary.carbon_reason}"),
        ("Intensity difference", _difference(summary)),
        ("Budget", decision.request.options.budget or "none"),
        ("Zone", decision.request.options.zone or "none"),
        ("Ledger", ", ".join(filter(None, (decision.decision_id, summary.measurement_id, summary.settlement_id)))),
    ]
    lines = ["| | |", "|---|---|"]
    lines += [f"| {name} | {text.replace('|', '&#124;')} |" for name, text in rows]
    return "\n".join(lines) + "\n"


def _line(summary: RunSummary) -> str:
    reading = summary.reading
    energy = f"an unknown energy ({reading.reason})" if reading.energy is None else f"{reading.energy}"
    grade = "" if reading.grade is None else f" (grade {reading.grade})"
    carbon = f"carbon unknown: {summary.carbon_reason}" if summary.carbon is None else f"{summary.carbon}"
    return f"{energy}{grade}, {carbon}"


def _difference(summary: RunSummary) -> str:
    if summary.difference_micrograms is None:
        return "not moved, or unknown"
    mass = CarbonMass(micrograms=abs(summary.difference_micrograms))
    return f"{mass} {'less' if summary.difference_micrograms >= 0 else 'more'} than at the first ask"
