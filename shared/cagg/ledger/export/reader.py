"""Reads a log for an export, entry by entry, and never hands on what the tree or a checkpoint contradicts.

The hash of every body is compared with the leaf in the tree, and the root with every checkpoint that is passed:
figures that were edited after they were signed must not leave the store as a tidy table. Signatures are not checked
here; that, and the rest, is what ``cagg ledger verify`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from cagg.entries import Entry, EntryKind
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.encoding import decode
from cagg.ledger.entry import instant_us, resolve
from cagg.ledger.merkle import EMPTY_ROOT, Frontier, leaf_hash
from cagg.ledger.notes import TreeHead
from cagg.ports import LedgerRows
from cagg.windows import format_instant, to_epoch_us

__all__ = ["Exported", "LogReader", "Selection", "StoreReader"]

_PAGE = 512
"""Leaf hashes that are read at once."""

_REMEDY = "nothing more was exported; run 'cagg ledger verify'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which entries are exported.

    Attributes:
        kinds: only these; empty = all.
        since, until: recorded in ``[since, until)``; None = from the beginning, to the end.
        field: only entries whose bodies have this field; empty = all.
    """

    kinds: frozenset[EntryKind] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    field: str = ""

    def __post_init__(self) -> None:
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise InvalidInput(
                f"the export's end {format_instant(self.until)} must lie after its start {format_instant(self.since)}."
            )

    def holds(self, body: Mapping[str, Any]) -> bool:
        """True when the entry with this body is wanted; decided by the hashed body, not by columns beside it.

        Raises:
            LedgerDamaged: the body says no readable kind or time.
        """
        if (self.kinds and body.get("kind") not in self.kinds) or (self.field and self.field not in body):
            return False
        if self.since is None and self.until is None:
            return True
        at_us = instant_us(body.get("recorded_at"), "recorded_at")
        after_start = self.since is None or to_epoch_us(self.since) <= at_us
        return after_start and (self.until is None or at_us < to_epoch_us(self.until))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One entry on its way out.

    Attributes:
        origin: name of its log.
        entry: as it is stored; it has an index.
        index: its place in the tree.
        body: its decoded bytes; values that were too large for it stand there as the names of blobs.
        signed: the smallest checkpoint that covers it; None while it is not signed.
    """

    origin: str
    entry: Entry
    index: int
    body: Mapping[str, Any]
    signed: TreeHead | None


class LogReader:
    """Iterates over the wanted entries of a log, by index; memory grows with the checkpoints, not with the entries.

    Entries that wait for their place in the tree are left out: nothing vouches for them yet. After the iteration the
    attributes say what was passed.

    Attributes:
        origin: the log's name.
        entries: how many were handed on.
        size: how many the tree holds.
        root: root over them, recomputed.
        signed_size: entries under the newest checkpoint.
    """

    def __init__(self, tx: LedgerRows, selection: Selection | None = None) -> None:
        self.origin = tx.origin()
        self.entries = 0
        self.size = 0
        self.root = EMPTY_ROOT
        self.signed_size = 0
        self._tx = tx
        self._selection = Selection() if selection is None else selection

    @property
    def tx(self) -> LedgerRows:
        """What is read from."""
        return self._tx

    def resolved(self, item: Exported) -> dict[str, Any]:
        """Return an entry's body with its large values put back; raises LedgerDamaged when one is missing."""
        try:
            return resolve(self._tx, item.body)
        except LedgerDamaged as error:
            raise LedgerDamaged(f"entry {item.index}: {error} {_REMEDY}") from None

    def __iter__(self) -> Iterator[Exported]:
        """Yield the wanted entries.

        Raises:
            LedgerDamaged: an entry is missing or differs from the tree, or the tree from a checkpoint.
        """
        # a name, a size and a root each: the notes are let go
        heads = iter([TreeHead(origin=self.origin, size=c.size, root=c.root) for c in self._tx.checkpoints() if c.size])
        head = next(heads, None)
        frontier = Frontier()
        for entry, index in self._placed():
            frontier.append(entry.leaf_hash)
            signed = head
            while head is not None and head.size == frontier.size:
                if head.root != frontier.root():
                    raise LedgerDamaged(f"the first {head.size} entries differ from their checkpoint; {_REMEDY}")
                self.signed_size = head.size
                head = next(heads, None)
            body = _decoded(entry, index)
            if self._selection.holds(body):
                self.entries += 1
                yield Exported(origin=self.origin, entry=entry, index=index, body=body, signed=signed)
        if head is not None:
            raise LedgerDamaged(f"a checkpoint covers {head.size} entries, the log has {frontier.size}; {_REMEDY}")
        self.size, self.root = frontier.size, frontier.root()

    def _placed(self) -> Iterator[tuple[Entry, int]]:
        """Yield every entry of the tree with its index, compared with its leaf."""
        size = self._tx.tree_size()
        leaves = chain.from_iterable(
            self._tx.leaf_hashes(at, min(at + _PAGE, size)) for at in range(0, size, _PAGE)
        )  # lazily, page by page
        expected = 0
        for entry, leaf in zip(self._tx.entries(), leaves, strict=False):
            if entry.index != expected:
                break
            if not entry.leaf_hash == leaf == leaf_hash(entry.body):
                raise LedgerDamaged(f"entry {expected} was changed after it was recorded; {_REMEDY}")
            yield entry, expected
            expected += 1
        if expected != size:
            raise LedgerDamaged(f"entry {expected} is missing from the log; {_REMEDY}")


class StoreReader:
    """As :class:`LogReader`, over several logs of a store, one after the other.

    Attributes:
        logs: the readers of the logs, oldest first; each says what it passed.
    """

    def __init__(self, logs: Sequence[LedgerRows], selection: Selection | None = None) -> None:
        self.logs = tuple(LogReader(tx, selection) for tx in logs)

    @property
    def tx(self) -> LedgerRows:
        """What the oldest of the logs is read from."""
        return self.logs[0].tx

    @property
    def origin(self) -> str:
        """Name of the oldest of the logs."""
        return self.logs[0].origin

    @property
    def entries(self) -> int:
        """How many entries were handed on."""
        return sum(item.entries for item in self.logs)

    def resolved(self, item: Exported) -> dict[str, Any]:
        """As :meth:`LogReader.resolved`."""
        return next(reader for reader in self.logs if reader.origin == item.origin).resolved(item)

    def __iter__(self) -> Iterator[Exported]:
        """Yield the wanted entries of each log; raises LedgerDamaged as the readers do."""
        return chain.from_iterable(self.logs)


def _decoded(entry: Entry, index: int) -> Mapping[str, Any]:
    try:
        body = decode(entry.body)
    except LedgerDamaged as error:
        raise LedgerDamaged(f"the body of entry {index}: {error} {_REMEDY}") from None
    if not isinstance(body, dict):
        raise LedgerDamaged(f"the body of entry {index} is no object; {_REMEDY}")
    return body
