"""Every interface between the core and the world, on one page.

An implementation is an adapter: it translates and holds no rule. Each port has a contract suite in
``cagg.testing`` that every implementation runs, the fakes included.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from cagg.entries import Entry, EntryKind, Log, PrivateValue
from cagg.intensity import IntensitySeries, Zone
from cagg.pastruns import HistoryOptions, PastPipeline, PastRun
from cagg.provenance import Convention, Grade, IntensityKind
from cagg.records import Allotment, Budget, Reservation
from cagg.rows import AuditRow, Checkpoint, HistoryPoint, JournalRow, StoredForecast
from cagg.windows import Window

__all__ = [
    "AuditRow",
    "BudgetRows",
    "Checkpoint",
    "Clock",
    "EnergySource",
    "ForecastRows",
    "HistoryPoint",
    "HostHistory",
    "HostRuns",
    "IntensityProvider",
    "JournalRow",
    "LedgerRows",
    "RemembersRuns",
    "RunState",
    "Sample",
    "Signer",
    "Store",
    "StoredForecast",
    "Transaction",
    "UsageReader",
]


# ---- time ---------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time. ``cagg.clock.SystemClock`` and ``cagg.testing.ManualClock``."""

    def now(self) -> datetime:
        """The current instant, aware, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never run backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        ...

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Block until the event is set (True) or the timeout has passed (False)."""
        ...


# ---- grid ---------------------------------------------------------------------------------------------------------


class IntensityProvider(Protocol):
    """A source of carbon intensity.

    Attributes:
        name: namespace of its zones, for example ``neso``.
        convention: signal, basis and gas of everything it returns.
        kind: what its numbers are at best (a forecast provider may return measured points for the past).
    """

    name: str
    convention: Convention
    kind: IntensityKind

    def knows(self, zone: Zone) -> bool:
        """True when the zone is in this provider's namespace and may have data. No network."""
        ...

    def fetch(self, zone: Zone, window: Window) -> IntensitySeries:
        """Return what is known of the window, possibly less, never of another zone.

        Raises:
            IntensityUnavailable: timeout, refused, no data, or an answer that is not what was asked.
        """
        ...

    async def fetch_async(self, zone: Zone, window: Window) -> IntensitySeries:
        """As :meth:`fetch`, for callers in an event loop."""
        ...


# ---- energy -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One reading of a cumulative energy counter.

    Attributes:
        monotonic_ns: when, on the meter's clock.
        millijoules: energy since the source was opened; wraps of the hardware are already undone.
    """

    monotonic_ns: int
    millijoules: int


class EnergySource(Protocol):
    """A cumulative energy counter of the host, measured or modelled.

    Attributes:
        name: ``rapl``, ``cpu_model``, ``nvml`` …
        domain: ``cpu``, ``memory``, ``gpu:0`` …
        grade: best grade a reading from it can have.
        resolution_seconds: how coarse the counter is in time (boundary uncertainty).
        sensor_uncertainty: relative standard uncertainty of the counter, as a share.
        longest_interval_seconds: the meter must read it at least this often.
        idle_milliwatts: idle power in this domain; None when unknown.
    """

    name: str
    domain: str
    grade: Grade
    resolution_seconds: float
    sensor_uncertainty: float
    longest_interval_seconds: float
    idle_milliwatts: int | None

    def read(self) -> Sample:
        """Read the counter.

        Raises:
            MeterUnavailable: it cannot be read now, or went backwards; the meter discards the slice and says so.
        """
        ...

    def describe(self) -> Mapping[str, str]:
        """Hardware class, model and coefficient versions, for the record."""
        ...


class UsageReader(Protocol):
    """How much processor time one run has used.

    Attributes:
        name: ``cgroup``, ``process_tree`` or ``thread``.
    """

    name: str

    def cpu_ns(self) -> int:
        """Cumulative processor time in nanoseconds; never decreases."""
        ...


# ---- ledger -------------------------------------------------------------------------------------------------------


class Signer(Protocol):
    """Signs checkpoints; lives with ``cagg maintain``, never with workers."""

    name: str

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (64 bytes)."""
        ...

    def public_key(self) -> bytes:
        """Return the raw Ed25519 public key (32 bytes)."""
        ...


