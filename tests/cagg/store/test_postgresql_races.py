"""Many processes on one PostgreSQL store: limits hold, nothing is lost or doubled, nobody waits in a circle."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.clock import SystemClock
from cagg.errors import IdempotencyConflict
from cagg.ledger.entry import append
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.ports import Store
from cagg.quantities import Unit
from cagg.records import Period
from cagg.store.engine import open_store
from cagg.testing.budgets import ask, budget
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import draft
from cagg.testing.workers import meet_at_random, race_recorded, sequence_until

PROCESSES = 16
LEVELS = {
    # which level binds: limits of organisation, team, leaf
    "leaf": (1_000, 1_000, 30),
    "team": (1_000, 30, 1_000),
    "root": (30, 1_000, 1_000),
}
OVER_THE_LIMIT = """
SELECT count(*) FROM (
  SELECT a.limit_amount + a.extra AS granted,
         sum(j.d_held + j.d_spent) OVER (PARTITION BY j.allotment_id ORDER BY j.journal_id) AS committed
  FROM cagg_journal j JOIN cagg_allotment a USING (allotment_id)
) AS running WHERE committed > granted
"""
"""Rows of an allotment are numbered while it is locked, so their order is the order of its changes."""


@pytest.fixture(scope="module")
def workers() -> ForkServerContext:
    """Processes that start quickly: they are forked from one that has imported everything and opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cagg.testing.workers"])
    return context


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = open_store(postgres_url, clock=SystemClock())
    yield store
    store.close()


def sound(store: Store) -> int:
    """Sequence what waits, check the whole ledger and all counters, and return the tree's size."""
    with store.transaction() as tx:
        while sequence(tx):
            pass
    with store.snapshot() as tx:
        assert reservations.audit(tx) == ()
        report = verify(tx, [])
        assert report.failures == ()
        assert tx.queued() == 0
        return tx.tree_size()


def race_on_three_levels(
    url: str, store: Store, server: LocalPostgres, workers: ForkServerContext, *, tries: int
) -> None:
    with store.transaction() as tx:
        for name, limits in LEVELS.items():
            for path, limit in zip((name, f"{name}/team", f"{name}/team/leaf"), limits, strict=True):
                set_budget(tx, budget(path, limit, period=Period.TOTAL))
    paths = [f"{name}/team/leaf" for name in LEVELS]
    with workers.Pool(PROCESSES) as pool:
        asked = [(url, worker, paths, tries) for worker in range(PROCESSES)]
        admitted = pool.starmap(race_recorded, asked, chunksize=1)
    totals = [sum(column) for column in zip(*admitted, strict=True)]
    assert totals == [30, 30, 30], f"each level admits exactly its limit, although {PROCESSES * tries} were asked"
    assert sound(store) == PROCESSES * tries * len(paths)
    assert server.execute(OVER_THE_LIMIT, url=url) == "0"
    with store.snapshot() as tx:
        for allotment in tx.allotments():
            assert (allotment.held + allotment.spent, allotment.overrun) == (30, 0)


def test_sixteen_processes_race_for_the_last_microgram_at_each_level(
    postgres_url: str, store: Store, postgres: LocalPostgres, workers: ForkServerContext
) -> None:
    race_on_three_levels(postgres_url, store, postgres, workers, tries=4)


@pytest.mark.prove
def test_the_race_for_the_last_microgram_at_length(
    postgres_url: str, store: Store, postgres: LocalPostgres, workers: ForkServerContext
) -> None:
    race_on_three_levels(postgres_url, store, postgres, workers, tries=200)


# ---- the tree -------------------------------------------------------------------------------------------------------


def write_while_sequencing(
    url: str, store: Store, workers: ForkServerContext, folder: Path, *, writers: int, entries: int
) -> None:
    with store.transaction() as tx:
        set_budget(tx, budget("acme", 10**9, period=Period.TOTAL))
    stop = folder / "stop"
    with workers.Pool(2) as sequencers, workers.Pool(writers) as pool:
        sequenced = sequencers.starmap_async(sequence_until, [(url, str(stop))] * 2, chunksize=1)
        pool.starmap(race_recorded, [(url, number, ["acme"], entries) for number in range(writers)], chunksize=1)
        stop.touch()
        counts = sequenced.get(timeout=120)
    assert sum(counts) == writers * entries, "every entry was given a place once, by one of the two"
    with store.snapshot() as tx:
        assert tx.queued() == 0
        assert [entry.index for entry in tx.entries()] == list(range(writers * entries))
    assert sound(store) == writers * entries


