"""Holding budgets on PostgreSQL over four levels with the ledger's entry in the same transaction, by 32 connections.

The peer is a loop of the same statements by the bare driver, in the same processes and threads, on the same database,
in turn with ours. Every transaction of either locks the organisation's row: that row's commits are the ceiling of both.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
from _budget_load import Precomputed, our_cycle, our_hold, paths, plant, raw_cycle, raw_hold
from _harness import benchmark, paired, percentile, record, times

from cagg.budget import reservations
from cagg.clock import SystemClock
from cagg.ports import Store
from cagg.store.engine import open_store
from cagg.testing.postgresql import LocalPostgres

PROCESSES, THREADS = 4, 8
ROUNDS, SECONDS = 5, 2.5
_OURS = {"hold": our_hold, "cycle": our_cycle}
_RAW = {"hold": raw_hold, "cycle": raw_cycle}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What every process does next, from one instant of the monotonic clock to another."""

    side: str
    what: str
    starts_at: float
    ends_at: float


def serve(url: str, orders: Connection) -> None:
    """Carry out orders in threads with a connection each; the main function of a process."""
    ready = Precomputed.make()
    store = open_store(f"{url}?pool={THREADS}", clock=SystemClock())
    connections = [psycopg.connect(url, autocommit=True) for _ in range(THREADS)]
    while (order := orders.recv()) is not None:
        results: list[list[float]] = [[] for _ in range(THREADS)]
        errors: list[BaseException] = []

        def work(number: int, order: Order = order, results: list[list[float]] = results) -> None:
            leaves, chance = paths()[-1], random.Random()
            raw, ours = _RAW[order.what], _OURS[order.what]
            time.sleep(max(0.0, order.starts_at - time.monotonic()))
            while (begun := time.monotonic()) < order.ends_at:
                path = chance.choice(leaves)
                if order.side == "ours":
                    ours(store, path)
                else:
                    raw(connections[number], ready, path)
                results[number].append(time.monotonic() - begun)

        def guarded(number: int, errors: list[BaseException] = errors) -> None:
            try:
                work(number)
            except BaseException as error:
                errors.append(error)
                raise

        threads = [threading.Thread(target=guarded, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        orders.send(repr(errors[0]) if errors else [second for one in results for second in one])
    for connection in connections:
        connection.close()
    store.close()


class Crew:
    """The processes, and what they are told to do."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(PROCESSES):
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(url, theirs))
            process.start()
            self._ends.append(mine)
            self._processes.append(process)

    def run(self, side: str, what: str, seconds: float) -> tuple[float, list[float]]:
        """Return operations per second, and the seconds of each."""
        starts_at = time.monotonic() + 0.1
        order = Order(side=side, what=what, starts_at=starts_at, ends_at=starts_at + seconds)
        for end in self._ends:
            end.send(order)
        took: list[float] = []
        for end in self._ends:
            answer: Any = end.recv()
            if isinstance(answer, str):
                raise RuntimeError(f"{side} {what}: {answer}")
            took += answer
        return len(took) / (time.monotonic() - starts_at), took

    def close(self) -> None:
        """Send everybody home."""
        for end in self._ends:
            end.send(None)
        for process in self._processes:
            process.join()


@contextlib.contextmanager
def _crew() -> Iterator[tuple[Crew, Store]]:
    with LocalPostgres() as server:
        url = server.new_database()
        store = open_store(url, clock=SystemClock())
        plant(store)
        for path in paths()[-1]:  # opens every period, so that both sides find them
            our_hold(store, path)
        crew = Crew(url)
        try:
            yield crew, store
        finally:
            crew.close()
            store.close()


@benchmark("budget")
def on_postgresql() -> None:
    """32 connections, four levels, the entry in the same transaction."""
    with _crew() as (crew, store):
        for what in _OURS:
            for side in ("ours", "raw"):
                crew.run(side, what, 1.0)
        _measure(crew, "hold", "hold + decision", target="ratio >= 0.4")
        _measure(crew, "cycle", "hold + start + decision, settle + entry", target=None)
        with store.snapshot() as tx:
            if findings := reservations.audit(tx):
                raise RuntimeError(f"the counters disagree after the load: {findings[0]}")


def _measure(crew: Crew, what: str, name: str, *, target: str | None) -> None:
    ours: list[float] = []
    raw: list[float] = []
    rates: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        first, took_first = crew.run("ours", what, SECONDS)
        between, took_between = crew.run("raw", what, SECONDS)
        last, took_last = crew.run("ours", what, SECONDS)
        rates.append(((first + last) / 2, between))
        ours += [*took_first, *took_last]
        raw += took_between
    peer = "the same statements by bare psycopg"
    connections = PROCESSES * THREADS
    record(
        benchmark="budget",
        metric=f"{name}, {connections} connections, median rate",
        value=statistics.median(mine for mine, _ in rates),
        unit="1/s",
        n=len(ours),
        target=target,
        peer=peer,
        peer_value=statistics.median(other for _, other in rates),
        ratio=statistics.median(mine / other for mine, other in rates),
    )
    for label, percent in (("median", 50), ("p99", 99)):
        record(
            benchmark="budget",
            metric=f"{name}, {connections} connections, {label}",
            value=percentile(ours, percent) * 1e3,
            unit="ms",
            n=len(ours),
            peer=peer,
            peer_value=percentile(raw, percent) * 1e3,
        )


@benchmark("budget alone")
def alone() -> None:
    """One connection, nobody competes: what one request waits for, on each backend."""
    leaves, chance, ready = paths()[-1], random.Random(1), Precomputed.make()

    def opened(url: str) -> Store:
        store = open_store(url, clock=SystemClock())
        plant(store)
        for path in leaves:
            our_hold(store, path)
        return store

    with LocalPostgres() as server, tempfile.TemporaryDirectory() as folder:
        url = server.new_database()
        shared, local = opened(url), opened(f"sqlite:///{Path(folder)}/cagg.db")
        with psycopg.connect(url, autocommit=True) as connection:
            pairs = paired(
                lambda: our_hold(shared, chance.choice(leaves)),
                lambda: raw_hold(connection, ready, chance.choice(leaves)),
                rounds=200,
            )
        record(
            benchmark="budget alone",
            metric="hold + decision on PostgreSQL, median",
            value=pairs.ours * 1e3,
            unit="ms",
            n=200,
            peer="the same statements by bare psycopg",
            peer_value=pairs.peer * 1e3,
            ratio=pairs.ratio,
        )
        seconds = times(lambda: our_hold(local, chance.choice(leaves)), rounds=400)
        record(
            benchmark="budget alone",
            metric="hold + decision on SQLite, median",
            value=statistics.median(seconds) * 1e3,
            unit="ms",
            n=len(seconds),
        )
        shared.close()
        local.close()
