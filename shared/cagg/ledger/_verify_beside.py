"""What only the store can tell of entries: attachments, spilled values, personal values, the queue, odd clocks."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Any

from cagg.errors import LedgerDamaged
from cagg.ledger._verify_body import Found, Row, check_whole, decoded
from cagg.ledger._verify_failures import Failures
from cagg.ledger.entry import blobs_of, resolve
from cagg.ledger.key_entries import key_entries
from cagg.ledger.lineage import log_entries
from cagg.ledger.merkle import leaf_hash
from cagg.ledger.private import check_private, redactions
from cagg.ledger.report import FailureKind
from cagg.ports import LedgerRows, Transaction

__all__ = ["Beside", "ClockCheck", "check_queue", "check_rows", "check_told"]

_MOST_REMEMBERED = 16_384
"""Attachments that are remembered as checked, so that a forecast that many decisions name is read once."""

_ODD = timedelta(minutes=30)
"""How far clocks may be apart before it is worth a note; own choice: a clock that is an hour off, because somebody set
local time where UTC belongs, shows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


class Beside:
    """Checks of one log's entries that read the store.

    Attributes:
        private_rows: how many personal values were found beside the entries that name them.
        unread: how many of them this role may not read, so that they were not compared with their commitments.
    """

    def __init__(self, tx: Transaction, names: Sequence[str]) -> None:
        self.private_rows = 0
        self.unread = 0
        self._tx = tx
        self._names = names
        self._intact: set[str] = set()
        self._redacted: Container[tuple[str, str]] | None = None

    def check_attachments(self, index: int, digests: Collection[str]) -> list[Found]:
        """Compare attachments with the digests that an entry names."""
        found: list[Found] = []
        for digest in sorted(digests):
            if digest in self._intact:
                continue
            try:
                data = self._tx.blob(digest)
            except LedgerDamaged:
                data = b""
            if data is None:
                message = f"the attachment {digest[:16]}… of entry {index} is missing."
            elif sha256(data).hexdigest() != digest:
                message = f"the attachment {digest[:16]}… of entry {index} was changed."
            else:
                if len(self._intact) >= _MOST_REMEMBERED:
                    self._intact.clear()
                self._intact.add(digest)
                continue
            found.append((FailureKind.BLOB.value, index, message))
        return found

    def check_entry(self, row: Row, origin: str) -> list[Found]:
        """Check a row whose body has spilled or personal values; its envelope was checked without the store."""
        index, found = row[0], []  # type: int, list[Found]
        body = decoded(row, origin, [])
        if body is None:
            return found
        if "spilled" in body:
            try:
                whole = resolve(self._tx, body)
            except LedgerDamaged as error:
                return [(FailureKind.BLOB.value, index, f"entry {index}: {error}")]
            found += self.check_attachments(index, set(blobs_of(whole)) - set(blobs_of(body)))
            found += check_whole(row, self._names, whole)
            body = whole
        if "private" in body:
            found += self._check_private(index, body)
        return found

    def _check_private(self, index: int, body: Mapping[str, Any]) -> list[Found]:
        try:
            if self._redacted is None:
                self._redacted = redactions(self._tx)
            check = check_private(self._tx, body, self._redacted)
        except LedgerDamaged as error:
            return [(FailureKind.PRIVATE.value, index, f"entry {index}: {error}")]
        self.private_rows += check.rows
        self.unread += check.unread
        return [(FailureKind.PRIVATE.value, index, f"entry {index}: {problem}") for problem in check.problems]


# ---- clocks ---------------------------------------------------------------------------------------------------------


