"""Readings as a table for accountants and spreadsheets: one row per measurement or correction that holds energy.

Form: RFC 4180 (October 2005): comma, double quotes where needed, CRLF, a header; UTF-8 without a byte order mark.
Amounts stand twice: in the ledger's whole numbers, which are exact, and in the unit that people read. What is unknown
is an empty cell, and the column ``…_reason`` beside it says why. Add up only rows whose ``counts`` is ``yes``: the
others are part of another row, or were replaced by one.

A text that a spreadsheet would take for a formula gets an apostrophe in front, as one that begins with an apostrophe
does; whoever removes one leading apostrophe has the text again (OWASP, "CSV Injection", 2024). Control characters,
which no cell can hold, are shown as U+FFFD; ``--format jsonl`` has every byte.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, localcontext
from typing import Any

from cagg.ledger.encoding import parse_quantity
from cagg.ledger.export.reader import Exported, LogReader, StoreReader
from cagg.ledger.export.readings import Revisions, named_value, shown, weighted_intensity

__all__ = ["COLUMNS", "chunks", "safe_cell"]

COLUMNS = (
    "start",
    "end",
    "host",
    "root_run_id",
    "task",
    "ordinal",
    "attempt",
    "outcome",
    "budget",
    "work_item",
    "purpose",
    "work_kind",
    "zone",
    "counts",
    "counts_reason",
    "energy_kwh",
    "energy_millijoules",
    "energy_low_millijoules",
    "energy_high_millijoules",
    "energy_grade",
    "energy_reason",
    "energy_method",
    "carbon_kg",
    "carbon_micrograms",
    "carbon_reason",
    "intensity_g_per_kwh",
    "intensity_reason",
    "intensity_source",
    "signal",
    "basis",
    "gas",
    "pue",
    "code_commit",
    "code_dirty",
    "kind",
    "recorded_at",
    "log",
    "index",
    "entry_id",
    "leaf_hash",
    "checkpoint_size",
)
"""Names of the columns, in order. Later versions add columns at the end."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")
"""First characters that spreadsheets read as the beginning of a formula (OWASP, "CSV Injection", 2024), and the
apostrophe, so that the mark in front of them can be told from a text's own."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MILLIJOULES_PER_KWH = 3_600_000_000
_NANO = Decimal("1E-9")


def chunks(reader: LogReader | StoreReader) -> Iterator[bytes]:
    """Yield the header and one row per reading; raises LedgerDamaged as the reader does."""
    yield _line(COLUMNS)
    revisions = Revisions(reader)
    for item in reader:
        with shown(item):
            row = _row(reader, item, revisions)
        yield _line([row[name] for name in COLUMNS])


def safe_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet evaluates."""
    text = _CONTROL.sub("\ufffd", text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(cells: Iterable[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().encode()


def _row(reader: LogReader | StoreReader, item: Exported, revisions: Revisions) -> dict[str, str]:
    body = reader.resolved(item)
    request = body.get("request") or {}
    convention = body.get("convention") or {}
    budget = body["budget_path"] if "budget_path" in body else request.get("budget_path")
    texts = {
        "start": body.get("start"),
        "end": body.get("end"),
        "host": request.get("host"),
        "root_run_id": request.get("root_run_id"),
        "task": request.get("task_key"),
        "ordinal": request.get("ordinal"),
        "attempt": request.get("attempt"),
        "outcome": body.get("outcome"),
        "budget": budget,
        "work_item": body.get("work_item") or request.get("work_item"),
        "purpose": request.get("purpose"),
        "work_kind": request.get("kind"),
        "zone": body.get("zone") or request.get("zone"),
        "energy_grade": body.get("grade"),
        "energy_method": _methods(body),
        "intensity_source": "; ".join(_unique(_priced_by(part) for part in body.get("slices") or ())),
        **{name: convention.get(name) for name in ("signal", "basis", "gas")},
        "pue": _decimal(body.get("pue_ppm"), 1_000_000),
        "code_commit": named_value(body, "code", "commit"),
        "code_dirty": named_value(body, "code", "dirty"),
        "kind": body.get("kind"),
        "recorded_at": body.get("recorded_at"),
        "log": item.origin,
        "index": item.index,
        "entry_id": item.entry.entry_id,
        "leaf_hash": item.entry.leaf_hash.hex(),
        "checkpoint_size": None if item.signed is None else item.signed.size,
        **_counts(item, revisions),
        **_amounts(body),
    }
    return {name: "" if value is None else safe_cell(str(value)) for name, value in texts.items()}


def _counts(item: Exported, revisions: Revisions) -> dict[str, str]:
    """Say whether a row may be added to the others, and why not."""
    later = revisions.replaced_by(item)
    if later is not None:
        return {"counts": "no", "counts_reason": f"replaced by {later}"}
    outer = item.body.get("part_of")
    if outer is not None:
        return {"counts": "no", "counts_reason": f"part of the run {outer}"}
    return {"counts": "yes", "counts_reason": ""}


def _amounts(body: Mapping[str, Any]) -> dict[str, str | None]:
    energy, carbon = _amount(body, "energy_millijoules"), _amount(body, "carbon_micrograms")
    intensity = weighted_intensity(body)
    unknown = body.get("carbon_reason") or "the carbon intensity of a part of the run is unknown"
    if energy is None:
        unknown = "the energy is unknown"
    elif energy == 0:
        unknown = "the run used no energy"
    return {
        "energy_kwh": _decimal(energy, _MILLIJOULES_PER_KWH),
        "energy_millijoules": _text(energy),
        "energy_low_millijoules": _text(_amount(body, "energy_low_millijoules")),
        "energy_high_millijoules": _text(_amount(body, "energy_high_millijoules")),
        "energy_reason": body.get("energy_reason") or ("not said" if energy is None else ""),
        "carbon_kg": _decimal(carbon, 1_000_000_000),
        "carbon_micrograms": _text(carbon),
        "carbon_reason": body.get("carbon_reason") or ("not said" if carbon is None else ""),
        "intensity_g_per_kwh": _decimal(intensity, 1_000),
        "intensity_reason": unknown if intensity is None else "",
    }


def _amount(body: Mapping[str, Any], name: str) -> int | None:
    return None if body.get(name) is None else parse_quantity(body[name])


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)


def _decimal(amount: int | None, divisor: int) -> str | None:
    """Return a quotient in plain decimals, at most nine of them, half even; exact for divisors that divide 10^9."""
    if amount is None:
        return None
    if not isinstance(amount, int) or isinstance(amount, bool):
        raise TypeError(f"{amount!r} is no whole number")
    with localcontext() as context:
        context.prec = 40
        shown = (Decimal(amount) / Decimal(divisor)).quantize(_NANO)
    text = f"{shown:f}"
    return text.rstrip("0").rstrip(".")


def _methods(body: Mapping[str, Any]) -> str:
    """Return how the energy was measured: source and method of every part of the machine, each once."""
    parts = (
        f"{part.get('domain', '')}: {part.get('source', '')}, {part.get('method', '')}".strip(": ,")
        for part in body.get("components") or ()
    )
    return "; ".join(_unique([*parts, body.get("method")]))


def _priced_by(part: Mapping[str, Any]) -> object:
    return None if part.get("intensity_milligrams_per_kwh") is None else part.get("source")


def _unique(texts: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(str(text) for text in texts if text))
