"""Ledger rows on PostgreSQL: entries that wait for a sequencer, in few statements, and several logs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from cagg.entries import Entry
from cagg.errors import InvalidInput
from cagg.store import tables as t
from cagg.store._instants import to_us
from cagg.store.audit_rows import CACHE_COLUMNS
from cagg.store.log_rows import not_begun
from cagg.store.migrations.functions_0002 import KEY_SPACE
from cagg.store.migrations.functions_0003 import WRITERS
from cagg.store.transaction import SqlTransaction

__all__ = ["PostgresqlLedger"]

_BATCH = 5_000
"""Rows that one statement carries."""

_ENTRY_COLUMNS = ("log_id", "entry_id", "idempotency_key", "body", "leaf_hash", *CACHE_COLUMNS)
_GIVEN = _ENTRY_COLUMNS[1:]
_TYPES = {
    column.name: "bytea" if column.name in ("idempotency_key", "body", "leaf_hash") else column.type.compile()
    for column in t.entry.c
}
# logs before this one are frozen, and their last entries were committed before this transaction began
_RECORDED_BEFORE = (
    "SELECT 1 FROM cagg_entry o JOIN cagg_log l USING (log_id) "
    "WHERE l.log_id <> {log} AND o.log_id = l.log_id AND o.idempotency_key = {key}"
)
_INSERT_ENTRY = (
    f"WITH kept AS (INSERT INTO cagg_entry ({', '.join(_ENTRY_COLUMNS)}) "  # noqa: S608 - names of our own
    f"SELECT {', '.join(f'%({name})s' for name in _ENTRY_COLUMNS)} {{unless}}"
    "ON CONFLICT (log_id, idempotency_key) DO NOTHING RETURNING log_id, entry_id, leaf_hash) "
    "INSERT INTO cagg_queue (log_id, entry_id, leaf_hash, queued_us) "
    "SELECT kept.log_id, kept.entry_id, kept.leaf_hash, %(queued_us)s FROM kept"
)
_INSERT_FIRST = _INSERT_ENTRY.format(unless="")
_INSERT_LATER = _INSERT_ENTRY.format(
    unless=f"WHERE NOT EXISTS ({_RECORDED_BEFORE.format(log='%(log_id)s', key='%(idempotency_key)s')}) "
)
# inserted by key, so that two batches with the same keys wait for each other in one order; queued as they were given
_INSERT_ENTRIES = (
    f"WITH given AS MATERIALIZED (SELECT * FROM ROWS FROM ("  # noqa: S608 - names of our own
    f"{', '.join(f'unnest(%({name})s::{_TYPES[name]}[])' for name in _GIVEN)}) WITH ORDINALITY "
    f"AS g({', '.join(_GIVEN)}, place)), "
    f"kept AS (INSERT INTO cagg_entry ({', '.join(_ENTRY_COLUMNS)}) "
    f"SELECT %(log_id)s, {', '.join(_GIVEN)} FROM given g "
    f"WHERE NOT EXISTS ({_RECORDED_BEFORE.format(log='%(log_id)s', key='g.idempotency_key')}) "
    "ORDER BY idempotency_key, place "
    "ON CONFLICT (log_id, idempotency_key) DO NOTHING RETURNING log_id, entry_id, leaf_hash) "
    "INSERT INTO cagg_queue (log_id, entry_id, leaf_hash, queued_us) "
    "SELECT kept.log_id, kept.entry_id, kept.leaf_hash, %(queued_us)s FROM kept JOIN given USING (entry_id) "
    "ORDER BY given.place RETURNING entry_id"
)
_DEQUEUE = (
    "DELETE FROM cagg_queue WHERE queue_id IN (SELECT q.queue_id FROM cagg_queue q WHERE q.log_id = %(log_id)s "
    "AND CASE octet_length(q.leaf_hash) WHEN 32 THEN true ELSE (SELECT count(*) FROM cagg_leaf l "
    "WHERE l.log_id = q.log_id AND l.entry_id = q.entry_id) > 0 END ORDER BY q.queue_id LIMIT %(limit)s) "
    "RETURNING queue_id, entry_id, leaf_hash, EXISTS (SELECT 1 FROM cagg_leaf l "
    "WHERE l.log_id = cagg_queue.log_id AND l.entry_id = cagg_queue.entry_id)"
)
_INSERT_LEAVES = (
    "INSERT INTO cagg_leaf (log_id, leaf_index, entry_id, leaf_hash) "
    "SELECT %(log_id)s, %(first)s + n.ordinality - 1, n.entry_id, n.leaf_hash "
    "FROM ROWS FROM (unnest(%(ids)s::text[]), unnest(%(hashes)s::bytea[])) WITH ORDINALITY "
    "AS n(entry_id, leaf_hash, ordinality)"
)
_TAKE_LOG = f"SELECT pg_try_advisory_xact_lock({KEY_SPACE}, 'cagg_queue'::regclass::oid::bigint::bit(32)::integer)"
_LOCK_LOG = f"SELECT pg_advisory_xact_lock({WRITERS})"
_BEGIN_LOG = "SELECT cagg_begin_log(%s, %s, %s)"
_MAY_READ_PRIVATE = "SELECT has_table_privilege('cagg_private', 'SELECT')"
_SAME_PRIVATE = "SELECT cagg_same_private(%s, %s::jsonb)"


class PostgresqlLedger(SqlTransaction):
    """The ledger's part of a transaction on PostgreSQL; READ COMMITTED when it writes."""

    def __init__(self, *, connection: Connection, now: datetime, log_id: int, origin: str) -> None:
        super().__init__(connection=connection, now=now, log_id=log_id, origin=origin, sequences_inline=False)

    # ---- statements ----

    def _rows(self, text: str, values: Sequence[Any] | Mapping[str, Any]) -> Sequence[Any]:
        cursor: Any = self.connection.connection.cursor()
        try:
            rows: Sequence[Any] = cursor.execute(text, values).fetchall()
            return rows
        finally:
            cursor.close()

    def _row(self, text: str, values: Sequence[Any] | Mapping[str, Any]) -> Any:
        rows = self._rows(text, values)
        return rows[0] if rows else None

    def _run(self, text: str, values: Mapping[str, Any]) -> int:
        """Execute and return how many rows were written."""
        cursor: Any = self.connection.connection.cursor()
        try:
            return int(cursor.execute(text, values).rowcount)
        finally:
            cursor.close()

    # ---- entries ------------------------------------------------------------------------------------------------

    def insert_entries(self, entries: Sequence[tuple[Entry, Mapping[str, str | int | None]]]) -> Collection[bytes]:
        """Insert entries that are not recorded yet, each with its queue row; returns the keys of the others."""
        if len(entries) == 1:
            ((entry, columns),) = entries
            text = _INSERT_FIRST if self._log_id == t.FIRST_LOG else _INSERT_LATER
            written = self._run(text, {**self._whole(entry, columns), "queued_us": to_us(self.now())})
            return () if written else (entry.idempotency_key,)
        kept: set[str] = set()
        for start in range(0, len(entries), _BATCH):
            rows = [self._whole(entry, columns) for entry, columns in entries[start : start + _BATCH]]
            values: dict[str, Any] = {name: [row[name] for row in rows] for name in _GIVEN}
            values |= {"log_id": self._log_id, "queued_us": to_us(self.now())}
            kept.update(row[0] for row in self._rows(_INSERT_ENTRIES, values))
        return {entry.idempotency_key for entry, _ in entries if entry.entry_id not in kept}

    def _whole(self, entry: Entry, columns: Mapping[str, str | int | None]) -> dict[str, str | int | bytes | None]:
        if entry.index is not None:
            raise InvalidInput(f"entry {entry.entry_id} has a place already; here a sequencer gives the places.")
        return {
            "log_id": self._log_id,
            "entry_id": entry.entry_id,
            "idempotency_key": entry.idempotency_key,
            "body": entry.body,
            "leaf_hash": entry.leaf_hash,
            **{name: columns.get(name) for name in CACHE_COLUMNS},
        }

    # ---- the sequencer ------------------------------------------------------------------------------------------

    def take_queued(self, limit: int) -> Sequence[tuple[str, bytes]]:
        """Lock the log, then remove and return up to ``limit`` (entry_id, leaf_hash), oldest first.

        Empty while another transaction has the log locked: that one is giving places, and two must not interleave.
        Rows are taken from a queue, never by "greater than the last one seen": ids may commit out of order. A row
        of an entry that has its place already is dropped, and a waiting one without a hash stays where it is: whoever
        may queue could else stop the sequencer for ever.
        """
        if not self._row(_TAKE_LOG, ())[0]:
            return []
        while rows := sorted(self._rows(_DEQUEUE, {"log_id": self._log_id, "limit": limit})):
            waiting = [(entry_id, leaf_hash) for _, entry_id, leaf_hash, placed in rows if not placed]
            if waiting:
                return waiting
        return []

    def insert_leaves(self, first_index: int, leaves: Sequence[tuple[str, bytes]]) -> None:
        """Give (entry_id, leaf_hash) the dense indexes from ``first_index`` on."""
        for start in range(0, len(leaves), _BATCH):
            part = leaves[start : start + _BATCH]
            values = {
                "log_id": self._log_id,
                "first": first_index + start,
                "ids": [entry_id for entry_id, _ in part],
                "hashes": [leaf_hash for _, leaf_hash in part],
            }
            self._run(_INSERT_LEAVES, values)

    # ---- logs ---------------------------------------------------------------------------------------------------

    def lock_log(self) -> None:
        """Wait for the writers under way and keep others out until this transaction ends."""
        self._row(_LOCK_LOG, ())

    def _begun_log(self, origin: str) -> int:
        answer: dict[str, Any] = self._row(_BEGIN_LOG, (self._log_id, origin, to_us(self.now())))[0]
        if "refused" in answer:
            raise not_begun(answer["refused"], origin, self._origin)
        return int(answer["log_id"])

    # ---- personal values ----------------------------------------------------------------------------------------

    def same_private(self, entry_id: str, values: Mapping[str, str]) -> bool:
        """True when none of these values differs from the one that is kept of the entry; the server compares."""
        return bool(self._row(_SAME_PRIVATE, (entry_id, json.dumps(dict(values))))[0])

    def may_read_private(self) -> bool:
        """True when the role may read the values; a maintainer may, writers and readers may not."""
        return bool(self._row(_MAY_READ_PRIVATE, ())[0])