class ClockCheck:
    """Looks for times of recording that run backwards or lie in the future; both happen, and neither is a failure.

    Args:
        now: the store's time.
        column: position of ``recorded_us`` in a row.
    """

    def __init__(self, now: datetime, column: int) -> None:
        self._latest = (now - _EPOCH + _ODD) // _US
        self._odd = _ODD // _US
        self._column = column
        self._last: int | None = None
        self._backwards: list[int] = []
        self._future: list[int] = []
        self._counts = [0, 0]

    def feed(self, rows: Sequence[Row]) -> None:
        """Look at the next rows, in their order."""
        timed = [(row[0], row[self._column]) for row in rows if type(row[self._column]) is int]
        if not timed:
            return
        times = [time for _, time in timed]
        if self._last is None:
            self._last = times[0]
        if max(times) > self._latest:
            for index, time in timed:
                if time > self._latest:
                    self._note(1, self._future, index)
        if any(after < before - self._odd for before, after in pairwise([self._last, *times])):
            for (_, before), (index, after) in pairwise([(-1, self._last), *timed]):
                if after < before - self._odd:
                    self._note(0, self._backwards, index)
        self._last = times[-1]

    def _note(self, which: int, places: list[int], index: int) -> None:
        self._counts[which] += 1
        if len(places) < 3:
            places.append(index)

    def notes(self) -> tuple[str, ...]:
        """Return one sentence for each oddity."""
        found = []
        if self._backwards:
            what = "say a time of recording more than half an hour before that of the entry in front of them"
            found.append(_sentence(self._counts[0], self._backwards, what))
        if self._future:
            what = "say a time of recording more than half an hour in the future"
            found.append(_sentence(self._counts[1], self._future, what))
        return tuple(found)


def _sentence(count: int, places: Sequence[int], what: str) -> str:
    more = ", …" if count > len(places) else ""
    listed = ", ".join(map(str, places))
    return f"{count} of the entries {what} (entry {listed}{more}); a clock was set wrong, or was corrected."


# ---- what logs say of themselves ------------------------------------------------------------------------------------


def check_told(tx: LedgerRows, failures: Failures) -> None:
    """Compare the few entries that say which keys count, and how logs follow from one another, with their leaves.

    Verification goes by them also when it reads no other entry.
    """
    try:
        told = [*tx.entries(limit=1), *log_entries(tx), *key_entries(tx)]
        for index, body in {item.index: item.body for item in told if item.index is not None}.items():
            if tx.leaf_hashes(index, index + 1) != [leaf_hash(body)]:
                failures.add(FailureKind.BODY, index, f"the body of entry {index} differs from its leaf hash.")
    except LedgerDamaged as error:
        failures.add(FailureKind.BODY, None, str(error))


# ---- queue and counts -----------------------------------------------------------------------------------------------


def check_queue(tx: Transaction, longest_queued: timedelta, failures: Failures) -> int:
    """Check the entries that wait for their place; returns how many do."""
    for entry_id in tx.queue_faults():
        message = f"the queued entry {entry_id} is missing or has another leaf hash."
        failures.add(FailureKind.QUEUE, None, message)
    try:
        oldest = tx.oldest_queued_at()
    except LedgerDamaged:
        oldest = None
        failures.add(FailureKind.QUEUE, None, "an entry waits for its place since a time that is none.")
    if oldest is not None and tx.now() - oldest > longest_queued:
        message = f"an entry waits for its place since {oldest:%Y-%m-%d %H:%M:%S}Z; run 'cagg maintain'."
        failures.add(FailureKind.QUEUE, None, message)
    return tx.queued()


def check_rows(
    tx: LedgerRows, expected: Mapping[str, int], failures: Failures, *, doubtful: bool, tree_only: bool
) -> None:
    """Compare the number of rows with what belongs to the log, and look for entries without a place or twice.

    Args:
        tx: a transaction of the log.
        expected: rows by table.
        failures: where failures go.
        doubtful: True when something failed or entries wait, so that equal numbers alone show nothing.
        tree_only: compare the numbers alone.
    """
    counts = tx.row_counts()
    wrong = {name: number for name, number in expected.items() if counts[name] != number}
    if not tree_only and (
        wrong or doubtful
    ):  # otherwise every entry has its own leaf, because there are as many as leaves
        for entry_id in tx.unplaced_entries():
            failures.add(FailureKind.LEAF, None, f"the entry {entry_id} has no leaf and does not wait for one.")
    for entry_id in () if tree_only else tx.duplicate_entries():
        failures.add(FailureKind.IDEMPOTENCY, None, f"the entry {entry_id} is recorded more than once.")
    for name, number in wrong.items():
        message = f"the store holds {counts[name]} {name} rows where {number} belong to this log."
        failures.add(FailureKind.ROWS, None, message)
