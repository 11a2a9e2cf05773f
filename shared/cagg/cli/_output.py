"""What commands print: one JSON document for machines, or text for people that fits 80 columns and plain terminals."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.windows import format_duration, format_instant, time_zone

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Json", "amount_bar", "answer", "console", "facts", "in_words", "line", "spark", "when", "write_json"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
"""The option that every command has."""


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no guessed highlighting, colours only on terminals."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)


def answer(document: Mapping[str, Any], people: Callable[[Console], None], *, json: bool, status: int = 0) -> int:
    """Print the answer in the form that was asked for and return the exit status."""
    if json:
        write_json(document)
    else:
        people(console())
    return status


def write_json(document: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Print one JSON document; instants as UTC text, enums as their value; on one line with an indent of None."""
    text = json_module.dumps(document, ensure_ascii=False, indent=indent, default=_plain, allow_nan=False)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def line(to: Console, text: str = "", *, style: str = "") -> None:
    """Print one paragraph, wrapped at words."""
    from rich.text import Text

    to.print(Text(text, style=style), soft_wrap=False)


def facts(to: Console, rows: list[tuple[str, str]]) -> None:
    """Print labels and texts in two columns; rows without a text are left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        if text:
            table.add_row(Text(label, style="dim"), Text(text))
    to.print(table)


def when(instant: datetime, zone_name: str | None, *, seconds: bool = False) -> str:
    """Return an instant as people read it: in the zone's local time, in UTC when no zone is known."""
    shape = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
    if zone_name is None:
        return instant.strftime(f"{shape}Z")
    local = instant.astimezone(time_zone(zone_name))
    return local.strftime(f"{shape} %Z")


def in_words(until: timedelta) -> str:
    """Return ``in 5 h 09 min``, ``now`` or ``3 min ago``."""
    if abs(until) < timedelta(seconds=1):
        return "now"
    return f"in {format_duration(until)}" if until > timedelta(0) else f"{format_duration(-until)} ago"


def amount_bar(to: Console, *, parts_ppm: tuple[int, int], width: int = 16) -> str:
    """Return a bar of what is spent and what is held, as shares of the limit in parts per million."""
    solid, half, rest = ("#", "=", ".") if to.options.ascii_only else ("█", "▒", "░")
    spent, held = parts_ppm
    total = -(-min(spent + held, 1_000_000) * width // 1_000_000)
    full = min(total, round(min(spent, 1_000_000) * width / 1_000_000))
    return solid * full + half * (total - full) + rest * (width - total)


def spark(to: Console, share: float, width: int) -> str:
    """Return a horizontal bar for a share from 0 to 1 that fits plain terminals."""
    if to.options.ascii_only:
        return "#" * max(1, round(share * width))
    eighths = max(1, round(share * width * 8))
    full, part = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")
