"""Tells the newest checkpoint in the log of the task that ends: whoever keeps that log is a witness of it."""

from __future__ import annotations

from dataclasses import dataclass

from cagg.errors import LedgerDamaged
from cagg.ledger.anchors import line_of
from cagg.ports import Checkpoint, LedgerRows

__all__ = ["Untold", "untold_checkpoint"]

_told: dict[str, str] = {}
"""The note that this process told last, by log."""


@dataclass(frozen=True, slots=True)
class Untold:
    """A checkpoint that this process has not told yet.

    Attributes:
        origin: the log's name.
        checkpoint: its newest checkpoint; None = there is nothing to tell.
    """

    origin: str
    checkpoint: Checkpoint | None

    def tell(self) -> str:
        """Return it as a line for a log, once per process and checkpoint; empty when there is nothing to tell.

        Call it when the transaction that settles the run is committed: what is rolled back tells nobody anything, and
        the next run must be able to.
        """
        last = self.checkpoint
        if last is None or _told.get(self.origin) == last.note:
            return ""
        _told[self.origin] = last.note
        return line_of(last)


def untold_checkpoint(tx: LedgerRows) -> Untold:
    """Return the newest checkpoint; it covers what was signed before: the run's own entries are under the next one."""
    try:
        last = tx.last_checkpoint()
    except LedgerDamaged:
        last = None  # `cagg ledger verify` tells that; a run that has ended is settled all the same
    return Untold(tx.origin(), None if last is None or _told.get(tx.origin()) == last.note else last)
