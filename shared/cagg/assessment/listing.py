"""An assessment as one JSON document and as CSV rows. Every figure carries its unit in its name."""

from __future__ import annotations

import csv
import io
from typing import Any

from cagg.assessment.figures import PROVENANCE, Assessment, CarbonRange, EnergyRange, PipelineFigures, ShareRange
from cagg.windows import format_instant

__all__ = ["CSV_COLUMNS", "csv_text", "document"]

CSV_COLUMNS = (
    "pipeline",
    "schedule",
    "matters",
    "runs",
    "scheduled_runs",
    "attempts",
    "failed_attempts",
    "busy_hours",
    "energy_low_wh",
    "energy_high_wh",
    "wasted_low_wh",
    "wasted_high_wh",
    "carbon_low_g",
    "carbon_high_g",
    "deferrable_share_low",
    "deferrable_share_high",
    "slack_hours",
    "intensity_difference_low_g",
    "intensity_difference_high_g",
    "provenance",
    "carbon_source",
    "difference_source",
    "notes",
)
"""Columns of the CSV file; unknown figures are empty, with the reason among the notes."""


def document(found: Assessment) -> dict[str, Any]:
    """Return the assessment as one JSON document; integers of the smallest unit, null where nothing is known."""
    totals = found.totals
    return {
        "host": found.host,
        "since": found.window.start,
        "until": found.window.end,
        "zone": found.zone,
        "provenance": PROVENANCE,
        "power": found.power,
        "carbon_source": found.carbon_source or None,
        "difference_source": found.difference_source or None,
        "pue_ppm": found.pue_ppm,
        "materiality_millijoules": found.materiality.millijoules,
        "max_wait_seconds": found.max_wait.total_seconds(),
        "totals": {
            "runs": totals.runs,
            "attempts": totals.attempts,
            "failed_attempts": totals.failed_attempts,
            "busy_seconds": totals.busy.total_seconds(),
            "energy_millijoules": _energy(totals.energy),
            "wasted_millijoules": _energy(totals.wasted),
            "carbon_micrograms": _carbon(totals.carbon),
            "deferrable_millijoules": _energy(totals.deferrable),
            "deferrable_share_ppm": _share(totals.deferrable_share),
            "intensity_difference_micrograms": _carbon(totals.difference),
        },
        "few": [item.name for item in found.few],
        "gate_first": [item.name for item in found.first],
        "pipelines": [_pipeline(item) for item in found.pipelines],
        "notes": list(found.notes),
    }


def _pipeline(item: PipelineFigures) -> dict[str, Any]:
    return {
        "pipeline": item.name,
        "schedule": item.schedule or None,
        "active": item.active,
        "matters": item.matters,
        "runs": item.runs,
        "scheduled_runs": item.scheduled_runs,
        "attempts": item.attempts,
        "failed_attempts": item.failed_attempts,
        "busy_seconds": item.busy.total_seconds(),
        "energy_millijoules": _energy(item.energy),
        "wasted_millijoules": _energy(item.wasted),
        "carbon_micrograms": _carbon(item.carbon),
        "carbon_reason": item.carbon_reason or None,
        "deferrable_millijoules": _energy(item.deferrable),
        "deferrable_share_ppm": _share(item.deferrable_share),
        "slack_seconds": None if item.slack is None else item.slack.total_seconds(),
        "intensity_difference_micrograms": _carbon(item.difference),
        "intensity_difference_reason": item.difference_reason or None,
        "notes": list(item.notes),
    }


def _energy(value: EnergyRange) -> dict[str, int]:
    return {"low": value.low.millijoules, "high": value.high.millijoules}


def _carbon(value: CarbonRange | None) -> dict[str, int] | None:
    return None if value is None else {"low": value.low.micrograms, "high": value.high.micrograms}


def _share(value: ShareRange | None) -> dict[str, int] | None:
    return None if value is None else {"low": value.low_ppm, "high": value.high_ppm}


# ---- CSV ----------------------------------------------------------------------------------------------------------


def csv_text(found: Assessment) -> str:
    """Return the pipelines as CSV (RFC 4180) with a header; each row says how its figures came about."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for item in found.pipelines:
        writer.writerow(_row(item, found))
    return text.getvalue()


def _row(item: PipelineFigures, found: Assessment) -> list[str]:
    carbon, difference, share = item.carbon, item.difference, item.deferrable_share
    reasons = [
        f"carbon unknown: {item.carbon_reason}" if item.carbon_reason else "",
        f"difference unknown: {item.difference_reason}" if item.difference_reason else "",
    ]
    return [
        _safe(item.name),
        _safe(item.schedule),
        "yes" if item.matters else "no",
        str(item.runs),
        str(item.scheduled_runs),
        str(item.attempts),
        str(item.failed_attempts),
        f"{item.busy.total_seconds() / 3_600:.3f}",
        *(f"{energy.millijoules / 3_600_000:.3f}" for energy in (item.energy.low, item.energy.high)),
        *(f"{energy.millijoules / 3_600_000:.3f}" for energy in (item.wasted.low, item.wasted.high)),
        *_masses(carbon),
        *(("", "") if share is None else (f"{share.low_ppm / 1e6:.3f}", f"{share.high_ppm / 1e6:.3f}")),
        "" if item.slack is None else f"{item.slack.total_seconds() / 3_600:.2f}",
        *_masses(difference),
        f"{PROVENANCE}, {format_instant(found.window.start)} to {format_instant(found.window.end)}",
        found.carbon_source,
        found.difference_source,
        "; ".join(filter(None, (*item.notes, *reasons))),
    ]


def _masses(value: CarbonRange | None) -> tuple[str, str]:
    if value is None:
        return "", ""
    return f"{value.low.micrograms / 1e6:.3f}", f"{value.high.micrograms / 1e6:.3f}"


def _safe(text: str) -> str:
    """A cell that a spreadsheet takes for text: names that begin like a formula get an apostrophe (OWASP, "CSV
    Injection")."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
