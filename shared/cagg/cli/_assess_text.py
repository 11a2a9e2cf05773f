"""An assessment in a terminal: a table of the pipelines, what it rests on, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from cagg.assessment.figures import PROVENANCE, Assessment, PipelineFigures
from cagg.cli._output import line
from cagg.windows import format_duration

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["tell"]

_MOST_OTHERS = 10


def tell(to: Console, found: Assessment, snippet: str, *, written: Sequence[str] = ()) -> None:
    """Print the assessment and which files were written; the last line says what to do next."""
    totals = found.totals
    days = max(1, round(found.window.duration / timedelta(days=1)))
    line(
        to,
        f"{found.host}, {days} {'day' if days == 1 else 'days'}: {totals.runs:,} pipeline runs, {totals.attempts:,} "
        f"attempts, {hours(totals.busy)} of work",
        style="bold",
    )
    carbon = f"; carbon {totals.carbon}" if totals.carbon is not None else "; carbon unknown"
    line(to, f"Energy {totals.energy}{carbon} ({PROVENANCE}, nothing was measured)")
    if totals.failed_attempts:
        line(
            to,
            f"Failed, retried or cancelled: {totals.failed_attempts:,} of the attempts, {totals.wasted} of that energy",
        )
    if totals.deferrable_share is not None:
        line(to, f"Deferrable: {totals.deferrable_share} of the energy, waiting at most {hours(found.max_wait)}")
    if totals.difference is not None and totals.difference.high.micrograms:
        line(to, f"Intensity difference of the best moves: {totals.difference}, in hindsight; no emission avoided yet")
    line(to)
    _table(to, found)
    line(to)
    _basis(to, found)
    for path in written:
        line(to, f"Written: {path}")
    line(to)
    _next(to, found, snippet)


def hours(span: timedelta) -> str:
    """Return a long time as people read it: whole hours from ten on."""
    whole = span % timedelta(hours=1) == timedelta(0) and span > timedelta(0)
    if whole or span >= timedelta(hours=10):
        return f"{span / timedelta(hours=1):,.0f} h"
    return format_duration(span)


def _table(to: Console, found: Assessment) -> None:
    from rich.box import ASCII, SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=ASCII if to.options.ascii_only else SIMPLE, pad_edge=False, header_style="bold")
    table.add_column("pipeline", overflow="fold")
    for name in ("runs", "hours", "energy", "carbon", "deferrable", "difference", "wasted"):
        table.add_column(name, justify="right")
    few = found.few
    others = [item for item in found.pipelines if not item.matters]
    for item in (*few, *others[:_MOST_OTHERS]):
        table.add_row(*(Text(cell) for cell in _cells(item)), style="" if item.matters else "dim")
    to.print(table)
    line(to, f"{len(few)} of {len(found.pipelines)} pipelines make up 80 % of the energy", style="bold")
    if len(others) > _MOST_OTHERS:
        line(to, f"{len(others) - _MOST_OTHERS} small ones are not shown; --csv and --json have all", style="dim")


def _cells(item: PipelineFigures) -> tuple[str, ...]:
    wasted = f"{100 * item.wasted.high.millijoules / max(1, item.energy.high.millijoules):.0f} %"
    return (
        item.name,
        f"{item.runs:,}",
        f"{item.busy / timedelta(hours=1):,.1f}",
        str(item.energy),
        "unknown" if item.carbon is None else str(item.carbon),
        "-" if item.deferrable_share is None else str(item.deferrable_share),
        "unknown" if item.difference is None else str(item.difference),
        wasted,
    )


def _basis(to: Console, found: Assessment) -> None:
    reasons = dict.fromkeys(item.carbon_reason for item in found.pipelines if item.carbon_reason)
    reasons |= dict.fromkeys(item.difference_reason for item in found.pipelines if item.difference_reason)
    rows = [
        f"Power: {found.power}.",
        f"Carbon: {found.carbon_source}." if found.carbon_source else "",
        f"PUE {found.pue_ppm / 1e6:g} is applied to carbon." if found.pue_ppm is not None else "",
        f"Difference: {found.difference_source}; each run at its best half hour before the next one is due, an upper "
        "bound for any plan."
        if found.difference_source
        else "",
        f"Deferrable: scheduled runs with at least half an hour of slack that use {found.materiality} or more.",
        *(f"Unknown: {reason}." for reason in reasons),
        *(f"Note: {note}." for note in found.notes),
    ]
    for row in filter(None, rows):
        line(to, row, style="dim")


def _next(to: Console, found: Assessment, snippet: str) -> None:
    from rich.text import Text

    if not found.first:
        line(to, "Nothing here is worth waiting for by these assumptions.")
        line(
            to,
            "Next: state --power or a longer --max-wait, or gate one pipeline without a deadline: it is metered, and "
            "replaces the assumptions.",
            style="bold",
        )
        return
    names = ", ".join(item.name for item in found.first)
    for part in snippet.splitlines():
        to.print(Text(f"    {part.rstrip()}"), soft_wrap=True)  # code: never wrapped
    line(to, f"Next: gate {names} first, in observe mode, as above.", style="bold")
