"""Reads how the logs of a store hang together: each one's beginning, its end, and whether neighbours agree."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from cagg.entries import Entry, EntryKind, Log, LogState
from cagg.errors import LedgerDamaged
from cagg.ledger.encoding import decode
from cagg.ledger.events import LogEvent
from cagg.ledger.merkle import TreeReader
from cagg.ledger.notes import TreeHead, parse_note
from cagg.ports import LedgerRows

__all__ = [
    "LogFacts",
    "Succession",
    "base_name",
    "check_succession",
    "continues",
    "entries_of_all_logs",
    "is_kin",
    "key_folder",
    "log_entries",
    "log_event",
    "log_facts",
    "succession",
    "tree_head",
]

_YEAR = re.compile(r"/\d{4}(-\d+)?\Z", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")
_LONGEST_NAME = 80
"""Of a folder's name; what is left out is told apart by the digest behind it."""


def entries_of_all_logs(
    tx: LedgerRows,
    *,
    kind: EntryKind | None = None,
    request_key: str | None = None,
    task_key: str | None = None,
    newest_first: bool = False,
    limit: int | None = None,
) -> Iterator[Entry]:
    """As ``tx.entries``, over every log of the store: a run may be asked for in one log and settled in the next."""
    names = [log.origin for log in tx.logs()]
    found = 0
    for name in reversed(names) if newest_first else names:
        rows = tx if name == tx.origin() else tx.in_log(name)
        left = None if limit is None else limit - found
        for entry in rows.entries(
            kind=kind, request_key=request_key, task_key=task_key, newest_first=newest_first, limit=left
        ):
            found += 1
            yield entry
        if limit is not None and found >= limit:
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """One log of the store and how it hangs together with its neighbours.

    Attributes:
        log: name, state, when it was begun.
        size: entries in its tree; waiting: entries without a place yet.
        signed_size: entries under its newest checkpoint, whoever signed it; 0 without one.
        last_at: when its newest entry was recorded; None when it has none.
        predecessor: what its entry 0 says of the log before it; None for the first one.
        reason: why it was begun; empty for the first one.
        lost: the checkpoint that the log before it did not reach any more; None when nothing is said to be lost.
        broken_at: entries of the log before it that are signed, when that log breaks off; None when it does not.
        lost_logs: names of logs that the store has forgotten, as the log says.
    """

    log: Log
    size: int
    waiting: int
    signed_size: int
    last_at: datetime | None
    predecessor: TreeHead | None
    reason: str
    lost: TreeHead | None
    broken_at: int | None
    lost_logs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The logs of a store, oldest first, and what is wrong or was stated as broken.

    Attributes:
        logs: one by one.
        problems: what does not agree, in sentences.
        breaks: what the logs themselves state as lost, in sentences: not wrong, and never to be passed over.
    """

    logs: tuple[LogFacts, ...]
    problems: tuple[str, ...]
    breaks: tuple[str, ...]


def check_succession(tx: LedgerRows) -> list[str]:
    """Return what does not agree between the logs of the store, in sentences; see :func:`succession`."""
    return list(succession(tx).problems)


def succession(tx: LedgerRows) -> Succession:
    """Read every log's beginning, end and final checkpoint, and compare neighbours.

    The bodies and trees themselves are ``verify``'s, log by log. Signatures are too: here a final checkpoint only has
    to be there and to fit.
    """
    problems: list[str] = []
    facts = log_facts(tx, problems)
    rows = [tx.in_log(one.log.origin) for one in facts]
    active = [one.log.origin for one in facts if one.log.state is LogState.ACTIVE]
    if len(active) != 1 or facts[-1].log.state is not LogState.ACTIVE:
        said = ", ".join(active) or "none"
        problems.append(f"exactly one log may grow, and it must be the newest; growing: {said}.")
    claimed: dict[str, str] = {}
    for one in facts:
        if one.predecessor is None:
            continue
        other = claimed.setdefault(one.predecessor.origin, one.log.origin)
        if other != one.log.origin:
            problems.append(
                f"two logs say that they go on from {one.predecessor.origin}: {other} and {one.log.origin}."
            )
    for number, one in enumerate(facts):
        after = facts[number + 1] if number + 1 < len(facts) else None
        problems.extend(_check_end(rows[number], one, after))
        if number:
            problems.extend(_check_beginning(rows[number - 1], facts[number - 1], one))
    if facts[0].predecessor is not None:
        problems.append(
            f"the log {facts[0].log.origin} says that it goes on from {facts[0].predecessor.origin}, which this store "
            "has not."
        )
    return Succession(logs=tuple(facts), problems=tuple(problems), breaks=tuple(_breaks(facts)))


def log_facts(tx: LedgerRows, problems: list[str]) -> list[LogFacts]:
    """Return what each log of the store says of itself, oldest first; compares nothing, hence cheap.

    Args:
        tx: a transaction of the store.
        problems: gets a sentence for each first entry that cannot be read.
    """
    return [_facts(log, tx.in_log(log.origin), problems) for log in tx.logs()]


def _facts(log: Log, tx: LedgerRows, problems: list[str]) -> LogFacts:
    first = next(iter(tx.entries(limit=1)), None)
    last = next(iter(tx.entries(newest_first=True, limit=1)), None)
    body = None if first is None else log_event(first)
    predecessor: TreeHead | None = None
    lost: TreeHead | None = None
    broken_at: int | None = None
    lost_logs: tuple[str, ...] = ()
    if body is not None and body.get("event") == LogEvent.BEGUN:
        try:
            predecessor = _stated_head(body)
            broken_at, lost, lost_logs = _stated_break(body)
        except LedgerDamaged as error:
            problems.append(f"the first entry of the log {log.origin}: {error}")
        if predecessor is not None and first is not None and log.created_at != first.recorded_at:
            problems.append(f"the log {log.origin} says of itself another time of its beginning than its first entry.")
    checkpoint = tx.last_checkpoint()
    return LogFacts(
        log=log,
        size=tx.tree_size(),
        waiting=tx.queued(),
        signed_size=0 if checkpoint is None else checkpoint.size,
        last_at=None if last is None else last.recorded_at,
        predecessor=predecessor,
        reason="" if body is None else str(body.get("reason") or ""),
        lost=lost,
        broken_at=broken_at,
        lost_logs=lost_logs,
    )


def base_name(origin: str) -> str:
    """Return the name that the logs of a store have in common: a log's name without the year behind it."""
    return _YEAR.sub("", origin)


