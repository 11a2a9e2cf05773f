"""Values of the ledger: entries of every kind, what stands beside them, and the logs that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["Entry", "EntryDraft", "EntryKind", "Log", "LogState", "PrivateValue"]


class EntryKind(StrEnum):
    """What an entry says. Energy and carbon stand in measurements and corrections only; the others point to them."""

    DECISION = "decision"
    MEASUREMENT = "measurement"
    CORRECTION = "correction"
    """a measurement that was made anew, or turned up late"""
    INFERENCE = "inference"
    """a model was asked"""
    REGENERATION = "regeneration"
    """an artefact was made once more for the same work item"""
    VALIDATION = "validation"
    """an artefact was checked"""
    RESERVATION = "reservation"
    """amounts were held otherwise than by a decision"""
    SETTLEMENT = "settlement"
    """a reservation ended: settled, released, expired, or settled late"""
    BUDGET = "budget"
    """a budget was created or changed"""
    OVERRIDE = "override"
    """mode off, mode observe, break-glass: something let a run past the rules"""
    WAIVER = "waiver"
    """permission to pass a gate: owner, reason, scope, expiry"""
    APPROVAL = "approval"
    """a person said yes or no to a release, a waiver or a budget"""
    REDACTION = "redaction"
    """a personal value was deleted; its commitment stays"""
    KEY = "key"
    """a signing key was announced, replaced or revoked"""
    LOG = "log"
    """the log began, was frozen, or goes on in another"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryDraft:
    """What the caller wants recorded.

    Attributes:
        kind: what it says.
        request_key: hex key of the request; for entries without a request, a name such as ``budget:acme/ml``.
        ordinal: number of this entry among those of the same kind and key, from 0.
        body: the kind's own fields in the canonical profile (no floats; see cagg.ledger.encoding).
        blobs: content-addressed attachments by hex SHA-256; the body names the digests.
        private: personal values by field name; the body gets a salted commitment to each, the values are kept beside
            the log, where they can be deleted. ``repr`` leaves them out: it gets into logs and error reports.
    """

    kind: EntryKind
    request_key: str
    ordinal: int
    body: Mapping[str, Any]
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    private: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One immutable ledger record as it is stored.

    Attributes:
        entry_id: UUID, version 7, as text.
        kind: what it says.
        idempotency_key: SHA-256 over (kind, request key, ordinal), 32 bytes.
        body: the canonical JSON bytes that are hashed into the tree.
        leaf_hash: SHA-256(0x00 || body), 32 bytes.
        index: position in the tree; None while it waits for the sequencer.
        recorded_at: when it was written, UTC; part of the body.
    """

    entry_id: str
    kind: EntryKind
    idempotency_key: bytes
    body: bytes
    leaf_hash: bytes
    index: int | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrivateValue:
    """A personal value beside an entry whose body holds only a commitment to it; ``repr`` hides it and its salt.

    Attributes:
        entry_id: the entry.
        field: name of the value among the entry's private ones.
        salt: 32 random bytes; without them nobody can find the value by trying.
        value: the value itself.
    """

    entry_id: str
    field: str
    salt: bytes
    value: str

    def __repr__(self) -> str:
        return f"PrivateValue(entry_id={self.entry_id!r}, field={self.field!r})"


class LogState(StrEnum):
    """Whether a log still grows."""

    ACTIVE = "active"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One log of a store: a store has one that grows, and those before it, which are frozen.

    Attributes:
        origin: its name, the first line of its checkpoints.
        state: whether it still grows.
        created_at: when it was begun.
    """

    origin: str
    state: LogState
    created_at: datetime
