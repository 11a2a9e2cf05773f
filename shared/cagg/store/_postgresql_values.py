"""What travels to PostgreSQL's function that posts journal rows, and what its refusals mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from cagg.errors import InvalidInput, ReservationConflict, StoreUnavailable
from cagg.ports import JournalRow
from cagg.store._instants import to_us

__all__ = ["posted", "refusal"]


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
    return StoreUnavailable(
        f"allotment {which} would give back more than this request holds; run 'cagg doctor', nothing was posted."
    )
