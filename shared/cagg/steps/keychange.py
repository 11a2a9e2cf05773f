"""Changes the keys that a log is signed with. Each step is kept before the next, so that any of them may be the last.

A rotation: the new key is made beside the old one; an entry that both keys signed announces it; once that has its
place, the next checkpoint is signed by both; once that is stored, the new key takes over. Whoever calls again, or runs
``cagg maintain``, goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cagg.composition import Components
from cagg.errors import IdempotencyConflict, InvalidInput, SigningRefused
from cagg.ledger.anchors import publish
from cagg.ledger.checkpoint import sign_checkpoint, signer_for
from cagg.ledger.entry import append
from cagg.ledger.events import KeyEvent
from cagg.ledger.key_entries import key_facts, revocation, rotation
from cagg.ledger.keyfolder import next_key, prepare_next, rotation_of, switch_of, take_over
from cagg.ledger.keyring import KeyRing, KeyStanding
from cagg.ledger.lineage import key_folder
from cagg.ledger.notes import VerifierKey, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.signer import FileSigner
from cagg.ports import Checkpoint, LedgerRows, Signer, Transaction
from cagg.records import EntryDraft

__all__ = ["KeyChange", "key_standings", "revoke_key", "rotate_key"]

_SEQUENCED_AT_ONCE = 4_096
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """What became of a key.

    Attributes:
        key: the key that signs now.
        before: the key that was replaced or revoked.
        size: the checkpoint at the switch, signed by both keys; or the size that a revocation holds from.
        checkpoint: the newest checkpoint, which covers the entry about it.
        problems: places outside that the checkpoint did not get to; `cagg maintain` tries again.
    """

    key: VerifierKey
    before: VerifierKey
    size: int
    checkpoint: Checkpoint
    problems: tuple[str, ...] = ()


def rotate_key(components: Components, reason: str) -> KeyChange:
    """Replace the key that signs the log that grows.

    Args:
        components: store and settings.
        reason: why; stands in the log.

    Raises:
        InvalidInput: there is no reason.
        SigningRefused: nothing was signed yet, or the log cannot be signed now.
        ConfigurationError: a key cannot be read or written.
        StoreUnavailable: the store cannot be written; call again.
    """
    keys = components.settings.home / "keys"
    with components.store.snapshot() as tx:
        if tx.last_checkpoint() is None:
            raise SigningRefused("the log was never signed, so no key can be replaced; run 'cagg maintain' first.")
        folder = key_folder(tx, keys)
        under_way = next_key(folder)
        old = signer_for(tx, keys) if under_way is None else FileSigner.load(folder / "log.key")
        rotation(tx, old, old, reason)  # refuses a reason that is none before anything is made
    new = prepare_next(folder, old.name)
    before, after = verifier_key(old), verifier_key(new)
    for _ in range(_TRIES):
        _append_once(components, partial(_is_under_way, old=before, new=after), partial(_rotation, old, new, reason))
        checkpoint = _signed(components)
        with components.store.snapshot() as tx:
            take_over(tx, folder)
            size = _switched_at(tx, before, after)
        if size is not None:
            problems = publish(components.settings.anchors, checkpoint)
            return KeyChange(key=after, before=before, size=size, checkpoint=checkpoint, problems=problems)
    raise SigningRefused(
        "the new key is announced and the checkpoint that both keys sign is still to come; run 'cagg maintain' again."
    )


def _rotation(old: Signer, new: Signer, reason: str, tx: Transaction) -> EntryDraft:
    return rotation(tx, old, new, reason)


def _switched_at(tx: LedgerRows, old: VerifierKey, new: VerifierKey) -> int | None:
    fact = rotation_of(tx, old, new)
    return None if fact is None else switch_of(tx, fact)


def _is_under_way(tx: Transaction, *, old: VerifierKey, new: VerifierKey) -> bool:
    """True when the announcement is there, and a checkpoint that both keys sign is or can still come.

    When another process, which did not know the new key, has signed the tree to its end, only a new entry leads to
    another checkpoint.
    """
    if rotation_of(tx, old, new) is None:
        return False
    last = tx.last_checkpoint()
    ended = last is not None and last.size == tx.tree_size() and not tx.queued()
    return not ended or _switched_at(tx, old, new) is not None


def revoke_key(components: Components, text: str, reason: str, from_size: int | None = None) -> KeyChange:
    """Let a key's signatures count for nothing from a size on.

    Args:
        components: store and settings.
        text: the verifier key, or the eight hex digits of its id.
        reason: why; stands in the log.
        from_size: first size in doubt; None = the first after it was replaced.

    Raises:
        InvalidInput: the log was never signed with the key, or the key signs it now: it must be replaced first.
        SigningRefused, ConfigurationError, StoreUnavailable: as for :func:`rotate_key`.
    """
    keys = components.settings.home / "keys"
    with components.store.snapshot() as tx:
        signer = signer_for(tx, keys)
        found = _named(tx, verifier_key(signer), text)
        if found.key == verifier_key(signer):
            raise InvalidInput(
                f"the key {text[:80]!r} signs the log now; replace it with 'cagg ledger rotate-key', then revoke it."
            )
    if found.retired_at is None and from_size is None:
        raise InvalidInput(
            f"the key {text[:80]!r} was never replaced; say with --from-size from where on it is in doubt."
        )
    size = from_size if from_size is not None else (found.retired_at or 0) + 1
    if size < 0:
        raise InvalidInput(f"--from-size must be 0 or more, got {size}.")
    _append_once(
        components,
        lambda tx: _is_revoked(tx, found.key, size),
        lambda tx: revocation(tx, signer, found.key, size, reason),
    )
    checkpoint = _signed(components)
    problems = publish(components.settings.anchors, checkpoint)
    return KeyChange(key=verifier_key(signer), before=found.key, size=size, checkpoint=checkpoint, problems=problems)


def key_standings(tx: LedgerRows, key: VerifierKey) -> tuple[KeyStanding, ...]:
    """Return every key of the log, as the key that signs it now vouches for them; the newest last."""
    found = KeyRing.of(tx, [str(key)]).standings
    return tuple(sorted(found, key=lambda item: (item.retired_at is None, item.retired_at or 0)))


def _named(tx: LedgerRows, current: VerifierKey, text: str) -> KeyStanding:
    for item in key_standings(tx, current):
        if text.strip() in (str(item.key), item.key.key_id.hex(), f"{item.key.name}+{item.key.key_id.hex()}"):
            return item
    raise InvalidInput(
        f"the key {text[:80]!r} is none that this log was signed with; 'cagg ledger key' lists them, name one of those."
    )


def _is_revoked(tx: LedgerRows, key: VerifierKey, size: int) -> bool:
    return any(fact.event is KeyEvent.REVOKED and fact.key == key and fact.from_size <= size for fact in key_facts(tx))


# ---- entry and checkpoint, one after the other ----------------------------------------------------------------------


def _append_once(
    components: Components, is_there: Callable[[Transaction], bool], draft: Callable[[Transaction], EntryDraft]
) -> None:
    """Record a change of keys unless it is recorded; another change at the same time is heard of, not overwritten."""
    for left in reversed(range(_TRIES)):
        try:
            with components.store.transaction() as tx:
                if not is_there(tx):
                    append(tx, draft(tx))
                return
        except IdempotencyConflict:
            if not left:
                raise


def _signed(components: Components) -> Checkpoint:
    """Place what waits, then sign, each in a transaction of its own."""
    while True:
        with components.store.transaction() as tx:
            if sequence(tx, _SEQUENCED_AT_ONCE) < _SEQUENCED_AT_ONCE:
                break
    with components.store.snapshot() as tx:
        signer = signer_for(tx, components.settings.home / "keys")
    with components.store.transaction() as tx:
        return sign_checkpoint(tx, signer)
