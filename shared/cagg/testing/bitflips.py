"""Flips single bits of what the ledger has stored, cell by cell, in the form in which it is stored.

A cell is one column of one row. On SQLite, which keeps whatever it is given, text becomes whatever bytes come out;
a server keeps its types, so there the next bit is taken whose text is still text. An empty cell (NULL) has no bits of
its own: it becomes zero, or the empty text, which on SQLite is one flipped bit of the record's header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cagg.store.tables import metadata
from cagg.testing._attack import Target

__all__ = ["LEDGER_TABLES", "OUTSIDE", "WITHOUT_EVIDENCE", "Cell", "bits_of", "cells", "chosen_bit", "flip"]

OUTSIDE = {
    "cagg_schema_version": "names the schema, not what is in it",
    "cagg_budget": "working state: limits; each change is an entry, and 'cagg ledger verify' compares the newest",
    "cagg_allotment": "working state: counters, which must equal the journal's sums",
    "cagg_reservation": "working state: holds and leases; how each ended is an entry",
    "cagg_hold": "working state: see cagg_reservation",
    "cagg_journal": "working state: changes of counters; each settlement is an entry",
    "cagg_forecast": "a cache; the forecast that a decision rests on is an attachment of its entry",
}
"""Tables that no entry covers, with the reason."""

LEDGER_TABLES = tuple(name for name in sorted(metadata.tables) if name not in OUTSIDE)
"""The tables in which every cell is covered by the tree or follows from what is, but for :data:`WITHOUT_EVIDENCE`."""

WITHOUT_EVIDENCE = {
    ("cagg_queue", "queue_id"): "the order in which entries wait, before the tree fixes it",
    ("cagg_queue", "queued_us"): "since when an entry waits, for the alarm about a sequencer that stands still",
    ("cagg_checkpoint", "created_us"): "when it was signed, for display; the note says what was signed",
    ("cagg_log", "created_us"): "when the first log was made, for display; of each later one its first entry says it",
}
"""Cells that prove nothing and from which nothing is computed, with what they are for."""

_FIXED_BYTES = {"integer": 4, "bigint": 8, "INTEGER": 8, "BIGINT": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One column of one row.

    Attributes:
        table, column: where.
        type_name: the column's type, in the database's word.
        key: the row's primary key, by column.
        value: what is stored.
    """

    table: str
    column: str
    type_name: str
    key: tuple[tuple[str, Any], ...]
    value: int | str | bytes | None

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of {dict(self.key)}"


def cells(target: Target, table: str) -> Iterator[Cell]:
    """Yield every cell of a table, row by row."""
    names = target.columns(table)
    key_columns = [column.name for column in metadata.tables[table].primary_key.columns]
    order = ", ".join(key_columns)
    listed = ", ".join(name for name, _ in names)
    for row in target.rows(f"SELECT {listed} FROM {table} ORDER BY {order}"):  # noqa: S608 - names of our own tables
        values = {
            name: bytes(item) if isinstance(item, memoryview) else item
            for (name, _), item in zip(names, row, strict=True)
        }
        key = tuple((name, values[name]) for name in key_columns)
        for name, type_name in names:
            yield Cell(table=table, column=name, type_name=type_name, key=key, value=values[name])


def bits_of(cell: Cell) -> int:
    """Return how many bits the cell has; an empty one counts as one."""
    if cell.value is None:
        return 1
    if isinstance(cell.value, int):
        return 8 * _FIXED_BYTES[cell.type_name]
    return 8 * max(1, len(_stored(cell.value)))


def chosen_bit(cell: Cell) -> int:
    """Return a bit of the cell, always the same one, chosen by a hash of where the cell is."""
    place = f"{cell.table} {cell.column} {cell.key!r}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(place).digest()[:8], "big") % bits_of(cell)


def flip(target: Target, cell: Cell, bit: int) -> bool:
    """Flip a bit, or on a server the next one that leaves a value of the column's type; False when there is none.

    A bit whose flip would make a second row of the same key is passed over, too: the table's key refuses it.
    """
    count = bits_of(cell)
    for step in range(count):
        value = _flipped(cell, (bit + step) % count, on_server=target.on_postgresql)
        if value is not None and not _collides(target, cell, value):
            _write(target, cell, value)
            return True
    return False


def _flipped(cell: Cell, bit: int, *, on_server: bool) -> int | str | bytes | None:
    """Return the value with one bit flipped; None when the server would not take it."""
    value = cell.value
    if value is None:
        if "char" in cell.type_name.lower() or cell.type_name.lower() == "text":
            return ""
        return b"" if cell.type_name.lower() in ("bytea", "blob") else 0
    if isinstance(value, int):
        size = _FIXED_BYTES[cell.type_name]
        raw = bytearray(value.to_bytes(size, "little", signed=True))
        raw[bit // 8] ^= 1 << bit % 8
        return int.from_bytes(raw, "little", signed=True)
    raw = bytearray(_stored(value) or b"\x00")
    raw[bit // 8] ^= 1 << bit % 8
    if isinstance(value, bytes):
        return bytes(raw)
    if not on_server:
        return raw.decode("utf-8", "surrogateescape")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text


def _stored(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def _collides(target: Target, cell: Cell, value: object) -> bool:
    if cell.column not in dict(cell.key):
        return False
    where, parameters = _where(target, {**dict(cell.key), cell.column: value})
    return bool(target.rows(f"SELECT 1 FROM {cell.table} WHERE {where}", *parameters))  # noqa: S608 - our own tables


def _write(target: Target, cell: Cell, value: int | str | bytes) -> None:
    place, new = _parameter(target, value)
    where, parameters = _where(target, dict(cell.key))
    target.sql(
        f"UPDATE {cell.table} SET {cell.column} = {place} WHERE {where}",  # noqa: S608 - our own tables
        new,
        *parameters,
    )


def _where(target: Target, key: dict[str, Any]) -> tuple[str, list[Any]]:
    given = {name: _parameter(target, value) for name, value in key.items()}
    return " AND ".join(f"{name} = {place}" for name, (place, _) in given.items()), [new for _, new in given.values()]


def _parameter(target: Target, value: Any) -> tuple[str, Any]:
    """Return a value's place in a statement and how it is given: text may be none, which SQLite takes as bytes."""
    if isinstance(value, str) and not target.on_postgresql:
        return "CAST(? AS TEXT)", _stored(value)
    return "?", value
