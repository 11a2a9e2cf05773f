"""``cagg ledger export``: the log in forms that others read."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from cagg.cli._ledger_whole import bundle, tiles
from cagg.cli._output import Json, answer, line
from cagg.cli._voice import say
from cagg.errors import InvalidInput, StoreUnavailable
from cagg.records import EntryKind

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.composition import Components
    from cagg.ledger.export.reader import Selection, StoreReader
    from cagg.ports import Transaction

__all__ = ["export"]


class Format(StrEnum):
    """Forms of an export."""

    TILES = "tiles"
    """the whole log as C2SP tlog-tiles, a folder"""
    BUNDLE = "bundle"
    """the whole log with a verifier that needs nothing of ours"""
    JSONL = "jsonl"
    """every entry as it is stored"""
    CSV = "csv"
    """readings as a table"""
    OPENLINEAGE = "openlineage"
    """readings as OpenLineage run events"""
    IN_TOTO = "in-toto"
    """entries as in-toto statements"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Streamed:
    """A format that is written from the first byte to the last.

    Attributes:
        module: has ``chunks(reader: StoreReader) -> Iterator[bytes]``.
        only_readings: True when it can hold readings only.
        named: what one entry of it is called.
    """

    module: str
    only_readings: bool
    named: str


_STREAMED: Mapping[Format, _Streamed] = {
    Format.JSONL: _Streamed(module="cagg.ledger.export.jsonl", only_readings=False, named="entries"),
    Format.CSV: _Streamed(module="cagg.ledger.export.csv", only_readings=True, named="readings"),
    Format.OPENLINEAGE: _Streamed(module="cagg.ledger.export.openlineage", only_readings=True, named="readings"),
    Format.IN_TOTO: _Streamed(module="cagg.ledger.export.in_toto", only_readings=False, named="entries"),
}

_WHOLE = frozenset({Format.TILES, Format.BUNDLE})
"""Formats that always hold the whole log."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def export(
    *,
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option("--format", "-f", metavar="FORMAT", help=f"In which form: {', '.join(Format)}.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File, or new folder; without it: standard output.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only entries of this kind; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Recorded at or after a day, or an instant with an offset.")] = None,
    until: Annotated[str | None, typer.Option(help="Recorded before: a day, or an instant with an offset.")] = None,
    log: Annotated[
        str | None,
        typer.Option(help="One log of the store; default: all of them, for tiles and bundle the one that grows."),
    ] = None,
    json: Json = False,
) -> int:
    """Write the ledger in a form that others read: a file appears whole or not at all.

    Private values are never exported. Exit status 2 when an entry differs from the log's hashes: nothing is exported
    that `cagg ledger verify` would refuse for that.
    """
    from cagg.cli._context import components, store_is_new

    form = _format(format)
    if output is None and json:
        raise InvalidInput("--json says what was written into a file; name the file with -o, or leave --json out.")
    parts = components()
    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    with parts.store.snapshot() as tx:
        names = [one.origin for one in tx.logs()] if log is None else [log]
        sources = [tx if name == tx.origin() else tx.in_log(name) for name in names]
        if form in _WHOLE:
            if kind or since or until:
                raise InvalidInput(f"{form} holds the whole log; leave --kind, --since and --until out.")
            sources = sources[-1:]
            document = tiles(sources[0], output) if form is Format.TILES else bundle(parts, sources[0], output)
            _say_others(tx, form, sources[0].origin())
        else:
            document = _stream(sources, form, _selection(parts, form, kind or (), since, until), output)
        waiting = sum(source.queued() for source in sources)
    if waiting:
        say(f"{waiting} entries wait for their place in the log and are not in the export; `cagg maintain` gives it.")
    document["waiting"] = waiting
    if output is None:
        return 0
    return answer(document, lambda to: _print(to, document), json=json)


def _say_others(tx: Transaction, form: Format, origin: str) -> None:
    """Say which logs are not in an export that holds one."""
    others = [one.origin for one in tx.logs() if one.origin != origin]
    if others:
        say(
            f"{form} hold{'s' if form is Format.BUNDLE else ''} one log, here {origin}; --log exports the others: "
            f"{', '.join(others)}."
        )


# ---- what is wanted -------------------------------------------------------------------------------------------------


def _selection(
    parts: Components, form: Format, kinds: Sequence[str], since: str | None, until: str | None
) -> Selection:
    from cagg.ledger.export.reader import Selection
    from cagg.ledger.export.readings import readings_only

    wanted = Selection(
        kinds=frozenset(_kind(text) for text in kinds),
        since=None if since is None else _instant(parts, since, "--since"),
        until=None if until is None else _instant(parts, until, "--until"),
    )
    return readings_only(wanted, str(form)) if _STREAMED[form].only_readings else wanted


def _format(text: str) -> Format:
    try:
        return Format(text)
    except ValueError:
        raise InvalidInput(f"the format {text!r} is unknown; use one of {', '.join(Format)}.") from None


def _kind(text: str) -> EntryKind:
    try:
        return EntryKind(text)
    except ValueError:
        raise InvalidInput(f"entry kind {text!r} is unknown; use one of {', '.join(EntryKind)}.") from None


def _instant(parts: Components, text: str, option: str) -> datetime:
    """Read an instant with an offset, or a day, which begins at midnight of the settings' time zone."""
    from cagg.windows import parse_instant, time_zone

    if _DAY.fullmatch(text.strip()) is None:
        return parse_instant(text, option)
    zone_name = parts.settings.timezone
    if zone_name is None:
        raise InvalidInput(
            f"{option} {text!r} is a day, and no timezone is set; set timezone in cagg.toml, or write "
            f"{text.strip()}T00:00:00+00:00."
        )
    try:
        day = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidInput(f"{option} {text!r} is no day of the calendar; write it as 2026-11-23.") from None
    return parse_instant(day.replace(tzinfo=time_zone(zone_name)), option)


# ---- writing --------------------------------------------------------------------------------------------------------


def _stream(logs: Sequence[Transaction], form: Format, selection: Selection, output: Path | None) -> dict[str, Any]:
    from cagg.cli._files import whole_file
    from cagg.ledger.export.reader import StoreReader

    chunks: Callable[[StoreReader], Iterator[bytes]] = importlib.import_module(_STREAMED[form].module).chunks
    reader = StoreReader(logs, selection)
    if output is None:
        sys.stdout.flush()
        size, digest = _copy(chunks(reader), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        with whole_file(output) as file:
            size, digest = _copy(chunks(reader), file)
    return {
        "format": str(form),
        "file": None if output is None else str(output),
        "bytes": size,
        "sha256": digest,
        _STREAMED[form].named: reader.entries,
        "logs": [
            {
                "origin": item.origin,
                "entries": item.entries,
                "size": item.size,
                "root": item.root.hex(),
                "signed_size": item.signed_size,
            }
            for item in reader.logs
        ],
    }


def _copy(chunks: Iterator[bytes], file: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        file.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _print(to: Console, document: Mapping[str, Any]) -> None:
    named = "readings" if "readings" in document else "entries"
    size = f", {document['bytes']} bytes" if "bytes" in document else ""
    line(to, f"{document[named]} {named} as {document['format']} in {document['file']}{size}.")
    for one in document.get("logs") or (document,):
        line(
            to,
            f"Log {one['origin']}: {one['size']} entries, root {one['root'][:16]}, "
            f"{one['signed_size']} of them under a checkpoint.",
            style="dim",
        )
