"""Values on their way to PostgreSQL and back: journal rows, one row of a result, what a refusal means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cagg.errors import InvalidInput, ReservationConflict, StoreUnavailable
from cagg.ports import JournalRow
from cagg.store._instants import to_us

if TYPE_CHECKING:
    from psycopg import Connection as RawConnection
    from sqlalchemy import Connection

__all__ = ["one_row", "posted", "raw_of", "refusal"]


def posted(rows: Sequence[JournalRow]) -> str:
    """Return journal rows as a JSON array of objects whose names are the columns' names."""
    return json.dumps(
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
        ]
    )


def refusal(refused: Mapping[str, int]) -> InvalidInput | ReservationConflict | StoreUnavailable:
    """Return the error for what ``cagg_post`` refused; nothing was posted."""
    ((why, which),) = refused.items()
    if why == "missing":
        return InvalidInput(f"allotment {which} does not exist; nothing was posted to it.")
    if why == "over":
        return ReservationConflict(
            f"allotment {which} is enforced and has no room for this hold; ask again, or raise the limit with "
            "`cagg budget set`."
        )
    if why == "unspent":
        return StoreUnavailable(
            f"allotment {which} would take back more than this request was charged, or before it was settled late; run "
            "'cagg doctor', nothing was posted."
        )
    return StoreUnavailable(
        f"allotment {which} would give back more than this request holds; run 'cagg doctor', nothing was posted."
    )


def raw_of(connection: Connection) -> RawConnection[Any]:
    """Return the driver's own connection behind one of SQLAlchemy's."""
    raw: Any = connection.connection.dbapi_connection
    return raw  # type: ignore[no-any-return]


def one_row(raw: RawConnection[Any], text: str) -> tuple[Any, ...]:
    """Return the one row of a query without values."""
    row: tuple[Any, ...] = raw.execute(text).fetchone()  # type: ignore[assignment]
    return row