# ---- store --------------------------------------------------------------------------------------------------------


class LedgerRows(Protocol):
    """Rows of the ledger. Insert only, except the queue.

    Attributes:
        sequences_inline: True where an append gives its entry a place in the tree at once, because the store has
            one writer at a time; False where a sequencer does it later.
    """

    sequences_inline: bool

    def entry_by_key(self, idempotency_key: bytes) -> Entry | None:
        """Return the entry with this key, of this log or of one before it."""
        ...

    def entries_by_keys(self, idempotency_keys: Collection[bytes]) -> Mapping[bytes, Entry]:
        """Return the entries with any of these keys, of this log or of those before it, by key."""
        ...

    def entry(self, entry_id: str) -> Entry | None:
        """Return the entry with this id, of this log or of one before it."""
        ...

    def entries_between(self, first_id: str, last_id: str, limit: int) -> Sequence[Entry]:
        """Entries of any log whose id lies in ``[first_id, last_id]``, ascending by id, at most ``limit``."""
        ...

    def insert_entries(self, entries: Sequence[tuple[Entry, Mapping[str, str | int | None]]]) -> Collection[bytes]:
        """Insert entries with other keys each, in few statements, with their leaves when they have an index, else with
        their queue rows; each beside its columns, which are re-derivable from the body (ledger.entry.columns_of).

        Leaves out those whose idempotency key is recorded already, in this log or in one before it, and returns these
        keys. The places given go, in their order, to the entries that are kept.
        """
        ...

    def take_queued(self, limit: int) -> Sequence[tuple[str, bytes]]:
        """Remove and return up to ``limit`` (entry_id, leaf_hash), oldest first.

        Locks the log for the transaction, so that the places given out next are the only ones; empty while another
        transaction has it locked.
        """
        ...

    def queued(self) -> int:
        """How many entries wait for the sequencer."""
        ...

    def oldest_queued_at(self) -> datetime | None:
        """When the entry that waits longest for the sequencer was written; None when none waits.

        Raises:
            LedgerDamaged: the queue holds a time that is none.
        """
        ...

    def insert_leaves(self, first_index: int, leaves: Sequence[tuple[str, bytes]]) -> None:
        """Give (entry_id, leaf_hash) the dense indexes from ``first_index`` on."""
        ...

    def tree_size(self) -> int:
        """Number of sequenced leaves."""
        ...

    def leaf_hashes(self, start: int, stop: int) -> Sequence[bytes]:
        """Leaf hashes by index, ``[start, stop)``."""
        ...

    def put_tile(self, level: int, number: int, hashes: bytes, root: bytes) -> None:
        """Store one full tile (256 hashes of 32 bytes) with the root over them. Immutable."""
        ...

    def tile(self, level: int, number: int) -> bytes | None:
        """Return a full tile."""
        ...

    def tile_roots(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        """Roots of the full tiles ``[start, stop)`` of a level: the hashes of the level above.

        Raises:
            LedgerDamaged: a tile in the range is missing.
        """
        ...

    def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store a signed checkpoint. Same size and root again: kept as it is."""
        ...

    def checkpoints(self) -> Sequence[Checkpoint]:
        """All checkpoints by size, ascending."""
        ...

    def each_checkpoint(self) -> Iterator[Checkpoint]:
        """:meth:`checkpoints`, read page by page."""
        ...

    def last_checkpoint(self) -> Checkpoint | None:
        """The checkpoint with the largest size; None before the first."""
        ...

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
        """Entries by index from ``start`` on, then those that wait for their place, filtered; streams.

        An entry that was committed is seen at once, with the index None until it is sequenced. ``newest_first`` is the
        same backwards. Each entry comes once, even when it is sequenced while this reads.
        """
        ...

    def columns(self, start: int, stop: int) -> Iterator[tuple[int, str, Mapping[str, str | int | None]]]:
        """(index, entry_id, stored columns) by index, for verification."""
        ...

    def audit_rows(self, start: int, stop: int) -> Iterator[AuditRow]:
        """Leaves of ``[start, stop)`` with whatever is stored for their entries, exactly as it is stored."""
        ...

    def audit_pages(self, start: int, stop: int) -> Iterator[Sequence[tuple[Any, ...]]]:
        """:meth:`audit_rows` page by page, as plain values: (index, entry id, leaf hash) of the leaf, then (entry id,
        idempotency key, body, leaf hash, columns …) of the entry, None where it is missing."""
        ...

    def audit_columns(self) -> Sequence[str]:
        """Names of the columns that :meth:`audit_pages` gives after the first seven values."""
        ...

    def waiting_pages(self, first_index: int) -> Iterator[Sequence[tuple[Any, ...]]]:
        """:meth:`audit_pages` of the entries that wait, as if they had the places from ``first_index`` on; the leaf
        hash is the queue's."""
        ...

    def leaf_pages(self, start: int, stop: int) -> Iterator[Sequence[tuple[Any, ...]]]:
        """(index, leaf hash) of the leaves of ``[start, stop)`` page by page, exactly as they are stored."""
        ...

    def row_counts(self) -> Mapping[str, int]:
        """Rows of this log by table (entry, queue, leaf, tile, checkpoint; private beside entries that have their
        place), and under ``foreign`` the rows of these tables that belong to no log of the store, for verification."""
        ...

    def duplicate_entries(self) -> Sequence[str]:
        """Ids of entries that share an idempotency key, also with a log before this one, or have several leaves; and
        of those whose id is of an entry before. For verification."""
        ...

    def unplaced_entries(self) -> Sequence[str]:
        """Ids of entries without a leaf that do not wait in the queue either, for verification."""
        ...

    def queue_faults(self) -> Sequence[str]:
        """Ids of queue rows whose entry is missing or has another leaf hash, for verification."""
        ...

    def put_blob(self, digest: str, data: bytes) -> None:
        """Store content-addressed bytes; the same digest again is kept as it is."""
        ...

    def blob(self, digest: str) -> bytes | None:
        """Return content-addressed bytes."""
        ...

    def history(self, task_key: str, limit: int) -> Sequence[HistoryPoint]:
        """Newest measurements of a task in any log, newest first; a run that was given up as lost and completed after
        all counts once, as it completed."""
        ...

    def origin(self) -> str:
        """The log's name: the first line of its checkpoints."""
        ...

    def logs(self) -> Sequence[Log]:
        """All logs of the store, oldest first; the last one is active."""
        ...

    def in_log(self, origin: str) -> Transaction:
        """This transaction, reading another log of the store; raises InvalidInput when there is none of the name."""
        ...

    def lock_log(self) -> None:
        """Keep every other writer of the log out until the transaction ends.

        Waits for the writers that are under way: what they committed can be sequenced now, and what comes later waits
        and appends to whichever log is active then. For :meth:`begin_log`, whose log needs a last entry that is last.
        """
        ...

    def begin_log(self, origin: str) -> Transaction:
        """Freeze the log and begin the next; returns this transaction, in the new log.

        Waits for the writers that are under way; those that come later append to the new log. A frozen log takes no
        entry, whoever asks.

        Raises:
            InvalidInput: the name is taken, or this log is frozen already, or entries still wait for their place.
        """
        ...

    def put_private(self, values: Sequence[PrivateValue]) -> None:
        """Keep personal values beside their entries; a value that is there already is kept as it is."""
        ...

    def private_values(self, entry_id: str | None = None) -> Iterator[PrivateValue]:
        """Personal values of an entry of any log, or of this whole log, by entry and field; streams.

        Raises:
            StoreUnavailable: this role may not read them; the transaction goes on.
        """
        ...

    def private_fields(self, entry_id: str) -> Sequence[str]:
        """Fields of which a personal value of an entry is kept, ascending; for readers, which may not see values."""
        ...

    def may_read_private(self) -> bool:
        """True when this role may read personal values; readers and writers of a shared store may not."""
        ...

    def same_private(self, entry_id: str, values: Mapping[str, str]) -> bool:
        """True when none of these values (by field) differs from the one kept of the entry; of one that was deleted
        nobody can tell. For writers, which may not read personal values."""
        ...

    def drop_private(self, entry_id: str, field: str) -> bool:
        """Delete a personal value with its salt; False when there is none."""
        ...


class BudgetRows(Protocol):
    """Rows of budgets, allotments, reservations, holds and the journal."""

    def budgets(self, path: str | None = None) -> Sequence[Budget]:
        """Current budgets of exactly this path; all of them for None; ordered by path, unit, period."""
        ...

    def budgets_on(self, paths: Collection[str]) -> Sequence[Budget]:
        """Current budgets of any of these paths, ordered as in :meth:`budgets`."""
        ...

    def put_budget(self, budget: Budget, at: datetime) -> None:
        """Insert a budget or its next version; raises ReservationConflict when another just did."""
        ...

    def lock_allotments(
        self, wanted: Sequence[tuple[Budget, Window]], held: Collection[int] = ()
    ) -> Sequence[Allotment]:
        """Lock allotments for the transaction in the documented order and return them, each once, in that order.

        Args:
            wanted: budgets with the periods whose allotments are created, with the budget's limit, when new.
            held: ids of further ones; those that do not exist are left out.
        """
        ...

    def allotment(self, budget: Budget, window: Window) -> Allotment:
        """Return the allotment of the period, created with the budget's limit when new, and lock it for the
        transaction. Callers lock in the documented order (see budget.reservations)."""
        ...

    def allotment_by_id(self, allotment_id: int) -> Allotment:
        """Return an allotment and lock it for the transaction."""
        ...

    def allotments(self, path: str | None = None) -> Sequence[Allotment]:
        """Allotments of a path (all for None), newest period first, not locked."""
        ...

    def allotments_by_id(self, allotment_ids: Collection[int]) -> Sequence[Allotment]:
        """Return these allotments, ascending by id, not locked; ids that do not exist are left out."""
        ...

    def allotments_overlapping(self, budget: Budget, window: Window) -> Sequence[Allotment]:
        """Opened allotments of the budget's (path, unit, period) that share an instant with the window, earliest
        first, not locked."""
        ...

    def opened(self, wanted: Sequence[tuple[Budget, Window]]) -> Sequence[Sequence[Allotment]]:
        """:meth:`allotments_overlapping` for each of several budgets, in the same order."""
        ...

    def set_allotment_limit(self, allotment_id: int, limit: int) -> None:
        """Change the limit of an open period after the budget was changed."""
        ...

    def post(self, row: JournalRow) -> None:
        """:meth:`post_all` of one row that may pass no enforced limit."""
        ...

    def post_all(self, rows: Sequence[JournalRow], *, allow_over: Collection[int] = ()) -> None:
        """Insert journal rows and change the allotments' counters by them; at most one row per allotment.

        A store may check once more that no hold passes an enforced limit, except of allotments in ``allow_over``.

        Raises:
            InvalidInput: an allotment does not exist.
            ReservationConflict: the store refuses a hold above an enforced limit; nothing was posted.
        """
        ...

    def journal_sums(self) -> Mapping[int, tuple[int, int, int]]:
        """Sums of (d_held, d_spent, d_overrun) by allotment."""
        ...

    def journal(self, request_key: str) -> Sequence[JournalRow]:
        """Journal rows of one request, in the order in which they were posted."""
        ...

    def reservation(self, request_key: str) -> Reservation | None:
        """Return a reservation with its holds, locked for the transaction."""
        ...

    def reservations(
        self,
        *,
        series_key: str | None = None,
        host: str | None = None,
        root_run_id: str | None = None,
        open_only: bool = False,
    ) -> Sequence[Reservation]:
        """Reservations, oldest first, not locked."""
        ...

    def due(
        self,
        now: datetime,
        waiting_grace_seconds: float,
        limit: int,
        *,
        open_ended_grace_seconds: float | None = None,
        paths: Collection[str] | None = None,
    ) -> Sequence[Reservation]:
        """Open reservations whose lease has ended, or that wait past deadline + grace (without a deadline: past
        planned start + ``open_ended_grace_seconds``, None = the same grace), oldest first, locked, skipping what
        others have locked. ``paths`` = only those that hold something from a budget of one of these paths."""
        ...

    def put_reservation(self, reservation: Reservation) -> None:
        """Insert or replace a reservation and its holds."""
        ...

    def book(self, reservation: Reservation, rows: Sequence[JournalRow], *, allow_over: Collection[int] = ()) -> None:
        """:meth:`post_all`, then :meth:`put_reservation`; neither when the rows are refused."""
        ...


class ForecastRows(Protocol):
    """The forecast cache that gates share."""

    def put_forecast(self, forecast: StoredForecast) -> None:
        """Store a series; older vintages of the same provider and zone are kept for a day, and longer while an open
        reservation may be priced with them."""
        ...

    def forecasts(self, provider: str, zone: str, since: datetime) -> Sequence[StoredForecast]:
        """Series fetched at or after ``since``, newest first."""
        ...

    def drop_forecasts(self, before: datetime) -> int:
        """Delete series fetched before an instant, except what open reservations may be priced with; returns how
        many."""
        ...


class Transaction(LedgerRows, BudgetRows, ForecastRows, Protocol):
    """Everything one transaction can do. Commits when its ``with`` block ends, rolls back on an exception."""

    def now(self) -> datetime:
        """The store's own time, UTC, the same throughout the transaction."""
        ...

    def schema_version(self) -> str:
        """The version that the store says its schema has; a newer program may have moved it on."""
        ...


class Store(Protocol):
    """Where everything is kept. ``store.transaction()`` is opened only by the upper rows and passed down."""

    url: str

    def transaction(self) -> AbstractContextManager[Transaction]:
        """A writing transaction; writers of one SQLite file take turns.

        Raises:
            StoreUnavailable: the store cannot be reached, is read-only, or is locked for too long.
        """
        ...

    def snapshot(self) -> AbstractContextManager[Transaction]:
        """A reading transaction: one consistent state, no lock against writers, creates nothing."""
        ...

    def migrate(self) -> bool:
        """Create the tables, or bring them to this program's version; True when they were created.

        On PostgreSQL nothing else does; a SQLite file is created and brought up to date by its first writer as well.

        Raises:
            StoreUnavailable: the store cannot be reached or written.
        """
        ...

    def rest(self) -> None:
        """Give back what others may need while this process works for hours: idle connections to a server. A file
        costs nobody else anything and stays open."""
        ...

    def close(self) -> None:
        """Release connections; the store may be used again and opens them anew."""
        ...


# ---- hosts --------------------------------------------------------------------------------------------------------


class RunState(StrEnum):
    """What the host says about a run."""

    ALIVE = "alive"
    """scheduled, waiting or running"""
    ENDED = "ended"
    """finished, failed, cancelled"""
    GONE = "gone"
    """deleted, or never heard of"""
    UNKNOWN = "unknown"
    """the host cannot be asked now"""


class HostRuns(Protocol):
    """What ``cagg maintain`` asks an engine. Registered under the entry point group ``cagg.hosts``."""

    name: str

    def run_state(self, root_run_id: str, reference: str = "") -> RunState:
        """State of one run; never raises, UNKNOWN when the host cannot be asked.

        Args:
            root_run_id: the run that a person sees.
            reference: the very task run within it, as the adapter named it (Request.run_reference); empty = the root.
        """
        ...

    def describe(self) -> Mapping[str, str]:
        """Version and address for ``cagg doctor``; no secrets."""
        ...


class HostHistory(Protocol):
    """What ``cagg assess`` reads of an engine: what it remembers of past runs. Only reads; changes nothing there.

    Attributes:
        notes: what could not be read or was left out, in sentences; grows while runs are read.
    """

    notes: list[str]

    def pipelines(self) -> Sequence[PastPipeline]:
        """Every pipeline that the engine knows now; raises HostUnavailable."""
        ...

    def runs(self, since: datetime, until: datetime, progress: Callable[[int, int | None], None]) -> Iterator[PastRun]:
        """Attempts that started in ``[since, until)``, in any order; streams. Raises HostUnavailable.

        ``progress`` hears how many were read and how many there are; None while nobody knows.
        """
        ...

    def snippet(self, pipeline: str, zone: str | None, max_wait: str) -> str:
        """The lines that gate this pipeline, as its author would write them."""
        ...


@runtime_checkable
class RemembersRuns(Protocol):
    """A HostRuns class, not its instances, that also has a history to show."""

    def history(self, options: HistoryOptions) -> AbstractContextManager[HostHistory]:
        """Open the history. Raises HostUnavailable or ConfigurationError."""
        ...
