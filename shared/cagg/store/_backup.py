"""Copies a SQLite store while others write to it: one consistent state, flushed, and never over anything.

SQLite copies itself ("SQLite Backup API", https://www.sqlite.org/backup.html) within one reading transaction, in one
step: what others commit meanwhile is not in the copy, and what they commit is not held up.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path

from cagg.errors import InvalidInput

__all__ = ["back_up", "check_target"]

_SIDE_FILES = ("-wal", "-shm", "-journal", ".lock")


def check_target(store: Path, target: Path) -> None:
    """Refuse a place for a backup where it would harm something.

    Raises:
        InvalidInput: it is the store or one of its side files, it exists, side files of another database lie there, or
            its folder does not exist.
    """
    real, place = os.path.realpath(store), os.path.realpath(target)
    if place == real or any(place == f"{real}{ending}" for ending in _SIDE_FILES):
        raise InvalidInput(f"{target} is the store itself, or belongs to it; name another file for the backup.")
    if os.path.lexists(target):
        raise InvalidInput(f"{target} exists, and a backup overwrites nothing; name a new file.")
    if not target.parent.is_dir():
        raise InvalidInput(f"the folder {target.parent} does not exist; create it, or name another file.")
    for ending in _SIDE_FILES[:3]:  # SQLite would take it for the backup's own
        if os.path.lexists(f"{target}{ending}"):
            raise InvalidInput(f"{target}{ending} is left of another database; remove it, or name another file.")


def back_up(source: sqlite3.Connection, target: Path) -> int:
    """Copy the database of a connection, which is within a reading transaction; returns the copy's bytes.

    The file appears under its name when it is whole and flushed, readable and writable for its owner only.

    Raises:
        InvalidInput: the target exists by now.
        OSError, sqlite3.Error: the copy cannot be written; nothing is left of it.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        _copy(source, partial)
        _flush(partial)
        _name(partial, target)
        _flush(target.parent)
    finally:
        for ending in ("", *_SIDE_FILES):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{partial}{ending}")  # noqa: PTH108 - a name beside it
    return target.stat().st_size


def _copy(source: sqlite3.Connection, partial: Path) -> None:
    copy = sqlite3.connect(partial, isolation_level=None)
    try:
        copy.execute("PRAGMA synchronous=FULL")
        source.backup(copy)
    finally:
        copy.close()


def _flush(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(partial: Path, target: Path) -> None:
    try:
        os.link(partial, target)  # unlike a renaming, never takes the place of another file
    except FileExistsError:
        raise InvalidInput(f"{target} was made by somebody else meanwhile; name a new file.") from None
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise InvalidInput(f"{target} was made by somebody else meanwhile; name a new file.") from None
        partial.rename(target)
