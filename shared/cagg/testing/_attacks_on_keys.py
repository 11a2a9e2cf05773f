"""Attacks with keys, signatures and checkpoints."""

from __future__ import annotations

import base64
from collections.abc import Callable

from cagg.entries import EntryDraft, EntryKind
from cagg.ledger.entry import append
from cagg.ledger.key_entries import revocation, rotation
from cagg.ledger.merkle import TreeReader
from cagg.ledger.notes import verifier_key
from cagg.ledger.report import FailureKind as Kind
from cagg.ledger.sequencer import sequence
from cagg.ports import Signer
from cagg.testing._attack import Attack, Group, Needs, Target
from cagg.testing._attacked_log import (
    COLLIDING_SIGNER,
    FIRST_SIGNER,
    FOREIGN_SIGNER,
    SECOND_SIGNER,
    SIGNED_SIZES,
    genuine,
    put_head,
)
from cagg.testing.stores import MemorySigner

__all__ = ["KEYS"]

_OLDEST, _OLD, _SWITCH, _LAST = SIGNED_SIZES
_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Order of the base point of edwards25519 (RFC 8032, January 2017, section 5.1)."""


def _note(target: Target, size: int) -> str:
    ((note,),) = target.rows("SELECT note FROM cagg_checkpoint WHERE size = ?", size)
    return str(note)


def _renoted(change: Callable[[str], str], size: int = _OLDEST) -> Callable[[Target], object]:
    """Return an attack that exchanges a note's text."""

    def apply(target: Target) -> None:
        note = _note(target, size)
        changed = change(note)
        assert changed != note
        target.sql("UPDATE cagg_checkpoint SET note = ? WHERE size = ?", changed, size)

    return apply


def _not_text(target: Target) -> None:
    data = b"\xe5" + _note(target, _OLDEST).encode()
    target.sql("UPDATE cagg_checkpoint SET note = CAST(? AS TEXT) WHERE size = ?", data, _OLDEST)


def _signed_instead(target: Target, size: int, *signers: Signer) -> None:
    """Let others sign a true tree head."""
    target.sql("DELETE FROM cagg_checkpoint WHERE size = ?", size)
    put_head(target.tx, signers, size, TreeReader(target.tx, size).root(size))


def _signature_line(note: str) -> tuple[str, str, bytes]:
    """Return what stands before a note's only signature, its name, and its bytes."""
    text, _, line = note.rstrip("\n").rpartition("\n")
    _, name, data = line.split(" ")
    return text, name, base64.b64decode(data)


def _with_signature(note: str, change: Callable[[bytes], bytes]) -> str:
    text, name, data = _signature_line(note)
    return f"{text}\n— {name} {base64.b64encode(change(data)).decode()}\n"


def _malleable(data: bytes) -> bytes:
    """Add the group's order to S: the same signature for a verifier that does not insist on the smallest one."""
    scalar = int.from_bytes(data[36:], "little") + _ORDER
    return data[:36] + scalar.to_bytes(32, "little")


def _rewritten(target: Target) -> None:
    target.forge(102, {"notes": ["all was well"]})
    target.rebuild(lambda _: (FOREIGN_SIGNER,))


def _place(target: Target) -> int:
    while sequence(target.tx):
        pass
    return target.tx.tree_size()


def _smuggled_key(target: Target) -> None:
    """Announce a key as if it took the genuine one's place, and sign with it."""
    draft = rotation(target.tx, SECOND_SIGNER, FOREIGN_SIGNER, "a change of keys")
    alone = rotation(target.tx, FOREIGN_SIGNER, FOREIGN_SIGNER, "a change of keys")
    body = {**draft.body, "statement": alone.body["statement"]}
    append(target.tx, EntryDraft(kind=EntryKind.KEY, request_key=draft.request_key, ordinal=draft.ordinal, body=body))
    size = _place(target)
    put_head(target.tx, (FOREIGN_SIGNER,), size, TreeReader(target.tx, size).root())


def _revoked(target: Target) -> None:
    """The owner revokes the first key, which was stolen; the thief signs the tree as it is now."""
    stolen = verifier_key(FIRST_SIGNER)
    append(target.tx, revocation(target.tx, SECOND_SIGNER, stolen, _SWITCH + 1, "it was stolen"))
    size = _place(target)
    put_head(target.tx, (FIRST_SIGNER,), size, TreeReader(target.tx, size).root())


def _lie(target: Target) -> None:
    put_head(target.tx, (FIRST_SIGNER,), 100, b"\x01" * 32)


def _other_log(target: Target) -> None:
    other = MemorySigner("example.org/another")
    put_head(target.tx, (other,), 100, TreeReader(target.tx, 100).root(), origin=other.name)


def _extra_signature(note: str) -> str:
    text, _, _ = note.partition("\n\n")
    signature = FOREIGN_SIGNER.sign(f"{text}\n".encode())
    key = verifier_key(MemorySigner("witness.example.org"))
    return f"{note}— {key.name} {base64.b64encode(key.key_id + signature).decode()}\n"


def _attack(
    name: str,
    does: str,
    apply: Callable[[Target], object],
    *by: Kind,
    needs: Needs = Needs.NOTHING,
    remark: str = "",
    backend: str = "",
) -> Attack:
    return Attack(
        name=name,
        group=Group.KEYS,
        does=does,
        apply=apply,
        by=frozenset(by),
        needs=needs,
        remark=remark,
        backend=backend,
    )


