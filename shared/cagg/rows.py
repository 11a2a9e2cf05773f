"""Values that a store hands over row by row: tree heads, leaves under audit, past runs, forecasts, journal rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

__all__ = ["AuditRow", "Checkpoint", "HistoryPoint", "JournalRow", "StoredForecast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed tree head as stored: size, root (32 bytes) and the signed note's text."""

    size: int
    root: bytes
    note: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One leaf beside what is stored for its entry, unchecked: any field may have been tampered with.

    Attributes:
        index, entry_id, leaf_hash: the leaf.
        idempotency_key, body, entry_leaf_hash: the entry; None when it is missing.
        columns: the entry's cached columns; None when it is missing.
    """

    index: int
    entry_id: str
    leaf_hash: bytes
    idempotency_key: bytes | None
    body: bytes | None
    entry_leaf_hash: bytes | None
    columns: Mapping[str, str | int | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """One past run of a task, from the ledger.

    Attributes:
        energy_millijoules: None when it could not be measured.
        duration_ms: wall time.
        completed: False for a run that failed or died: a lower bound of what a full run needs.
        started_at: when it started.
    """

    energy_millijoules: int | None
    duration_ms: int
    completed: bool
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForecast:
    """A cached series: encoded bytes are opaque to the store."""

    provider: str
    zone: str
    convention: str
    fetched_at: datetime
    start: datetime
    end: datetime
    digest: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """One change of an allotment's counters; insert only. Counters equal the journal's sums.

    Attributes:
        kind: hold, amend, settle, release, expire, late_settle or limit.
        request_key: whose; empty for changes of the limit.
        d_held, d_spent, d_overrun: signed changes in the allotment's unit.
    """

    allotment_id: int
    request_key: str
    kind: str
    d_held: int
    d_spent: int
    d_overrun: int
    at: datetime
