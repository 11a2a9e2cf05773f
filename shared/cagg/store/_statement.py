"""Core statements that are compiled once per dialect and then handed to the driver's cursor.

Executing through SQLAlchemy builds a cache key and a result object each time; on the path of every ledger entry that
costs several times SQLite's own work. Only plain integers, text and bytes pass here, so no conversion is skipped.
The connection must have begun its transaction; errors are the driver's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Table, bindparam
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Statement", "Value", "insert_if_absent"]

Value = str | int | bytes | None
"""What a statement's values may be."""


class Statement:
    """One statement, compiled at its first use with each dialect."""

    __slots__ = ("_build", "_compiled")

    def __init__(self, build: ClauseElement | Callable[[str], ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None, Mapping[str, Any]]] = {}

    def _for(self, connection: Connection) -> tuple[str, tuple[str, ...] | None, Mapping[str, Any]]:
        dialect = connection.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            element = self._build if isinstance(self._build, ClauseElement) else self._build(dialect.name)
            compiled = element.compile(dialect=dialect)
            assert isinstance(compiled, SQLCompiler)  # noqa: S101 - narrows the type
            names = tuple(compiled.positiontup or ()) if compiled.positional else None
            found = self._compiled[dialect.name] = (str(compiled), names, dict(compiled.params))
        return found

    def run(self, connection: Connection, **values: Value) -> DBAPICursor:
        """Execute with named values; returns the driver's cursor."""
        text, names, fixed = self._for(connection)
        cursor = connection.connection.cursor()
        if names is None:
            cursor.execute(text, {**fixed, **values})
        else:
            cursor.execute(text, tuple(values[n] if n in values else fixed[n] for n in names))
        return cursor

    def rows(self, connection: Connection, **values: Value) -> Sequence[Any]:
        """Execute and return all rows."""
        cursor = self.run(connection, **values)
        try:
            return cursor.fetchall()
        finally:
            cursor.close()

    def row(self, connection: Connection, **values: Value) -> Any:
        """Execute and return the first row, or None."""
        cursor = self.run(connection, **values)
        try:
            return cursor.fetchone()
        finally:
            cursor.close()

    def run_rows(self, connection: Connection, rows: Sequence[tuple[Value, ...]]) -> int:
        """Execute once per row, whose values stand in the statement's own order; returns how many rows were written."""
        if not rows:
            return 0
        text, names, _ = self._for(connection)
        assert names is not None  # noqa: S101 - dialects with positions only
        cursor = connection.connection.cursor()
        try:
            if len(rows) == 1:
                cursor.execute(text, rows[0])
            else:
                cursor.executemany(text, rows)
            return cursor.rowcount
        finally:
            cursor.close()

    def run_many(self, connection: Connection, many: Iterable[Mapping[str, Value]]) -> None:
        """Execute once per mapping."""
        text, names, fixed = self._for(connection)
        parameters: list[Any]
        if names is None:
            parameters = [{**fixed, **values} for values in many]
        else:
            parameters = [tuple(values[n] if n in values else fixed[n] for n in names) for values in many]
        if parameters:
            cursor = connection.connection.cursor()
            try:
                cursor.executemany(text, parameters)
            finally:
                cursor.close()


def insert_if_absent(table: Table, *, without: str | None = None) -> Statement:
    """Return an insert that keeps an existing row with the same primary or unique key as it is.

    Args:
        table: where.
        without: a column that the database fills in; None = all are given.
    """
    values: dict[str, Any] = {column.name: bindparam(column.name) for column in table.c if column.name != without}

    def build(dialect: str) -> Insert:
        # one dialect only: importing the other costs a fresh process some 20 ms
        if dialect == "postgresql":
            from sqlalchemy.dialects import postgresql

            return postgresql.insert(table).values(values).on_conflict_do_nothing()
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table).values(values).on_conflict_do_nothing()

    return Statement(build)
