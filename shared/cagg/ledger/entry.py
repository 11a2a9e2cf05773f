"""Entries of format 1: what their bodies hold, how they are appended once, and what the index columns repeat.

Every body holds ``v`` (1), ``kind``, ``log`` (the log's name), ``entry_id``, ``idempotency_key``, ``request_key``,
``ordinal``, ``recorded_at``, ``request`` (who asked, or null) and the kind's own fields.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from cagg.errors import IdempotencyConflict, InvalidInput, LedgerDamaged
from cagg.ledger.encoding import canonical, decode, parse_quantity
from cagg.ledger.identifiers import uuid7
from cagg.ledger.merkle import leaf_hash
from cagg.ledger.sequencer import complete_tiles
from cagg.ports import LedgerRows, Transaction
from cagg.records import Entry, EntryDraft, EntryKind
from cagg.windows import format_instant

__all__ = [
    "ENVELOPE",
    "FORMAT",
    "LARGEST_BODY_BYTES",
    "append",
    "blobs_of",
    "columns_of",
    "idempotency_key",
    "instant_us",
    "read_body",
    "resolve",
]

FORMAT = 1
"""Version of the body's form, its ``v``; readers of older forms stay for ever."""

LARGEST_BODY_BYTES = 60_000
"""Bodies above this spill into blobs; a tlog-tiles entry has a 16-bit length (C2SP tlog-tiles, 2025)."""

_SMALLEST_SPILL_BYTES = 256
"""A value below this stays in the body: its digest would hardly be shorter."""

_LARGEST_AMOUNT = 2**63 - 1
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)

ENVELOPE = ("v", "kind", "log", "entry_id", "idempotency_key", "request_key", "ordinal", "recorded_at", "spilled")
"""Keys that append writes and drafts must not."""


class _Need(Enum):
    """Whether a field may be absent."""

    YES = "yes"
    NO = "no"


def idempotency_key(kind: EntryKind, request_key: str, ordinal: int) -> bytes:
    """Return SHA-256("cagg/entry/1" LF canonical([kind, request key, ordinal])): one entry per kind, key and number."""
    return hashlib.sha256(b"cagg/entry/1\n" + canonical([str(kind), request_key, ordinal])).digest()


def append(tx: Transaction, draft: EntryDraft) -> Entry:
    """Record a draft once and return its entry.

    The same (kind, request key, ordinal) with the same body returns the entry that is already there, so a caller
    that does not know whether its first try was kept may simply repeat it. Values that make the body larger than
    60 000 bytes are kept as blobs whose digests stand in the body.

    Raises:
        IdempotencyConflict: the key is taken by an entry with another body.
        InvalidInput: the body is outside the canonical profile, or a blob is not what its digest says.
    """
    key = idempotency_key(draft.kind, draft.request_key, draft.ordinal)
    # where many write, locks are held by now: the insert itself finds out, which saves a question
    stored = tx.entry_by_key(key) if tx.sequences_inline else None
    if stored is not None:
        return _same(tx, draft, stored)
    now = tx.now()
    full = _full_body(draft, key, tx.origin(), uuid7(now), format_instant(now))
    data, blobs = _spill(full)
    try:
        columns = columns_of(full)
    except LedgerDamaged as error:
        raise InvalidInput(f"the {draft.kind} entry of {draft.request_key} cannot be recorded: {error}") from None
    entry = Entry(
        entry_id=full["entry_id"],
        kind=draft.kind,
        idempotency_key=key,
        body=data,
        leaf_hash=leaf_hash(data),
        index=tx.tree_size() if tx.sequences_inline else None,
        recorded_at=now,
    )
    attached = tuple(_attached(draft))
    if not tx.insert_entry(entry, columns):
        stored = tx.entry_by_key(key)
        if stored is None:
            raise LedgerDamaged(f"the store refuses the {draft.kind} entry of {draft.request_key} as one it has not.")
        return _same(tx, draft, stored)
    for digest, blob in (*attached, *blobs.items()):
        tx.put_blob(digest, blob)
    if entry.index is not None:
        complete_tiles(tx, entry.index, entry.index + 1)
    return entry