def is_kin(origin: str, first: str) -> bool:
    """True when a log's name is one that a store gives to its logs, of which the first has the other name."""
    return base_name(origin) == base_name(first)


def tree_head(tx: LedgerRows) -> TreeHead:
    """Return a log's name, size and the root over all of its entries.

    Raises:
        LedgerDamaged: stored hashes are missing.
    """
    size = tx.tree_size()
    return TreeHead(origin=tx.origin(), size=size, root=TreeReader(tx, size).root())


def continues(tx: LedgerRows, head: TreeHead) -> bool:
    """True when the log begins with the entries of a checkpoint."""
    return head.size <= tx.tree_size() and TreeReader(tx, head.size).root() == head.root


def log_entries(tx: LedgerRows) -> list[Entry]:
    """Return the entries that say what became of this log, in its order, whatever they hold."""
    return list(tx.entries(kind=EntryKind.LOG, request_key=f"log:{tx.origin()}"))  # a kind alone has no index


def log_event(entry: Entry) -> Mapping[str, Any] | None:
    """Return the body of an entry that says what became of a log; None for any other."""
    if entry.kind is not EntryKind.LOG:
        return None
    try:
        body = decode(entry.body)
    except LedgerDamaged:
        return None  # `verify` tells that
    return body if isinstance(body, dict) and body.get("kind") == EntryKind.LOG else None


def _stated_head(body: Mapping[str, Any]) -> TreeHead | None:
    stated = body.get("predecessor")
    if stated is None:
        return None
    try:
        return TreeHead(origin=str(stated["origin"]), size=int(stated["size"]), root=bytes.fromhex(stated["root"]))
    except (KeyError, TypeError, ValueError):
        raise LedgerDamaged("it does not name the origin, size and root of the log before it.") from None


