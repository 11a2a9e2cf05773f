"""Makes proofs from a stored log: reads the few tiles and rows that each needs, and never hands out one that fails."""

from __future__ import annotations

from collections.abc import Sequence

from cagg.errors import InvalidInput, LedgerDamaged, NotProven
from cagg.ledger.merkle import (
    HASH_BYTES,
    TILE_WIDTH,
    TreeReader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    split_hashes,
    verify_consistency,
    verify_inclusion,
)
from cagg.ledger.notes import TreeHead, parse_note
from cagg.ledger.proofs import ConsistencyProof, InclusionProof
from cagg.ports import Checkpoint, LedgerRows
from cagg.records import Entry

__all__ = ["TileSource", "prove_consistency", "prove_entry"]


class TileSource:
    """Hashes of a stored tree, read from its full tiles where there are any: one row instead of 256.

    Implements :class:`cagg.ledger.merkle.HashReader`. What it returns is only as good as the store; whoever proves
    something with it compares the root.
    """

    def __init__(self, tx: LedgerRows) -> None:
        self._tx = tx

    def leaf_hashes(self, start: int, stop: int) -> Sequence[bytes]:
        """Leaf hashes by index, ``[start, stop)``."""
        return self._tiled(0, start, stop) or self._tx.leaf_hashes(start, stop)

    def tile_roots(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        """Roots of the full tiles ``[start, stop)`` of a level."""
        return self._tiled(level + 1, start, stop) or self._tx.tile_roots(level, start, stop)

    def _tiled(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        number, offset = divmod(start, TILE_WIDTH)
        if offset or stop - start > TILE_WIDTH:
            return ()
        data = self._tx.tile(level, number)
        if data is None:
            return ()
        if len(data) != TILE_WIDTH * HASH_BYTES:
            raise LedgerDamaged(f"tile {number} of level {level} has {len(data)} bytes; run 'cagg ledger verify'.")
        return split_hashes(data)[: stop - start]


def prove_entry(tx: LedgerRows, entry: Entry, under: Checkpoint | None = None) -> InclusionProof:
    """Return the proof that an entry of this log lies under a checkpoint; a few rows are read, whatever the size.

    Args:
        tx: the log's rows, of the log that the entry belongs to.
        entry: what to prove.
        under: a checkpoint of this log; None = its newest one.

    Raises:
        NotProven: no checkpoint covers the entry yet, or the log does not fit the checkpoint.
        LedgerDamaged: stored hashes are missing or damaged.
    """
    remedy = "run `cagg maintain`, which signs one, and ask again."
    checkpoint = under or tx.last_checkpoint()
    if checkpoint is None:
        raise NotProven(f"no checkpoint covers the entry {entry.entry_id} yet; {remedy}")
    if entry.index is None:
        raise NotProven(f"the entry {entry.entry_id} waits for its place in the log, no checkpoint covers it; {remedy}")
    head = _head(tx, checkpoint)
    if entry.index >= head.size:
        raise NotProven(f"entry {entry.index} is newer than the checkpoint of {head.size} entries; {remedy}")
    path = inclusion_proof(TreeReader(TileSource(tx), head.size), entry.index, head.size)
    if not verify_inclusion(leaf=leaf_hash(entry.body), index=entry.index, size=head.size, proof=path, root=head.root):
        raise NotProven(
            f"entry {entry.index} is not what the checkpoint of {head.size} entries covers: the store was changed; "
            "run 'cagg ledger verify'."
        )
    return InclusionProof(index=entry.index, path=tuple(path), checkpoint=checkpoint.note, entry=entry.body)


def prove_consistency(tx: LedgerRows, older: Checkpoint, newer: Checkpoint) -> ConsistencyProof:
    """Return the proof that the newer checkpoint of this log continues the older one.

    Raises:
        NotProven: it does not, or the log has other entries than either checkpoint covers.
        InvalidInput: the first one is the larger one.
        LedgerDamaged: stored hashes are missing or damaged.
    """
    first, second = _head(tx, older), _head(tx, newer)
    if first.size > second.size:
        raise InvalidInput(
            f"the first checkpoint covers {first.size} entries and the second {second.size}; name the older one first."
        )
    path = consistency_proof(TreeReader(TileSource(tx), second.size), first.size, second.size)
    if not verify_consistency(old_size=first.size, old_root=first.root, size=second.size, root=second.root, proof=path):
        raise NotProven(
            f"the checkpoint of {second.size} entries does not continue the one of {first.size} entries: the log was "
            "forked, replaced or changed; run 'cagg ledger verify --since' with the older one."
        )
    return ConsistencyProof(path=tuple(path), older=older.note, newer=newer.note)


def _head(tx: LedgerRows, checkpoint: Checkpoint) -> TreeHead:
    """What a checkpoint says, once it is clear that it can be of this log."""
    head, _ = parse_note(checkpoint.note, ())
    origin, size = tx.origin(), tx.tree_size()
    if head.origin != origin:
        raise NotProven(f"the checkpoint is of the log {head.origin!r}, and this log is {origin!r}.")
    if head.size > size:
        raise NotProven(
            f"the checkpoint covers {head.size} entries and the log has {size}: entries are gone; run 'cagg ledger "
            "verify --since' with it."
        )
    return head
