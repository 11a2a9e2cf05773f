"""One log after another: a log is frozen, the next one begins and says where the one before it ended.

A store has one log that grows, and those before it. The last entry of a frozen log (kind ``log``, event ``frozen``)
names its successor; entry 0 of the successor (event ``begun``) names origin, size and root of its predecessor. So one
signature over the newest log fixes all logs before it, and nobody can drop or swap a whole year.

A log that cannot be signed to its end, because its store was restored from a backup or its key is lost, is not given
a last entry: that would be a second history beside the signed one. Its successor states the break instead: how far the
restored log is signed, and the checkpoint of what is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cagg.entries import EntryDraft, EntryKind
from cagg.errors import InvalidInput, LedgerDamaged, SigningRefused
from cagg.ledger.entry import append
from cagg.ledger.events import LogEvent, log_body
from cagg.ledger.key_entries import announcement
from cagg.ledger.lineage import base_name, check_succession, continues, log_event, tree_head
from cagg.ledger.notes import TreeHead, parse_note
from cagg.ledger.sequencer import sequence
from cagg.ports import LedgerRows, Signer, Transaction

__all__ = ["RollReason", "Rolled", "check_roll", "check_succession", "next_origin", "roll"]

_SEQUENCED_AT_ONCE = 4_096
_UNENDING = 10_000


class RollReason(StrEnum):
    """Why a log is frozen and another one begun."""

    YEARLY = "yearly"
    REQUESTED = "requested"
    """somebody wanted it, for example before a move to another store"""
    RESTORED = "restored"
    """a backup was restored, so the log's key has signed entries that are gone"""
    KEY_LOST = "key_lost"
    """nobody can sign the log any more"""

    @property
    def breaks(self) -> bool:
        """True when the old log cannot be signed to its end."""
        return self in (RollReason.RESTORED, RollReason.KEY_LOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """What a roll did.

    Attributes:
        predecessor: the frozen log's name, size and root.
        origin: name of the log that grows now.
        reason: why.
    """

    predecessor: TreeHead
    origin: str
    reason: RollReason


def next_origin(tx: LedgerRows, now: datetime, is_used: Callable[[str], bool] = lambda _: False) -> str:
    """Return the name of the next log: ``base/year``, and ``base/year-2`` and so on when that is taken.

    The base is the first log's name without a year.

    Args:
        tx: a transaction of the store.
        now: whose year it is, in UTC.
        is_used: True for a name that the store has forgotten: it was restored from a backup.
    """
    taken = {log.origin for log in tx.logs()}
    name = f"{base_name(tx.logs()[0].origin)}/{now.year}"
    names = (name, *(f"{name}-{number}" for number in range(2, _UNENDING)))
    return next(one for one in names if one not in taken and not is_used(one))


# ---- rolling --------------------------------------------------------------------------------------------------------


def check_roll(
    tx: LedgerRows, name: str, *, reason: RollReason, lost: str | None = None, lost_logs: Sequence[str] = ()
) -> None:
    """Refuse what :func:`roll` would refuse, before a key is made for it; raises InvalidInput."""
    _check_name(tx, name)
    if not tx.queued():
        _check_grown(tx)
    if reason.breaks:
        _break(tx, reason, lost, lost_logs)


def roll(
    tx: Transaction,
    signer: Signer | None,
    successor: Signer,
    *,
    reason: RollReason,
    lost: str | None = None,
    lost_logs: Sequence[str] = (),
) -> Rolled:
    """Freeze the log and begin the next one, whose name is the successor key's, in this transaction.

    Nothing of the tree is signed here: a signature over entries that a rollback takes back would be one over entries
    that never were. Sign the frozen log and the new one when this is committed.

    Args:
        tx: a writing transaction in the log that grows.
        signer: the frozen log's key, which announces the successor's; None when the log breaks off.
        successor: the new log's key.
        reason: why; ``restored`` and ``key_lost`` break the log off.
        lost: for ``restored``: the signed checkpoint, kept outside, of entries that are gone.
        lost_logs: for ``restored``: names of logs of the store that it has forgotten; then ``lost`` may be missing.

    Raises:
        InvalidInput: the name cannot be used, the log holds nothing yet, or what is said to be lost is not.
        SigningRefused: the signer is of another log: somebody rolled it meanwhile.
        LedgerDamaged: stored hashes are missing.
    """
    origin = tx.origin()
    _check_name(tx, successor.name)
    if signer is not None and signer.name != origin:
        raise SigningRefused(f"the signing key belongs to the log {signer.name!r} and the log is {origin!r} by now.")
    tx.lock_log()
    _place_all(tx)
    _check_grown(tx)
    if reason.breaks:
        broken = _break(tx, reason, lost, lost_logs)
    else:
        broken = None
        if signer is None or lost is not None or lost_logs:
            raise InvalidInput(f"a log that is frozen as {reason} is signed to its end; nothing of it can be lost.")
        append(tx, announcement(tx, signer, successor, f"the log {successor.name} goes on from this one"))
        body = {**log_body(event=LogEvent.FROZEN, successor=successor.name), "reason": str(reason)}
        append(tx, EntryDraft(kind=EntryKind.LOG, request_key=f"log:{origin}", ordinal=1, body=body))
        _place_all(tx)
    head = tree_head(tx)
    begun = tx.begin_log(successor.name)
    body = {**log_body(event=LogEvent.BEGUN, predecessor=(head.origin, head.size, head.root)), "reason": str(reason)}
    if broken is not None:
        body["break"] = broken
    append(begun, EntryDraft(kind=EntryKind.LOG, request_key=f"log:{successor.name}", ordinal=0, body=body))
    _place_all(begun)
    return Rolled(predecessor=head, origin=successor.name, reason=reason)


def _check_name(tx: LedgerRows, name: str) -> None:
    if not name.isprintable() or not name.isascii() or not name or any(c.isspace() or c == "+" for c in name):
        raise InvalidInput(
            f"the log name {name!r} must be ASCII text without spaces and '+', as in 'example.org/2027'."
        )
    if name in {log.origin for log in tx.logs()}:
        raise InvalidInput(f"the store has a log of the name {name!r} already; a name is never used twice.")


def _place_all(tx: LedgerRows) -> None:
    while sequence(tx, _SEQUENCED_AT_ONCE):
        pass


def _check_grown(tx: LedgerRows) -> None:
    size = tx.tree_size()
    first = next(iter(tx.entries(limit=1)), None)
    if size == 0 or (size == 1 and first is not None and log_event(first) is not None):
        raise InvalidInput(f"the log {tx.origin()!r} has just begun; there is nothing to freeze yet.")


def _break(tx: LedgerRows, reason: RollReason, lost: str | None, lost_logs: Sequence[str]) -> dict[str, Any]:
    """Return what entry 0 of the successor says of a log that breaks off."""
    signed = [
        item.size for item in tx.checkpoints() if continues(tx, TreeHead(origin="", size=item.size, root=item.root))
    ]
    if reason is RollReason.KEY_LOST:
        if lost is not None or lost_logs:
            raise InvalidInput("a lost checkpoint belongs to the reason 'restored'; leave one of them out.")
        return {"signed_size": max(signed, default=0), "lost": None}
    forgotten = {"lost_logs": sorted(lost_logs)} if lost_logs else {}
    if lost is None and forgotten:
        return {"signed_size": max(signed, default=0), "lost": None, **forgotten}
    if lost is None:
        raise InvalidInput("a restored log needs the checkpoint that it does not reach any more; give it with --lost.")
    try:
        head, _ = parse_note(lost, ())
    except LedgerDamaged as error:
        raise InvalidInput(
            f"the lost checkpoint cannot be read ({str(error).rstrip('.')}); give the whole note."
        ) from None
    if head.origin != tx.origin():
        raise InvalidInput(f"the lost checkpoint is of the log {head.origin!r} and this is {tx.origin()!r}.")
    if continues(tx, head):
        raise InvalidInput(
            f"the log {head.origin!r} continues its checkpoint of {head.size} entries, so nothing of it is lost; "
            "roll it without the reason 'restored'."
        )
    below = max((size for size in signed if size < head.size), default=0)
    return {"signed_size": below, "lost": lost, **forgotten}
