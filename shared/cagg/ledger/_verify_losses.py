"""Outside checkpoints of entries that a later log states as lost: no failures for ever, and never passed over silently.

A store that was restored from a backup does not reach what its key had signed. The next log says so in its first entry,
with the lost checkpoint, and with the names of logs that the store has forgotten. Where a trusted key signed that,
checkpoints up to the lost one, and of these logs, are counted in a note instead of being compared; where none did, they
are what they are without the statement: signs of entries that are gone. A checkpoint of a log that the store does not
hold is compared with nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cagg.errors import LedgerDamaged
from cagg.ledger._verify_failures import Failures
from cagg.ledger.lineage import continues, succession
from cagg.ledger.notes import TreeHead, parse_note
from cagg.ledger.report import FailureKind, VerifyReport
from cagg.ports import Checkpoint, Transaction

__all__ = ["Losses", "origin_of"]


def origin_of(item: Checkpoint) -> str:
    """Return the log that a checkpoint says it is of; empty when it cannot be read."""
    try:
        return parse_note(item.note, ())[0].origin
    except LedgerDamaged:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    """What one log states of the one before it: sizes above ``kept`` and up to ``lost`` are gone."""

    stated_by: str
    kept: int
    lost: int


class Losses:
    """What the logs of a store state as lost, and the outside checkpoints that were passed over for it."""

    def __init__(self, losses: Mapping[str, _Loss], forgotten: Mapping[str, str] | None = None) -> None:
        self._losses = losses
        self._forgotten = forgotten or {}
        """By which log each log that the store does not hold is stated as lost."""
        self._passed: dict[str, list[Checkpoint]] = defaultdict(list)
        self._foreign: dict[str, list[Checkpoint]] = defaultdict(list)

    @classmethod
    def stated(cls, snapshot: Transaction) -> Losses:
        """Read what the logs state; nothing where they cannot be read, which other checks tell."""
        try:
            logs = succession(snapshot).logs
        except (LedgerDamaged, ValueError, OverflowError):  # tampered rows may hold anything
            return cls({})
        found = {}
        for before, one in pairwise(logs):
            if one.broken_at is not None and one.lost is not None and one.lost.origin == before.log.origin:
                found[before.log.origin] = _Loss(stated_by=one.log.origin, kept=one.broken_at, lost=one.lost.size)
        return cls(found, {name: one.log.origin for one in reversed(logs) for name in one.lost_logs})

    def without_forgotten(self, outside: Sequence[Checkpoint], names: Sequence[str]) -> list[Checkpoint]:
        """Return the outside checkpoints of the store's logs, and remember those of logs that it does not hold."""
        kept = []
        for item in outside:
            origin = origin_of(item)
            if not origin or origin in names:
                kept.append(item)
            else:
                self._foreign[origin].append(item)
        return kept

    def without_lost(self, tx: Transaction, outside: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Return the outside checkpoints of a log that are to be compared, and remember the others."""
        loss = self._losses.get(tx.origin())
        if loss is None:
            return list(outside)
        compared = []
        for item in outside:
            head = TreeHead(origin=tx.origin(), size=item.size, root=item.root)
            if loss.kept < item.size <= loss.lost and not continues(tx, head):
                self._passed[tx.origin()].append(item)
            else:
                compared.append(item)
        return compared

    def judged(self, reports: Sequence[VerifyReport], failures: Failures) -> Iterator[str]:
        """Yield a note for each log whose checkpoints were passed over; failures where no trusted key stands for it."""
        signed = {report.origin: report.signed_size for report in reports}
        yield from self._judge_foreign(signed, failures)
        for origin, items in self._passed.items():
            loss = self._losses[origin]
            if signed.get(loss.stated_by, 0) > 0:
                largest = max(item.size for item in items)
                yield (
                    f"{len(items)} outside checkpoints of the log {origin}, up to size {largest}, are of entries that "
                    f"the log {loss.stated_by} states as lost; they were not compared."
                )
                continue
            for item in items:
                message = (
                    f"the outside checkpoint of {item.size} entries of the log {origin} covers entries that are gone; "
                    f"the log {loss.stated_by} states that, and no trusted key signed it."
                )
                failures.add(FailureKind.TRUNCATED, item.size, message)

    def _judge_foreign(self, signed: Mapping[str, int], failures: Failures) -> Iterator[str]:
        for origin, items in self._foreign.items():
            newest = max(item.size for item in items)
            which = "the outside checkpoint" if len(items) == 1 else f"the newest of {len(items)} outside checkpoints,"
            said = (
                f"{which} of {newest} entries{',' if len(items) > 1 else ''} is of the log {origin}, which this store"
            )
            stated_by = self._forgotten.get(origin)
            if stated_by is not None and signed.get(stated_by, 0) > 0:
                yield f"{said} does not hold; the log {stated_by} states it as lost, so it was not compared."
                continue
            why = f"; the log {stated_by} states that, and no trusted key signed it" if stated_by is not None else ""
            message = f"{said} does not hold: that log is gone, or the checkpoint is of another store{why}."
            failures.add(FailureKind.TRUNCATED, newest, message)
