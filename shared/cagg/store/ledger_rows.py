"""Rows of the ledger: history, the queue before the tree, leaves, tiles, checkpoints and blobs. Insert only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BindParameter,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
)

from cagg.errors import LedgerDamaged
from cagg.ports import Checkpoint, HistoryPoint
from cagg.records import Entry, EntryKind
from cagg.store import tables as t
from cagg.store._instants import from_us, to_us
from cagg.store._statement import Statement, Value, insert_if_absent
from cagg.store.audit_rows import CACHE_COLUMNS, LARGEST, PAGE
from cagg.store.entry_rows import EntryRowsSql, stored_bytes

__all__ = ["LedgerRowsSql"]

_e, _q, _l = t.entry.c, t.queue.c, t.leaf.c
_LOG: BindParameter[int] = bindparam("log_id")
_LOST = "lost"
"""The outcome of a run whose lease ended; it may turn up later, which a correction records."""

_INSERT_ENTRY = insert_if_absent(t.entry)
_columns_in_order = itemgetter(*CACHE_COLUMNS)
_INSERT_QUEUE = Statement(
    insert(t.queue).values({column.name: bindparam(column.name) for column in _q if column.name != "queue_id"})
)
_IS_PLACED = select(_l.entry_id).where(_l.log_id == _q.log_id, _l.entry_id == _q.entry_id).exists()
_QUEUE_HEAD = Statement(
    select(_q.queue_id, _q.entry_id, _q.leaf_hash, _IS_PLACED)
    .where(_q.log_id == _LOG)
    .order_by(_q.queue_id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_DEQUEUE = Statement(delete(t.queue).where(_q.queue_id == bindparam("id")))
_QUEUED = Statement(select(func.count(), func.min(_q.queued_us)).select_from(t.queue).where(_q.log_id == _LOG))
_INSERT_LEAF = Statement(insert(t.leaf).values({column.name: bindparam(column.name) for column in _l}))
_LAST_LEAF = Statement(select(func.max(_l.leaf_index)).where(_l.log_id == _LOG))
_LEAF_HASHES = Statement(
    select(_l.leaf_index, _l.leaf_hash)
    .where(_l.log_id == _LOG, _l.leaf_index >= bindparam("start"), _l.leaf_index < bindparam("stop"))
    .order_by(_l.leaf_index)
)
_INSERT_TILE = Statement(insert(t.tile).values({column.name: bindparam(column.name) for column in t.tile.c}))
_TILE = Statement(
    select(t.tile.c.hashes).where(
        t.tile.c.log_id == _LOG, t.tile.c.level == bindparam("level"), t.tile.c.number == bindparam("number")
    )
)
_TILE_ROOTS = Statement(
    select(t.tile.c.number, t.tile.c.root)
    .where(
        t.tile.c.log_id == _LOG,
        t.tile.c.level == bindparam("level"),
        t.tile.c.number >= bindparam("start"),
        t.tile.c.number < bindparam("stop"),
    )
    .order_by(t.tile.c.number)
)
_INSERT_CHECKPOINT = insert_if_absent(t.checkpoint)
_CHECKPOINT_COLUMNS = (t.checkpoint.c.size, t.checkpoint.c.root, t.checkpoint.c.note, t.checkpoint.c.created_us)
_CHECKPOINT_PAGES = Statement(
    select(*_CHECKPOINT_COLUMNS)
    .where(
        t.checkpoint.c.log_id == _LOG,
        t.checkpoint.c.size >= bindparam("start"),
        t.checkpoint.c.size < bindparam("stop"),
    )
    .order_by(t.checkpoint.c.size)
    .limit(bindparam("page"))
)
_CHECKPOINT_AT = Statement(
    select(*_CHECKPOINT_COLUMNS).where(t.checkpoint.c.log_id == _LOG, t.checkpoint.c.size == bindparam("size"))
)
_LAST_CHECKPOINT = Statement(
    select(*_CHECKPOINT_COLUMNS).where(t.checkpoint.c.log_id == _LOG).order_by(t.checkpoint.c.size.desc()).limit(1)
)
_INSERT_BLOB = insert_if_absent(t.blob)
_BLOB = Statement(select(t.blob.c.data).where(t.blob.c.digest == bindparam("digest")))
_o = t.entry.alias("other").c
_IS_RUN = or_(
    _o.kind == EntryKind.MEASUREMENT.value, and_(_o.kind == EntryKind.CORRECTION.value, _o.outcome.is_not(None))
)
_IS_SUPERSEDED = (
    select(_o.entry_id)
    .where(
        _o.request_key == _e.request_key,
        _o.start_us.is_not(None),
        _o.end_us.is_not(None),
        _IS_RUN,
        or_(
            # given up as lost, and heard of after all
            and_(_e.outcome == _LOST, _o.outcome != _LOST),
            # the same run, recorded anew
            and_(
                _o.kind == EntryKind.CORRECTION.value,
                _o.start_us == _e.start_us,
                or_(_o.recorded_us > _e.recorded_us, and_(_o.recorded_us == _e.recorded_us, _o.entry_id > _e.entry_id)),
            ),
        ),
    )
    .exists()
)
_HISTORY = Statement(
    select(_e.energy_millijoules, _e.start_us, _e.end_us, _e.outcome, _e.recorded_us, _e.entry_id)
    .where(
        _e.task_key == bindparam("task_key"),
        _e.kind == bindparam("kind"),
        _e.start_us.is_not(None),
        _e.end_us.is_not(None),
        or_(_e.kind == EntryKind.MEASUREMENT.value, _e.outcome.is_not(None)),
        ~_IS_SUPERSEDED,
    )
    .order_by(_e.recorded_us.desc(), _e.entry_id.desc())
    .limit(bindparam("limit"))
)


class LedgerRowsSql(EntryRowsSql):
    """Implements :class:`cagg.ports.LedgerRows`."""

    def now(self) -> datetime:
        """The store's own time (the composed transaction provides it)."""
        raise NotImplementedError

    # ---- entries ------------------------------------------------------------------------------------------------

    def insert_entries(self, entries: Sequence[tuple[Entry, Mapping[str, str | int | None]]]) -> Collection[bytes]:
        """Insert entries that are not recorded yet, each with its leaf or queue row; returns the keys of the others."""
        refused: Collection[bytes] = ()
        if self._log_id != t.FIRST_LOG:  # a log before this one may have it: no index of this log's rows says so
            refused = set(self.entries_by_keys([e.idempotency_key for e, _ in entries]))
        log_id = self._log_id
        rows = [
            (log_id, e.entry_id, e.idempotency_key, e.body, e.leaf_hash, *_columns_in_order(columns))
            for e, columns in entries
            if e.idempotency_key not in refused
        ]
        kept = [e for e, _ in entries]
        if _INSERT_ENTRY.run_rows(self.connection, rows) < len(kept):
            stored = self.entries_by_keys([e.idempotency_key for e in kept])
            kept = [e for e in kept if stored[e.idempotency_key].entry_id == e.entry_id]
            refused = {e.idempotency_key for e, _ in entries} - {e.idempotency_key for e in kept}
        places = [e.index for e, _ in entries if e.index is not None]
        if places:
            _INSERT_LEAF.run_rows(
                self.connection,
                [(log_id, place, e.entry_id, e.leaf_hash) for place, e in zip(places, kept, strict=False)],
            )
        else:
            now_us = to_us(self.now())
            _INSERT_QUEUE.run_rows(self.connection, [(log_id, e.entry_id, e.leaf_hash, now_us) for e in kept])
        return refused

    def history(self, task_key: str, limit: int) -> Sequence[HistoryPoint]:
        """Newest measurements of a task in any log, newest first; of a run measured anew only its last correction."""
        rows: list[Any] = []
        for kind in (EntryKind.MEASUREMENT, EntryKind.CORRECTION):  # one by one: each comes in the index's order
            values: dict[str, Value] = {"task_key": task_key, "kind": kind.value, "limit": limit}
            rows += _HISTORY.rows(self.connection, **values)
        rows.sort(key=lambda row: (row[4], row[5]), reverse=True)
        return [
            HistoryPoint(
                energy_millijoules=energy,
                duration_ms=-(-(end_us - start_us) // 1_000),
                completed=outcome == "completed",
                started_at=from_us(start_us),
            )
            for energy, start_us, end_us, outcome, _, _ in rows[:limit]
        ]

    # ---- queue and tree -----------------------------------------------------------------------------------------

    def take_queued(self, limit: int) -> Sequence[tuple[str, bytes]]:
        """Remove and return up to ``limit`` (entry_id, leaf_hash), oldest first.

        Rows are taken by id, never by "greater than the last one seen": ids may commit out of order. A row of an
        entry that has its place already is dropped.
        """
        while rows := _QUEUE_HEAD.rows(self.connection, log_id=self._log_id, limit=limit):
            _DEQUEUE.run_many(self.connection, [{"id": row[0]} for row in rows])
            waiting = [(row[1], stored_bytes(row[2], f"the queued entry {row[1]}")) for row in rows if not row[3]]
            if waiting:
                return waiting
        return []

    def queued(self) -> int:
        """How many entries wait for the sequencer."""
        return int(_QUEUED.row(self.connection, log_id=self._log_id)[0])

    def oldest_queued_at(self) -> datetime | None:
        """When the entry that waits longest for the sequencer was written; None when none waits.

        Raises:
            LedgerDamaged: the queue holds a time that is none.
        """
        queued_us = _QUEUED.row(self.connection, log_id=self._log_id)[1]
        try:
            return None if queued_us is None else from_us(queued_us)
        except (TypeError, OverflowError):
            raise LedgerDamaged(
                f"an entry waits for its place since {queued_us!r}, which is no time; run 'cagg ledger verify'."
            ) from None

    def insert_leaves(self, first_index: int, leaves: Sequence[tuple[str, bytes]]) -> None:
        """Give (entry_id, leaf_hash) the dense indexes from ``first_index`` on."""
        _INSERT_LEAF.run_many(
            self.connection,
            [
                {"log_id": self._log_id, "leaf_index": index, "entry_id": entry_id, "leaf_hash": leaf_hash}
                for index, (entry_id, leaf_hash) in enumerate(leaves, first_index)
            ],
        )

    def tree_size(self) -> int:
        """Number of sequenced leaves."""
        last = _LAST_LEAF.row(self.connection, log_id=self._log_id)[0]
        if last is not None and (not isinstance(last, int) or last >= LARGEST):
            raise LedgerDamaged(f"the ledger holds a leaf with the index {last!r}; run 'cagg ledger verify'.")
        return 0 if last is None else last + 1

    def leaf_hashes(self, start: int, stop: int) -> Sequence[bytes]:
        """Leaf hashes by index, ``[start, stop)``.

        Raises:
            LedgerDamaged: a leaf in the range is missing or not a hash.
        """
        return self._dense(_LEAF_HASHES.rows(self.connection, log_id=self._log_id, start=start, stop=stop), start, stop)

    def put_tile(self, level: int, number: int, hashes: bytes, root: bytes) -> None:
        """Store one full tile (256 hashes of 32 bytes) with the root over them. Immutable."""
        _INSERT_TILE.run(self.connection, log_id=self._log_id, level=level, number=number, hashes=hashes, root=root)

    def tile(self, level: int, number: int) -> bytes | None:
        """Return a full tile."""
        row = _TILE.row(self.connection, log_id=self._log_id, level=level, number=number)
        return None if row is None else stored_bytes(row[0], f"tile {number} of level {level}")

    def tile_roots(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        """Roots of the full tiles ``[start, stop)`` of a level: the hashes of the level above.

        Raises:
            LedgerDamaged: a tile in the range is missing or its root is not a hash.
        """
        rows = _TILE_ROOTS.rows(self.connection, log_id=self._log_id, level=level, start=start, stop=stop)
        return self._dense(rows, start, stop)

    @staticmethod
    def _dense(rows: Sequence[Any], start: int, stop: int) -> list[bytes]:
        hashes = [row[1] for row in rows]
        whole = [row[0] for row in rows] == list(range(start, max(start, stop)))
        if not whole or any(not isinstance(item, bytes) or len(item) != 32 for item in hashes):
            raise LedgerDamaged(
                f"the ledger's tree has a gap or a damaged hash between {start} and {stop}; run 'cagg ledger verify'."
            )
        return hashes

    # ---- checkpoints and blobs ----------------------------------------------------------------------------------

    def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store a signed checkpoint. Same size and root again: kept as it is.

        Raises:
            LedgerDamaged: another root is stored for this size.
        """
        _INSERT_CHECKPOINT.run(
            self.connection,
            log_id=self._log_id,
            size=checkpoint.size,
            root=checkpoint.root,
            note=checkpoint.note,
            created_us=to_us(checkpoint.created_at),
        )
        kept = _CHECKPOINT_AT.row(self.connection, log_id=self._log_id, size=checkpoint.size)
        if kept is None or _checkpoint(kept).root != checkpoint.root:
            raise LedgerDamaged(
                f"a checkpoint of size {checkpoint.size} with another root is stored; run 'cagg ledger verify'."
            )

    def checkpoints(self) -> Sequence[Checkpoint]:
        """All checkpoints by size, ascending."""
        return list(self.each_checkpoint())

    def each_checkpoint(self) -> Iterator[Checkpoint]:
        """:meth:`checkpoints`, read page by page: a log that is signed every minute has half a million in a year."""
        for page in self._pages(_CHECKPOINT_PAGES, -LARGEST, LARGEST, PAGE):
            yield from map(_checkpoint, page)

    def last_checkpoint(self) -> Checkpoint | None:
        """The checkpoint with the largest size; None before the first."""
        row = _LAST_CHECKPOINT.row(self.connection, log_id=self._log_id)
        return None if row is None else _checkpoint(row)

    def put_blob(self, digest: str, data: bytes) -> None:
        """Store content-addressed bytes; the same digest again is kept as it is."""
        _INSERT_BLOB.run(self.connection, digest=digest, data=data)

    def blob(self, digest: str) -> bytes | None:
        """Return content-addressed bytes."""
        row = _BLOB.row(self.connection, digest=digest)
        return None if row is None else stored_bytes(row[0], f"the blob {digest[:16]}…")


def _checkpoint(row: Any) -> Checkpoint:
    size, root, note, created_us = row
    try:
        return Checkpoint(
            size=int(size), root=stored_bytes(root, "its root"), note=str(note), created_at=from_us(created_us)
        )
    except (ValueError, TypeError, OverflowError):
        raise LedgerDamaged(f"the checkpoint of size {size!r} cannot be read; run 'cagg ledger verify'.") from None
