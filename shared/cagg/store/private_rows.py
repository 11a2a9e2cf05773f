"""Personal values beside the entries that hold salted commitments to them: the only rows that may be deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, tuple_

from cagg.entries import PrivateValue
from cagg.errors import InvalidInput, StoreUnavailable
from cagg.store import tables as t
from cagg.store._statement import Statement, insert_if_absent
from cagg.store.entry_rows import stored_bytes

__all__ = ["PrivateRowsSql"]

_PAGE = 512
"""Rows that one step of a streamed read holds in memory."""

_p, _e = t.private.c, t.entry.c
_LOGS = select(t.log.c.log_id)
_COLUMNS = (_p.entry_id, _p.field, _p.salt, _p.value)
_LOG_OF = Statement(select(_e.log_id).where(_e.log_id.in_(_LOGS), _e.entry_id == bindparam("id")))
_INSERT = insert_if_absent(t.private)
_OF_ENTRY = Statement(select(*_COLUMNS).where(_p.log_id.in_(_LOGS), _p.entry_id == bindparam("id")).order_by(_p.field))
_FIELDS = Statement(select(_p.field).where(_p.log_id.in_(_LOGS), _p.entry_id == bindparam("id")).order_by(_p.field))
_OF_LOG = Statement(
    select(*_COLUMNS)
    .where(
        _p.log_id == bindparam("log_id"),
        tuple_(_p.entry_id, _p.field) > tuple_(bindparam("after_id"), bindparam("after_field")),
    )
    .order_by(_p.entry_id, _p.field)
    .limit(bindparam("page"))
)
_DROP = Statement(
    delete(t.private).where(_p.log_id.in_(_LOGS), _p.entry_id == bindparam("id"), _p.field == bindparam("of_field"))
)


class PrivateRowsSql:
    """The part of :class:`cagg.ports.LedgerRows` that keeps personal values."""

    connection: Connection
    _log_id: int

    def put_private(self, values: Sequence[PrivateValue]) -> None:
        """Keep personal values beside their entries, of whatever log; a value that is there already stays as it is.

        Raises:
            InvalidInput: the store has no such entry.
        """
        homes: dict[str, int] = {}
        for item in values:
            if item.entry_id not in homes:
                row = _LOG_OF.row(self.connection, id=item.entry_id)
                if row is None:
                    raise InvalidInput(f"entry {item.entry_id} is not in the store; append it before its values.")
                homes[item.entry_id] = row[0]
            _INSERT.run(
                self.connection,
                log_id=homes[item.entry_id],
                entry_id=item.entry_id,
                field=item.field,
                salt=item.salt,
                value=item.value,
            )

    def private_values(self, entry_id: str | None = None) -> Iterator[PrivateValue]:
        """Personal values of an entry of any log, or of all entries of this log, by entry and field; page by page."""
        self._may_read_private()
        if entry_id is not None:
            yield from map(_value, _OF_ENTRY.rows(self.connection, id=entry_id))
            return
        rows: Sequence[Any] = [("", "")]
        while rows:
            last = rows[-1]
            rows = _OF_LOG.rows(self.connection, log_id=self._log_id, after_id=last[0], after_field=last[1], page=_PAGE)
            yield from map(_value, rows)

    def same_private(self, entry_id: str, values: Mapping[str, str]) -> bool:
        """True when none of these values differs from the one that is kept of the entry; of one that was deleted
        nobody can tell."""
        kept = {item.field: item.value for item in self.private_values(entry_id)}
        return all(kept.get(field, value) == value for field, value in values.items())

    def drop_private(self, entry_id: str, field: str) -> bool:
        """Delete a personal value with its salt; False when there is none.

        What a file held of it is overwritten with zeros (SQLite, "PRAGMA secure_delete").
        """
        if self.connection.dialect.name == "sqlite":
            self.connection.connection.cursor().execute("PRAGMA secure_delete=ON")
        cursor = _DROP.run(self.connection, id=entry_id, of_field=field)
        try:
            return cursor.rowcount > 0
        finally:
            cursor.close()

    def private_fields(self, entry_id: str) -> Sequence[str]:
        """Fields of which a personal value of an entry is kept, ascending."""
        return [row[0] for row in _FIELDS.rows(self.connection, id=entry_id)]

    def may_read_private(self) -> bool:
        """True: whoever may read a file may read all of it."""
        return True

    def _may_read_private(self) -> None:
        if not self.may_read_private():
            raise StoreUnavailable(
                "this role may not read personal values; use the role of 'cagg maintain' (see 'cagg store grants')."
            )


def _value(row: Any) -> PrivateValue:
    entry_id, field, salt, value = row
    return PrivateValue(
        entry_id=entry_id, field=field, salt=stored_bytes(salt, f"the salt of {field} of {entry_id}"), value=value
    )
