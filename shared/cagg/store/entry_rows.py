"""Ledger entries as they are read: by key, by id, and in order, those that wait for their place included."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import BinaryExpression, ColumnElement, Connection, Select, bindparam, select

from cagg.errors import LedgerDamaged
from cagg.records import Entry, EntryKind
from cagg.store import tables as t
from cagg.store._instants import from_us
from cagg.store._statement import Statement
from cagg.store.audit_rows import PAGE, SEQUENCED, WAITING, WITH_LEAF, AuditRowsSql

__all__ = ["EntryRowsSql", "stored_bytes"]

_Filters = Sequence[ColumnElement[bool]]
_e, _q, _l = t.entry.c, t.queue.c, t.leaf.c
_ENTRY = (_e.entry_id, _e.kind, _e.idempotency_key, _e.body, _e.leaf_hash, _l.leaf_index, _e.recorded_us)

# by log, because that is how the indexes begin; a store has few logs
_OF_THE_STORE = _e.log_id.in_(select(t.log.c.log_id))
_BY_KEY = Statement(select(*_ENTRY).select_from(WITH_LEAF).where(_OF_THE_STORE, _e.idempotency_key == bindparam("key")))
_BY_KEYS = (
    select(*_ENTRY)
    .select_from(WITH_LEAF)
    .where(_OF_THE_STORE, _e.idempotency_key.in_(bindparam("keys", expanding=True)))
)
_BY_ID = Statement(select(*_ENTRY).select_from(WITH_LEAF).where(_OF_THE_STORE, _e.entry_id == bindparam("id")))
_BETWEEN = Statement(
    select(*_ENTRY)
    .select_from(WITH_LEAF)
    .where(_OF_THE_STORE, _e.entry_id.between(bindparam("first"), bindparam("last")))
    .order_by(_e.entry_id)
    .limit(bindparam("limit"))
)


class EntryRowsSql(AuditRowsSql):
    """The part of :class:`cagg.ports.LedgerRows` that reads entries."""

    connection: Connection
    sequences_inline: bool
    _log_id: int

    def entry_by_key(self, idempotency_key: bytes) -> Entry | None:
        """Return the entry with this key, of this log or of one before it."""
        row = _BY_KEY.row(self.connection, key=idempotency_key)
        return None if row is None else _entry(row)

    def entries_by_keys(self, idempotency_keys: Collection[bytes]) -> Mapping[bytes, Entry]:
        """Return the entries with any of these keys, of this log or of those before it, by key."""
        keys = list(idempotency_keys)
        if len(keys) == 1:  # on the path of every entry
            found = self.entry_by_key(keys[0])
            return {} if found is None else {keys[0]: found}
        rows: list[Any] = []
        for start in range(0, len(keys), PAGE):
            rows += self.connection.execute(_BY_KEYS, {"keys": keys[start : start + PAGE]}).fetchall()
        return {entry.idempotency_key: entry for entry in map(_entry, rows)}

    def entry(self, entry_id: str) -> Entry | None:
        """Return the entry with this id, of this log or of one before it."""
        row = _BY_ID.row(self.connection, id=entry_id)
        return None if row is None else _entry(row)

    def entries_between(self, first_id: str, last_id: str, limit: int) -> Sequence[Entry]:
        """Entries of any log whose id lies in ``[first_id, last_id]``, ascending by id, at most ``limit``."""
        rows = _BETWEEN.rows(self.connection, first=first_id, last=last_id, limit=limit)
        return [_entry(row) for row in rows]

    def entries(
        self,
        *,
        kind: EntryKind | None = None,
        request_key: str | None = None,
        task_key: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        start: int = 0,
    ) -> Iterator[Entry]:
        """Entries by index from ``start`` on, then those that wait for their place, filtered; read page by page."""
        filters = [
            column == str(wanted)
            for column, wanted in ((_e.kind, kind), (_e.request_key, request_key), (_e.task_key, task_key))
            if wanted is not None
        ]
        found = self._newest_first(filters, start, limit) if newest_first else self._oldest_first(filters, start, limit)
        return islice(found, limit)

    def _oldest_first(self, filters: _Filters, start: int, limit: int | None) -> Iterator[Entry]:
        last = start - 1
        for entry in self._placed(filters, start, limit, newest_first=False):
            last = entry.index if entry.index is not None else last
            yield entry
        if self.sequences_inline:
            return
        seen = set()
        for entry in self._waiting(filters, limit, newest_first=False):
            seen.add(entry.entry_id)
            yield entry
        for entry in self._placed(filters, last + 1, limit, newest_first=False):  # sequenced between the two reads
            if entry.entry_id not in seen:
                yield entry

    def _newest_first(self, filters: _Filters, start: int, limit: int | None) -> Iterator[Entry]:
        seen = set()
        if not self.sequences_inline:
            for entry in self._waiting(filters, limit, newest_first=True):
                seen.add(entry.entry_id)
                yield entry
        for entry in self._placed(filters, start, limit, newest_first=True):
            if entry.entry_id not in seen:
                yield entry

    def _placed(self, filters: _Filters, start: int, limit: int | None, *, newest_first: bool) -> Iterator[Entry]:
        query = select(*_ENTRY).select_from(t.leaf.join(t.entry, SEQUENCED)).where(*filters)
        place: ColumnElement[int] = _l.leaf_index
        log: ColumnElement[int] = _l.log_id
        if any(isinstance(item, BinaryExpression) and item.left is _e.request_key for item in filters):
            # a request has few entries: SQLite must find them by their key, not look through the tree in its order
            place, log = place + 0, log + 0
        query = query.where(log == self._log_id, place >= start)
        return (_entry(row) for row in self._paged(query, place, limit, newest_first=newest_first))

    def _waiting(self, filters: _Filters, limit: int | None, *, newest_first: bool) -> Iterator[Entry]:
        query = select(*_ENTRY[:5], _q.queue_id, _e.recorded_us).select_from(t.queue.join(t.entry, WAITING))
        query = query.where(_q.log_id == self._log_id, *filters)
        for row in self._paged(query, _q.queue_id, limit, newest_first=newest_first):
            yield _entry((*row[:5], None, row[6]))

    def _paged(
        self, query: Select[Any], key: ColumnElement[int], limit: int | None, *, newest_first: bool
    ) -> Iterator[Any]:
        """Rows in the order of a key, which is the sixth column, page by page."""
        page_size = PAGE if limit is None else max(0, min(PAGE, limit))
        page = query = query.order_by(key.desc() if newest_first else key).limit(page_size)
        while page_size:
            rows = self.connection.execute(page).fetchall()
            yield from rows
            if len(rows) < page_size:
                return
            page = query.where(key < rows[-1][5] if newest_first else key > rows[-1][5])


def _entry(row: Any) -> Entry:
    entry_id, kind, key, body, leaf_hash, index, recorded_us = row
    try:
        return Entry(
            entry_id=entry_id,
            kind=EntryKind(kind),
            idempotency_key=stored_bytes(key, f"the key of {entry_id}"),
            body=stored_bytes(body, f"the body of {entry_id}"),
            leaf_hash=stored_bytes(leaf_hash, f"the leaf hash of {entry_id}"),
            index=index,
            recorded_at=from_us(recorded_us),
        )
    except (ValueError, TypeError, OverflowError):
        raise LedgerDamaged(f"ledger entry {entry_id!r} cannot be read; run 'cagg ledger verify'.") from None


def stored_bytes(value: object, what: str) -> bytes:
    """Return stored bytes; SQLite keeps any type in any column, so tampered rows may hold something else."""
    if isinstance(value, memoryview):  # some PostgreSQL drivers
        return bytes(value)
    if not isinstance(value, bytes):
        raise LedgerDamaged(f"the store holds no bytes for {what}; run 'cagg ledger verify'.")
    return value
