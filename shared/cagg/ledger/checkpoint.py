"""Signs the tree: proves that it continues the last checkpoint, then stores a new one. The key lives in a file.

The formats of notes and keys stand in :mod:`cagg.ledger.notes`. Signing belongs to ``cagg maintain``: workers never
hold the key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from datetime import datetime
from pathlib import Path

from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged, SigningRefused
from cagg.ledger.merkle import TreeReader, consistency_proof, verify_consistency
from cagg.ledger.notes import ED25519, TreeHead, VerifierKey, checkpoint_text, parse_note, signed_note, verifier_key
from cagg.ports import Checkpoint, LedgerRows, Signer, Transaction

__all__ = ["FileSigner", "checkpoint_of_note", "sign_checkpoint", "signer_for"]

_PREFIX = "PRIVATE+KEY+"
_SEED_BYTES = 32


def sign_checkpoint(tx: Transaction, signer: Signer) -> Checkpoint:
    """Sign the tree as it stands, store the checkpoint and return it.

    The last checkpoint is read again and shown to be a prefix of the tree before anything is signed. When the log
    has not grown since, that checkpoint is returned and nothing is signed.

    Raises:
        SigningRefused: the tree is not a continuation of the last checkpoint (restored backup, edited rows, second
            log under the same name), or the signer belongs to another log.
        LedgerDamaged: stored hashes are missing.
    """
    origin = tx.origin()
    if signer.name != origin:
        raise SigningRefused(
            f"the signing key belongs to the log {signer.name!r} and this log is {origin!r}; use the key of this log."
        )
    size = tx.tree_size()
    tree = TreeReader(tx, size)
    last = tx.last_checkpoint()
    if last is not None:
        _check_continues(tree, last, origin)
        if last.size == size:
            return last
    head = TreeHead(origin=origin, size=size, root=tree.root())
    text = checkpoint_text(head)
    signature = signer.sign(text.encode())
    key = verifier_key(signer)
    if not key.verifies(signature, text.encode()):
        raise SigningRefused(f"the signer of {origin!r} made a signature that its own public key refuses; check it.")
    note = signed_note(text, signature, key)
    checkpoint = Checkpoint(size=size, root=head.root, note=note, created_at=tx.now())
    tx.put_checkpoint(checkpoint)
    return checkpoint


def _check_continues(tree: TreeReader, last: Checkpoint, origin: str) -> None:
    remedy = "run 'cagg ledger verify' and compare with a backup before signing again."
    try:
        head, _ = parse_note(last.note, ())
    except LedgerDamaged as error:
        raise SigningRefused(f"the last checkpoint of {origin!r} cannot be read ({error}); {remedy}") from None
    if (head.origin, head.size, head.root) != (origin, last.size, last.root):
        raise SigningRefused(f"the last checkpoint of {origin!r} says something else than its columns; {remedy}")
    if last.size > tree.size:
        raise SigningRefused(
            f"the log {origin!r} has {tree.size} entries, its checkpoint {last.size}: entries are gone; {remedy}"
        )
    proof = consistency_proof(tree, last.size, tree.size)
    if not verify_consistency(old_size=last.size, old_root=last.root, size=tree.size, root=tree.root(), proof=proof):
        raise SigningRefused(
            f"the log {origin!r} is not a continuation of its signed checkpoint of {last.size} entries; {remedy}"
        )


def checkpoint_of_note(note: str, created_at: datetime) -> Checkpoint:
    """Return a note that came from outside, for example from a task's log, as a checkpoint to verify against.

    Raises:
        LedgerDamaged: it is malformed. Signatures are not checked here: ``verify`` does.
    """
    head, _ = parse_note(note, ())
    return Checkpoint(size=head.size, root=head.root, note=note, created_at=created_at)


def signer_for(tx: LedgerRows, folder: Path) -> FileSigner:
    """Return the key that this log is signed with, from ``log.key`` in a folder; it is made for the first checkpoint.

    A log that has been signed before is never given another key: whoever trusts the old one could no longer check
    it. ``log.vkey`` beside the key is written again when it is missing.

    Args:
        tx: a transaction or snapshot of the log's store.
        folder: where the key is.

    Raises:
        SigningRefused: the log has checkpoints, and its key is gone or is not the one that signed them.
        ConfigurationError: a key file cannot be read or written, or holds another log's key.
    """
    origin, last = tx.origin(), tx.last_checkpoint()
    path = folder / "log.key"
    if last is None:
        return FileSigner.load_or_create(folder, origin)
    if not _exists(path):
        raise SigningRefused(
            f"the log {origin!r} has signed checkpoints, and their key {path} is missing: nothing was signed; restore "
            "log.key from a backup, a log's key cannot be changed in this version."
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
            f"the key {path} is not the one that signed the last checkpoint of {origin!r}: nothing was signed; restore "
            "that log.key from a backup, a log's key cannot be changed in this version."
        )
    return signer


# ---- the key ------------------------------------------------------------------------------------------------------


class FileSigner:
    """An Ed25519 key in a file; implements :class:`cagg.ports.Signer`.

    The file holds one line, ``PRIVATE+KEY+name+hex key id+base64(0x01 || seed)``: the form of Go's
    golang.org/x/mod/sumdb/note, so that its tools can use the key.

    Attributes:
        name: the log's name.
    """

    def __init__(self, *, name: str, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seed) != _SEED_BYTES:
            raise InvalidInput(f"an Ed25519 seed has {_SEED_BYTES} bytes, got {len(seed)}.")
        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = VerifierKey(name=name, public_key=self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (64 bytes)."""
        return self._key.sign(message)

    def public_key(self) -> bytes:
        """Return the raw Ed25519 public key (32 bytes)."""
        return self._public.public_key

    def __repr__(self) -> str:
        return f"FileSigner({self._public})"

    @classmethod
    def create(cls, path: Path, name: str) -> FileSigner:
        """Make a new key where no file is yet, readable by its owner only, and its public half beside it.

        Raises:
            ConfigurationError: the file exists already or cannot be written.
        """
        seed = os.urandom(_SEED_BYTES)
        signer = cls(name=name, seed=seed)
        data = base64.b64encode(bytes([ED25519]) + seed).decode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            public = path.with_suffix(".vkey")
            if public.exists() and not path.exists():
                raise ConfigurationError(
                    f"the public key {public} stands there without its signing key; restore {path.name} from a backup, "
                    "or move the public key away if the log was never signed."
                )
            _write_new(path, f"{_PREFIX}{name}+{signer._public.key_id.hex()}+{data}\n", 0o600)
            if not public.exists():
                _write_new(public, f"{signer._public}\n", 0o644)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.exists():
                raise ConfigurationError(f"the signing key {path} exists already; it is never overwritten.") from None
            raise ConfigurationError(
                f"the signing key {path} cannot be written ({error}); make its folder writable for this user."
            ) from None
        return signer

    @classmethod
    def load(cls, path: Path) -> FileSigner:
        """Read a key.

        Raises:
            ConfigurationError: the file is missing, unreadable, readable by others, or holds no key.
        """
        try:
            with path.open(encoding="utf-8") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(10_000).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the signing key {path} cannot be read ({error}); restore it, or name the right file."
            ) from None
        if mode & 0o077:
            raise ConfigurationError(f"the signing key {path} may be read by others; run 'chmod 600 {path}'.")
        parts = text.removeprefix(_PREFIX).split("+", 2)
        try:
            data = base64.b64decode(parts[2], validate=True) if len(parts) == 3 else b""
        except (binascii.Error, ValueError):
            data = b""
        if not text.startswith(_PREFIX) or len(data) != 1 + _SEED_BYTES or data[0] != ED25519:
            raise ConfigurationError(f"the file {path} holds no Ed25519 signing key; name the right file.")
        signer = cls(name=parts[0], seed=data[1:])
        if signer._public.key_id.hex() != parts[1]:
            raise ConfigurationError(f"the signing key {path} is damaged: its key id does not fit; restore a backup.")
        return signer

    @classmethod
    def load_or_create(cls, folder: Path, name: str) -> FileSigner:
        """Return the log's key from ``log.key`` in a folder; it is made, with ``log.vkey``, when there is none.

        Raises:
            ConfigurationError: as for :meth:`load` and :meth:`create`, or the file holds another log's key.
        """
        path = folder / "log.key"
        if not _exists(path):
            try:
                return cls.create(path, name)
            except ConfigurationError:
                if not _exists(path):  # otherwise another process was quicker
                    raise
        signer = cls.load(path)
        if signer.name != name:
            raise ConfigurationError(
                f"the signing key {path} is of the log {signer.name!r} and this one is {name!r}; move it to its "
                "own store and run 'cagg maintain' again, which makes a new one."
            )
        signer._check_public(path.with_suffix(".vkey"))
        return signer

    def _check_public(self, path: Path) -> None:
        """Compare the public half in the file with this key; write it where there is no file."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # a convenience: signing goes on without it
                _write_new(path, f"{self._public}\n", 0o644)
            return
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the public key {path} cannot be read ({error}); make it readable, or remove it: it is written again."
            ) from None
        keys = [item.strip() for item in lines if item.strip() and not item.startswith("#")]
        if str(self._public) not in keys:
            raise ConfigurationError(
                f"the file {path} does not hold the public half of {path.with_suffix('.key').name}; remove it, it is "
                "written again, and compare with the key that you keep outside of the store."
            )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ConfigurationError(
            f"the keys in {path.parent} cannot be read ({error.strerror}); make the folder readable for this user."
        ) from None


def _write_new(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
