"""The key that a log is signed with, in a file. It belongs to ``cagg maintain``: workers never hold it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import os
import threading
from pathlib import Path

from cagg.errors import ConfigurationError, InvalidInput
from cagg.folders import private_folder
from cagg.ledger.notes import ED25519, VerifierKey

__all__ = ["FileSigner", "exists", "sync_folder", "write_new", "write_over"]

_PREFIX = "PRIVATE+KEY+"
_SEED_BYTES = 32
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""How file systems without hard links, such as network shares, answer."""


class FileSigner:
    """An Ed25519 key in a file; implements :class:`cagg.ports.Signer`.

    The file holds one line, ``PRIVATE+KEY+name+hex key id+base64(0x01 || seed)``: the form of Go's
    golang.org/x/mod/sumdb/note, so that its tools can use the key.

    Attributes:
        name: the log's name.
        folder: where its file is, with what it signed last beside it (see :mod:`cagg.ledger.keyfolder`); None for a
            key that is in no file.
    """

    def __init__(self, *, name: str, seed: bytes, folder: Path | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seed) != _SEED_BYTES:
            raise InvalidInput(f"an Ed25519 seed has {_SEED_BYTES} bytes, got {len(seed)}.")
        self.name = name
        self.folder = folder
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
        public = path.with_suffix(".vkey")
        if exists(public) and not exists(path):
            raise ConfigurationError(
                f"the public key {public} stands there without its signing key; restore {path.name} from a backup, "
                "or move the public key away if the log was never signed."
            )
        signer = cls.create_alone(path, name)
        signer._check_public(public)
        return signer

    @classmethod
    def create_alone(cls, path: Path, name: str) -> FileSigner:
        """As :meth:`create`, without the public half: for a key that is to take another one's place."""
        seed = os.urandom(_SEED_BYTES)
        signer = cls(name=name, seed=seed, folder=path.parent)
        data = base64.b64encode(bytes([ED25519]) + seed).decode()
        try:
            private_folder(path.parent)
            write_new(path, f"{_PREFIX}{name}+{signer._public.key_id.hex()}+{data}\n", 0o600)
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
        signer = cls(name=parts[0], seed=data[1:], folder=path.parent)
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
        if not exists(path):
            try:
                return cls.create(path, name)
            except ConfigurationError:
                if not exists(path):  # otherwise another process was quicker
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
                write_new(path, f"{self._public}\n", 0o644)
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


def exists(path: Path) -> bool:
    """True when a key's file is there; raises ConfigurationError when that cannot be found out."""
    try:
        return path.exists()
    except OSError as error:
        raise ConfigurationError(
            f"the keys in {path.parent} cannot be read ({error.strerror}); make the folder readable for this user."
        ) from None


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a file that is not there yet, whole or not at all, and have it on the disk; raises OSError."""
    fresh = _fresh(path, text, mode)
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_over(path: Path, text: str, mode: int) -> None:
    """Write a file in one's place, whole or not at all, and have it on the disk; raises OSError."""
    fresh = _fresh(path, text, mode)
    try:
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)


def _fresh(path: Path, text: str, mode: int) -> Path:
    """Write a new file beside a path, under a name that no other thread or process uses."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}")
    fresh.unlink(missing_ok=True)  # of a process that was killed
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return fresh


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; a file system that cannot do that is left alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
