"""Rows of the ledger as verification reads them: unchecked, with whatever does not fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, func, or_, select

from cagg.ports import AuditRow
from cagg.store import tables as t
from cagg.store._statement import Statement
from cagg.store._strict_text import read_quickly

__all__ = ["CACHE_COLUMNS", "LARGEST", "PAGE", "SEQUENCED", "WAITING", "WITH_LEAF", "AuditRowsSql"]

PAGE = 512
"""Rows that one step of a streamed read holds in memory (at most 32 MB of bodies)."""
LARGEST = 2**63 - 1
"""The largest number that a column holds."""
_LEAF_PAGE = 8_192
"""Leaves that one step of a streamed read holds in memory."""

_e, _q, _l = t.entry.c, t.queue.c, t.leaf.c
_LOG: BindParameter[int] = bindparam("log_id")
CACHE_COLUMNS: tuple[str, ...] = tuple(
    column.name for column in _e if column.name not in {"log_id", "entry_id", "idempotency_key", "body", "leaf_hash"}
)
"""The columns of ``cagg_entry`` that only repeat what the body says."""

SEQUENCED = (_l.log_id == _e.log_id) & (_l.entry_id == _e.entry_id)
"""An entry and its leaf belong together."""

WITH_LEAF = t.entry.outerjoin(t.leaf, SEQUENCED)
"""Entries, with their leaf where they have one."""

_AUDIT = Statement(
    select(
        _l.leaf_index,
        _l.entry_id,
        _l.leaf_hash,
        _e.entry_id,
        _e.idempotency_key,
        _e.body,
        _e.leaf_hash,
        *(_e[name] for name in CACHE_COLUMNS),
    )
    .select_from(t.leaf.outerjoin(t.entry, SEQUENCED))
    .where(_l.log_id == _LOG, _l.leaf_index >= bindparam("start"), _l.leaf_index < bindparam("stop"))
    .order_by(_l.leaf_index)
    .limit(bindparam("page"))
)

_LEAF_PAGES = Statement(
    select(_l.leaf_index, _l.leaf_hash)
    .where(_l.log_id == _LOG, _l.leaf_index >= bindparam("start"), _l.leaf_index < bindparam("stop"))
    .order_by(_l.leaf_index)
    .limit(bindparam("page"))
)
_SEVERAL_KEYS = Statement(  # read from the unique index alone, where there is one
    select(_e.idempotency_key).where(_e.log_id == _LOG).group_by(_e.idempotency_key).having(func.count() > 1)
)
_OF_KEY = Statement(select(func.min(_e.entry_id)).where(_e.log_id == _LOG, _e.idempotency_key == bindparam("key")))
_o = t.entry.alias("other").c
_IN_A_LOG_BEFORE = _o.log_id.in_(select(t.log.c.log_id).where(t.log.c.log_id < _LOG))
_RECORDED_BEFORE = Statement(
    select(_e.entry_id).where(
        _e.log_id == _LOG,
        or_(
            select(_o.log_id).where(_IN_A_LOG_BEFORE, _o.idempotency_key == _e.idempotency_key).exists(),
            select(_o.log_id).where(_IN_A_LOG_BEFORE, _o.entry_id == _e.entry_id).exists(),
        ),
    )
)
_SEVERAL_LEAVES = Statement(select(_l.entry_id).where(_l.log_id == _LOG).group_by(_l.entry_id).having(func.count() > 1))
WAITING = (_q.log_id == _e.log_id) & (_q.entry_id == _e.entry_id)
"""An entry and its queue row belong together."""

_WAITING_PAGES = Statement(
    select(
        _q.queue_id,
        _q.entry_id,
        _q.leaf_hash,
        _e.entry_id,
        _e.idempotency_key,
        _e.body,
        _e.leaf_hash,
        *(_e[name] for name in CACHE_COLUMNS),
    )
    .select_from(t.queue.outerjoin(t.entry, WAITING))
    .where(_q.log_id == _LOG, _q.queue_id >= bindparam("start"), _q.queue_id < bindparam("stop"))
    .order_by(_q.queue_id)
    .limit(bindparam("page"))
)
_UNPLACED = Statement(
    select(_e.entry_id)
    .select_from(WITH_LEAF.outerjoin(t.queue, WAITING))
    .where(_e.log_id == _LOG, _l.entry_id.is_(None), _q.entry_id.is_(None))
    .order_by(_e.entry_id)
)
_QUEUE_FAULTS = Statement(
    select(_q.entry_id)
    .select_from(t.queue.outerjoin(t.entry, WAITING))
    .where(_q.log_id == _LOG, or_(_e.entry_id.is_(None), _e.leaf_hash.is_distinct_from(_q.leaf_hash)))
    .order_by(_q.queue_id)
)
_LOG_IDS = Statement(select(t.log.c.log_id))
_COUNTS = {
    table.name.removeprefix("cagg_"): (
        Statement(select(func.count()).select_from(table).where(table.c.log_id == _LOG)),
        Statement(
            select(func.count())
            .select_from(table)
            .where(or_(table.c.log_id.is_(None), table.c.log_id.not_in(select(t.log.c.log_id))))
        ),
    )
    for table in (t.entry, t.queue, t.leaf, t.tile, t.checkpoint, t.private)
}
_PRIVATE_WAITING = Statement(
    select(func.count())
    .select_from(t.private.join(t.queue, (t.private.c.log_id == _q.log_id) & (t.private.c.entry_id == _q.entry_id)))
    .where(t.private.c.log_id == _LOG)
)
"""Beside entries that have no leaf yet, hence no body that verification has looked at."""


class AuditRowsSql:
    """The part of :class:`cagg.ports.LedgerRows` that verification reads."""

    connection: Connection
    _log_id: int

    def columns(self, start: int, stop: int) -> Iterator[tuple[int, str, Mapping[str, str | int | None]]]:
        """(index, entry_id, stored columns) by index, for verification."""
        for row in self.audit_rows(start, stop):
            if row.columns is not None:
                yield row.index, row.entry_id, row.columns

    def audit_rows(self, start: int, stop: int) -> Iterator[AuditRow]:
        """Leaves of ``[start, stop)`` with whatever is stored for their entries, exactly as it is stored."""
        for page in self.audit_pages(start, stop):
            for row in page:
                present = row[3] is not None
                yield AuditRow(
                    index=row[0],
                    entry_id=row[1],
                    leaf_hash=row[2],
                    idempotency_key=row[4],
                    body=row[5],
                    entry_leaf_hash=row[6],
                    columns=dict(zip(CACHE_COLUMNS, row[7:], strict=True)) if present else None,
                )

    def audit_columns(self) -> Sequence[str]:
        """Names of the columns that :meth:`audit_pages` gives after the first seven values."""
        return CACHE_COLUMNS

    def audit_pages(self, start: int, stop: int) -> Iterator[Sequence[tuple[Any, ...]]]:
        """:meth:`audit_rows` page by page, as plain values: (index, entry id, leaf hash) of the leaf, then (entry id,
        idempotency key, body, leaf hash, columns …) of the entry, None where it is missing."""
        return self._pages(_AUDIT, start, stop, PAGE)

    def waiting_pages(self, first_index: int) -> Iterator[Sequence[tuple[Any, ...]]]:
        """:meth:`audit_pages` of the entries that wait, in their order, as if they had the places from
        ``first_index`` on; the leaf hash is the queue's."""
        for page in self._pages(_WAITING_PAGES, -LARGEST, LARGEST, PAGE):
            yield [(index, *row[1:]) for index, row in enumerate(page, first_index)]
            first_index += len(page)

    def leaf_pages(self, start: int, stop: int) -> Iterator[Sequence[tuple[Any, ...]]]:
        """(index, leaf hash) of the leaves of ``[start, stop)`` page by page, exactly as they are stored."""
        return self._pages(_LEAF_PAGES, start, stop, _LEAF_PAGE)

    def _pages(self, statement: Statement, start: int, stop: int, size: int) -> Iterator[Sequence[tuple[Any, ...]]]:
        stop = min(stop, LARGEST)
        rows: Sequence[Any] = [None] * size
        while len(rows) == size:
            values = {"log_id": self._log_id, "start": start, "stop": stop, "page": size}
            rows = read_quickly(self.connection, partial(statement.rows, self.connection, **values))
            if rows:
                yield rows
                last = rows[-1][0]
                if not isinstance(last, int):
                    return
                start = last + 1

    def duplicate_entries(self) -> Sequence[str]:
        """Ids of entries that share an idempotency key, also with a log before this one, or have several leaves; and
        of those whose id is of an entry before."""
        keys = [row[0] for row in _SEVERAL_KEYS.rows(self.connection, log_id=self._log_id)]
        found = [_OF_KEY.row(self.connection, log_id=self._log_id, key=key)[0] for key in keys]
        found += [row[0] for row in _SEVERAL_LEAVES.rows(self.connection, log_id=self._log_id)]
        if self._log_id != t.FIRST_LOG:
            found += [row[0] for row in _RECORDED_BEFORE.rows(self.connection, log_id=self._log_id)]
        return sorted({str(entry_id) for entry_id in found})

    def unplaced_entries(self) -> Sequence[str]:
        """Ids of entries without a leaf that do not wait in the queue either."""
        return [row[0] for row in _UNPLACED.rows(self.connection, log_id=self._log_id)]

    def queue_faults(self) -> Sequence[str]:
        """Ids of queue rows whose entry is missing or has another leaf hash."""
        return [row[0] for row in _QUEUE_FAULTS.rows(self.connection, log_id=self._log_id)]

    def row_counts(self) -> Mapping[str, int]:
        """Rows of this log by table, and those that belong to no log of the store: verification compares them."""
        counts = {"log": len(_LOG_IDS.rows(self.connection)), "foreign": 0}
        for name, (mine, foreign) in _COUNTS.items():
            counts[name] = int(mine.row(self.connection, log_id=self._log_id)[0])
            counts["foreign"] += int(foreign.row(self.connection)[0])
        counts["private"] -= int(_PRIVATE_WAITING.row(self.connection, log_id=self._log_id)[0])
        return counts