KEYS = (
    _attack(
        "everything rewritten with another key",
        "changes an entry and all that follows, and signs with a key of its own",
        _rewritten, Kind.SIGNATURE, needs=Needs.KEY, remark="the key must come from outside of the database",
    ),
    _attack(
        "a key announced by nobody",
        "records an entry that puts a foreign key in the genuine one's place, and signs with it",
        _smuggled_key, Kind.SIGNATURE, needs=Needs.KEY,
        remark="the entry counts only with a statement that the old key signed",
    ),
    _attack(
        "a revoked key", "has a stolen key, which the log has revoked, sign the newest tree",
        _revoked, Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "a key after its time", "has the key that was replaced sign a later tree",
        lambda target: put_head(target.tx, (FIRST_SIGNER,), 290, TreeReader(target.tx, 290).root()),
        Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "a key before its time", "has the newer key sign an old tree in the older one's place",
        lambda target: _signed_instead(target, _OLDEST, SECOND_SIGNER), Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "the change of keys removed", "deletes the checkpoint that both keys signed",
        lambda target: target.sql("DELETE FROM cagg_checkpoint WHERE size = ?", _SWITCH),
        Kind.SIGNATURE, needs=Needs.KEY, remark="the second key has nobody left to vouch for it",
    ),
    _attack(
        "a key with the same id", "signs with another key whose four-byte id is that of the genuine one",
        lambda target: _signed_instead(target, _OLDEST, COLLIDING_SIGNER), Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "the signature taken off", "cuts the signature line from a checkpoint",
        _renoted(lambda note: f"{_signature_line(note)[0]}\n"), Kind.SIGNATURE,
    ),
    _attack(
        "the signature exchanged for an unknown one",
        "has a foreign key sign a true tree head in the genuine one's place",
        lambda target: _signed_instead(target, _OLDEST, FOREIGN_SIGNER), Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "a broken signature", "flips one bit of a signature",
        _renoted(lambda note: _with_signature(note, lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])),
        Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "a signature spelled otherwise", "adds the group's order to the signature's second half",
        _renoted(lambda note: _with_signature(note, _malleable)), Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "a signature of another checkpoint", "puts the signature of the second checkpoint under the first",
        lambda target: target.sql(
            "UPDATE cagg_checkpoint SET note = ? WHERE size = ?",
            _note(target, _OLDEST).partition("\n\n")[0] + "\n\n" + _note(target, _OLD).partition("\n\n")[2], _OLDEST,
        ),
        Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "base64 in a second form", "spells the signature's base64 with other unused bits",
        _renoted(lambda note: note.replace("=\n", "\n") if "=\n" in note.partition("\n\n")[2] else note[:-2] + "B\n"),
        Kind.SIGNATURE, needs=Needs.NOTHING,
    ),
    _attack("line ends of another system", "ends the note's lines with CR LF", _renoted(
        lambda note: note.replace("\n", "\r\n")), Kind.SIGNATURE),
    _attack(
        "bytes that are no text", "puts a byte into a note's text that no character begins with",
        _not_text, Kind.SIGNATURE, backend="sqlite", remark="PostgreSQL refuses such text",
    ),
    _attack(
        "a line added to a checkpoint", "adds an extension line to the signed text",
        _renoted(lambda note: note.replace("\n\n", "\nmore\n\n", 1)), Kind.SIGNATURE, needs=Needs.KEY,
    ),
    _attack(
        "a checkpoint's size edited", "writes another size into the note",
        _renoted(lambda note: note.replace(f"\n{_OLDEST}\n", f"\n{_OLDEST + 1}\n", 1)),
        Kind.CHECKPOINT, Kind.SIGNATURE,
    ),
    _attack(
        "a checkpoint's columns edited", "writes another root beside the note",
        lambda target: target.sql("UPDATE cagg_checkpoint SET root = ? WHERE size = ?", b"\x00" * 32, _OLDEST),
        Kind.CHECKPOINT,
    ),
    _attack(
        "a signed lie", "has the genuine key sign a root that the entries do not have", _lie, Kind.CHECKPOINT,
    ),
    _attack("a checkpoint of another log", "stores a checkpoint that another log's key signed", _other_log,
            Kind.CHECKPOINT),
    _attack(
        "an unknown signature added", "adds a witness's signature to a checkpoint", _renoted(_extra_signature),
        needs=Needs.HARMLESS, remark="unknown signatures are passed over (C2SP signed-note)",
    ),
    _attack(
        "a checkpoint removed", "deletes an older checkpoint",
        lambda target: target.sql("DELETE FROM cagg_checkpoint WHERE size = ?", _OLD),
        needs=Needs.HARMLESS, remark="the newer ones cover its entries, too",
    ),
    _attack(
        "the newest checkpoint removed", "deletes the newest checkpoint",
        lambda target: target.sql("DELETE FROM cagg_checkpoint WHERE size = ?", _LAST),
        needs=Needs.HARMLESS, remark="the report names more entries that no signature in the store covers",
    ),
    _attack(
        "all checkpoints removed", "deletes every checkpoint",
        lambda target: target.sql("DELETE FROM cagg_checkpoint"),
        Kind.SIGNATURE, needs=Needs.CHECKPOINT,
        remark="without one the log is only called consistent, not verified",
    ),
    _attack(
        "a second look at the same tree", "has the genuine key sign a size that was not signed before",
        lambda target: put_head(target.tx, genuine(100), 100, TreeReader(target.tx, 100).root()),
        needs=Needs.HARMLESS, remark="it says nothing new",
    ),
)  # fmt: skip
"""Keys, signatures, checkpoints."""
