"""Brings a database to the schema of this version, and refuses one that this version must not touch."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import Connection, insert, inspect, select, text

from cagg.errors import StoreUnavailable
from cagg.store import tables as t
from cagg.store._instants import to_us
from cagg.store._triggers import append_only_triggers
from cagg.store.migrations.functions_0002 import budget_functions
from cagg.store.migrations.functions_0003 import log_rules

__all__ = ["create_schema", "ensure_log", "stored_version", "version_gap"]


def stored_version(connection: Connection, place: str) -> str | None:
    """Return the schema's version, None for an empty database.

    Raises:
        StoreUnavailable: the database holds something else.
    """
    if not connection.dialect.has_table(connection, t.schema_version.name):
        names = inspect(connection).get_table_names()
        if connection.dialect.name == "postgresql":  # a database may have others' tables beside ours, a file may not
            names = [name for name in names if name.startswith("cagg_")]
        if names:
            raise StoreUnavailable(
                f"the store {place} is a database of something else (it holds {min(names)!r} and no "
                f"{t.schema_version.name!r}); give the store a place of its own."
            )
        return None
    rows = connection.execute(select(t.schema_version.c.version_num)).fetchall()
    if len(rows) != 1:
        raise StoreUnavailable(f"the store {place} does not say which version it has; restore a backup.")
    return str(rows[0][0])


def version_gap(version: str, place: str) -> int:
    """Return how many versions the store is ahead of this program: 0, 1, or negative when it is older.

    Versions N and N-1 share a store, because migrations only add.

    Raises:
        StoreUnavailable: the store is more than one version ahead, or its version is no number.
    """
    if not (version.isascii() and version.isdigit()):
        raise StoreUnavailable(f"the store {place} has the unknown version {version!r}; upgrade cagg or use another.")
    gap = int(version) - int(t.SCHEMA_VERSION)
    if gap > 1:
        raise StoreUnavailable(
            f"the store {place} has version {version}, this program knows {t.SCHEMA_VERSION} and the one after it; "
            "upgrade cagg."
        )
    return gap


def create_schema(connection: Connection) -> None:
    """Create everything in an empty database and stamp the version, without loading the migration tool."""
    t.metadata.create_all(connection)
    rules = (*append_only_triggers(connection.dialect.name), *budget_functions(connection), *log_rules(connection))
    for statement in rules:
        connection.execute(text(statement))
    connection.execute(insert(t.schema_version).values(version_num=t.SCHEMA_VERSION))


def ensure_log(connection: Connection, *, origin: str | None, now: datetime) -> None:
    """Give the ledger its name if it has none yet; an existing name stays."""
    if connection.execute(select(t.log.c.log_id)).first() is None:
        name = origin if origin is not None else f"cagg.local/{secrets.token_hex(8)}"
        connection.execute(insert(t.log).values(log_id=1, origin=name, state="active", created_us=to_us(now)))
