"""Gives waiting entries their places in the tree: dense indexes from 0, and a full tile for every 256 hashes.

Entries are taken from a queue, never by "ids above the last one seen": ids may commit out of order, and a tail by id
loses what commits late.
"""

from __future__ import annotations

from cagg.errors import InvalidInput
from cagg.ledger.merkle import TILE_WIDTH, tile_root
from cagg.ports import LedgerRows

__all__ = ["complete_tiles", "sequence"]


def sequence(tx: LedgerRows, limit: int = 1024) -> int:
    """Sequence up to ``limit`` queued entries, oldest first; returns how many.

    One sequencer at a time: SQLite has one writer anyway; other stores lock the log for the transaction in
    ``take_queued``.

    Raises:
        LedgerDamaged: stored hashes that a new tile needs are missing.
    """
    if limit < 1:
        raise InvalidInput(f"the sequencer's limit must be 1 or more, got {limit}.")
    taken = tx.take_queued(limit)
    if not taken:
        return 0
    first = tx.tree_size()
    tx.insert_leaves(first, taken)
    complete_tiles(tx, first, first + len(taken))
    return len(taken)


def complete_tiles(tx: LedgerRows, old_size: int, size: int) -> None:
    """Store every tile that became full while the tree grew from ``old_size`` to ``size`` leaves."""
    for number in range(old_size // TILE_WIDTH, size // TILE_WIDTH):
        start = number * TILE_WIDTH
        _put_tile(tx, 0, number, b"".join(tx.leaf_hashes(start, start + TILE_WIDTH)))


def _put_tile(tx: LedgerRows, level: int, number: int, hashes: bytes) -> None:
    """Store a full tile, and the tile above it when this was the last one that it needed."""
    tx.put_tile(level, number, hashes, tile_root(hashes))
    above, place = divmod(number, TILE_WIDTH)
    if place == TILE_WIDTH - 1:
        roots = tx.tile_roots(level, above * TILE_WIDTH, number + 1)
        _put_tile(tx, level + 1, above, b"".join(roots))
