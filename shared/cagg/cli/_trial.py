"""Asks the gate without leaving a trace: the whole decision is made in a transaction that is then undone.

So a plan is what the gate itself would say at this moment, with history, budgets and everything, and not a second
implementation of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cagg.cli._context import store_is_new
from cagg.errors import CaggError, StoreUnavailable
from cagg.records import EntryKind
from cagg.request import Request

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.ports import Store, Transaction
    from cagg.steps.situation import Situation
    from cagg.verdict import Verdict

__all__ = ["Trial", "try_request"]

_LOOKED_AT = 50
"""Newest decisions among which the trial's own is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the gate would say now.

    Attributes:
        verdict: its answer.
        body: what the ledger entry would hold.
        situation: what the answer rests on.
    """

    verdict: Verdict
    body: Mapping[str, Any]
    situation: Situation


class _Undone(Exception):
    """Leaves the transaction so that it rolls back; never seen outside."""


class _NoStore(CaggError):
    """The store is down; said in a class of its own, so that the gate's way round an outage isn't taken."""


class _UndoingStore:
    """The store, with writing transactions that are rolled back; implements :class:`cagg.ports.Store`."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.bodies: list[Mapping[str, Any]] = []
        self._store = store

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A writing transaction of which only the newest decision's body is remembered."""
        from cagg.ledger.entry import read_body

        try:
            with self._store.transaction() as tx:
                yield tx
                # of a store that machines share, others may have recorded theirs meanwhile
                newest = tx.entries(kind=EntryKind.DECISION, newest_first=True, limit=_LOOKED_AT)
                ours = next((entry for entry in newest if entry.recorded_at == tx.now()), None)
                if ours is not None:
                    self.bodies.append(read_body(tx, ours))
                raise _Undone
        except _Undone:
            return
        except StoreUnavailable as error:
            raise _NoStore(str(error)) from error

    def snapshot(self) -> AbstractContextManager[Transaction]:
        """The store's own reading transaction."""
        return self._store.snapshot()

    def migrate(self) -> bool:
        """Nothing: a trial changes no schema."""
        return False

    def rest(self) -> None:
        """Nothing: the store belongs to the caller."""

    def close(self) -> None:
        """Nothing: the store belongs to the caller."""


def try_request(parts: Components, request: Request) -> Trial:
    """Return what the gate would say to a request now; nothing is recorded, held, or created.

    Raises:
        InvalidInput, ConfigurationError: the request cannot be used.
        StoreUnavailable: the store cannot be read or written.
    """
    with tempfile.TemporaryDirectory(prefix="cagg-plan-") as folder:
        if store_is_new(parts):
            parts = _with_new_store(parts, folder)
        return _try(parts, request)


def _with_new_store(parts: Components, folder: str) -> Components:
    from cagg.store.engine import open_store

    store = open_store(f"sqlite:///{folder}/plan.db", clock=parts.clock)
    with store.transaction():
        pass
    return replace(parts, store=store)


def _try(parts: Components, request: Request) -> Trial:
    from cagg.steps.recording import Recorder
    from cagg.steps.situation import complete, survey

    situation = survey(parts, complete(request, parts.settings))
    if situation.store_down:
        raise StoreUnavailable(situation.store_down)
    store = _UndoingStore(parts.store)
    try:
        decision = Recorder(replace(parts, store=store)).decide(situation)
    except _NoStore as error:
        raise StoreUnavailable(str(error)) from error
    return Trial(verdict=decision.verdict, body=store.bodies[-1], situation=situation)