def test_two_sequencers_at_once_give_dense_places_and_lose_nothing(
    postgres_url: str, store: Store, workers: ForkServerContext, tmp_path: Path
) -> None:
    write_while_sequencing(postgres_url, store, workers, tmp_path, writers=4, entries=40)


@pytest.mark.prove
def test_two_sequencers_keep_up_with_sixteen_writers(
    postgres_url: str, store: Store, workers: ForkServerContext, tmp_path: Path
) -> None:
    write_while_sequencing(postgres_url, store, workers, tmp_path, writers=16, entries=250)


# ---- one key, many hands --------------------------------------------------------------------------------------------


def at_once(work: Callable[[int], str], count: int = 12) -> list[str]:
    """Run the work in that many threads which all begin together, and return what they said."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> str:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.mark.parametrize("attempt", range(5))
def test_the_same_entry_recorded_by_many_at_once_is_one_entry(store: Store, attempt: int) -> None:
    def record(number: int) -> str:
        with store.transaction() as tx:
            return append(tx, draft("same", value=1)).entry_id

    assert len(set(at_once(record))) == 1
    assert sound(store) == 1


def test_one_of_many_different_entries_under_one_key_wins(store: Store) -> None:
    def record(number: int) -> str:
        try:
            with store.transaction() as tx:
                append(tx, draft("same", value=number))
        except IdempotencyConflict:
            return "refused"
        return "kept"

    assert sorted(at_once(record)) == ["kept"] + ["refused"] * 11
    assert sound(store) == 1


def test_the_same_request_asked_by_many_at_once_holds_once(store: Store) -> None:
    with store.transaction() as tx:
        for path in ("acme", "acme/ml"):
            set_budget(tx, budget(path, 1_000))

    def hold(number: int) -> str:
        with store.transaction() as tx:
            stored, _ = ask(tx, "same", "acme/ml", 7)
            return "refused" if stored is None else "held"

    assert set(at_once(hold)) == {"held"}
    with store.snapshot() as tx:
        assert {one.held for one in tx.allotments()} == {7}
    sound(store)


def test_a_period_opened_by_many_at_once_is_opened_once(store: Store) -> None:
    with store.transaction() as tx:
        for path in ("acme", "acme/ml"):
            set_budget(tx, budget(path, 1_000, unit=Unit.CARBON))

    def hold(number: int) -> str:
        with store.transaction() as tx:
            stored, _ = ask(tx, f"k{number}", "acme/ml", 1)
            return "refused" if stored is None else "held"

    assert set(at_once(hold)) == {"held"}
    with store.snapshot() as tx:
        assert [(one.budget.path, one.held) for one in tx.allotments()] == [("acme", 12), ("acme/ml", 12)]
    sound(store)


# ---- circles --------------------------------------------------------------------------------------------------------

CROSSING = ["acme/a/x", "acme/a/y", "acme/b/x", "acme/b", "other/a", "acme"]


def meet(url: str, store: Store, workers: ForkServerContext, *, processes: int, steps: int) -> None:
    with store.transaction() as tx:
        for path in sorted({*CROSSING, "acme/a", "other"}):
            for unit, period in ((Unit.CARBON, Period.DAY), (Unit.CARBON, Period.MONTH), (Unit.ENERGY, Period.WEEK)):
                set_budget(tx, budget(path, 100, unit=unit, period=period))
    with workers.Pool(processes) as pool:
        held = pool.starmap(meet_at_random, [(url, seed, CROSSING, steps) for seed in range(processes)], chunksize=1)
    assert sum(held) > 0
    sound(store)


def test_random_meetings_on_the_same_budgets_and_requests_end_in_no_circle(
    postgres_url: str, store: Store, workers: ForkServerContext
) -> None:
    meet(postgres_url, store, workers, processes=8, steps=40)


@pytest.mark.prove
def test_random_meetings_at_length_end_in_no_circle(
    postgres_url: str, store: Store, workers: ForkServerContext
) -> None:
    meet(postgres_url, store, workers, processes=16, steps=600)
