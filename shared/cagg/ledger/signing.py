"""The signing key in a file that only its owner can read. It lives with ``cagg maintain``, never with workers."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from cagg.errors import ConfigurationError, InvalidInput
from cagg.ledger.checkpoint import ED25519, VerifierKey

__all__ = ["FileSigner"]

_PREFIX = "PRIVATE+KEY+"
_SEED_BYTES = 32


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
    def create(cls, path: Path, *, name: str) -> FileSigner:
        """Make a new key and write it where no file is yet, readable by its owner only.

        Raises:
            ConfigurationError: the file exists already or cannot be written.
        """
        seed = os.urandom(_SEED_BYTES)
        signer = cls(name=name, seed=seed)
        data = base64.b64encode(bytes([ED25519]) + seed).decode()
        line = f"{_PREFIX}{name}+{signer._public.key_id.hex()}+{data}\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            raise ConfigurationError(f"the signing key {path} exists already; it is never overwritten.") from None
        except (OSError, UnicodeEncodeError) as error:
            raise ConfigurationError(f"the signing key {path} cannot be written ({error}); choose another place.") from None
        return signer

    @classmethod
    def load(cls, path: Path) -> FileSigner:
        """Read a key.

        Raises:
            ConfigurationError: the file is missing, unreadable, readable by others, or holds no key.
        """
        try:
            with path.open(encoding="ascii") as file:
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
            raise ConfigurationError(f"the file {path} holds no Ed25519 signing key; restore it, or name the right file.")
        signer = cls(name=parts[0], seed=data[1:])
        if signer._public.key_id.hex() != parts[1]:
            raise ConfigurationError(f"the signing key {path} is damaged: its key id does not fit; restore a backup.")
        return signer

    @classmethod
    def load_or_create(cls, path: Path, *, name: str) -> FileSigner:
        """Read the key, or make one when there is no file.

        Raises:
            ConfigurationError: as for :meth:`load` and :meth:`create`.
        """
        if not path.exists():
            try:
                return cls.create(path, name=name)
            except ConfigurationError:
                if not path.exists():
                    raise
        return cls.load(path)