def _same(tx: Transaction, draft: EntryDraft, stored: Entry) -> Entry:
    """Return the entry that has the draft's key; raises IdempotencyConflict when it says something else."""
    full = _full_body(draft, stored.idempotency_key, tx.origin(), stored.entry_id, format_instant(stored.recorded_at))
    if _spill(full)[0] != stored.body:
        raise IdempotencyConflict(
            f"the {draft.kind} entry {draft.ordinal} of {draft.request_key} is already recorded as "
            f"{stored.entry_id} with another body; give the new fact the next ordinal."
        )
    return stored


def _full_body(draft: EntryDraft, key: bytes, log: str, entry_id: str, recorded_at: str) -> dict[str, Any]:
    taken = [name for name in ENVELOPE if name in draft.body]
    if taken:
        raise InvalidInput(f"an entry's body must not hold {taken[0]!r}; it is written by the ledger.")
    if draft.ordinal < 0 or not draft.request_key:
        raise InvalidInput(f"an entry needs a request key and an ordinal from 0, got {draft.request_key!r}.")
    return {
        "request": None,
        **draft.body,
        "v": FORMAT,
        "kind": str(draft.kind),
        "log": log,
        "entry_id": entry_id,
        "idempotency_key": key.hex(),
        "request_key": draft.request_key,
        "ordinal": draft.ordinal,
        "recorded_at": recorded_at,
    }


def _attached(draft: EntryDraft) -> Iterator[tuple[str, bytes]]:
    """The draft's own blobs, checked: bytes that ``verify`` does not find from a leaf would not be protected."""
    named = set(blobs_of(draft.body)) if draft.blobs else set()
    for digest, blob in draft.blobs.items():
        if hashlib.sha256(blob).hexdigest() != digest:
            raise InvalidInput(f"the attachment {digest[:16]!r}… is not what its digest says; use its hex SHA-256.")
        if digest not in named:
            raise InvalidInput(
                f"the attachment {digest[:16]!r}… is not named in the entry's body; name it as {{'blob': digest}}."
            )
        yield digest, blob


# ---- large bodies ---------------------------------------------------------------------------------------------------


