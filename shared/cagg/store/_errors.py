"""Turns what databases raise into one sentence with a remedy."""

from __future__ import annotations

import sqlite3

from sqlalchemy import exc

from cagg.errors import StoreBusy, StoreUnavailable

__all__ = ["DATABASE_ERRORS", "OPENING_ERRORS", "unavailable"]

DATABASE_ERRORS = (exc.SQLAlchemyError, sqlite3.Error)
"""What a statement may raise."""

OPENING_ERRORS = (*DATABASE_ERRORS, OSError)
"""What opening, locking and closing may raise."""

_CAUSES = (
    ("readonly", "is read-only", "make the file and its folder writable for this user"),
    ("read-only", "is read-only", "make the file and its folder writable for this user"),
    ("permission denied", "may not be accessed by this user", "correct the permissions of the file and its folder"),
    ("file is not a database", "is not a SQLite database", "point the store at another file or restore a backup"),
    ("file is encrypted", "is not a SQLite database", "point the store at another file or restore a backup"),
    ("malformed", "is damaged", "restore a backup, then run 'cagg ledger verify'"),
    ("disk is full", "cannot grow because the disk is full", "free some space on its disk"),
    ("no space left", "cannot grow because the disk is full", "free some space on its disk"),
    ("disk quota", "cannot grow because the disk quota is used up", "free some space on its disk"),
    ("locked", "is locked by another program", "end the program that holds it open and try again"),
    ("busy", "is locked by another program", "end the program that holds it open and try again"),
    ("unable to open", "cannot be opened", "check that the path exists and may be read and written by this user"),
    ("disk i/o error", "cannot be read or written by the disk", "check the disk, then run 'cagg ledger verify'"),
    ("no such table", "lacks a table", "point the store at a file that cagg created, or restore a backup"),
    ("no such column", "lacks a column", "run 'cagg store migrate', or restore a backup"),
    ("the log is frozen", "refused an entry, because the log it belongs to is frozen", "upgrade cagg, or try again"),
    ("append-only", "refused to change an append-only row", "leave recorded rows as they are"),
)


def unavailable(place: str, error: BaseException) -> StoreUnavailable:
    """Return the error a caller sees for what the driver raised about ``place``."""
    original = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    detail = " ".join(str(original).split()) or type(original).__name__
    lowered = detail.lower()
    for sign, what, remedy in _CAUSES:
        if sign in lowered:
            busy = sign in {"locked", "busy"} and isinstance(original, sqlite3.OperationalError)
            return (StoreBusy if busy else StoreUnavailable)(f"the store {place} {what}; {remedy}.")
    if isinstance(error, exc.IntegrityError | sqlite3.IntegrityError):
        return StoreUnavailable(
            f"the store {place} refused a row that breaks one of its rules ({detail}); "
            "nothing of this change was kept, run 'cagg ledger verify'."
        )
    return StoreUnavailable(
        f"the store {place} cannot be used ({type(original).__name__}: {detail}); check it with 'cagg doctor'."
    )
