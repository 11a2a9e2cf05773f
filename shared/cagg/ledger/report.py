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
    QUEUE = "queue"
    ROWS = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One thing that does not agree.

    Attributes:
        kind: what.
        index: position of the entry in the log, or size of the checkpoint; None when it concerns neither.
        message: one sentence.
    """

    kind: FailureKind
    index: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        origin: the log's name.
        size: entries in the tree.
        root: root over them, recomputed; the root of the empty tree when there are none.
        signed_size: entries under the newest checkpoint that a trusted key signed; 0 without one.
        checkpoints: how many checkpoints were checked.
        queued: entries that wait for the sequencer.
        assurance: what the verification shows.
        failures: everything that does not agree, in the order of the checks.
    """

    origin: str
    size: int
    root: bytes
    signed_size: int
    checkpoints: int
    queued: int
    assurance: Assurance
    failures: tuple[Failure, ...]

    @property
    def unproven(self) -> int:
        """Entries after the newest trusted checkpoint, and those that wait: nothing outside vouches for them yet."""
        return self.size - self.signed_size + self.queued

    @property
    def verified(self) -> bool:
        """True when nothing failed and a trusted signature covers the log."""
        return self.assurance in (Assurance.SIGNED, Assurance.ANCHORED)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence; the word "verified" appears only from ``signed`` on."""
        if self.failures:
            first = self.failures[0]
            more = f" and {len(self.failures) - 1} more" if len(self.failures) > 1 else ""
            return f"NOT intact: {first.message}{more}"
        if self.size == 0:
            return "nothing to check: the log holds no sequenced entry."
        tail = f"; {self.unproven} newer entries are not signed yet" if self.unproven else ""
        if self.assurance is Assurance.CONSISTENT:
            agree = f"{self.size} entries agree with each other"
            return f"consistent, not signed: {agree}, but no trusted key vouches for them."
        level = "signed" if self.assurance is Assurance.SIGNED else "signed, continues the outside checkpoint"
        return f"verified ({level}): {self.signed_size} entries{tail}."
