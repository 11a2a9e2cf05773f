"""What a list or a story must say about an entry before it shows what the entry says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cagg.records import Entry

__all__ = ["altered"]


def altered(entry: Entry) -> bool:
    """True when the stored bytes are not those whose hash went into the tree: somebody edited the entry."""
    from cagg.ledger.merkle import leaf_hash

    return leaf_hash(entry.body) != entry.leaf_hash
