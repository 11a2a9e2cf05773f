"""Signed notes: how a checkpoint and a public key are written, so that foreign tools can check them.

Sources: C2SP signed-note and tlog-checkpoint (2025): three lines (origin, size, base64 root), an empty line, then
one line per signature, ``— name base64(key id || signature)``. Ed25519 has the type byte 0x01; the key id is the
first four bytes of SHA-256(name LF type public-key). Keys as text are ``name+hex key id+base64(type || public key)``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.merkle import HASH_BYTES
from cagg.ports import Signer

__all__ = [
    "ED25519",
    "TreeHead",
    "VerifierKey",
    "checkpoint_text",
    "note_of",
    "open_note",
    "parse_note",
    "signed_note",
    "signer_ids",
    "verifier_key",
]

ED25519 = 0x01
"""Type byte of Ed25519 keys and signatures (C2SP signed-note, 2025)."""

_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MOST_SIGNATURES = 100
_LONGEST_NOTE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeHead:
    """What a checkpoint says: the log's name, its size and the root over it."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public key that checkpoints are checked with, obtained from outside the store.

    Attributes:
        name: the signer's name, which is the log's name.
        public_key: raw Ed25519 key, 32 bytes.
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not self.name or "+" in self.name or any(c.isspace() for c in self.name):
            raise InvalidInput(f"the key name {self.name!r} must not be empty or hold spaces or '+'.")
        if len(self.public_key) != _KEY_BYTES:
            raise InvalidInput(f"an Ed25519 public key has {_KEY_BYTES} bytes, got {len(self.public_key)}.")

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read ``name+hex key id+base64 key``.

        Raises:
            InvalidInput: the text is no such key, or its key id belongs to another key.
        """
        parts = text.strip().split("+", 2)
        problem = f"{text.strip()[:80]!r} is no ledger key; copy the line of the signer's .vkey file (name+id+base64)."
        if len(parts) != 3:
            raise InvalidInput(problem)
        try:
            data = base64.b64decode(parts[2], validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput(problem) from None
        if len(data) != 1 + _KEY_BYTES or data[0] != ED25519:
            raise InvalidInput(f"{problem} Only Ed25519 keys are known.")
        key = cls(name=parts[0], public_key=data[1:])
        if key.key_id.hex() != parts[1].lower():
            raise InvalidInput(f"the ledger key of {parts[0]!r} has another key's id, {parts[1]}; copy it whole.")
        return key

    @property
    def key_id(self) -> bytes:
        """First four bytes of SHA-256(name LF type public-key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([ED25519]) + self.public_key).digest()[:4]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """True when the Ed25519 signature over the message is this key's."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __str__(self) -> str:
        data = base64.b64encode(bytes([ED25519]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{data}"


def verifier_key(signer: Signer) -> VerifierKey:
    """Return the public half of a signer, to be kept outside the store."""
    return VerifierKey(name=signer.name, public_key=signer.public_key())


def checkpoint_text(head: TreeHead) -> str:
    """Return the three signed lines."""
    return f"{head.origin}\n{head.size}\n{base64.b64encode(head.root).decode()}\n"


def signed_note(text: str, signature: bytes, key: VerifierKey) -> str:
    """Return a text with one signature as a note."""
    return note_of(text, [(key, signature)])


def note_of(text: str, signatures: Sequence[tuple[VerifierKey, bytes]]) -> str:
    """Return a text with the signatures of several keys as a note; one line each, in their order."""
    lines = [f"— {key.name} {base64.b64encode(key.key_id + made).decode()}\n" for key, made in signatures]
    return f"{text}\n{''.join(lines)}"


def open_note(note: str, keys: Sequence[VerifierKey]) -> tuple[str, list[VerifierKey]]:
    """Return a signed note's text and which of the keys signed it; signatures of unknown keys are passed over.

    A signature belongs to a key when name and key id agree. Two known keys may share both: an id has four bytes only,
    and a key with a wanted id can be made. Then the signature must be that of one of them.

    Raises:
        LedgerDamaged: the note is malformed, or a signature that claims one of the keys is wrong.
    """
    text, signatures = _split(note)
    signers: list[VerifierKey] = []
    for name, data in signatures:
        claimed = [key for key in keys if key.name == name and key.key_id == data[:4]]
        if not claimed or any(key in signers for key in claimed):
            continue  # unknown, or once more
        made = [key for key in claimed if len(data) == 4 + _SIGNATURE_BYTES and key.verifies(data[4:], text.encode())]
        if not made:
            raise LedgerDamaged(f"the signature of {name!r} ({data[:4].hex()}) does not fit the note.")
        signers.append(made[0])
    return text, signers


def signer_ids(note: str) -> list[str]:
    """Return what the signatures of a note claim to be of, as ``name+key id``; empty for what is no note."""
    try:
        return [f"{name}+{data[:4].hex()}" for name, data in _split(note)[1]]
    except LedgerDamaged:
        return []


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Return a note's text, and of each signature the name that it claims and its bytes: key id and signature."""
    if len(note) > _LONGEST_NOTE or any((c < " " and c != "\n") or "\ud800" <= c <= "\udfff" for c in note):
        raise LedgerDamaged("the signed note is too long or holds control characters, or bytes that are no text.")
    text, separator, block = note.rpartition("\n\n")
    lines = block.split("\n")
    if not separator or lines[-1] != "" or len(lines) < 2 or len(lines) > _MOST_SIGNATURES + 1:
        raise LedgerDamaged("the signed note has no signature lines after an empty line.")
    signatures = []
    for line in lines[:-1]:
        match = _SIGNATURE_LINE.fullmatch(line)
        if match is None:
            raise LedgerDamaged(f"the signed note has the malformed signature line {line[:80]!r}.")
        try:
            data = base64.b64decode(match[2], validate=True)
        except (binascii.Error, ValueError):
            raise LedgerDamaged(f"the signature of {match[1]!r} is not base64.") from None
        if base64.b64encode(data).decode() != match[2] or len(data) < 5:
            raise LedgerDamaged(f"the signature of {match[1]!r} is not in the one base64 form.")
        signatures.append((match[1], data))
    return f"{text}\n", signatures


def parse_note(note: str, keys: Sequence[VerifierKey]) -> tuple[TreeHead, list[VerifierKey]]:
    """Return what a signed checkpoint says and which of the keys signed it.

    Raises:
        LedgerDamaged: it is malformed, or a signature that claims one of the keys is wrong.
    """
    text, signers = open_note(note, keys)
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or _SIZE.fullmatch(lines[1]) is None:
        raise LedgerDamaged("the checkpoint does not hold a name, a size and a root.")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (binascii.Error, ValueError):
        raise LedgerDamaged("the checkpoint's root is not base64.") from None
    if len(root) != HASH_BYTES or base64.b64encode(root).decode() != lines[2]:
        raise LedgerDamaged(f"the checkpoint's root is not {HASH_BYTES} bytes in base64.")
    if any(not line for line in lines[3:-1]):
        raise LedgerDamaged("the checkpoint has an empty extension line.")
    return TreeHead(origin=lines[0], size=int(lines[1]), root=root), signers
