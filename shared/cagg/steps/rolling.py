"""Ends a log and begins the next one: keys, the roll itself, and the signatures, each committed before the next."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cagg.composition import Components
from cagg.entries import LogState
from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged, SigningRefused
from cagg.ledger.anchors import collect, newest, publish
from cagg.ledger.checkpoint import FileSigner, sign_checkpoint, signer_for
from cagg.ledger.keyfolder import last_signed
from cagg.ledger.lineage import continues, is_kin, key_folder, log_facts
from cagg.ledger.notes import parse_note, verifier_key
from cagg.ledger.signer import exists
from cagg.ledger.succession import Rolled, RollReason, check_roll, next_origin, roll
from cagg.ports import Checkpoint, Transaction
from cagg.steps.signing import publish_late, sign_and_publish

__all__ = ["LogRolled", "roll_log", "sign_frozen_logs", "tend_logs"]

_OLD = timedelta(days=366)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRolled:
    """A finished roll.

    Attributes:
        rolled: what was frozen and begun.
        key: the new log's public key as text, to be kept outside of the store.
        problems: what could not be signed or published afterwards, in sentences; ``cagg maintain`` tries again.
    """

    rolled: Rolled
    key: str
    problems: tuple[str, ...]


def roll_log(components: Components, *, name: str | None, reason: RollReason, lost: str | None = None) -> LogRolled:
    """Freeze the log that grows and begin the next one.

    What is signed is always committed before: a crash in between leaves either the old log as it was, or the new one
    with a checkpoint missing, which ``cagg maintain`` signs.

    Args:
        components: store and settings.
        name: the next log's name; None = the first log's name and the year.
        reason: why; ``restored`` and ``key_lost`` break the log off where it cannot be signed any more.
        lost: for ``restored``: the checkpoint of what is gone; None = what the log's key signed last.

    Raises:
        InvalidInput: the name cannot be used, the log holds nothing yet, or nothing is lost; then no key is made.
        SigningRefused: the log cannot be signed to its end, and the reason does not say so.
        ConfigurationError: a key cannot be read or written.
        StoreUnavailable: the store cannot be written; nothing was changed.
    """
    keys = components.settings.home / "keys"
    with components.store.snapshot() as tx:
        old = tx.origin()
        forgotten = _forgotten(components, tx)
        new = _name(tx, keys, name, forgotten)
        folder = key_folder(tx, keys, new)
        stated = {known for one in log_facts(tx, []) for known in one.lost_logs}
        lost_logs = [one for one in forgotten if one not in stated] if reason is RollReason.RESTORED else []
        if reason is RollReason.RESTORED and lost is None:
            lost = _lost(components, tx, needed=not lost_logs)
        if reason is RollReason.KEY_LOST:
            _check_key_lost(tx, keys)
        check_roll(tx, new, reason=reason, lost=lost, lost_logs=lost_logs)
    signer = None if reason.breaks else _signed_so_far(components)
    successor = FileSigner.load_or_create(folder, new)
    with components.store.transaction() as tx:
        if tx.origin() != old:
            raise InvalidInput(f"the log {old!r} was frozen by somebody else meanwhile; {tx.origin()!r} grows now.")
        rolled = roll(tx, signer, successor, reason=reason, lost=lost, lost_logs=lost_logs)
    problems: list[str] = []
    sign_frozen_logs(components, problems)
    sign_and_publish(components, problems)
    return LogRolled(rolled=rolled, key=str(verifier_key(successor)), problems=tuple(problems))


def _forgotten(components: Components, tx: Transaction) -> tuple[str, ...]:
    """Return the names of logs that were signed and that the store does not hold: it was restored from a backup.

    They are known from the folder of keys, and from the anchors that can be read; there only names that the store
    itself gives to its logs count, since others may publish to the same place.
    """
    names = {log.origin for log in tx.logs()}
    first = tx.logs()[0].origin
    folders = sorted((components.settings.home / "keys").glob("*/log.checkpoint"))
    kept = [note for path in folders if (note := last_signed(path.parent)) is not None]
    found = set()
    for note in kept:
        with contextlib.suppress(LedgerDamaged):
            found.add(parse_note(note, ())[0].origin)
    anchored = {item.note.partition("\n")[0] for item in collect(components.settings.anchors).checkpoints}
    found |= {name for name in anchored if is_kin(name, first)}
    return tuple(sorted(found - names))


def _name(tx: Transaction, keys: Path, wanted: str | None, forgotten: Sequence[str]) -> str:
    """Return the next log's name; one that was signed before belongs to a log that the store has forgotten."""

    def is_used(name: str) -> bool:
        return name in forgotten or last_signed(key_folder(tx, keys, name)) is not None

    if wanted is None:
        return next_origin(tx, tx.now(), is_used)
    if wanted in {log.origin for log in tx.logs()} or is_used(wanted):
        raise InvalidInput(f"there is, or was, a log of the name {wanted!r}; a name is never used twice.")
    return wanted


def _check_key_lost(tx: Transaction, keys: Path) -> None:
    """Refuse to break off a log whose key is there and has signed it."""
    path = key_folder(tx, keys) / "log.key"
    if not exists(path):
        return
    try:
        signer_for(tx, keys)
    except (SigningRefused, ConfigurationError):
        return  # another log's key, or none that can be used
    raise InvalidInput(
        f"the key of the log {tx.origin()!r} is not lost: {path} is there and can sign; end the log with '--reason "
        "requested', or replace the key with 'cagg ledger rotate-key'."
    )


