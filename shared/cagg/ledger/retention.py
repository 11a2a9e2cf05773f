"""Deletes personal values, and refuses where they must be kept.

Kept for the retention time are the personal values of approvals of subjects of risk high or critical: who let a
high-risk system pass is part of its documentation. The default of ten years is the time for which providers keep the
documentation of high-risk AI systems (Regulation (EU) 2024/1689 of 13 June 2024, Article 18(1)); the logs of such
systems are kept for at least six months (Article 19(1)). Which time applies to whom, and whether a commitment without
its salt is still personal data, is for counsel to say, not for this program: the time is a setting.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, datetime
from typing import Any

from cagg.entries import Entry, EntryDraft, EntryKind
from cagg.errors import IdempotencyConflict, InvalidInput, MustBeKept
from cagg.ledger.entry import append, idempotency_key, read_body
from cagg.ledger.events import redaction_body
from cagg.ledger.private import redaction_key, sealed_fields
from cagg.ports import Transaction
from cagg.request import Risk

__all__ = ["DEFAULT_RETENTION_YEARS", "Redaction", "kept_until", "redact", "redaction_of"]

DEFAULT_RETENTION_YEARS = 10
"""Regulation (EU) 2024/1689, Article 18(1): ten years after the system was placed on the market."""

_KEPT_RISKS = frozenset({str(Risk.HIGH), str(Risk.CRITICAL)})


_SHORTEST_NAME = 3
"""Characters: a shorter value occurs in words that have nothing to do with it. Own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """What a redaction did.

    Attributes:
        entry: the ``redaction`` entry.
        deleted: how many values were deleted now: 0 when somebody did so before, else 1.
    """

    entry: Entry
    deleted: int


def kept_until(body: Mapping[str, Any], recorded_at: datetime, retention_years: int) -> datetime | None:
    """Return until when the personal values of an entry must be kept; None when they may go at any time.

    Args:
        body: the entry's body.
        recorded_at: when it was recorded.
        retention_years: calendar years; 0 = nothing is kept.
    """
    request = body.get("request")
    risk = body.get("risk") or (request.get("risk") if isinstance(request, Mapping) else None)
    if body.get("kind") != EntryKind.APPROVAL or risk not in _KEPT_RISKS or retention_years < 1:
        return None
    year = recorded_at.year + retention_years
    if year > MAXYEAR:
        return datetime.max.replace(tzinfo=recorded_at.tzinfo)
    last_day = calendar.monthrange(year, recorded_at.month)[1]  # 29 February
    return recorded_at.replace(year=year, day=min(recorded_at.day, last_day))


def redact(tx: Transaction, entry_id: str, field: str, *, reason: str, retention_years: int) -> Redaction:
    """Delete a personal value with its salt and record that, in this transaction; leaf and proofs stay as they are.

    Repeating it is harmless: the first redaction stands, and a value that came back with a backup is deleted again.

    Args:
        tx: a writing transaction of the store; the entry may be of any of its logs.
        entry_id: whose value.
        field: which one.
        reason: why, in words that hold no personal value themselves: they stay for ever.
        retention_years: how long what must be kept is kept, see :func:`kept_until`.

    Raises:
        InvalidInput: there is no such entry, it has no such value, or the reason is empty or repeats one.
        MustBeKept: the value may not be deleted yet.
        LedgerDamaged: the entry's body cannot be read.
    """
    said = " ".join(reason.split())
    if not said:
        raise InvalidInput("a redaction needs a reason; say why with --reason, without the value itself.")
    entry = tx.entry(entry_id)
    if entry is None:
        raise InvalidInput(f"no entry has the id {entry_id!r}; `cagg ledger list` shows them.")
    body = read_body(tx, entry)
    named = sealed_fields(body)
    if field not in named:
        has = f"it has {', '.join(named)}" if named else "it has none"
        raise InvalidInput(f"the entry {entry_id} has no private value {field!r}; {has}.")
    _refuse_what_repeats(tx, entry_id, said)
    standing = redaction_of(tx, entry_id, field)
    if standing is None:
        _refuse_what_is_kept(tx, entry, field, body, retention_years)
    deleted = int(tx.drop_private(entry_id, field))
    if standing is not None:
        return Redaction(entry=standing, deleted=deleted)
    draft = EntryDraft(
        kind=EntryKind.REDACTION,
        request_key=redaction_key(entry_id, field),
        ordinal=0,
        body={**redaction_body(entry_id=entry_id, field=field, reason=said), "deleted": deleted},
    )
    try:
        return Redaction(entry=append(tx, draft), deleted=deleted)
    except IdempotencyConflict:  # somebody else deleted it at the same moment, for another reason
        standing = redaction_of(tx, entry_id, field)
        if standing is None:
            raise
        return Redaction(entry=standing, deleted=deleted)


def redaction_of(tx: Transaction, entry_id: str, field: str) -> Entry | None:
    """Return the entry that records the deletion of a value; None when it was not deleted."""
    return tx.entry_by_key(idempotency_key(EntryKind.REDACTION, redaction_key(entry_id, field), 0))


def _refuse_what_repeats(tx: Transaction, entry_id: str, reason: str) -> None:
    """Refuse a reason that holds one of the entry's personal values: it would stay in the log for ever."""
    for item in tx.private_values(entry_id):
        value = " ".join(item.value.split()).casefold()
        if len(value) >= _SHORTEST_NAME and value in reason.casefold():
            raise InvalidInput(
                f"the reason repeats the private value {item.field!r}, and would stay for ever; give one without it."
            )


def _refuse_what_is_kept(
    tx: Transaction, entry: Entry, field: str, body: Mapping[str, Any], retention_years: int
) -> None:
    until = kept_until(body, entry.recorded_at, retention_years)
    if until is not None and tx.now() < until:
        raise MustBeKept(
            f"the private value {field!r} of entry {entry.entry_id} must be kept until {until:%Y-%m-%d}: it says who "
            f"approved a subject of risk {body.get('risk') or body['request']['risk']} on {entry.recorded_at:%Y-%m-%d},"
            f" and ledger.retention_years is {retention_years}; redact it then."
        )
