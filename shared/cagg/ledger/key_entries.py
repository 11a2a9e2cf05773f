"""What the log says of its own keys: entries of the kind ``key``, each with a statement that keys signed.

Whoever may write entries could write one that announces a key, and ``maintain`` would sign the tree with it in it. So
an entry counts only for the statement in it: a signed note of its own, made by the keys that it concerns. A rotation
is signed by the old key and by the new one; a revocation by a key that is in use; the announcement of the next log's
key by this log's. The text's second line is no number, hence no statement can be taken for a checkpoint.

Source: ledger entry format 1; the notes are C2SP signed-note (2025), see :mod:`cagg.ledger.notes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cagg.entries import Entry, EntryDraft, EntryKind
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.encoding import decode
from cagg.ledger.events import KeyEvent, key_body
from cagg.ledger.notes import VerifierKey, note_of, open_note, verifier_key
from cagg.ports import LedgerRows, Signer

__all__ = ["KeyFact", "announcement", "fact_of", "key_entries", "key_facts", "revocation", "rotation"]

_LARGEST_SIZE = 2**53 - 1
"""Largest whole number of the canonical profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFact:
    """One entry of the kind ``key`` whose statement stands its check.

    Attributes:
        index: place of the entry in the log; None while it waits for the sequencer.
        event: announced or revoked.
        key: the key that it happened to.
        replaces: the key in whose place it signs this log; None when it is revoked, or the next log's.
        from_size: an announced key's signatures count from this size on at the earliest, a revoked one's below it only.
        signed_by: the key, beside the announced one, that signed the statement.
        reason: why, as a person said it.
    """

    index: int | None
    event: KeyEvent
    key: VerifierKey
    replaces: VerifierKey | None
    from_size: int
    signed_by: VerifierKey
    reason: str


# ---- writing --------------------------------------------------------------------------------------------------------


def rotation(tx: LedgerRows, old: Signer, new: Signer, reason: str) -> EntryDraft:
    """Return the entry that puts a new key in an old one's place; both sign its statement."""
    return _draft(tx, KeyEvent.ANNOUNCED, verifier_key(new), tx.tree_size(), reason, old, new, replaces=old)


def revocation(tx: LedgerRows, signer: Signer, key: VerifierKey, from_size: int, reason: str) -> EntryDraft:
    """Return the entry that ends a key's word; a key that is in use signs it."""
    return _draft(tx, KeyEvent.REVOKED, key, from_size, reason, signer)


def announcement(tx: LedgerRows, signer: Signer, successor: Signer, reason: str) -> EntryDraft:
    """Return the entry that names the key of the log which goes on from this one; both sign its statement."""
    return _draft(tx, KeyEvent.ANNOUNCED, verifier_key(successor), 0, reason, signer, successor)


def _draft(
    tx: LedgerRows,
    event: KeyEvent,
    key: VerifierKey,
    from_size: int,
    reason: str,
    *signers: Signer,
    replaces: Signer | None = None,
) -> EntryDraft:
    said = " ".join(reason.split())
    if not said:
        raise InvalidInput("a change of keys needs a reason; say why with --reason.")
    origin = tx.origin()
    replaced = None if replaces is None else str(verifier_key(replaces))
    body = key_body(event=event, key=str(key), from_size=from_size, replaces=replaced, reason=said)
    body["by"] = str(verifier_key(signers[0]))
    text = _statement(origin, body)
    note = note_of(text, [(verifier_key(signer), signer.sign(text.encode())) for signer in signers])
    return EntryDraft(
        kind=EntryKind.KEY,
        request_key=_request_key(origin),
        ordinal=len(key_entries(tx)),
        body={**body, "statement": note},
    )


def _request_key(origin: str) -> str:
    """One name for all of a log's key entries: they are found without reading the log, and two writers who change
    keys at the same time meet at the same idempotency key."""
    return f"key:{origin}"


def _statement(origin: str, body: Mapping[str, Any]) -> str:
    """Return the lines that are signed: the log, what happened to which key, and by whose word."""
    lines = [origin, f"key {body['event']}", str(body["key"]), f"from size {body['from_size']}"]
    lines += [f"{name} {body[name]}" for name in ("replaces", "by") if body.get(name) is not None]
    return "".join(f"{line}\n" for line in lines)


# ---- reading --------------------------------------------------------------------------------------------------------


def key_entries(tx: LedgerRows) -> list[Entry]:
    """Return the log's entries about keys, in its order, whatever they hold."""
    return list(tx.entries(kind=EntryKind.KEY, request_key=_request_key(tx.origin())))


def key_facts(tx: LedgerRows) -> list[KeyFact]:
    """Return what the log says of its keys, in the log's order, those that wait for their place last.

    An entry whose statement does not stand its check says nothing and is left out: whoever may write entries could
    write it.

    Raises:
        LedgerDamaged: a stored entry cannot be read at all.
    """
    origin = tx.origin()
    facts = []
    for entry in key_entries(tx):
        try:
            facts.append(fact_of(origin, entry.index, decode(entry.body)))
        except (LedgerDamaged, InvalidInput):
            continue
    return facts


def fact_of(origin: str, index: int | None, body: object) -> KeyFact:
    """Return what a body of the kind ``key`` says.

    Raises:
        LedgerDamaged: a field is missing or of another form, or the statement is not signed as it must be.
        InvalidInput: a key in it is no key.
    """
    if not isinstance(body, dict):
        raise LedgerDamaged("the body of a key entry is no object.")
    event, from_size = body.get("event"), body.get("from_size")
    if event not in (KeyEvent.ANNOUNCED, KeyEvent.REVOKED):
        raise LedgerDamaged(f"a key entry says {event!r}, which is unknown.")
    if type(from_size) is not int or not 0 <= from_size <= _LARGEST_SIZE:
        raise LedgerDamaged("a key entry does not say from which size on.")
    key, by = _key(body, "key"), _key(body, "by")
    replaces = None if body.get("replaces") is None else _key(body, "replaces")
    if replaces is not None and (event == KeyEvent.REVOKED or by != replaces):
        raise LedgerDamaged("a key entry replaces a key that did not sign it.")
    note, reason = body.get("statement"), body.get("reason")
    if not isinstance(note, str) or not isinstance(reason, str):
        raise LedgerDamaged("a key entry holds no signed statement, or no reason.")
    needed = {by} if event == KeyEvent.REVOKED else {by, key}
    text, signed_by = open_note(note, tuple(needed))
    if text != _statement(origin, body) or set(signed_by) != needed:
        raise LedgerDamaged("the statement of a key entry says something else, or lacks the signature of a key.")
    return KeyFact(
        index=index,
        event=KeyEvent(event),
        key=key,
        replaces=replaces,
        from_size=from_size,
        signed_by=by,
        reason=reason,
    )


def _key(body: Mapping[str, Any], name: str) -> VerifierKey:
    text = body.get(name)
    if not isinstance(text, str):
        raise LedgerDamaged(f"a key entry lacks {name!r}.")
    key = VerifierKey.parse(text)
    if str(key) != text:
        raise LedgerDamaged(f"the {name!r} of a key entry is not in the one form of keys.")
    return key
