"""What stands beside a log's key: the checkpoint that it signed last, and the key that is to take its place.

- ``log.key``, ``log.vkey``: the key and its public half. The public halves of keys before it stand there as comments:
  today's key vouches for what they signed, and nobody here should trust a key that may be stolen by now.
- ``log.checkpoint``: the newest checkpoint that the key signed, written before the store gets it. A store that was
  restored from a backup, or a copy of it, has forgotten what was signed; this file has not.
- ``log.key.next``: the key that is to take over, from the moment when a rotation begins until the checkpoint at the
  switch is stored. Then it becomes ``log.key``; the old private key is gone, since all that it could still sign is a
  second history of what came before.
- ``log.lock``: held while a checkpoint is made, so that two processes sign one after the other.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cagg.errors import ConfigurationError, LedgerDamaged
from cagg.ledger.events import KeyEvent
from cagg.ledger.key_entries import KeyFact, key_facts
from cagg.ledger.notes import VerifierKey, parse_note, verifier_key
from cagg.ledger.signer import FileSigner, write_over
from cagg.ports import LedgerRows

__all__ = ["last_signed", "next_key", "prepare_next", "remember", "rotation_of", "switch_of", "take_over", "turn"]


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Hold the folder for the time of the block: one process makes a checkpoint, or changes a key, at a time.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    try:
        descriptor = os.open(folder / "log.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def last_signed(folder: Path) -> str | None:
    """Return the newest checkpoint that the log's key signed, as a note; None when that is not known.

    Raises:
        ConfigurationError: the file is there and cannot be read.
    """
    path = folder / "log.checkpoint"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            f"the last signed checkpoint {path} cannot be read ({reason}); make it readable, or restore the folder."
        ) from None


def remember(folder: Path, note: str) -> None:
    """Keep a checkpoint as the one that was signed last; call it before the store gets it, and hold the turn.

    Raises:
        ConfigurationError: the file cannot be written; the checkpoint must not be used then.
    """
    try:
        write_over(folder / "log.checkpoint", note, 0o600)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"what is signed last cannot be kept in {folder} ({error.strerror}), so nothing was signed; make it writable."
    )


# ---- the next key ---------------------------------------------------------------------------------------------------


def next_key(folder: Path) -> FileSigner | None:
    """Return the key that is to take over; None when none is. Raises ConfigurationError for a file that is no key."""
    path = folder / "log.key.next"
    try:
        return FileSigner.load(path) if path.exists() else None
    except OSError as error:
        raise ConfigurationError(
            f"the keys in {folder} cannot be read ({error.strerror}); make the folder readable for this user."
        ) from None


def prepare_next(folder: Path, name: str) -> FileSigner:
    """Return the key that is to take over, made when there is none; its public half goes on top of ``log.vkey``.

    Raises:
        ConfigurationError: a file cannot be read or written.
    """
    found = next_key(folder) or FileSigner.create_alone(folder / "log.key.next", name)
    public = str(verifier_key(found))
    _rewrite_public(folder, lambda lines: lines if public in lines else [public, *lines])
    return found


def _rewrite_public(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / "log.vkey"
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        changed = change(lines)
        if changed != lines:
            write_over(path, "".join(f"{line}\n" for line in changed), 0o644)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"the public key {path} cannot be rewritten ({reason}); make it writable.") from None


def rotation_of(tx: LedgerRows, old: VerifierKey, new: VerifierKey) -> KeyFact | None:
    """Return the entry that puts the new key in the old one's place; None when there is none yet."""
    for fact in key_facts(tx):
        if fact.event is KeyEvent.ANNOUNCED and (fact.replaces, fact.key) == (old, new):
            return fact
    return None


def switch_of(tx: LedgerRows, fact: KeyFact) -> int | None:
    """Return the size of the stored checkpoint that both keys of a rotation signed first; None while there is none."""
    if fact.index is None or fact.replaces is None:
        return None
    for item in tx.checkpoints():
        if item.size <= fact.index:
            continue
        try:
            _, signers = parse_note(item.note, (fact.replaces, fact.key))
        except LedgerDamaged:
            continue  # `verify` reads every checkpoint and tells
        if len(signers) == 2:
            return item.size
    return None


def take_over(tx: LedgerRows, folder: Path) -> int | None:
    """Put the next key in place once the checkpoint at the switch is stored; the old private key is gone then.

    Safe to repeat, and to be killed in: the file is replaced in one step.

    Args:
        tx: a snapshot of the log: what it shows is committed.
        folder: the log's keys.

    Returns:
        Size of the checkpoint at the switch; None when nothing is to be done, or not yet.

    Raises:
        ConfigurationError: a key cannot be read or put in place.
    """
    if next_key(folder) is None:
        return None
    with turn(folder):
        new = next_key(folder)
        if new is None:
            return None  # another process was quicker
        old = FileSigner.load(folder / "log.key")
        fact = rotation_of(tx, verifier_key(old), verifier_key(new))
        size = None if fact is None else switch_of(tx, fact)
        if size is not None:
            replaced = str(verifier_key(old))
            _rewrite_public(
                folder, lambda lines: [f"# replaced: {line}" if line == replaced else line for line in lines]
            )
            try:
                (folder / "log.key.next").replace(folder / "log.key")
            except OSError as error:
                raise _unwritable(folder, error) from None
        return size
