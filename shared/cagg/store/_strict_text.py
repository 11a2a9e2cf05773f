"""Reads text of a SQLite file at the driver's own speed, where verification reads so much of it.

Connections are given a function that reads any bytes as text, so that tampered rows can be read at all; calling it for
each value takes as long as the rest of reading a row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

__all__ = ["read_quickly"]


def read_quickly(connection: Connection, read: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    """Return what ``read`` returns; when a text is no UTF-8, it is called once more, and reads it as it is."""
    raw: Any = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        return read()
    lenient = raw.text_factory
    raw.text_factory = str
    try:
        return read()
    except (sqlite3.OperationalError, UnicodeDecodeError):
        raw.text_factory = lenient
        return read()
    finally:
        raw.text_factory = lenient
