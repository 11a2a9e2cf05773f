"""What commands print: one JSON document for machines, or text for people that fits 80 columns and plain terminals."""

from __future__ import annotations

import json as json_module
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._voice import drain, harmless
from cagg.errors import CaggError
from cagg.windows import format_duration, format_instant, time_zone

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Json",
    "amount_bar",
    "answer",
    "columns",
    "console",
    "facts",
    "in_words",
    "joined",
    "line",
    "spark",
    "try_json",
    "when",
    "write_exactly",
    "write_json",
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
"""The option that every command has."""

_UNBOUNDED = 1_000


class OutputRefused(CaggError):
    """What was to be printed cannot be written; send it elsewhere."""


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no guessed highlighting, colours only on terminals.

    Lines are wrapped for terminals only: what goes into a file or a pipe is searched, not looked at.
    """
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - Rich calls it while it handles the error, and would end the process itself

    to = Plain(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not to.is_terminal and "COLUMNS" not in os.environ:
        to.width = _UNBOUNDED
    return to


def answer(document: Mapping[str, Any], people: Callable[[Console], None], *, json: bool, status: int = 0) -> int:
    """Print the answer in the form that was asked for and return the exit status.

    A reader who leaves before the end (``| head``) has what it wanted, and the status still is the answer's.

    Raises:
        OutputRefused: the answer cannot be written, for example to a full disk.
    """
    try:
        if json:
            write_json(document)
        else:
            people(console())
        sys.stdout.flush()
    except BrokenPipeError:
        drain(sys.stdout)
    except OSError as error:
        drain(sys.stdout)
        reason = error.strerror or error
        raise OutputRefused(f"the answer could not be written ({reason}); send the output elsewhere.") from None
    return status


def try_json(document: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Print one JSON document where that is possible: a full or closed stdout changes nothing else."""
    try:
        write_json(document, indent=indent)
    except (OSError, ValueError):
        drain(sys.stdout)


def write_json(document: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Print one JSON document; instants as UTC text, enums as their value; on one line with an indent of None."""
    plain = "utf" not in (sys.stdout.encoding or "utf-8").lower()
    text = json_module.dumps(document, ensure_ascii=plain, indent=indent, default=_plain, allow_nan=False)
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


def write_exactly(text: str) -> None:
    """Print a text in UTF-8 whatever the terminal's encoding is: a replaced character would spoil a signature."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def line(to: Console, text: str = "", *, style: str = "") -> None:
    """Print one paragraph, wrapped at words; further lines are indented a little more than the first."""
    from rich.text import Text

    text = harmless(text)
    indent = " " * (len(text) - len(text.lstrip()))
    for part in _wrapped(text.strip(), to.width, indent, f"{indent}  " if indent else ""):
        to.print(Text(part, style=style), soft_wrap=True)


def facts(to: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print labels and texts in two columns; rows without a text are left out."""
    columns(to, [(label, text) for label, text in rows if text], styles=["dim"] * len(rows))


def columns(
    to: Console, rows: Sequence[tuple[str, ...]], *, header: tuple[str, ...] = (), styles: Sequence[str] = ()
) -> None:
    """Print rows in columns; the last one is wrapped below itself, the others are as wide as they need.

    Args:
        to: where.
        rows: cells as text, all rows alike.
        header: names of the columns; empty = no header.
        styles: style of each row's first cell; empty = plain.
    """
    from rich.text import Text

    rows = [tuple(harmless(cell) for cell in row) for row in rows]
    lines = [header, *rows] if header else list(rows)
    if not lines:
        return
    widths = [max(len(row[place]) for row in lines) + 2 for place in range(len(lines[0]) - 1)]
    for number, row in enumerate(lines):
        first = "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        for turn, part in enumerate(_wrapped(row[-1], to.width, first, " " * sum(widths))):
            shown = Text(part.rstrip())
            if header and number == 0:
                shown.stylize("bold")
            elif styles and turn == 0:
                shown.stylize(styles[number - bool(header)], 0, widths[0])
            to.print(shown, soft_wrap=True)


def _wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    """Cut a text into lines of at most that width, at spaces where there are any."""
    found = textwrap.wrap(
        text, max(width, len(others) + 20), initial_indent=first, subsequent_indent=others, break_on_hyphens=False
    )
    return found or [first.rstrip()]


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


def joined(sentences: Iterable[str]) -> str:
    """Return sentences in one line, without a full stop in front of a semicolon."""
    return "; ".join(text.rstrip(".") for text in sentences)


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
