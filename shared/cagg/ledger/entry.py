"""Entries of format 1: what their bodies hold, how they are appended once, and what the index columns repeat.

Every body holds ``v`` (1), ``kind``, ``log`` (the log's name), ``entry_id``, ``idempotency_key``, ``request_key``,
``ordinal``, ``recorded_at``, ``request`` (who asked, or null) and the kind's own fields.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from cagg.entries import PrivateValue
from cagg.errors import IdempotencyConflict, InvalidInput, LedgerDamaged
from cagg.ledger.encoding import canonical, decode, parse_quantity
from cagg.ledger.identifiers import uuid7
from cagg.ledger.kinds import check_kind
from cagg.ledger.merkle import leaf_hash
from cagg.ledger.private import commitments_of, recommitted, seal
from cagg.ledger.sequencer import complete_tiles
from cagg.ports import LedgerRows, Transaction
from cagg.records import Entry, EntryDraft, EntryKind
from cagg.windows import format_instant

__all__ = [
    "ENVELOPE",
    "FORMAT",
    "LARGEST_BODY_BYTES",
    "append",
    "append_many",
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
_UNENDING = 2**63
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)

ENVELOPE = (
    "v",
    "kind",
    "log",
    "entry_id",
    "idempotency_key",
    "request_key",
    "ordinal",
    "recorded_at",
    "private",
    "spilled",
)
"""Keys that append writes and drafts must not."""

_ENVELOPE = frozenset(ENVELOPE)


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
    return append_many(tx, (draft,))[0]


def append_many(tx: Transaction, drafts: Sequence[EntryDraft]) -> list[Entry]:
    """Record drafts in their order, each once, in few statements; returns their entries.

    Each is recorded as :func:`append` would, and one that comes twice gives the same entry twice. When this raises,
    some of the drafts may be recorded in the transaction: roll it back.

    Raises:
        IdempotencyConflict, InvalidInput: as :func:`append`, of any of the drafts.
    """
    keys = [idempotency_key(draft.kind, draft.request_key, draft.ordinal) for draft in drafts]
    first = tx.tree_size() if tx.sequences_inline and keys else None
    stamp = _Stamp(origin=tx.origin(), now=(now := tx.now()), recorded_at=format_instant(now))
    new: dict[bytes, _Prepared] = {}
    for key, draft in zip(keys, drafts, strict=True):
        if key not in new:
            new[key] = _prepare(stamp, draft, key, None if first is None else first + len(new))
    # the insert itself finds out what is recorded already, which saves a question
    refused = tx.insert_entries([(one.entry, one.columns) for one in new.values()])
    stored = dict(tx.entries_by_keys(refused)) if refused else {}
    if refused:
        new = _without(new, refused, first)
    for one in new.values():
        _attach(tx, one)
    if first is not None:
        complete_tiles(tx, first, first + len(new))
    return [_once(tx, draft, key, new, stored) for key, draft in zip(keys, drafts, strict=True)]


class _Stamp(NamedTuple):
    """What all entries of one call say alike."""

    origin: str
    now: datetime
    recorded_at: str


class _Prepared(NamedTuple):
    """A new entry with everything that is stored with it."""

    entry: Entry
    columns: Mapping[str, str | int | None]
    blobs: Mapping[str, bytes]
    sealed: Sequence[PrivateValue]


def _prepare(stamp: _Stamp, draft: EntryDraft, key: bytes, index: int | None) -> _Prepared:
    entry_id = uuid7(stamp.now)
    sealed = seal(draft.private, entry_id) if draft.private else ()
    full = _full_body(draft, key, stamp.origin, entry_id, stamp.recorded_at, commitments_of(sealed) if sealed else ())
    data, blobs = _spill(full)
    try:
        columns = columns_of(full)
        check_kind(full)
    except LedgerDamaged as error:
        raise InvalidInput(f"the {draft.kind} entry of {draft.request_key} cannot be recorded: {error}") from None
    entry = Entry(
        entry_id=entry_id,
        kind=draft.kind,
        idempotency_key=key,
        body=data,
        leaf_hash=leaf_hash(data),
        index=index,
        recorded_at=stamp.now,
    )
    if draft.blobs:
        blobs = {**dict(_attached(draft)), **blobs}
    return _Prepared(entry=entry, columns=columns, blobs=blobs, sealed=sealed)


def _without(new: Mapping[bytes, _Prepared], refused: Collection[bytes], first: int | None) -> dict[bytes, _Prepared]:
    """Return the entries that were kept, with the places that the store gave them."""
    kept = {key: one for key, one in new.items() if key not in refused}
    if first is None:
        return kept
    placed = enumerate(kept.items(), start=first)
    return {key: one._replace(entry=replace(one.entry, index=place)) for place, (key, one) in placed}


def _attach(tx: Transaction, one: _Prepared) -> None:
    for digest, blob in one.blobs.items():
        tx.put_blob(digest, blob)
    if one.sealed:
        tx.put_private(one.sealed)


def _once(
    tx: Transaction, draft: EntryDraft, key: bytes, new: dict[bytes, _Prepared], stored: dict[bytes, Entry]
) -> Entry:
    """Return the draft's entry: the new one for the first draft with its key, else the stored one, compared."""
    if key in new:
        entry = stored[key] = new.pop(key).entry
        return entry
    if key not in stored:
        raise LedgerDamaged(f"the store refuses the {draft.kind} entry of {draft.request_key} as one it has not.")
    return _same(tx, draft, stored[key])


