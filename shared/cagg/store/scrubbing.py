"""Makes a deleted value leave the write-ahead log of a SQLite file, too.

A deleted row is overwritten with zeros in its page ("PRAGMA secure_delete"), but earlier versions of that page stand in
the write-ahead log until it is written over, or until the last program closes the file. Source: SQLite documentation,
"Write-Ahead Logging", section 2.2, and "PRAGMA wal_checkpoint(TRUNCATE)" (2024).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from cagg.store._errors import DATABASE_ERRORS, unavailable

__all__ = ["scrub_write_ahead_log"]

_TIMEOUT_SECONDS = 5.0
"""How long writers and readers under way are waited for."""


def scrub_write_ahead_log(path: Path, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> bool:
    """Copy the write-ahead log back and cut it to nothing; False when somebody reads the file for too long.

    Raises:
        StoreUnavailable: the file cannot be opened or written.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=timeout_seconds)) as raw:
            is_busy, *_ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except DATABASE_ERRORS as error:
        raise unavailable(str(path), error) from error
    return not is_busy
