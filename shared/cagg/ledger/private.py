"""Personal values: the body holds salted commitments, the values stand beside the log and can be deleted.

A body names them as ``private``: a list of ``{field, commitment}``, ascending by field. The commitment is the hex
SHA-256 of salt (32 random bytes) || length of the field in bytes (8 bytes, big-endian) || field || value. Without the
salt nobody can find even a short value by trying; so what deletes a value deletes its salt too, and the commitment,
the leaf and every proof stay as they are. Source: ledger entry format 1; the same construction, there over JSON, is
SD-JWT's (RFC 9901, November 2025, section 4.2).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cagg.entries import Entry, EntryKind, PrivateValue
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.encoding import decode
from cagg.ports import LedgerRows

__all__ = [
    "SALT_BYTES",
    "PrivateCheck",
    "check_private",
    "commitment",
    "commitments_of",
    "fits",
    "recommitted",
    "redaction_key",
    "redactions",
    "seal",
    "sealed_fields",
]

SALT_BYTES = 32
"""256 random bits: as many as the commitment has, so that the salt is never the weaker half."""

_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}")
_COMMITMENT = re.compile(r"[0-9a-f]{64}")
_LONGEST_VALUE = 10_000


def commitment(salt: bytes, field: str, value: str) -> str:
    """Return the hex SHA-256 of salt || length of the field (8 bytes, big-endian) || field || value.

    Raises:
        InvalidInput: the salt has not 32 bytes, or the texts hold a lone surrogate.
    """
    if len(salt) != SALT_BYTES:
        raise InvalidInput(f"the salt of a private value has {SALT_BYTES} bytes, got {len(salt)}.")
    try:
        name, data = field.encode(), value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"the private value {field!r} holds a lone surrogate, which is no character.") from None
    return hashlib.sha256(salt + len(name).to_bytes(8, "big") + name + data).hexdigest()


def fits(kept: PrivateValue, expected: str) -> bool:
    """True when a kept value is the one that was committed to."""
    try:
        return hmac.compare_digest(commitment(kept.salt, kept.field, kept.value), expected)
    except (InvalidInput, TypeError, AttributeError):  # what stands in the store may have been tampered with
        return False


# ---- writing --------------------------------------------------------------------------------------------------------


def seal(values: Mapping[str, str], entry_id: str) -> tuple[PrivateValue, ...]:
    """Give each personal value of a new entry a random salt; by field.

    Raises:
        InvalidInput: a field's name is not ``[a-z][a-z0-9_]*`` of at most 63 characters, or a value is no text, empty,
            or longer than 10 000 characters.
    """
    for field, value in values.items():
        if _FIELD.fullmatch(field) is None:
            raise InvalidInput(f"the private field {field!r} must be lower-case letters, digits and '_'; rename it.")
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_VALUE:
            raise InvalidInput(f"the private value {field!r} must be text of 1 to {_LONGEST_VALUE} characters.")
    return tuple(
        PrivateValue(entry_id=entry_id, field=field, salt=os.urandom(SALT_BYTES), value=values[field])
        for field in sorted(values)
    )


def commitments_of(values: Sequence[PrivateValue]) -> list[dict[str, str]]:
    """Return what the body says of sealed values: ``[{field, commitment}]``, ascending by field."""
    found = {item.field: commitment(item.salt, item.field, item.value) for item in values}
    return [{"field": field, "commitment": found[field]} for field in sorted(found)]


def recommitted(tx: LedgerRows, values: Mapping[str, str], stored: Entry) -> list[dict[str, str]]:
    """Return the commitments that a repeated draft would have, so that its body can be compared with the stored one.

    They are those of the stored body when its fields are the draft's and no value that is kept differs; a field whose
    value was redacted is passed over, since nobody can tell any more whether it was the same. The store compares: the
    role that a gate has may not read personal values.

    Args:
        tx: a transaction of the store.
        values: the personal values of the repeated draft.
        stored: the entry that has the draft's key.

    Raises:
        LedgerDamaged: the stored body cannot be read.
    """
    if not values:
        return []
    body = decode(stored.body)
    if not isinstance(body, dict):
        raise LedgerDamaged(f"the body of {stored.entry_id} is no object.")
    named = sealed_fields(body)
    if set(named) != set(values) or not tx.same_private(stored.entry_id, values):
        return []  # what a body with personal values never says: the comparison fails
    return [{"field": field, "commitment": named[field]} for field in sorted(named)]


# ---- reading --------------------------------------------------------------------------------------------------------


def sealed_fields(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the commitments of a body by field; empty when it names none.

    Raises:
        LedgerDamaged: ``private`` is not the list that format 1 writes.
    """
    if "private" not in body:
        return {}
    listed = body["private"]
    if not isinstance(listed, list) or not listed:
        raise LedgerDamaged("'private' is no list of commitments.")
    found: dict[str, str] = {}
    for item in listed:
        if not isinstance(item, dict) or set(item) != {"field", "commitment"}:
            raise LedgerDamaged("an item of 'private' is not {field, commitment}.")
        field, value = item["field"], item["commitment"]
        if not isinstance(field, str) or not isinstance(value, str) or _COMMITMENT.fullmatch(value) is None:
            raise LedgerDamaged(f"the commitment to the private value {field!r} is not 64 hex digits.")
        if found and field <= max(found):
            raise LedgerDamaged("the private values are not in ascending order, each once.")
        found[field] = value
    return found


