"""Which keys and checkpoints a command trusts: those that were named, else what ``maintain`` left in the home."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged
from cagg.windows import parse_instant

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.ports import Checkpoint, LedgerRows

__all__ = ["key_exists", "key_file", "keys_of_logs", "log_keys", "outside_checkpoint", "stored_keys", "trusted_keys"]


def key_file(parts: Components) -> Path:
    """Return where ``maintain`` leaves the public key."""
    return parts.settings.home / "keys" / "log.vkey"


def trusted_keys(parts: Components, stated: Sequence[str] | None = None) -> list[str]:
    """Return the keys to trust: those that were stated, else those in the home; none when there is none yet.

    Raises:
        ConfigurationError: a key file cannot be read.
    """
    if stated:
        return [found for text in stated for found in _key_lines(text)]
    return log_keys(parts)


def log_keys(parts: Components) -> list[str]:
    """Return the public keys that ``maintain`` left in the home, of every log of the store; the first log's first.

    Raises:
        ConfigurationError: a key file cannot be read.
    """
    default = key_file(parts)
    found = [default] if key_exists(default) else []
    found += sorted(default.parent.glob(f"*/{default.name}"))
    return list(dict.fromkeys(text for path in found for text in stored_keys(path)))


def key_exists(path: Path) -> bool:
    """True when the file is there; raises ConfigurationError when that cannot be found out."""
    try:
        return path.exists()
    except OSError as error:
        raise ConfigurationError(
            f"the key {path} cannot be looked for ({error.strerror}); make its folder readable, or give the key "
            "with --key."
        ) from None


def keys_of_logs(parts: Components, tx: LedgerRows) -> list[str]:
    """Return the public keys in the home of the store's logs only, in the order of the logs.

    Raises:
        ConfigurationError: a key file cannot be read.
    """
    from cagg.ledger.lineage import key_folder

    keys = parts.settings.home / "keys"
    paths = [key_folder(tx, keys, log.origin) / "log.vkey" for log in tx.logs()]
    return list(dict.fromkeys(text for path in paths if key_exists(path) for text in stored_keys(path)))


def _key_lines(text: str) -> list[str]:
    if text.count("+") >= 2 and not Path(text).is_file():
        return [text]
    return stored_keys(Path(text))


def stored_keys(path: Path) -> list[str]:
    """Return the keys of a file, one per line, checked; raises ConfigurationError."""
    from cagg.ledger.notes import VerifierKey

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            f"the key {str(path)!r} cannot be read ({reason}); name a file or give the key."
        ) from None
    keys = [item.strip() for item in lines if item.strip() and not item.startswith("#")]
    if not keys:
        raise ConfigurationError(f"the key file {path} is empty; copy the key that `cagg ledger key` shows.")
    for text in keys:
        try:
            VerifierKey.parse(text)
        except InvalidInput as error:
            raise ConfigurationError(
                f"the key file {path} cannot be used: {str(error).rstrip('.')}; a broken log.vkey in the home may be "
                "removed, `cagg maintain` writes it again."
            ) from None
    return keys


def outside_checkpoint(path: Path) -> Checkpoint:
    from cagg.ledger.checkpoint import checkpoint_of_note

    try:
        note = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            f"the checkpoint {str(path)!r} cannot be read ({reason}); name another file."
        ) from None
    try:
        return checkpoint_of_note(note, parse_instant("1970-01-01T00:00:00+00:00"))
    except LedgerDamaged as error:
        raise InvalidInput(
            f"the file {str(path)!r} holds no checkpoint ({str(error).rstrip('.')}); give one that "
            "`cagg ledger checkpoint` printed."
        ) from None
