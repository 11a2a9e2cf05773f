"""Proofs as text, checked without a store: that an entry lies under a checkpoint, that one continues another.

An inclusion proof is a C2SP tlog-proof (2026): a header line, the entry's bytes as ``extra`` data in base64 (absent
when they are carried elsewhere), its index, the audit path of RFC 6962 section 2.1.1 from the leaf's sibling upwards,
an empty line, the checkpoint verbatim.

A consistency proof has the same shape. Without its first line and what follows the newer checkpoint it is the body of
an ``add-checkpoint`` request of C2SP tlog-witness (2026): ``old`` with the older size, the path of RFC 6962 section
2.1.2, an empty line, the newer checkpoint; after it, and an empty line, stands the older one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.bodies import check_measurement
from cagg.ledger.encoding import decode
from cagg.ledger.entry import FORMAT, idempotency_key
from cagg.ledger.merkle import HASH_BYTES, leaf_hash, verify_consistency, verify_inclusion
from cagg.ledger.notes import TreeHead, VerifierKey, parse_note, signer_ids
from cagg.records import EntryKind

__all__ = ["ConsistencyProof", "InclusionProof", "ProofReport", "check_proof", "parse_proof"]

_INCLUSION = "c2sp.org/tlog-proof@v1"
_CONSISTENCY = "cagg/consistency-proof@v1"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_LONGEST_PATH = 126
"""Hashes: an audit path has at most one for each of 63 levels, a consistency proof one more."""


# ---- what a proof says ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """That a leaf lies at an index under a checkpoint.

    Attributes:
        index: position of the entry in the log, from 0.
        path: the hashes beside the way from the leaf to the root, lowest first.
        checkpoint: the signed note.
        entry: the entry's exact bytes; None when they are carried elsewhere.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    entry: bytes | None

    def text(self) -> str:
        """Return the proof as a C2SP tlog-proof."""
        extra = "" if self.entry is None else f"extra {_base64(self.entry)}\n"
        return f"{_INCLUSION}\n{extra}index {self.index}\n{_lines(self.path)}\n{self.checkpoint}"

    def without_entry(self) -> InclusionProof:
        """Return the same proof for an entry that is carried elsewhere."""
        return replace(self, entry=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyProof:
    """That the entries under an older checkpoint are the first ones under a newer one.

    Attributes:
        path: the hashes of RFC 6962 section 2.1.2, lowest first.
        older, newer: the signed notes.
    """

    path: tuple[bytes, ...]
    older: str
    newer: str

    def text(self) -> str:
        """Return the proof as text."""
        old = parse_note(self.older, ())[0].size
        return f"{_CONSISTENCY}\nold {old}\n{_lines(self.path)}\n{self.newer}\n{self.older}"


def parse_proof(text: str) -> InclusionProof | ConsistencyProof:
    """Read a proof of either kind.

    Raises:
        InvalidInput: the text is no such proof, or not in the one form in which it is written.
    """
    head, separator, rest = text.partition("\n\n")
    lines = head.split("\n")
    if lines[0] not in (_INCLUSION, _CONSISTENCY):
        raise InvalidInput(f"this is no ledger proof: it must begin with {_INCLUSION!r} or {_CONSISTENCY!r}.")
    if not separator:
        raise InvalidInput("the proof ends before its checkpoint; copy the file whole.")
    entry = None
    if lines[0] == _INCLUSION and len(lines) > 1 and lines[1].startswith("extra "):
        entry = _bytes(lines.pop(1).removeprefix("extra "), "the entry")
    word = "index" if lines[0] == _INCLUSION else "old"
    number = lines[1].removeprefix(f"{word} ") if len(lines) > 1 else ""
    if len(lines) < 2 or not lines[1].startswith(f"{word} ") or _NUMBER.fullmatch(number) is None:
        raise InvalidInput(f"the proof has no line '{word}' with a whole number; copy the file whole.")
    if len(lines) > 2 + _LONGEST_PATH:
        raise InvalidInput(f"the proof holds {len(lines) - 2} hashes; no tree needs more than {_LONGEST_PATH}.")
    path = tuple(_bytes(item, "a hash of the proof", HASH_BYTES) for item in lines[2:])
    if lines[0] == _INCLUSION:
        return InclusionProof(index=int(number), path=path, checkpoint=rest, entry=entry)
    blocks = rest.split("\n\n")
    if len(blocks) != 4:
        raise InvalidInput("the consistency proof does not hold exactly two checkpoints; copy the file whole.")
    proof = ConsistencyProof(path=path, newer=f"{blocks[0]}\n\n{blocks[1]}\n", older=f"{blocks[2]}\n\n{blocks[3]}")
    try:
        size = parse_note(proof.older, ())[0].size
    except LedgerDamaged as error:
        raise InvalidInput(f"the older checkpoint of the proof cannot be read: {error}") from None
    if size != int(number):
        raise InvalidInput(f"the proof is from size {number} on, and its older checkpoint has the size {size}.")
    return proof


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _lines(hashes: Sequence[bytes]) -> str:
    return "".join(f"{_base64(item)}\n" for item in hashes)


def _bytes(text: str, what: str, length: int | None = None) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"{what} is not base64; copy the file whole.") from None
    if _base64(data) != text or (length is not None and len(data) != length):
        raise InvalidInput(f"{what} is not in the one base64 form{f' of {length} bytes' if length else ''}.")
    return data