def redaction_key(entry_id: str, field: str) -> str:
    """Return the request key of the entry that records the deletion of a value: there is one at most."""
    return f"redaction:{entry_id}:{field}"


class _Redactions(Container[tuple[str, str]]):
    def __init__(self, tx: LedgerRows) -> None:
        self._tx = tx

    def __contains__(self, item: object) -> bool:
        from cagg.ledger.entry import idempotency_key  # which builds on this module

        if not isinstance(item, tuple) or len(item) != 2:
            return False
        key = redaction_key(str(item[0]), str(item[1]))
        return self._tx.entry_by_key(idempotency_key(EntryKind.REDACTION, key, 0)) is not None


def redactions(tx: LedgerRows) -> Container[tuple[str, str]]:
    """Return what was redacted: holds (entry id, field) of every value that a ``redaction`` entry says was deleted.

    Each question is one look at an index, in whichever log of the store the redaction stands.
    """
    return _Redactions(tx)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateCheck:
    """What a check of one entry's personal values found.

    Attributes:
        rows: how many values are kept for the entry; over a whole log they must be all rows that the store has.
        unread: how many of them were not compared, because this role may not read them.
        problems: what does not agree, one sentence each, without any value.
    """

    rows: int
    unread: int
    problems: tuple[str, ...]


def check_private(
    tx: LedgerRows, body: Mapping[str, Any], redacted: Container[tuple[str, str]] | None = None
) -> PrivateCheck:
    """Compare the kept personal values of an entry with the commitments in its body.

    A value that is gone must have a redaction; a value whose redaction is recorded must be gone; a kept value must
    fit its commitment; nothing may be kept that the body does not name.

    Args:
        tx: a transaction of the entry's log.
        body: the entry's decoded body.
        redacted: (entry id, field) of what was deleted, from :func:`redactions`; None = read here.

    Raises:
        LedgerDamaged: ``private`` is not what format 1 writes.
    """
    named = sealed_fields(body)
    if not named:
        return PrivateCheck(rows=0, unread=0, problems=())
    entry_id = str(body.get("entry_id"))
    gone = redactions(tx) if redacted is None else redacted
    there = tx.private_fields(entry_id)
    kept = {item.field: item for item in tx.private_values(entry_id)} if tx.may_read_private() else {}
    problems = [
        f"a private value {field!r} is kept that the body does not name." for field in there if field not in named
    ]
    for field, expected in named.items():
        is_redacted = (entry_id, field) in gone
        if field not in there:
            if not is_redacted:
                problems.append(f"the private value {field!r} is gone and no redaction says so.")
        elif is_redacted:
            problems.append(
                f"the private value {field!r} was redacted and is there again; run 'cagg ledger redact' once more."
            )
        elif field in kept and not fits(kept[field], expected):
            problems.append(f"the private value {field!r} is not the one that was committed to.")
    return PrivateCheck(rows=len(there), unread=len(there) - len(kept), problems=tuple(problems))
