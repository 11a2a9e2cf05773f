"""What other processes do to a shared store in races and crash tests: hold, record, settle, sequence, meet the limits.

Each function is the main function of a process of its own and opens the store at an address. What a worker appends to
its file of acknowledgements was committed before: after any crash it must still be there.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.clock import SystemClock
from cagg.errors import ReservationConflict, StoreUnavailable
from cagg.ledger.entry import append, idempotency_key
from cagg.ledger.sequencer import sequence
from cagg.ports import Store, Transaction
from cagg.quantities import Energy, Unit
from cagg.records import EntryDraft, EntryKind, Period, ReservationState
from cagg.store.engine import open_store
from cagg.testing._budget_builders import ask, budget
from cagg.testing.kinds import LEAST

__all__ = ["acknowledged_keys", "meet_at_random", "race_recorded", "recorded_work", "sequence_until"]

_PATIENCE_TRIES = 400
_PAUSE_SECONDS = 0.05
_LOCK_SECONDS = 60.0
"""Longer than a gate waits: on a machine that runs other tests too, slow is not what these tests look for."""


def _opened(url: str) -> Store:
    return open_store(url, clock=SystemClock(), lock_timeout_seconds=_LOCK_SECONDS)


def acknowledged_keys(folder: Path) -> set[str]:
    """Return what all workers had acknowledged in a folder; a line cut by a crash was not acknowledged."""
    found: set[str] = set()
    for file in folder.iterdir():
        lines = file.read_text(encoding="ascii").split("\n")
        found.update(lines[:-1])
    return found


def race_recorded(url: str, worker: int, paths: Sequence[str], tries: int) -> list[int]:
    """Ask for one unit on each path in turn, with the decision's entry in the same transaction; count the admitted.

    Every third admitted request is started and settled at what it held, so that holds become spending meanwhile.
    """
    store = _opened(url)
    admitted = [0] * len(paths)
    try:
        for number in range(tries):
            for index, path in enumerate(paths):
                key = f"{worker} {index} {number}"
                with store.transaction() as tx:
                    stored, _ = ask(tx, key, path, 1)
                    append(tx, _decision(key, admitted=stored is not None))
                    if stored is not None and number % 3 == 0:
                        reservations.start(tx, key)
                        reservations.settle(tx, key, 1, {Unit.CARBON: 1})
                admitted[index] += stored is not None
    finally:
        store.close()
    return admitted


def recorded_work(url: str, name: str, paths: Sequence[str], count: int, acknowledgements: str) -> None:
    """Ask ``count`` times, each with its entry, and settle what was let in; outlive outages by repeating the request.

    A request whose answer was lost is repeated under its key, which changes nothing when it had been kept.
    """
    store = _opened(url)
    with open(acknowledgements, "ab", buffering=0) as acknowledge:  # noqa: PTH123 - one write per line, unbuffered
        for number in range(count):
            key = f"{name} {number}"
            admitted = _outliving(store, key, paths[number % len(paths)])
            acknowledge.write(f"{key}\n".encode())
            if admitted and number % 2:
                _settled(store, key)
                acknowledge.write(f"{key} settled\n".encode())
    store.close()


def sequence_until(url: str, stop: str) -> int:
    """Sequence small batches until a file exists and the queue is empty; outlive outages. Returns how many."""
    store, clock, total = _opened(url), SystemClock(), 0
    while True:
        told = os.path.exists(stop)  # noqa: PTH110 - before the look at the queue, so that nothing is left
        try:
            with store.transaction() as tx:
                done = sequence(tx, 7)
            total += done
        except StoreUnavailable:
            clock.sleep(_PAUSE_SECONDS)
            continue
        if told and not done:
            break
        if not done:
            clock.sleep(0.002)
    store.close()
    return total


def meet_at_random(url: str, seed: int, paths: Sequence[str], steps: int) -> int:
    """Do what gates, sweeps and owners of budgets do, in random order and on few requests; return how often held.

    Requests are shared by all workers, so that they meet on the same reservations as well as on the same budgets.
    Raises whatever is no orderly refusal: a deadlock is reported by the store as StoreUnavailable.
    """
    store, chance, held = _opened(url), random.Random(seed), 0  # noqa: S311 - no secret
    try:
        for number in range(steps):
            key, path = f"shared {chance.randrange(8)}", chance.choice(paths)
            with store.transaction() as tx:
                try:
                    held += _step(tx, chance, key, path, number)
                except ReservationConflict:
                    continue
    finally:
        store.close()
    return held


def _step(tx: Transaction, chance: random.Random, key: str, path: str, number: int) -> int:
    what = chance.choice(("ask", "ask", "ask", "move", "settle", "release", "expire", "limit", "unheld"))
    if what == "limit":
        set_budget(tx, budget(path, chance.randrange(200), period=chance.choice((Period.DAY, Period.MONTH))))
    elif what == "expire":
        reservations.expire(tx, now=tx.now() + timedelta(seconds=chance.randrange(600)), limit=3)
    elif what == "unheld":
        from cagg.testing._budget_builders import reservation

        unheld = reservation(f"unheld {chance.random()}", path, tx.now())
        reservations.charge_unheld(tx, unheld, {Unit.CARBON: 1, Unit.ENERGY: 1}, at=tx.now())
    elif what == "settle":
        before = tx.reservation(key)
        if before is not None and before.state is ReservationState.WAITING:
            before = reservations.start(tx, key, lease_seconds=5, expected_power_milliwatts=1)
        if before is not None:
            reservations.settle(tx, key, before.lease_epoch, {Unit.CARBON: chance.randrange(12)})
    elif what == "release":
        reservations.release(tx, key)
    else:
        before = tx.reservation(key)
        if before is not None and not before.open:
            key = f"{key} {number} {chance.random()}"
        start = tx.now() + timedelta(days=chance.randrange(3) if what == "move" else 0)
        amounts = {Unit.CARBON: chance.randrange(10), Unit.ENERGY: chance.randrange(10)}
        stored, _ = ask(tx, key, path, None, at=start, amounts=amounts, upper_energy=Energy(millijoules=9))
        append(tx, _decision(f"{key} {chance.random()}", admitted=stored is not None))
        return int(stored is not None)
    return 0


# ---- what outlives outages ----------------------------------------------------------------------------------------


def _decision(key: str, *, admitted: bool) -> EntryDraft:
    return EntryDraft(
        kind=EntryKind.DECISION,
        request_key=key,
        ordinal=0,
        body={"request": {}, "verdict": {"verdict": "admit" if admitted else "deny"}, "padding": "x" * 500},
    )


def _outliving(store: Store, key: str, path: str) -> bool:
    for attempt in range(_PATIENCE_TRIES):
        try:
            with store.transaction() as tx:
                if tx.entry_by_key(idempotency_key(EntryKind.DECISION, key, 0)) is not None:
                    return tx.reservation(key) is not None
                stored, _ = ask(tx, key, path, 1)
                append(tx, _decision(key, admitted=stored is not None))
                if stored is not None:
                    reservations.start(tx, key, lease_seconds=3_600, expected_power_milliwatts=1)
                return stored is not None
        except StoreUnavailable:
            if attempt == _PATIENCE_TRIES - 1:
                raise
            SystemClock().sleep(_PAUSE_SECONDS)
    raise AssertionError("unreachable")


def _settled(store: Store, key: str) -> None:
    for attempt in range(_PATIENCE_TRIES):
        try:
            with store.transaction() as tx:
                reservations.settle(tx, key, 1, {Unit.CARBON: 1})
                body = LEAST[EntryKind.SETTLEMENT]
                append(tx, EntryDraft(kind=EntryKind.SETTLEMENT, request_key=key, ordinal=0, body=body))
            return
        except StoreUnavailable:
            if attempt == _PATIENCE_TRIES - 1:
                raise
            SystemClock().sleep(_PAUSE_SECONDS)
