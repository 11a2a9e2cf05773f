"""The logs of a store: one that grows and those before it, which are frozen."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, bindparam, func, insert, select, update

from cagg.entries import Log, LogState
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.store import tables as t
from cagg.store._instants import from_us, to_us
from cagg.store._statement import Statement

if TYPE_CHECKING:
    from cagg.ports import Transaction

__all__ = ["LogRowsSql", "checked_origin", "not_begun"]

_c = t.log.c
_LOGS = Statement(select(_c.log_id, _c.origin, _c.state, _c.created_us).order_by(_c.log_id))
_STATE = Statement(select(_c.state).where(_c.log_id == bindparam("log_id")))
_QUEUED = Statement(select(t.queue.c.queue_id).where(t.queue.c.log_id == bindparam("log_id")).limit(1))
_FREEZE = Statement(update(t.log).where(_c.log_id == bindparam("which")).values(state=bindparam("state_now")))
_LAST = Statement(select(func.max(_c.log_id)))
_INSERT = Statement(insert(t.log).values({column.name: bindparam(column.name) for column in _c}))


def checked_origin(origin: str) -> str:
    """Return a log's name; raises InvalidInput for one that cannot stand in a signed note (C2SP signed-note, 2025)."""
    if not origin or any(c.isspace() or c == "+" for c in origin):
        raise InvalidInput(f"the log name {origin!r} must not be empty or hold spaces or '+'.")
    return origin


def not_begun(why: str, origin: str, current: str) -> InvalidInput:
    """Return the error for a log that cannot be begun: ``frozen``, ``taken`` or ``waiting``."""
    reasons = {
        "frozen": f"the log {current!r} is frozen already; begin the next one from the log that grows.",
        "taken": f"a log of the name {origin!r} is in the store already; choose another name.",
        "waiting": f"entries of the log {current!r} still wait for their place; sequence them first.",
    }
    return InvalidInput(reasons[why])


class LogRowsSql:
    """The part of :class:`cagg.ports.LedgerRows` that knows several logs."""

    connection: Connection
    _log_id: int
    _origin: str

    def now(self) -> datetime:
        """The store's own time (the composed transaction provides it)."""
        raise NotImplementedError

    def origin(self) -> str:
        """The log's name: the first line of its checkpoints."""
        return self._origin

    def logs(self) -> Sequence[Log]:
        """All logs of the store, oldest first; the last one is active."""
        return [_log(row) for row in _LOGS.rows(self.connection)]

    def in_log(self, origin: str) -> Transaction:
        """This transaction, reading another log of the store; raises InvalidInput when there is none of the name."""
        for log_id, name, *_ in _LOGS.rows(self.connection):
            if name == origin:
                return self._seen_from(log_id, name)
        raise InvalidInput(f"the store has no log of the name {origin!r}; see them with 'cagg ledger logs'.")

    def lock_log(self) -> None:
        """Nothing: there is one writer at a time."""

    def begin_log(self, origin: str) -> Transaction:
        """Freeze the log and begin the next; returns this transaction, in the new log.

        Raises:
            InvalidInput: the name is taken or no name, or this log is frozen already, or entries wait for their place.
        """
        checked_origin(origin)
        self.lock_log()
        return self._seen_from(self._begun_log(origin), origin)

    def _begun_log(self, origin: str) -> int:
        state = _STATE.row(self.connection, log_id=self._log_id)
        why = None
        if state is None or state[0] != LogState.ACTIVE.value:
            why = "frozen"
        elif any(row[1] == origin for row in _LOGS.rows(self.connection)):
            why = "taken"
        elif _QUEUED.row(self.connection, log_id=self._log_id) is not None:
            why = "waiting"
        if why is not None:
            raise not_begun(why, origin, self._origin)
        _FREEZE.run(self.connection, which=self._log_id, state_now=LogState.FROZEN.value)
        log_id = int(_LAST.row(self.connection)[0]) + 1
        _INSERT.run(
            self.connection, log_id=log_id, origin=origin, state=LogState.ACTIVE.value, created_us=to_us(self.now())
        )
        return log_id

    def _seen_from(self, log_id: int, origin: str) -> Transaction:
        """The same transaction, of which only the log is another: what it has locked and read stays shared."""
        other = copy.copy(self)
        other._log_id, other._origin = log_id, origin
        return cast("Transaction", other)


def _log(row: Any) -> Log:
    log_id, origin, state, created_us = row
    try:
        return Log(origin=str(origin), state=LogState(state), created_at=from_us(created_us))
    except (ValueError, TypeError, OverflowError):
        raise LedgerDamaged(f"log {log_id!r} of the store cannot be read; run 'cagg ledger verify'.") from None
