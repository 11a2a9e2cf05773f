"""What a verification of the ledger found: every failure, and how much its absence shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Assurance", "Failure", "FailureKind", "VerifyReport"]


class Assurance(StrEnum):
    """How much a verification without failures shows, weakest first."""

    NONE = "none"
    """nothing was checked, or something failed"""
    CONSISTENT = "consistent"
    """what is stored agrees with itself; whoever can write to the store could have rewritten all of it"""
    SIGNED = "signed"
    """it also agrees with a checkpoint signed by a trusted key"""
    ANCHORED = "anchored"
    """it also continues a trusted checkpoint that was kept outside the store"""


class FailureKind(StrEnum):
    """What does not agree."""

    SIGNATURE = "signature"
    CHECKPOINT = "checkpoint"
    TRUNCATED = "truncated"
    TILE = "tile"
    LEAF = "leaf"
    BODY = "body"
    PROFILE = "profile"
    COLUMN = "column"
    ARITHMETIC = "arithmetic"
    IDEMPOTENCY = "idempotency"
    BLOB = "blob"
    PRIVATE = "private"
    """a personal value that is not the one that was committed to, or that is gone without a redaction"""
    QUEUE = "queue"
    ROWS = "rows"
    LOG = "log"
    """the logs of the store do not follow from one another"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One thing that does not agree.

    Attributes:
        kind: what.
        index: position of the entry in the log, or size of the checkpoint; None when it concerns neither.
        message: one sentence.
        log: name of the log; empty when it concerns the store as a whole.
        entry_id, task: of the entry at the index, as its row says; empty where that is not known.
    """

    kind: FailureKind
    index: int | None
    message: str
    log: str = ""
    entry_id: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found, in one log or in all logs of a store.

    Attributes:
        origin: the log's name; of several logs, the one that grows.
        size: entries in the tree; of several logs, in all of them.
        root: root over the entries of ``origin``, recomputed; the root of the empty tree when there are none.
        signed_size: entries under the newest checkpoint that a trusted key signed; 0 without one.
        anchored_size: entries under the newest such checkpoint that was kept outside the store; 0 without one.
        checkpoints: how many stored checkpoints were checked.
        queued: entries that wait for the sequencer.
        assurance: what the verification shows; of several logs, the weakest.
        failures: everything that does not agree, in the order of the checks.
        notes: what is odd and no failure, for example a clock that ran backwards; one sentence each.
        tree_only: True when only signatures and hashes were checked, and no entry was read.
        logs: the report of each log, oldest first; empty for a report of one log.
        beyond_break: entries behind the last signature of logs that break off: nobody will sign them any more.
    """

    origin: str
    size: int
    root: bytes
    signed_size: int
    checkpoints: int
    queued: int
    assurance: Assurance
    failures: tuple[Failure, ...]
    anchored_size: int = 0
    notes: tuple[str, ...] = ()
    tree_only: bool = False
    logs: tuple[VerifyReport, ...] = ()
    beyond_break: int = 0

    @property
    def unsigned(self) -> int:
        """Entries after the newest checkpoint that a trusted key signed, and those that wait."""
        return self.size - self.signed_size + self.queued

    @property
    def unproven(self) -> int:
        """Entries after the newest checkpoint that was kept outside the store, and those that wait: whoever holds the
        store and its key could cut them off or write others, and no check of the store alone would tell."""
        return self.size - self.anchored_size + self.queued

    @property
    def verified(self) -> bool:
        """True when nothing failed and a trusted signature covers the log."""
        return self.assurance in (Assurance.SIGNED, Assurance.ANCHORED)

    @property
    def headline(self) -> str:
        """As :attr:`sentence`, for use above a list of the failures: they are counted and not named."""
        count = len(self.failures)
        return f"NOT intact: {count} failure{'s' if count > 1 else ''}." if count else self.sentence

    @property
    def sentence(self) -> str:
        """The verdict in one sentence; the word "verified" appears only from ``signed`` on."""
        if self.failures:
            first = self.failures[0]
            more = f" and {len(self.failures) - 1} more" if len(self.failures) > 1 else ""
            return f"NOT intact: {first.message}{more}"
        if self.size == 0:
            return "nothing to check: the log holds no sequenced entry."
        only = ", hashes only" if self.tree_only else ""
        within = f" in {len(self.logs)} logs" if len(self.logs) > 1 else ""
        if not self.verified:
            agree = f"{self.size} entries{within} agree with each other"
            if not self.checkpoints:
                return f"consistent, not signed{only}: {agree}, but the store holds no checkpoint."
            if self.signed_size:
                parts = ", ".join(item.origin for item in self.logs if not item.verified)
                return f"consistent, not signed{only}: {agree}, but no trusted key vouches for those of {parts}."
            return f"consistent, not signed{only}: {agree}, but no trusted key vouches for them."
        anchored = self.assurance is Assurance.ANCHORED
        level = "signed, continues the outside checkpoint" if anchored else "signed"
        bodies = "; the entries themselves were not read" if self.tree_only else ""
        return f"verified ({level}{only}): {self.signed_size} entries{within}{self._tail()}{bodies}."

    def _tail(self) -> str:
        """What nobody vouches for yet, in words."""
        pending = self.unsigned - self.beyond_break
        tail = f"; {pending} newer entries are not signed yet" if pending else ""
        if self.beyond_break:
            tail += f"; {self.beyond_break} entries behind a break are fixed by the next log alone"
        if self.assurance is not Assurance.ANCHORED:
            return f"{tail}; that none was cut off at the end is unproven without an outside checkpoint"
        newer = self.unproven
        return f"{tail}; the last {newer} are newer than it, and unproven" if newer else tail
