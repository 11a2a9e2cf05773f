"""``cagg doctor``: what works here, what does not, and what to do about it; with the origin of every setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._output import Json, answer, columns, line
from cagg.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.cli._checks import Finding

__all__ = ["doctor"]

_MARKS = {"ok": ("✓", "ok", "green"), "note": ("•", "--", "yellow"), "problem": ("✗", "!!", "red")}


def doctor(
    *,
    online: Annotated[bool, typer.Option("--online", help="Also ask the grid's live sources.")] = False,
    json: Json = False,
) -> int:
    """Check settings, store, meter, grid and engines. Exit status 1 when something is wrong."""
    from cagg.cli._checks import Finding, Level, examine, settings_rows
    from cagg.cli._context import components

    settings: list[Any] = []
    try:
        parts = components()
    except ConfigurationError as error:
        findings = [Finding(topic="settings", level=Level.PROBLEM, text=str(error))]
    else:
        settings = list(settings_rows(parts.settings))
        findings = list(examine(parts, online=online))
    wrong = [item for item in findings if item.level is Level.PROBLEM]
    document = {
        "healthy": not wrong,
        "findings": [
            {"topic": item.topic, "level": str(item.level), "text": item.text, "remedy": item.remedy}
            for item in findings
        ],
        "settings": settings,
    }

    def people(to: Console) -> None:
        _print(to, findings, settings)
        line(to)
        if wrong:
            line(to, f"{len(wrong)} {'problem' if len(wrong) == 1 else 'problems'} found.", style="bold red")
        else:
            line(to, "Nothing is wrong.", style="bold green")

    return answer(document, people, json=json, status=1 if wrong else 0)


def _print(to: Console, findings: list[Finding], settings: list[Any]) -> None:
    rows, styles = [], []
    for item in findings:
        pretty, plain, style = _MARKS[str(item.level)]
        text = f"{item.text.rstrip('.')}; {item.remedy}" if item.remedy else item.text
        rows.append((plain if to.options.ascii_only else pretty, item.topic, text))
        styles.append(style)
    columns(to, rows, styles=styles)
    stated = [row for row in settings if row["origin"] != "default"]
    line(to)
    line(to, f"Settings that differ from the defaults ({len(settings) - len(stated)} others; --json lists all):")
    if stated:
        columns(to, [(f"  {row['key']}", row["value"], row["origin"]) for row in stated])
    else:
        line(to, "  none")
