"""What a list or a story must say about an entry before it shows what the entry says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cagg.errors import CaggError, LedgerDamaged

if TYPE_CHECKING:
    from cagg.records import Entry

__all__ = ["altered", "showing"]


def altered(entry: Entry) -> bool:
    """True when the stored bytes are not those whose hash went into the tree: somebody edited the entry."""
    from cagg.ledger.merkle import leaf_hash

    return leaf_hash(entry.body) != entry.leaf_hash


@contextmanager
def showing(entry: Entry) -> Iterator[None]:
    """Make one LedgerDamaged of whatever a body may cause that whoever writes to the store gave a form of their own."""
    try:
        yield
    except CaggError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        raise LedgerDamaged(
            f"the entry {entry.entry_id} says something that this version cannot show; run 'cagg ledger verify'."
        ) from None