def _spill(full: dict[str, Any]) -> tuple[bytes, dict[str, bytes]]:
    """Return the body's bytes, and the blobs of its largest values when they would be too many."""
    data = canonical(full)
    if len(data) <= LARGEST_BODY_BYTES:
        return data, {}
    sizes = {name: canonical(value) for name, value in full.items() if name not in ENVELOPE}
    body: dict[str, Any] = {**full, "spilled": []}
    blobs: dict[str, bytes] = {}
    for name, value in sorted(sizes.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(value) < _SMALLEST_SPILL_BYTES:
            break
        digest = hashlib.sha256(value).hexdigest()
        blobs[digest] = value
        body[name] = {"blob": digest}
        body["spilled"] = sorted([*body["spilled"], name])
        data = canonical(body)
        if len(data) <= LARGEST_BODY_BYTES:
            return data, blobs
    raise InvalidInput(
        f"the entry's body stays larger than {LARGEST_BODY_BYTES} bytes with its large values taken out; "
        "record fewer fields."
    )


def resolve(tx: LedgerRows, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a decoded body with its spilled values put back.

    Raises:
        LedgerDamaged: a blob is missing or is not what its digest says.
    """
    whole = dict(body)
    spilled = whole.pop("spilled", [])
    if not isinstance(spilled, list):
        raise LedgerDamaged("the list of spilled values is not a list.")
    for name in spilled:
        reference = whole.get(name) if isinstance(name, str) else None
        digest = reference.get("blob") if isinstance(reference, dict) else None
        if not isinstance(digest, str):
            raise LedgerDamaged(f"the spilled value {name!r} names no blob.")
        blob = tx.blob(digest)
        if blob is None or hashlib.sha256(blob).hexdigest() != digest:
            raise LedgerDamaged(f"the blob {digest[:16]}… of {name!r} is {'missing' if blob is None else 'damaged'}.")
        whole[name] = decode(blob)
    return whole


def read_body(tx: LedgerRows, entry: Entry) -> dict[str, Any]:
    """Return an entry's body as a dict, with its spilled values put back.

    Raises:
        LedgerDamaged: the bytes are outside the profile, or a blob is missing or damaged.
    """
    body = decode(entry.body)
    if not isinstance(body, dict):
        raise LedgerDamaged(f"the body of {entry.entry_id} is no object.")
    return resolve(tx, body)


def blobs_of(value: Any) -> Iterator[str]:
    """Yield every digest that a body names as ``{"blob": digest}``, at any depth."""
    if isinstance(value, Mapping):
        digest = value.get("blob")
        if isinstance(digest, str) and _DIGEST.fullmatch(digest):
            yield digest
        for item in value.values():
            yield from blobs_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from blobs_of(item)


# ---- index columns --------------------------------------------------------------------------------------------------


def columns_of(body: Mapping[str, Any]) -> dict[str, str | int | None]:
    """Return every index column of an entry, derived from its resolved body alone.

    ``start_us`` and the like are microseconds since 1970-01-01T00:00Z. Absent fields give None.

    Raises:
        LedgerDamaged: a field has another type or form than format 1 gives it.
    """
    request = body.get("request")
    if request is None:
        request = {}
    if not isinstance(request, dict):
        raise LedgerDamaged("'request' is no object.")
    identity: Mapping[str, Any] = request
    return {
        "kind": _text(body, "kind", 24, needed=_Need.YES),
        "recorded_us": _instant(body, "recorded_at", needed=_Need.YES),
        "request_key": _text(body, "request_key", needed=_Need.YES),
        "host": _text(identity, "host"),
        "root_run_id": _text(identity, "root_run_id"),
        "task_key": _text(identity, "task_key"),
        "attempt": _whole(identity, "attempt"),
        "budget_path": _text(body if "budget_path" in body else identity, "budget_path"),
        "start_us": _instant(body, "start"),
        "end_us": _instant(body, "end"),
        "outcome": _text(body, "outcome", 24),
        "energy_millijoules": _amount(body, "energy_millijoules"),
        "carbon_micrograms": _amount(body, "carbon_micrograms"),
        "grade": _text(body, "grade", 1),
        "part_of": _text(body, "part_of"),
    }


def _absent(body: Mapping[str, Any], name: str, needed: _Need) -> bool:
    if body.get(name) is not None:
        return False
    if needed is _Need.YES:
        raise LedgerDamaged(f"{name!r} is missing.")
    return True


def _text(body: Mapping[str, Any], name: str, longest: int | None = None, *, needed: _Need = _Need.NO) -> str | None:
    if _absent(body, name, needed):
        return None
    value = body[name]
    if not isinstance(value, str) or (longest is not None and len(value) > longest):
        raise LedgerDamaged(f"{name!r} must be text{f' of at most {longest} characters' if longest else ''}.")
    return str(value)


def _whole(body: Mapping[str, Any], name: str) -> int | None:
    if _absent(body, name, _Need.NO):
        return None
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise LedgerDamaged(f"{name!r} must be a whole number.")
    return value


def _amount(body: Mapping[str, Any], name: str) -> int | None:
    if _absent(body, name, _Need.NO):
        return None
    amount = parse_quantity(body[name])
    if abs(amount) > _LARGEST_AMOUNT:
        raise LedgerDamaged(f"{name!r} is larger than the largest amount that can be stored.")
    return amount


def _instant(body: Mapping[str, Any], name: str, *, needed: _Need = _Need.NO) -> int | None:
    return None if _absent(body, name, needed) else instant_us(body[name], name)


def instant_us(value: object, name: str) -> int:
    """Return a body's instant in microseconds since 1970-01-01T00:00Z.

    Raises:
        LedgerDamaged: it is not in the one form ``YYYY-MM-DDTHH:MM:SS.ffffffZ``.
    """
    if not isinstance(value, str) or _INSTANT.fullmatch(value) is None:
        raise LedgerDamaged(f"{name!r} must be an instant such as 2026-11-23T06:00:00.000000Z, got {value!r}.")
    try:
        return (datetime.fromisoformat(value) - _EPOCH) // _US
    except ValueError:
        raise LedgerDamaged(f"{name!r} is no date and time: {value!r}.") from None
