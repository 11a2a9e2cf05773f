"""Checks everything the ledger stores against everything else it stores, and against keys from outside.

In this order: the checkpoints' signatures; their roots, the tiles and the leaf hashes; each leaf hash against its
body; the body against the canonical profile; the index columns, the arithmetic and the idempotency key against the
body; attachments against their digests; the queue. Every failure is listed, not only the first.

What no check can see without help from outside: entries cut off at the end (pass an older checkpoint that was kept
elsewhere as ``since``) and a log that was rewritten and signed again with another key (pass the keys you trust).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from cagg.errors import CaggError, InvalidInput, LedgerDamaged
from cagg.ledger.bodies import check_measurement
from cagg.ledger.encoding import decode
from cagg.ledger.entry import FORMAT, blobs_of, columns_of, idempotency_key, resolve
from cagg.ledger.merkle import EMPTY_ROOT, HASH_BYTES, TILE_WIDTH, Frontier, leaf_hash, tile_root
from cagg.ledger.notes import VerifierKey, parse_note
from cagg.ledger.report import Assurance, Failure, FailureKind, VerifyReport
from cagg.ports import AuditRow, Checkpoint, Transaction
from cagg.records import EntryKind

__all__ = ["Assurance", "Failure", "FailureKind", "VerifyReport", "verify"]

_LONGEST_QUEUED = timedelta(hours=1)
_MISSING = b"\x00" * HASH_BYTES
"""Stands for a leaf hash that cannot be read, so that the tree goes on and every later failure is still found."""


def verify(
    snapshot: Transaction,
    trusted_keys: Sequence[str],
    since: Checkpoint | None = None,
    *,
    longest_queued: timedelta = _LONGEST_QUEUED,
) -> VerifyReport:
    """Verify the whole log, streaming: memory does not grow with its length.

    Args:
        snapshot: a reading transaction.
        trusted_keys: verifier keys as text, from outside the store. Without any, at most ``consistent`` is reached;
            with some, every checkpoint must be signed by one of them.
        since: an older checkpoint that was kept outside the store; the log must continue it.
        longest_queued: entries that wait longer for the sequencer are a failure.

    Raises:
        InvalidInput: a trusted key is no key.
        StoreUnavailable: the store cannot be read.
    """
    keys = [VerifierKey.parse(text) for text in trusted_keys]
    return _Verification(snapshot, keys, since, longest_queued).run()


class _Verification:
    def __init__(
        self, tx: Transaction, keys: Sequence[VerifierKey], since: Checkpoint | None, longest_queued: timedelta
    ) -> None:
        self.tx = tx
        self.keys = keys
        self.since = since
        self.longest_queued = longest_queued
        self.failures: list[Failure] = []
        self.origin = tx.origin()
        self.signed: list[int] = []
        self.rows: list[list[bytes]] = [[]]
        self.tiles = 0
        self._tile_numbers: dict[int, int] = {}
        self.leaves = 0

    def fail(self, kind: FailureKind, index: int | None, message: str) -> None:
        self.failures.append(Failure(kind=kind, index=index, message=message))

    def run(self) -> VerifyReport:
        expected, count = self._expected_roots()
        size = self._size()
        if 0 in expected:
            self._check_roots(expected.pop(0), 0, EMPTY_ROOT)
        frontier = Frontier()
        for row in self._dense_rows(size):
            leaf = row.leaf_hash if row is not None and _is_hash(row.leaf_hash) else _MISSING
            frontier.append(leaf)
            self._grow(0, leaf)
            if frontier.size in expected:
                self._check_roots(expected.pop(frontier.size), frontier.size, frontier.root())
            if row is not None:
                self._check_row(row)
        for at, heads in sorted(expected.items()):
            for name, _ in heads:
                self.fail(
                    FailureKind.TRUNCATED, at, f"{name} covers {at} entries and the log has {size}: entries are gone."
                )
        queued = self._check_queue()
        self._check_counts(count, queued)
        return VerifyReport(
            origin=self.origin,
            size=size,
            root=frontier.root(),
            signed_size=max(self.signed, default=0),
            checkpoints=count,
            queued=queued,
            assurance=self._assurance(size),
            failures=tuple(self.failures),
        )

    def _assurance(self, size: int) -> Assurance:
        if self.failures or size == 0:
            return Assurance.NONE
        if not any(self.signed):
            return Assurance.CONSISTENT
        return Assurance.ANCHORED if self.since is not None and self.since.size > 0 else Assurance.SIGNED

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def _expected_roots(self) -> tuple[dict[int, list[tuple[str, bytes]]], int]:
        """Return the roots that the tree must have at certain sizes, each with the name of who says so."""
        expected: dict[int, list[tuple[str, bytes]]] = {}
        try:
            stored = self.tx.checkpoints()
        except LedgerDamaged as error:
            self.fail(FailureKind.CHECKPOINT, None, str(error))
            return expected, 0
        named = [(f"the checkpoint of size {item.size}", item) for item in stored]
        if self.since is not None:
            named.append((f"the outside checkpoint of size {self.since.size}", self.since))
        for name, item in named:
            try:
                head, signers = parse_note(item.note, self.keys)
            except LedgerDamaged as error:
                self.fail(FailureKind.SIGNATURE, item.size, f"{name}: {error}")
                continue
            if head.origin != self.origin:
                message = f"{name} is of the log {head.origin!r}, this is {self.origin!r}."
                self.fail(FailureKind.CHECKPOINT, item.size, message)
            if (head.size, head.root) != (item.size, item.root):
                message = f"{name} says another size or root in its note than in its columns."
                self.fail(FailureKind.CHECKPOINT, item.size, message)
            if self.keys and not signers:
                self.fail(FailureKind.SIGNATURE, item.size, f"{name} is signed by none of the trusted keys.")
            if signers and item is not self.since:
                self.signed.append(item.size)
            expected.setdefault(head.size, []).append((name, head.root))
        return expected, len(stored)

    def _check_roots(self, heads: Sequence[tuple[str, bytes]], size: int, root: bytes) -> None:
        for name, expected in heads:
            if expected != root:
                self.fail(FailureKind.CHECKPOINT, size, f"{name} has another root than the first {size} entries.")

    # ---- tree ---------------------------------------------------------------------------------------------------

    def _size(self) -> int:
        try:
            return self.tx.tree_size()
        except LedgerDamaged as error:
            self.fail(FailureKind.ROWS, None, str(error))
            return int(self.tx.row_counts()["leaf"])

    def _dense_rows(self, size: int) -> Iterator[AuditRow | None]:
        """Yield every index from 0 on; None where the leaf is missing."""
        at = 0
        for row in self.tx.audit_rows(0, size):
            if row.index - at > 1_000_000:
                self.fail(FailureKind.LEAF, at, f"the leaves {at} to {row.index - 1} are missing.")
                return
            while at < row.index:
                self.fail(FailureKind.LEAF, at, f"leaf {at} is missing.")
                yield None
                at += 1
            self.leaves += 1
            yield row
            at += 1

    def _grow(self, level: int, item: bytes) -> None:
        """Collect the hashes of a level; compare each tile that becomes full with the stored one."""
        if len(self.rows) == level:
            self.rows.append([])
        row = self.rows[level]
        row.append(item)
        if len(row) < TILE_WIDTH:
            return
        hashes = b"".join(row)
        row.clear()
        root = tile_root(hashes)
        number = self._tile_numbers.get(level, 0)
        self._tile_numbers[level] = number + 1
        self.tiles += 1
        first = number << (8 * (level + 1))
        name = f"tile {number} of level {level}"
        try:
            stored = self.tx.tile(level, number)
        except LedgerDamaged:
            stored = b""
        if stored is None:
            self.fail(FailureKind.TILE, first, f"{name} is missing.")
        elif stored != hashes:
            self.fail(FailureKind.TILE, first, f"{name} differs from the hashes below it.")
        else:
            try:
                kept = self.tx.tile_roots(level, number, number + 1)[0]
            except LedgerDamaged:
                kept = b""
            if kept != root:
                self.fail(FailureKind.TILE, first, f"{name} has a wrong root.")
        self._grow(level + 1, root)

    # ---- entries ------------------------------------------------------------------------------------------------

    def _check_row(self, row: AuditRow) -> None:
        index = row.index
        if not _is_hash(row.leaf_hash):
            self.fail(FailureKind.LEAF, index, f"leaf {index} holds no hash.")
        if row.columns is None:
            self.fail(FailureKind.BODY, index, f"the entry of leaf {index} is missing.")
            return
        if not isinstance(row.body, bytes):
            self.fail(FailureKind.BODY, index, f"the body of entry {index} is not bytes.")
            return
        if leaf_hash(row.body) != row.leaf_hash:
            self.fail(FailureKind.BODY, index, f"the body of entry {index} differs from its leaf hash.")
        if row.entry_leaf_hash != row.leaf_hash:
            self.fail(FailureKind.COLUMN, index, f"the leaf hash beside entry {index} differs from the tree's.")
        try:
            body = decode(row.body)
        except LedgerDamaged as error:
            self.fail(FailureKind.PROFILE, index, f"the body of entry {index}: {error}")
            return
        if not isinstance(body, dict) or body.get("v") != FORMAT or body.get("v") is True:
            known = f"the body of entry {index} is not of format {FORMAT}, the only one this version knows."
            self.fail(FailureKind.PROFILE, index, known)
            return
        attached = set(blobs_of(body))
        self._check_blobs(index, attached)
        self._check_envelope(row, body)
        try:
            whole = resolve(self.tx, body)
        except LedgerDamaged as error:
            self.fail(FailureKind.BLOB, index, f"entry {index}: {error}")
            return
        self._check_blobs(index, set(blobs_of(whole)) - attached)  # those that a spilled value names
        self._check_columns(row, whole)
        if "slices" in whole:
            try:
                check_measurement(whole)
            except LedgerDamaged as error:
                self.fail(FailureKind.ARITHMETIC, index, f"entry {index}: {error}")

    def _check_envelope(self, row: AuditRow, body: Mapping[str, Any]) -> None:
        index = row.index
        if body.get("log") != self.origin:
            self.fail(FailureKind.COLUMN, index, f"entry {index} belongs to the log {body.get('log')!r}.")
        if body.get("entry_id") != row.entry_id:
            self.fail(FailureKind.COLUMN, index, f"entry {index} has another id in its body than beside it.")
        try:
            key = idempotency_key(EntryKind(body["kind"]), body["request_key"], body["ordinal"])
        except (InvalidInput, KeyError, ValueError, TypeError):
            self.fail(FailureKind.IDEMPOTENCY, index, f"entry {index} has no kind, request key or ordinal in its body.")
            return
        if body.get("idempotency_key") != key.hex() or row.idempotency_key != key:
            message = f"the idempotency key of entry {index} does not follow from its kind, request key and ordinal."
            self.fail(FailureKind.IDEMPOTENCY, index, message)

    def _check_columns(self, row: AuditRow, whole: Mapping[str, Any]) -> None:
        try:
            expected = columns_of(whole)
        except CaggError as error:
            self.fail(FailureKind.PROFILE, row.index, f"the body of entry {row.index}: {error}")
            return
        assert row.columns is not None  # noqa: S101 - narrows the type
        if row.columns == expected:
            return
        for name in sorted(expected.keys() | row.columns.keys()):
            if row.columns.get(name) != expected.get(name):
                message = f"the column {name} of entry {row.index} differs from its body."
                self.fail(FailureKind.COLUMN, row.index, message)

    def _check_blobs(self, index: int, digests: Collection[str]) -> None:
        for digest in sorted(digests):
            try:
                data = self.tx.blob(digest)
            except LedgerDamaged:
                data = b""
            if data is None:
                self.fail(FailureKind.BLOB, index, f"the attachment {digest[:16]}… of entry {index} is missing.")
            elif sha256(data).hexdigest() != digest:
                self.fail(FailureKind.BLOB, index, f"the attachment {digest[:16]}… of entry {index} was changed.")

    # ---- queue and counts ---------------------------------------------------------------------------------------

    def _check_queue(self) -> int:
        for entry_id in self.tx.queue_faults():
            self.fail(FailureKind.QUEUE, None, f"the queued entry {entry_id} is missing or has another leaf hash.")
        oldest = self.tx.oldest_queued_at()
        if oldest is not None and self.tx.now() - oldest > self.longest_queued:
            message = f"an entry waits for its place since {_when(oldest)}; run 'cagg maintain'."
            self.fail(FailureKind.QUEUE, None, message)
        for entry_id in self.tx.unplaced_entries():
            self.fail(FailureKind.LEAF, None, f"the entry {entry_id} has no leaf and does not wait for one.")
        for entry_id in self.tx.duplicate_entries():
            self.fail(FailureKind.IDEMPOTENCY, None, f"the entry {entry_id} is recorded more than once.")
        return self.tx.queued()

    def _check_counts(self, checkpoints: int, queued: int) -> None:
        counts = self.tx.row_counts()
        expected = {
            "log": 1,
            "leaf": self.leaves,
            "entry": self.leaves + queued,
            "queue": queued,
            "tile": self.tiles,
            "checkpoint": checkpoints,
        }
        for name, number in expected.items():
            if counts[name] != number:
                message = f"the store holds {counts[name]} {name} rows where {number} belong to this log."
                self.fail(FailureKind.ROWS, None, message)


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_BYTES


def _when(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S}Z"