# ---- checking proofs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofReport:
    """What a proof shows.

    Attributes:
        claim: what it is said to prove, in words.
        head: the checkpoint, the newer one of two.
        older: the older checkpoint of a consistency proof; None for an inclusion proof.
        index: the entry's position; None for a consistency proof.
        body: the entry, decoded; None when it is not there, or not in the ledger's form.
        signers: the trusted keys that signed the checkpoint, of two the newer one.
        problems: everything that does not agree; empty = proven.
    """

    claim: str
    head: TreeHead | None
    older: TreeHead | None
    index: int | None
    body: Mapping[str, Any] | None
    signers: tuple[VerifierKey, ...]
    problems: tuple[str, ...]

    @property
    def proven(self) -> bool:
        """True when nothing disagrees."""
        return not self.problems

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            return f"NOT proven: {self.problems[0]}{more}"
        return f"proven: {self.claim}."


def check_proof(
    proof: InclusionProof | ConsistencyProof, keys: Sequence[VerifierKey], entry: bytes | None = None
) -> ProofReport:
    """Check a proof against keys from outside; nothing else is needed.

    Args:
        proof: what :func:`parse_proof` returned.
        keys: the keys to trust; each checkpoint must be signed by one of them.
        entry: the entry's exact bytes, for an inclusion proof that does not carry them; None = it does.

    Raises:
        InvalidInput: no key is given, or the entry's bytes are nowhere, or there are two that differ.
    """
    if not keys:
        raise InvalidInput("a proof shows nothing without a key to trust; give the log's public key with --key.")
    if isinstance(proof, InclusionProof):
        return _check_inclusion(proof, keys, entry)
    if entry is not None:
        raise InvalidInput("a consistency proof is about no single entry; leave the entry out.")
    return _check_consistency(proof, keys)


def _check_inclusion(proof: InclusionProof, keys: Sequence[VerifierKey], entry: bytes | None) -> ProofReport:
    data = proof.entry if entry is None else entry
    if data is None:
        raise InvalidInput("the proof does not carry the entry's bytes; give the file that holds them with --entry.")
    if proof.entry not in (None, data):
        raise InvalidInput("the proof carries another entry than the file that was given with it; give one of them.")
    problems: list[str] = []
    head, signers = _opened("the checkpoint", proof.checkpoint, keys, problems)
    body = None
    if head is not None:
        if not verify_inclusion(
            leaf=leaf_hash(data), index=proof.index, size=head.size, proof=proof.path, root=head.root
        ):
            problems.append(f"the entry does not lie at index {proof.index} under the checkpoint.")
        body = _check_body(data, head.origin, problems)
    size = "?" if head is None else head.size
    claim = f"entry {proof.index} is under the signed checkpoint of {size} entries"
    return ProofReport(
        claim=claim, head=head, older=None, index=proof.index, body=body, signers=signers, problems=tuple(problems)
    )


def _check_consistency(proof: ConsistencyProof, keys: Sequence[VerifierKey]) -> ProofReport:
    problems: list[str] = []
    older, _ = _opened("the older checkpoint", proof.older, keys, problems)
    newer, signers = _opened("the newer checkpoint", proof.newer, keys, problems)
    claim = "one checkpoint continues the other"
    if older is not None and newer is not None:
        claim = f"the checkpoint of {newer.size} entries continues the one of {older.size} entries"
        if older.origin != newer.origin:
            problems.append(f"the checkpoints are of two logs, {older.origin!r} and {newer.origin!r}.")
        if not verify_consistency(
            old_size=older.size, old_root=older.root, size=newer.size, root=newer.root, proof=proof.path
        ):
            problems.append(f"the path does not lead from {older.size} to {newer.size} entries.")
    return ProofReport(
        claim=claim, head=newer, older=older, index=None, body=None, signers=signers, problems=tuple(problems)
    )


def _opened(
    name: str, note: str, keys: Sequence[VerifierKey], problems: list[str]
) -> tuple[TreeHead | None, tuple[VerifierKey, ...]]:
    try:
        head, signers = parse_note(note, keys)
    except LedgerDamaged as error:
        problems.append(f"{name} does not stand its check: {error}")
        return None, ()
    if not signers:
        claimed = ", ".join(item[:120] for item in signer_ids(note)) or "nobody"
        problems.append(
            f"{name} is signed by none of the trusted keys but by {claimed}; most likely the log's key was replaced "
            "between: check the proof with the key that signed it, which the log's owner finds with 'cagg ledger key'."
        )
    return head, tuple(signers)


def _check_body(data: bytes, origin: str, problems: list[str]) -> Mapping[str, Any] | None:
    """Check what a single entry shows without its log: form, name of the log, key and arithmetic."""
    try:
        body = decode(data)
    except LedgerDamaged as error:
        problems.append(f"the entry is not in the ledger's form: {error}")
        return None
    if not isinstance(body, dict) or type(body.get("v")) is not int or body["v"] != FORMAT:
        problems.append(f"the entry is not of format {FORMAT}, the only one that this version reads.")
        return None
    if body.get("log") != origin:
        problems.append(f"the entry says that it belongs to the log {body.get('log')!r}, the checkpoint is {origin!r}.")
    try:
        key = idempotency_key(EntryKind(body["kind"]), body["request_key"], body["ordinal"]).hex()
    except (KeyError, ValueError, TypeError):
        key = ""
    if not key or body.get("idempotency_key") != key:
        problems.append("the entry's idempotency key does not follow from its kind, request key and ordinal.")
    if isinstance(body.get("slices"), list):  # a spilled value is a reference to a blob, which is not here
        try:
            check_measurement(body)
        except LedgerDamaged as error:
            problems.append(f"the entry's figures do not follow from each other: {error}")
    return body
