"""An assessment as one self-contained page: no script, no font, no picture from elsewhere; everything is escaped."""

from __future__ import annotations

from datetime import timedelta
from html import escape

from cagg.assessment.figures import PROVENANCE, Assessment, PipelineFigures
from cagg.windows import format_duration

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2421; --soft: #5d6b66; --line: #d9e0dc; --paper: #fbfcfb; --bar: #2f7d5b;
  --light: #a9d3c0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ece9; --soft: #9fada7; --line: #33403b; --paper: #141917;
  --bar: #4fae86; --light: #2c5a47; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; padding: 2rem;
  max-width: 72rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem; margin: 1.5rem 0; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 10rem; }
tr.small td { color: var(--soft); } pre { background: color-mix(in srgb, var(--line) 40%, transparent); padding: 1rem;
  overflow-x: auto; border-radius: .4rem; } svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
"""

_BAR_HEIGHT = 26
_MOST_BARS = 12
_NAME_WIDTH, _WIDTH = 260, 900


def page(found: Assessment, snippet: str) -> str:
    """Return the page as HTML text in UTF-8.

    Args:
        found: the assessment.
        snippet: lines that gate the first pipeline; empty = there is none to gate.
    """
    title = f"{found.host}: {found.window.start:%Y-%m-%d} to {found.window.end:%Y-%m-%d}"
    body = "\n".join(
        (
            f"<h1>{_text(title)}</h1>",
            f'<p class="soft">Energy and carbon of past runs, {PROVENANCE}. Nothing was measured.</p>',
            _summary(found),
            f"<h2>{_few(found)}</h2>",
            _chart(found),
            _next(found, snippet),
            "<h2>All pipelines</h2>",
            _table(found),
            "<h2>What this rests on</h2>",
            _basis(found),
        )
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Escape for text and attributes; characters that no page may hold become a mark."""
    clean = "".join(
        character if character.isprintable() or character in "\n\t" else "\ufffd" for character in str(value)
    )
    return escape(clean.encode("utf-8", "replace").decode("utf-8"), quote=True)


def _hours(span: timedelta) -> str:
    return f"{span / timedelta(hours=1):,.1f}"


def _summary(found: Assessment) -> str:
    totals = found.totals
    rows = [
        ("Pipeline runs", f"{totals.runs:,}"),
        ("Work", f"{_hours(totals.busy)} h in {totals.attempts:,} attempts"),
        ("Energy", str(totals.energy)),
        ("Carbon", "unknown" if totals.carbon is None else str(totals.carbon)),
        ("Deferrable", "none" if totals.deferrable_share is None else f"{totals.deferrable_share} of the energy"),
        ("Difference of the best moves", "unknown" if totals.difference is None else str(totals.difference)),
        ("Failed or retried", f"{totals.failed_attempts:,} attempts, {totals.wasted}"),
    ]
    return "<dl>" + "".join(f"<div><dt>{_text(a)}</dt><dd>{_text(b)}</dd></div>" for a, b in rows) + "</dl>"


def _few(found: Assessment) -> str:
    few, every = len(found.few), len(found.pipelines)
    return f"{few} of {every} {'pipeline makes' if every == 1 else 'pipelines make'} up 80 % of the energy"


def _chart(found: Assessment) -> str:
    """Bars of energy: solid to the low end of the range, light to the high end."""
    shown = found.pipelines[:_MOST_BARS]
    most = max((item.energy.high.millijoules for item in shown), default=0)
    if most == 0:
        return ""
    room = _WIDTH - _NAME_WIDTH - 170
    parts = []
    for number, item in enumerate(shown):
        top = number * _BAR_HEIGHT
        low, high = (room * end.millijoules / most for end in (item.energy.low, item.energy.high))
        name = item.name if len(item.name) <= 36 else f"{item.name[:35]}…"
        parts.append(
            f'<text x="{_NAME_WIDTH - 8}" y="{top + 18}" text-anchor="end">{_text(name)}</text>'
            f'<rect x="{_NAME_WIDTH}" y="{top + 5}" width="{high:.1f}" height="16" rx="2" fill="var(--light)"/>'
            f'<rect x="{_NAME_WIDTH}" y="{top + 5}" width="{low:.1f}" height="16" rx="2" fill="var(--bar)"/>'
            f'<text x="{_NAME_WIDTH + high + 6:.1f}" y="{top + 18}">{_text(item.energy)}</text>'
        )
    height = len(shown) * _BAR_HEIGHT + 4
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Energy of the largest pipelines, as ranges">'
        + "".join(parts)
        + "</svg>"
    )


def _next(found: Assessment, snippet: str) -> str:
    if not found.first:
        return "<p>Nothing here is worth waiting for by these assumptions.</p>"
    names = ", ".join(item.name for item in found.first)
    return f"<h2>Gate first, in observe mode: {_text(names)}</h2><pre>{_text(snippet)}</pre>"


_HEADER = ("pipeline", "schedule", "runs", "hours", "energy", "carbon", "deferrable", "slack", "difference", "wasted")


def _table(found: Assessment) -> str:
    head = "".join(f"<th>{name}</th>" for name in _HEADER)
    rows = "".join(_row(item) for item in found.pipelines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(item: PipelineFigures) -> str:
    cells = (
        item.name,
        item.schedule or "-",
        f"{item.runs:,}",
        _hours(item.busy),
        item.energy,
        "unknown" if item.carbon is None else item.carbon,
        "-" if item.deferrable_share is None else item.deferrable_share,
        "-" if item.slack is None else format_duration(item.slack),
        "unknown" if item.difference is None else item.difference,
        item.wasted,
    )
    why = "; ".join(filter(None, (item.carbon_reason, item.difference_reason, *item.notes)))
    mark = "" if item.matters else ' class="small"'
    return f'<tr{mark} title="{_text(why)}">' + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"


def _basis(found: Assessment) -> str:
    reasons = dict.fromkeys(item.carbon_reason for item in found.pipelines if item.carbon_reason)
    reasons |= dict.fromkeys(item.difference_reason for item in found.pipelines if item.difference_reason)
    difference = (
        f"Difference: {found.difference_source}. Each deferrable run at its best half hour before the next one is due, "
        "seen in hindsight: an upper bound for any plan, a difference of footprints and no avoided emission."
    )
    deferrable = (
        f"Deferrable: scheduled runs with at least half an hour of slack, at most {format_duration(found.max_wait)}, "
        f"that use {found.materiality} or more."
    )
    rows = [
        f"Power: {found.power}.",
        f"Carbon: {found.carbon_source}." if found.carbon_source else "",
        f"Power usage effectiveness {found.pue_ppm / 1e6:g} is applied to carbon." if found.pue_ppm is not None else "",
        difference if found.difference_source else "",
        deferrable,
        "Not counted: network, storage, embodied carbon, idle workers, and what remote services used.",
        *(f"Unknown: {reason}." for reason in reasons),
        *(f"Note: {note}." for note in found.notes),
    ]
    return "<ul>" + "".join(f"<li>{_text(row)}</li>" for row in rows if row) + "</ul>"