def _stated_break(body: Mapping[str, Any]) -> tuple[int | None, TreeHead | None, tuple[str, ...]]:
    stated = body.get("break")
    if stated is None:
        return None, None, ()
    size = stated.get("signed_size") if isinstance(stated, dict) else None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise LedgerDamaged("it states a break without saying how far the log before it is signed.")
    note, names = stated.get("lost"), stated.get("lost_logs", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise LedgerDamaged("it states a break with names of lost logs that are none.")
    return size, None if note is None else parse_note(str(note), ())[0], tuple(names)


def _check_end(tx: LedgerRows, one: LogFacts, after: LogFacts | None) -> Iterator[str]:
    name = one.log.origin
    events = [(entry.index, body) for entry in log_entries(tx) if (body := log_event(entry)) is not None]
    frozen = [(index, body) for index, body in events if body.get("event") == LogEvent.FROZEN]
    if any(index != 0 for index, body in events if body.get("event") == LogEvent.BEGUN):
        yield f"the log {name} says in its midst that it begins."
    if one.log.state is LogState.ACTIVE:
        if frozen:
            yield f"the log {name} says that it was frozen, and the store lets it grow."
        return
    if one.waiting:
        yield f"the log {name} is frozen, and {one.waiting} entries wait for a place in it."
    if after is None:
        yield f"the log {name} is frozen, and no log goes on from it."
        return
    if after.broken_at is not None and not frozen:
        return  # it was never frozen by an entry of its own: what stands here is what is left of it
    if len(frozen) != 1 or frozen[0][0] != one.size - 1:
        yield f"the log {name} is frozen, and its last entry does not say so."
    elif frozen[0][1].get("successor") != after.log.origin:
        yield f"the log {name} was to go on in {frozen[0][1].get('successor')}, and {after.log.origin} came after it."
    if not any(item.size == one.size for item in tx.each_checkpoint()):
        yield f"the frozen log {name} has no signed checkpoint over all of its {one.size} entries; run 'cagg maintain'."


def _check_beginning(before: LedgerRows, old: LogFacts, one: LogFacts) -> Iterator[str]:
    name = one.log.origin
    if one.predecessor is None:
        yield f"the log {name} does not say which log it goes on from; {old.log.origin} stands before it."
        return
    try:
        head = tree_head(before)
    except LedgerDamaged as error:
        yield f"the end of the log {old.log.origin} cannot be read: {error}"
        return
    if one.predecessor.origin != head.origin:
        yield f"the log {name} goes on from {one.predecessor.origin}, and {head.origin} stands before it."
    elif (one.predecessor.size, one.predecessor.root) != (head.size, head.root):
        yield (
            f"the log {name} goes on from {head.origin} at {one.predecessor.size} entries, and that log has "
            f"{head.size}, or another root."
        )
    for item in before.each_checkpoint():
        if item.size == head.size and item.root != head.root:
            yield f"the final checkpoint of the log {head.origin} has another root than its entries."


def _breaks(facts: Sequence[LogFacts]) -> Iterator[str]:
    for old, one in pairwise(facts):
        if one.broken_at is None:
            continue
        unsigned = old.size - one.broken_at
        tail = f"; the {unsigned} after them are fixed by the next log alone" if unsigned else ""
        if one.lost_logs:
            tail += f"; with it the store has forgotten {', '.join(one.lost_logs)}"
        if one.lost is None and one.lost_logs:
            yield (
                f"the log {old.log.origin} breaks off: a backup was restored, and its first {one.broken_at} entries "
                f"are signed{tail}."
            )
        elif one.lost is not None:
            yield (
                f"the log {old.log.origin} breaks off: a backup was restored, and of the {one.lost.size} entries that "
                f"were signed the first {one.broken_at} are proven to be here{tail}."
            )
        else:
            yield (
                f"the log {old.log.origin} breaks off: its key is lost, and its first {one.broken_at} entries are "
                f"signed{tail}."
            )


def key_folder(tx: LedgerRows, keys: Path, origin: str | None = None) -> Path:
    """Return the folder of a log's signing key: ``keys`` itself for the first log, a folder in it for each later one.

    A frozen log keeps its key: its last checkpoint may still have to be signed, and old proofs to be made anew.

    Args:
        tx: a transaction of the store.
        keys: the folder of the store's keys.
        origin: which log's; None = the one that the transaction is in.
    """
    name = tx.origin() if origin is None else origin
    if name == tx.logs()[0].origin:
        return keys
    return keys / f"{_UNSAFE.sub('_', name)[-_LONGEST_NAME:]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
