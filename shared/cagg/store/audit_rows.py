"""Rows of the ledger as verification reads them: unchecked, with whatever does not fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, func, or_, select

from cagg.ports import AuditRow
from cagg.store import tables as t
from cagg.store._statement import Statement

__all__ = ["CACHE_COLUMNS", "SEQUENCED", "WAITING", "WITH_LEAF", "AuditRowsSql"]

_PAGE = 512
"""Rows that one step of a streamed read holds in memory (at most 32 MB of bodies)."""

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

_SAME_KEY = Statement(
    select(func.min(_e.entry_id)).where(_e.log_id == _LOG).group_by(_e.idempotency_key).having(func.count() > 1)
)
_SEVERAL_LEAVES = Statement(select(_l.entry_id).where(_l.log_id == _LOG).group_by(_l.entry_id).having(func.count() > 1))
WAITING = (_q.log_id == _e.log_id) & (_q.entry_id == _e.entry_id)
"""An entry and its queue row belong together."""

_UNPLACED = Statement(
    select(_e.entry_id)
    .select_from(WITH_LEAF.outerjoin(t.queue, WAITING))
    .where(_e.log_id == _LOG, _l.entry_id.is_(None), _q.entry_id.is_(None))
    .order_by(_e.entry_id)
)
_QUEUE_FAULTS = Statement(
    select(_q.entry_id)
    .select_from(t.queue.outerjoin(t.entry, WAITING))
    .where(_q.log_id == _LOG, or_(_e.entry_id.is_(None), _e.leaf_hash != _q.leaf_hash))
    .order_by(_q.queue_id)
)


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
        rows: Sequence[Any] = [None] * _PAGE
        while len(rows) == _PAGE:
            rows = _AUDIT.rows(self.connection, log_id=self._log_id, start=start, stop=stop, page=_PAGE)
            for row in rows:
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
                start = row[0] + 1

    def duplicate_entries(self) -> Sequence[str]:
        """Ids of entries that share an idempotency key or have several leaves."""
        found = [row[0] for row in _SAME_KEY.rows(self.connection, log_id=self._log_id)]
        return sorted({*found, *(row[0] for row in _SEVERAL_LEAVES.rows(self.connection, log_id=self._log_id))})

    def unplaced_entries(self) -> Sequence[str]:
        """Ids of entries without a leaf that do not wait in the queue either."""
        return [row[0] for row in _UNPLACED.rows(self.connection, log_id=self._log_id)]

    def queue_faults(self) -> Sequence[str]:
        """Ids of queue rows whose entry is missing or has another leaf hash."""
        return [row[0] for row in _QUEUE_FAULTS.rows(self.connection, log_id=self._log_id)]

    def row_counts(self) -> Mapping[str, int]:
        """Rows by table (entry, queue, leaf, tile, checkpoint), of any log: verification compares them."""
        counts = {}
        for table in (t.log, t.entry, t.queue, t.leaf, t.tile, t.checkpoint):
            query = select(func.count()).select_from(table)
            counts[table.name.removeprefix("cagg_")] = int(self.connection.execute(query).scalar_one())
        return counts
