"""Takes away what keeps stored rows from being changed, as whoever owns the database can: for tests of ``verify``."""

from __future__ import annotations

from typing import Any

from cagg.ports import Transaction

__all__ = ["unlock"]

_ZEROBLOB = """
CREATE OR REPLACE FUNCTION zeroblob(bytes int) RETURNS bytea LANGUAGE sql
RETURN decode(repeat('00', bytes), 'hex')
"""


def unlock(tx: Transaction) -> Any:
    """Switch the append-only rules off within a transaction and return its connection, for statements of an attacker.

    PostgreSQL is taught SQLite's ``zeroblob``, so that one statement attacks both.
    """
    connection: Any = tx.connection  # type: ignore[attr-defined]
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(_ZEROBLOB)
        return connection
    for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    return connection
