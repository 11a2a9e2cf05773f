"""Signs the tree: proves that it continues what was signed before, then stores a new checkpoint.

What was signed before is known from three places: the store, the file beside the key, and anchors outside. The file is
what a restored backup, or a second copy of the store, cannot contradict unnoticed.

The formats of notes and keys stand in :mod:`cagg.ledger.notes`. Signing belongs to ``cagg maintain``: workers never
hold the key. Source: C2SP tlog-checkpoint (2025): a log must not sign checkpoints that are inconsistent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cagg.errors import LedgerDamaged, SigningRefused
from cagg.ledger.keyfolder import last_signed, next_key, remember, rotation_of, take_over, turn
from cagg.ledger.lineage import key_folder
from cagg.ledger.merkle import TreeReader, consistency_proof, verify_consistency
from cagg.ledger.notes import TreeHead, VerifierKey, checkpoint_text, note_of, parse_note, verifier_key
from cagg.ledger.signer import FileSigner, exists
from cagg.ports import Checkpoint, LedgerRows, Signer, Transaction

__all__ = ["FileSigner", "checkpoint_of_note", "sign_checkpoint", "signer_for"]

_VERIFY = "run 'cagg ledger verify' and compare with a backup before signing again."
_RESTORED = (
    "was the store restored from a backup, begin a successor log with 'cagg ledger roll --reason restored'; else sign "
    "with the store that this key belongs to."
)


def sign_checkpoint(tx: Transaction, signer: Signer, *, outside: Sequence[Checkpoint] = ()) -> Checkpoint:
    """Sign the tree as it stands, store the checkpoint and return it.

    Before anything is signed, the tree is shown to continue the last checkpoint of the store, the one that is kept
    beside the key, and those from outside. When the log has not grown since the first of these, it is returned and
    nothing is signed. While a rotation is under way, both keys sign.

    Call it in a transaction of its own: what a key in a file signs is kept beside it first, so the entries must be
    committed. A crash between the file and the store leaves a checkpoint that the next call stores.

    Args:
        tx: a writing transaction in the log.
        signer: the log's key.
        outside: checkpoints that were kept elsewhere; those that the key did not sign are passed over.

    Raises:
        SigningRefused: the tree is not a continuation of what was signed (restored backup, edited rows, second
            store with the same key), or the signer belongs to another log.
        ConfigurationError: what is kept beside the key cannot be read or written.
        LedgerDamaged: stored hashes are missing.
    """
    if signer.name != tx.origin():
        raise SigningRefused(
            f"the signing key belongs to the log {signer.name!r} and this log is {tx.origin()!r}; use the key of this "
            "log."
        )
    folder = signer.folder if isinstance(signer, FileSigner) else None
    if folder is None:
        checkpoint = _next_checkpoint(tx, (signer,), None, outside)
    else:
        with turn(folder):
            kept = last_signed(folder)
            checkpoint = _next_checkpoint(tx, _signers(tx, folder, signer), kept, outside)
            if checkpoint.note != kept:
                remember(folder, checkpoint.note)
    tx.put_checkpoint(checkpoint)
    return checkpoint


def _signers(tx: Transaction, folder: Path, signer: Signer) -> tuple[Signer, ...]:
    """Return who signs now: the key in the folder, which may be newer than the one that was read, and the one that
    takes over once its entry stands in the tree."""
    current = FileSigner.load(folder / "log.key") if (folder / "log.key").exists() else signer
    new = next_key(folder)
    fact = None if new is None else rotation_of(tx, verifier_key(current), verifier_key(new))
    return (current,) if new is None or fact is None or fact.index is None else (current, new)


def _next_checkpoint(
    tx: Transaction, signers: Sequence[Signer], kept: str | None, outside: Sequence[Checkpoint]
) -> Checkpoint:
    # the checkpoint first: another process may place entries and sign them between the two looks
    origin, last, size = tx.origin(), tx.last_checkpoint(), tx.tree_size()
    tree = TreeReader(tx, size)
    keys = [verifier_key(signer) for signer in signers]
    if last is not None:
        _check_continues(tree, _last_head(last, origin), "its signed checkpoint", _VERIFY)
    if kept is not None:
        head = _kept_head(kept, origin)
        _check_continues(tree, head, "the checkpoint that its key signed last", _RESTORED)
    for item in outside:
        found = _signed_head(item, keys)
        if found is not None and found.origin == origin:
            _check_continues(tree, found, "a checkpoint of its own in an anchor", _RESTORED)
    if last is not None and last.size == size:
        return last
    if kept is not None and head.size == size and _signed_by_all(kept, keys):
        return Checkpoint(size=size, root=head.root, note=kept, created_at=tx.now())
    head = TreeHead(origin=origin, size=size, root=tree.root())
    text = checkpoint_text(head)
    signatures = [(key, signer.sign(text.encode())) for key, signer in zip(keys, signers, strict=True)]
    if not all(key.verifies(made, text.encode()) for key, made in signatures):
        raise SigningRefused(f"the signer of {origin!r} made a signature that its own public key refuses; check it.")
    return Checkpoint(size=size, root=head.root, note=note_of(text, signatures), created_at=tx.now())


def _last_head(last: Checkpoint, origin: str) -> TreeHead:
    try:
        head, _ = parse_note(last.note, ())
    except LedgerDamaged as error:
        raise SigningRefused(f"the last checkpoint of {origin!r} cannot be read ({error}); {_VERIFY}") from None
    if (head.origin, head.size, head.root) != (origin, last.size, last.root):
        raise SigningRefused(f"the last checkpoint of {origin!r} says something else than its columns; {_VERIFY}")
    return head


def _kept_head(kept: str, origin: str) -> TreeHead:
    try:
        head, _ = parse_note(kept, ())
    except LedgerDamaged as error:
        raise SigningRefused(
            f"the file log.checkpoint beside the key of {origin!r} holds no checkpoint ({str(error).rstrip('.')}); "
            "restore the keys' folder from a backup."
        ) from None
    if head.origin != origin:
        raise SigningRefused(
            f"the file log.checkpoint beside the key of {origin!r} is of the log {head.origin!r}; give each log a "
            "folder of its own."
        )
    return head


def _signed_head(item: Checkpoint, keys: Sequence[VerifierKey]) -> TreeHead | None:
    try:
        head, signers = parse_note(item.note, keys)
    except LedgerDamaged:
        return None  # `verify --anchors` tells
    return head if signers else None


def _signed_by_all(note: str, keys: Sequence[VerifierKey]) -> bool:
    try:
        return len(parse_note(note, keys)[1]) == len(keys)
    except LedgerDamaged:
        return False


def _check_continues(tree: TreeReader, head: TreeHead, what: str, remedy: str) -> None:
    if head.size > tree.size:
        raise SigningRefused(
            f"the log {head.origin!r} has {tree.size} entries, {what} {head.size}: entries are gone, "
            f"nothing was signed; {remedy}"
        )
    proof = consistency_proof(tree, head.size, tree.size)
    if not verify_consistency(old_size=head.size, old_root=head.root, size=tree.size, root=tree.root(), proof=proof):
        raise SigningRefused(
            f"the log {head.origin!r} is not a continuation of {what} of {head.size} entries, nothing was signed; "
            f"{remedy}"
        )


def checkpoint_of_note(note: str, created_at: datetime) -> Checkpoint:
    """Return a note that came from outside, for example from a task's log, as a checkpoint to verify against.

    Raises:
        LedgerDamaged: it is malformed. Signatures are not checked here: ``verify`` does.
    """
    head, _ = parse_note(note, ())
    return Checkpoint(size=head.size, root=head.root, note=note, created_at=created_at)


def signer_for(tx: LedgerRows, keys: Path) -> FileSigner:
    """Return the key that this log is signed with, from ``log.key`` in its folder; it is made for the first
    checkpoint.

    A log that has been signed before gets another key by a rotation only: whoever trusts the old one could no longer
    check it. ``log.vkey`` beside the key is written again when it is missing. A rotation that was interrupted after
    its checkpoint was stored is finished.

    Args:
        tx: a snapshot of the log's store, or a transaction that has signed nothing.
        keys: where the store's keys are.

    Raises:
        SigningRefused: the log has checkpoints, and its key is gone or is not the one that signed them.
        ConfigurationError: a key file cannot be read or written, or holds another log's key.
    """
    origin, last = tx.origin(), tx.last_checkpoint()
    folder = key_folder(tx, keys)
    path = folder / "log.key"
    if last is None:
        return FileSigner.load_or_create(folder, origin)
    take_over(tx, folder)
    if not exists(path):
        raise SigningRefused(
            f"the log {origin!r} has signed checkpoints, and their key {path} is missing: nothing was signed; restore "
            "log.key from a backup, or begin a successor log with 'cagg ledger roll --reason key_lost'."
        )
    signer = FileSigner.load_or_create(folder, origin)
    try:
        _, signers = parse_note(last.note, [verifier_key(signer)])
    except LedgerDamaged as error:
        raise SigningRefused(
            f"the last checkpoint of {origin!r} does not stand its check ({error}); run 'cagg ledger verify'."
        ) from None
    if not signers:
        raise SigningRefused(
            f"the key {path} is not the one that signed the last checkpoint of {origin!r}: nothing was signed; "
            "restore that log.key from a backup; keys are changed with 'cagg ledger rotate-key' only."
        )
    return signer