def _lost(components: Components, tx: Transaction, *, needed: bool) -> str | None:
    """Return the newest checkpoint, beside the key or in an anchor, that the log does not reach; None without any.

    With ``needed`` one that the log does reach is returned rather than none, to be named in the refusal.
    """
    kept = last_signed(key_folder(tx, components.settings.home / "keys"))
    notes = [] if kept is None else [kept]
    notes += [item.note for item in newest(components.settings.anchors, tx.origin())]
    heads = [(parse_note(note, ())[0], note) for note in notes]
    judged = [(not continues(tx, head), head.size, note) for head, note in heads]
    found = max((item for item in judged if item[0] or needed), default=None)
    return None if found is None else found[2]


def _signed_so_far(components: Components) -> FileSigner:
    """Sign the log before anything is frozen, and return its key; raises SigningRefused when that cannot be done."""
    problems: list[str] = []
    with components.store.snapshot() as tx:
        signer = signer_for(tx, components.settings.home / "keys")
        is_empty = tx.tree_size() == 0
    if not is_empty and sign_and_publish(components, problems) is None:
        raise SigningRefused(problems[0])
    return signer


def sign_frozen_logs(components: Components, problems: list[str]) -> None:
    """Sign every frozen log to its end where that is still to be done, and publish the checkpoint.

    A log that broke off is left as it is: its successor says how far it is signed. The final checkpoint of the newest
    frozen log is published late to places that were out of reach when it was signed.

    Args:
        components: store and settings.
        problems: gets a sentence for whatever was refused, and for places that could not be reached.
    """
    keys, anchors = components.settings.home / "keys", components.settings.anchors
    with components.store.snapshot() as tx:
        pending = _unsigned(tx)
    for origin in pending:
        try:
            with components.store.snapshot() as tx:
                signer = signer_for(tx.in_log(origin), keys)
            outside = newest(anchors, origin)
            with components.store.transaction() as tx:
                checkpoint = sign_checkpoint(tx.in_log(origin), signer, outside=outside)
        except (SigningRefused, ConfigurationError) as error:
            problems.append(str(error))
        else:
            problems.extend(publish(anchors, checkpoint))
    with components.store.snapshot() as tx:
        final = _final(tx)
    if final is not None:
        problems.extend(publish_late(anchors, final))


def _final(tx: Transaction) -> Checkpoint | None:
    """Return the final checkpoint of the newest frozen log; None when there is none, or that log broke off."""
    logs = tx.logs()
    if len(logs) == 1:
        return None
    before = tx.in_log(logs[-2].origin)
    last = before.last_checkpoint()
    return last if last is not None and last.size == before.tree_size() else None


def _unsigned(tx: Transaction) -> list[str]:
    if len(tx.logs()) == 1:
        return []
    facts = log_facts(tx, [])
    return [
        one.log.origin
        for one, after in pairwise(facts)
        if one.log.state is LogState.FROZEN and after.broken_at is None and one.signed_size < one.size
    ]


# ---- every year -----------------------------------------------------------------------------------------------------


def tend_logs(components: Components, problems: list[str]) -> tuple[str, ...]:
    """Finish what a roll left unsigned, and begin the year's log; returns what a person should know.

    Only with ``ledger.yearly_logs`` a log is begun here: a new log has a new public key, which somebody must keep
    outside of the store. Otherwise a log that grows for more than a year is only mentioned.

    Args:
        components: store and settings.
        problems: gets a sentence for what could not be signed or begun.
    """
    try:
        sign_frozen_logs(components, problems)
        with components.store.snapshot() as tx:
            due, old = _is_due(tx), _old_log_note(tx)
        if components.settings.yearly_logs and due:
            done = roll_log(components, name=None, reason=RollReason.YEARLY)
            before = done.rolled.predecessor.origin
            said = f"the log {before} is frozen, {done.rolled.origin} goes on; keep its public key outside of the store"
            return (f"{said}: {done.key}",)
    except (SigningRefused, ConfigurationError, InvalidInput, LedgerDamaged) as error:
        problems.append(str(error))
        return ()
    return () if old is None else (old,)


def _is_due(tx: Transaction) -> bool:
    """True when the log that grows was begun in an earlier calendar year (UTC) and holds something of its own."""
    return _begun_at(tx).year < tx.now().year and tx.tree_size() > 1


def _begun_at(tx: Transaction) -> datetime:
    """When the log's first entry was recorded, which is hashed; the log's own row is not. An empty log begins now."""
    first = next(iter(tx.entries(limit=1)), None)
    return tx.now() if first is None else first.recorded_at


def _old_log_note(tx: Transaction) -> str | None:
    begun_at = _begun_at(tx)
    if tx.now() - begun_at <= _OLD or tx.tree_size() <= 1:
        return None
    return (
        f"the log {tx.origin()} grows since {begun_at:%Y-%m-%d}; `cagg ledger roll --reason yearly` begins the "
        "next one, ledger.yearly_logs = true does so every year"
    )
