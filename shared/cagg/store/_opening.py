"""Looks at a SQLite file before it is opened for reading, without ever opening it by other means than SQLite.

POSIX drops every lock that a process has on a file as soon as the process closes any descriptor of it (POSIX.1-2017,
fcntl; https://www.sqlite.org/howtocorrupt.html, section 2.2). If we opened the file ourselves, however briefly, the
next program to close it would believe that it is the last user and delete the write-ahead log under our connection.
Hence only names, sizes and permissions are looked at here; what the file holds, SQLite is asked.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from sqlalchemy import exc

from cagg.errors import StoreUnavailable

__all__ = ["Opening", "file_identity", "incomplete_copy", "look", "missing_store", "stamp_of"]

_SMALLEST_BYTES = 512
"""The smallest page, hence the smallest database (SQLite database file format, section 1.3.2)."""


class Opening:
    """How to open for reading.

    Attributes:
        mode: SQLite's ``mode`` of the connection.
        query: further parameters of the address.
        stamp: the file's size, time of change and number before.
        has_log: True when a write-ahead log lay beside the file.
    """

    __slots__ = ("has_log", "mode", "query", "stamp")

    def __init__(self, *, mode: str, query: str, stamp: tuple[int, int, int], has_log: bool) -> None:
        self.mode, self.query, self.stamp, self.has_log = mode, query, stamp, has_log


def look(path: Path) -> Opening:
    """Decide how to open for reading so that nothing is left behind.

    Raises:
        StoreUnavailable: the file is missing, empty, too short for a database, or its log may not be read.
    """
    real = os.path.realpath(path)  # SQLite keeps the log beside the file that a link leads to
    try:
        stamp = stamp_of(path)
    except FileNotFoundError:
        raise missing_store(path) from None
    if stamp[0] == 0:
        raise StoreUnavailable(f"the store {path} is empty; restore a backup, or let a gate create it anew.")
    log = f"{real}-wal"
    if os.path.exists(log):  # noqa: PTH110 - on the path of every snapshot
        if not os.access(log, os.R_OK):
            raise StoreUnavailable(f"the store's log {log} may not be read by this user; correct its permissions.")
        return Opening(mode="ro", query="", stamp=stamp, has_log=True)
    if stamp[0] < _SMALLEST_BYTES:
        raise StoreUnavailable(
            f"the store {path} is not a SQLite database; point the store at another file or restore a backup."
        )
    if os.access(real, os.W_OK) and os.access(os.path.dirname(real), os.W_OK):  # noqa: PTH120 - as above
        # mode=ro would leave an empty -wal and -shm behind; a connection that may write removes them again.
        return Opening(mode="rw", query="", stamp=stamp, has_log=False)
    return Opening(mode="ro", query="&immutable=1", stamp=stamp, has_log=False)


def incomplete_copy(
    path: Path, opening: Opening, connection: sqlite3.Connection, error: BaseException
) -> StoreUnavailable | None:
    """Return what to say when SQLite calls a file malformed because it lacks its end; None for any other error.

    Args:
        path: the file.
        opening: how it was opened.
        connection: the connection that failed; of no use afterwards.
        error: how it failed.
    """
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    if opening.has_log or not isinstance(original, sqlite3.Error):
        return None
    if getattr(original, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
        return None
    # This reads the first page alone, where SQLite compares the number of pages noted there with the file's size.
    first_page = "PRAGMA schema_version"
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        try:
            connection.execute(first_page).fetchone()
        except sqlite3.DatabaseError:
            connection.execute("PRAGMA writable_schema=ON")  # leaves that comparison out, and no other check
            connection.execute(first_page).fetchone()
            return StoreUnavailable(
                f"the store {path} is an incomplete copy (it has {opening.stamp[0]} bytes, which is less than it says "
                f"itself, and {path.name}-wal is missing); copy it with 'sqlite3 FILE .backup' or together with its "
                "-wal file."
            )
    return None


def missing_store(path: Path) -> StoreUnavailable:
    """Return the error for a file that does not exist."""
    return StoreUnavailable(
        f"there is no store at {path}; check the path, or create it by running a gate or 'cagg init'."
    )


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Return the file's size in bytes, its time of change in nanoseconds and its number."""
    found = os.stat(path)  # noqa: PTH116 - on the path of every snapshot
    return found.st_size, found.st_mtime_ns, found.st_ino


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return the file's device and number; None when it does not exist."""
    try:
        found = os.stat(path)  # noqa: PTH116 - on the path of every transaction
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