def _same(tx: Transaction, draft: EntryDraft, stored: Entry) -> Entry:
    """Return the entry that has the draft's key; raises IdempotencyConflict when it says something else."""
    log, recorded_at, private = (
        _log_of(stored),
        format_instant(stored.recorded_at),
        recommitted(tx, draft.private, stored),
    )
    full = _full_body(draft, stored.idempotency_key, log, stored.entry_id, recorded_at, private)
    if _spill(full)[0] != stored.body:
        raise IdempotencyConflict(
            f"the {draft.kind} entry {draft.ordinal} of {draft.request_key} is already recorded as "
            f"{stored.entry_id} with another body; give the new fact the next ordinal."
        )
    return stored


def _log_of(stored: Entry) -> str:
    """Return the log that an entry stands in, which may be one before the log that grows now."""
    body = decode(stored.body)
    return str(body.get("log")) if isinstance(body, dict) else ""


def _full_body(
    draft: EntryDraft, key: bytes, log: str, entry_id: str, recorded_at: str, private: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    if not _ENVELOPE.isdisjoint(draft.body):
        taken = next(name for name in ENVELOPE if name in draft.body)
        raise InvalidInput(f"an entry's body must not hold {taken!r}; it is written by the ledger.")
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
        **({"private": list(private)} if private else {}),
    }


def _attached(draft: EntryDraft) -> Iterator[tuple[str, bytes]]:
    """The draft's own blobs, checked: bytes that ``verify`` does not find from a leaf would not be protected."""
    named = set(blobs_of(draft.body))
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
    of, who = body.get, request.get
    if of("kind") is None or of("recorded_at") is None or of("request_key") is None:
        missing = next(name for name in ("kind", "recorded_at", "request_key") if of(name) is None)
        raise LedgerDamaged(f"{missing!r} is missing.")
    attempt = who("attempt")
    return {
        "kind": _text(of("kind"), "kind", 24),
        "recorded_us": instant_us(of("recorded_at"), "recorded_at"),
        "request_key": _text(of("request_key"), "request_key"),
        "host": _text(who("host"), "host"),
        "root_run_id": _text(who("root_run_id"), "root_run_id"),
        "task_key": _text(who("task_key"), "task_key"),
        "attempt": attempt if attempt is None or type(attempt) is int else _whole(attempt, "attempt"),
        "budget_path": _text(of("budget_path") if "budget_path" in body else who("budget_path"), "budget_path"),
        "start_us": None if of("start") is None else instant_us(of("start"), "start"),
        "end_us": None if of("end") is None else instant_us(of("end"), "end"),
        "outcome": _text(of("outcome"), "outcome", 24),
        "energy_millijoules": _amount(of("energy_millijoules"), "energy_millijoules"),
        "carbon_micrograms": _amount(of("carbon_micrograms"), "carbon_micrograms"),
        "grade": _text(of("grade"), "grade", 1),
        "part_of": _text(of("part_of"), "part_of"),
    }


def _text(value: Any, name: str, longest: int = _UNENDING) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest:
        at_most = f" of at most {longest} characters" if longest < _UNENDING else ""
        raise LedgerDamaged(f"{name!r} must be text{at_most}.")
    return value if type(value) is str else str(value)


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise LedgerDamaged(f"{name!r} must be a whole number.")
    return value


def _amount(value: Any, name: str) -> int | None:
    if value is None:
        return None
    amount = parse_quantity(value)
    if abs(amount) > _LARGEST_AMOUNT:
        raise LedgerDamaged(f"{name!r} is larger than the largest amount that can be stored.")
    return amount


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
