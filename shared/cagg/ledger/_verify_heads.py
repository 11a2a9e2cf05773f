"""Checkpoints: what they say, who vouches for them, and which roots the tree must therefore have at which sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cagg.errors import LedgerDamaged
from cagg.ledger._verify_failures import Failures
from cagg.ledger.keyring import KeyRing, KeyStanding
from cagg.ledger.merkle import HASH_BYTES
from cagg.ledger.notes import VerifierKey
from cagg.ledger.report import FailureKind
from cagg.ports import Checkpoint, LedgerRows

__all__ = ["Head", "Heads", "read_heads"]


@dataclass(frozen=True, slots=True)
class Head:
    """A root that the tree must have, with the name of who says so."""

    size: int
    root: bytes
    outside: bool

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the {'outside ' if self.outside else ''}checkpoint of size {self.size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """What the checkpoints of a log say.

    Attributes:
        expected: roots that the tree must have, ascending by size.
        stored: how many checkpoints the store holds.
        signed_size: size of the newest one that a trusted key signed; 0 without one.
        anchored_size: size of the newest such one that came from outside; 0 without one.
        notes: what is odd and no failure.
    """

    expected: tuple[Head, ...]
    stored: int
    signed_size: int
    anchored_size: int
    notes: tuple[str, ...] = ()


def read_heads(tx: LedgerRows, trusted: Sequence[str], outside: Sequence[Checkpoint], failures: Failures) -> Heads:
    """Check the signatures of stored and outside checkpoints.

    Args:
        tx: a transaction of the log.
        trusted: verifier keys as text; with some, every checkpoint must be signed by one that counts.
        outside: checkpoints of this log that were kept outside the store.
        failures: where failures go.

    A checkpoint that only revoked keys signed shows nothing. Where a later one that counts covers its entries that is
    a note, else a failure: otherwise a revocation from before a checkpoint would be a failure for ever. Its root is
    compared with the tree all the same.

    Raises:
        InvalidInput: a trusted key is no key.
    """
    ring = _ring(tx, trusted, failures)
    expected: list[Head] = []
    void: list[tuple[Head, str]] = []
    signed_size = anchored_size = stored = 0
    for item, is_outside in _both(tx, outside, failures):
        stored += not is_outside
        head = Head(item.size, item.root, is_outside)
        try:
            judged = ring.read(item.note, head.name)
        except LedgerDamaged as error:
            failures.add(FailureKind.SIGNATURE, item.size, str(error))
            continue
        said = judged.head
        if said.origin != failures.log:
            message = f"{head.name} is of the log {said.origin!r}, this is {failures.log!r}."
            failures.add(FailureKind.CHECKPOINT, item.size, message)
        if (said.size, said.root) != (item.size, item.root):
            message = f"{head.name} says another size or root in its note than in its columns."
            failures.add(FailureKind.CHECKPOINT, item.size, message)
        if not ring.empty and not judged.signers:
            why = judged.problem or f"{head.name} is signed by none of the trusted keys."
            if judged.is_void:
                void.append((head, why))
            else:
                failures.add(FailureKind.SIGNATURE, item.size, why)
        if judged.signers:
            signed_size = max(signed_size, said.size)
        if is_outside and (judged.signers or ring.empty):
            anchored_size = max(anchored_size, said.size)
        expected.append(Head(said.size, said.root, is_outside))
    expected.sort(key=lambda item: item.size)
    for head, why in void:
        if head.size > signed_size:
            failures.add(FailureKind.SIGNATURE, head.size, why)
    covered = [head.size for head, _ in void if head.size <= signed_size]
    notes = (_covered(covered, signed_size),) if covered else ()
    return Heads(
        expected=tuple(expected), stored=stored, signed_size=signed_size, anchored_size=anchored_size, notes=notes
    )


def _covered(sizes: Sequence[int], signed_size: int) -> str:
    listed = ", ".join(str(size) for size in sorted(set(sizes))[:3])
    more = ", …" if len(set(sizes)) > 3 else ""
    return (
        f"{len(sizes)} of the checkpoints (size {listed}{more}) are signed by revoked keys alone and count for "
        f"nothing; the checkpoint of {signed_size} entries covers theirs."
    )


def _ring(tx: LedgerRows, trusted: Sequence[str], failures: Failures) -> KeyRing:
    """Return the keys that count; those given from outside alone where the log's own entries cannot be read."""
    try:
        return KeyRing.of(tx, trusted)
    except (LedgerDamaged, ValueError, OverflowError) as error:  # tampered rows may hold anything
        failures.add(FailureKind.SIGNATURE, None, f"the log's entries about keys cannot be read: {error}")
    given = tuple(dict.fromkeys(VerifierKey.parse(text) for text in trusted))
    standings = tuple(KeyStanding(key=key, first_size=0) for key in given if key.name == failures.log)
    return KeyRing(trusted=given, standings=standings, origin=failures.log)


def _both(tx: LedgerRows, outside: Sequence[Checkpoint], failures: Failures) -> Iterator[tuple[Checkpoint, bool]]:
    try:
        for item in tx.each_checkpoint():
            if isinstance(item.root, bytes) and len(item.root) == HASH_BYTES:
                yield item, False
            else:
                failures.add(FailureKind.CHECKPOINT, item.size, f"the checkpoint of size {item.size} has no root.")
    except LedgerDamaged as error:
        failures.add(FailureKind.CHECKPOINT, None, str(error))
    for item in outside:
        yield item, True
