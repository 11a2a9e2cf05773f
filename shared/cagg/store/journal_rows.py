"""Rows of the budget journal, and the counters of allotments that follow them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, literal_column, select, update

from cagg.errors import InvalidInput
from cagg.ports import JournalRow
from cagg.store import tables as t
from cagg.store._instants import from_us, to_us
from cagg.store._statement import Statement

__all__ = ["JournalRowsSql"]

_a, _j = t.allotment.c, t.journal.c

_MOVE = Statement(
    update(t.allotment)
    .where(_a.allotment_id == bindparam("which"))
    .values(
        held=_a.held + bindparam("d_held"),
        spent=_a.spent + bindparam("d_spent"),
        overrun=_a.overrun + bindparam("d_overrun"),
    )
)
_JOURNAL_COLUMNS = tuple(column for column in t.journal.c if column.name != "journal_id")
_INSERT_JOURNAL = Statement(
    insert(t.journal).values({column.name: bindparam(column.name) for column in _JOURNAL_COLUMNS})
)
_JOURNAL_OF = Statement(
    select(*_JOURNAL_COLUMNS).where(_j.request_key == bindparam("request_key")).order_by(_j.journal_id)
)


def _halves(column: ColumnElement[int]) -> tuple[ColumnElement[int], ...]:
    """The sums of a column's upper and lower 32 bits: SQLite's own sum of large amounts overflows."""
    return func.sum(column.op(">>")(literal_column("32"))), func.sum(column.op("&")(literal_column("4294967295")))


_SUMS = Statement(
    select(_j.allotment_id, *_halves(_j.d_held), *_halves(_j.d_spent), *_halves(_j.d_overrun)).group_by(_j.allotment_id)
)


class JournalRowsSql:
    """Posts changes and reads them back; part of :class:`cagg.store.budget_rows.BudgetRowsSql`."""

    connection: Connection

    def post(self, row: JournalRow) -> None:
        """:meth:`post_all` of one row."""
        self.post_all((row,))

    def post_all(self, rows: Sequence[JournalRow], *, allow_over: Collection[int] = ()) -> None:
        """Insert journal rows and change the allotments' counters by them; a file has no rights to guard them with."""
        del allow_over
        for done, row in enumerate(rows):
            if self._move(row, times=1) != 1:
                for earlier in rows[:done]:  # the caller may go on with its transaction
                    self._move(earlier, times=-1)
                raise InvalidInput(f"allotment {row.allotment_id} does not exist; nothing was posted to it.")
        _INSERT_JOURNAL.run_many(
            self.connection,
            [
                {
                    "allotment_id": row.allotment_id,
                    "request_key": row.request_key,
                    "kind": row.kind,
                    "d_held": row.d_held,
                    "d_spent": row.d_spent,
                    "d_overrun": row.d_overrun,
                    "at_us": to_us(row.at),
                }
                for row in rows
            ],
        )

    def _move(self, row: JournalRow, *, times: int) -> int:
        """Change an allotment's counters by a row, or take that back; returns how many allotments there were."""
        moved = _MOVE.run(
            self.connection,
            which=row.allotment_id,
            d_held=times * row.d_held,
            d_spent=times * row.d_spent,
            d_overrun=times * row.d_overrun,
        )
        return int(moved.rowcount)

    def journal(self, request_key: str) -> Sequence[JournalRow]:
        """Journal rows of one request, in the order in which they were posted."""
        return [
            JournalRow(
                allotment_id=row[0],
                request_key=row[1],
                kind=row[2],
                d_held=row[3],
                d_spent=row[4],
                d_overrun=row[5],
                at=from_us(row[6]),
            )
            for row in _JOURNAL_OF.rows(self.connection, request_key=request_key)
        ]

    def journal_sums(self) -> Mapping[int, tuple[int, int, int]]:
        """Sums of (d_held, d_spent, d_overrun) by allotment."""
        return {
            row[0]: (_whole(row[1], row[2]), _whole(row[3], row[4]), _whole(row[5], row[6]))
            for row in _SUMS.rows(self.connection)
        }


def _whole(upper: Any, lower: Any) -> int:
    """Put the sums of both halves together."""
    return (int(upper) << 32) + int(lower)
