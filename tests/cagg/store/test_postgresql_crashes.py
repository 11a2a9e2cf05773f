"""Clients killed in mid-transaction and a server that crashes under load: what was acknowledged is there."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.clock import SystemClock
from cagg.errors import StoreUnavailable
from cagg.ledger.encoding import decode
from cagg.ledger.entry import append
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.ports import Store
from cagg.records import Period, ReservationState
from cagg.store.engine import open_store
from cagg.testing.budgets import ask, budget, die_holding
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import draft
from cagg.testing.workers import acknowledged_keys, recorded_work, sequence_until

PATHS = ("acme/a", "acme/b", "acme/scarce")
SCARCE = 20


@pytest.fixture(scope="module")
def workers() -> ForkServerContext:
    """Processes that start quickly: they are forked from one that has imported everything and opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cagg.testing.workers"])
    return context


@pytest.fixture(scope="module")
def server() -> Iterator[LocalPostgres]:
    """A server of this module's own: it crashes, and no other test shall notice."""
    with LocalPostgres() as server:
        yield server


@pytest.fixture
def url(server: LocalPostgres) -> Iterator[str]:
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, clock=SystemClock())
    yield store
    store.close()


def wait_for(folder: Path, count: int, running: list[BaseProcess]) -> None:
    """Wait until the workers have acknowledged so many requests; a worker that fails ends the wait."""
    clock = SystemClock()
    for _ in range(6_000):
        if len(acknowledged_keys(folder)) >= count:
            return
        assert not any(worker.exitcode for worker in running), "a worker failed before the crash"
        clock.sleep(0.01)
    raise AssertionError(f"the workers acknowledged {len(acknowledged_keys(folder))} of {count} requests in a minute")


def crash_under_load(
    url: str,
    store: Store,
    server: LocalPostgres,
    workers: ForkServerContext,
    folder: Path,
    *,
    processes: int,
    requests: int,
) -> None:
    with store.transaction() as tx:
        set_budget(tx, budget("acme", 10**9, period=Period.TOTAL))
        for path in PATHS:
            set_budget(tx, budget(path, SCARCE if path.endswith("scarce") else 10**9, period=Period.TOTAL))
    said, stop = folder / "said", folder / "stop"
    said.mkdir()
    running: list[BaseProcess] = []
    for number in range(processes):
        name = f"w{number}"
        worker = workers.Process(target=recorded_work, args=(url, name, PATHS, requests, str(said / name)))
        worker.start()
        running.append(worker)
    sequencer = workers.Process(target=sequence_until, args=(url, str(stop)))
    sequencer.start()

    victims = running[: processes // 3]
    for number, victim in enumerate(victims, start=1):
        wait_for(said, number * requests // 3, running[len(victims) :])
        victim.kill()
        victim.join()
    wait_for(said, processes * requests // 3, running[len(victims) :])
    server.kill_immediately()
    server.restart()
    for worker in running:
        worker.join(timeout=120)
    stop.touch()
    sequencer.join(timeout=120)
    assert [worker.exitcode for worker in running] == [-signal.SIGKILL] * len(victims) + [0] * (
        processes - len(victims)
    )
    assert sequencer.exitcode == 0
    check_everything(store, acknowledged_keys(said), finished=(processes - len(victims)) * requests)


def check_everything(store: Store, acknowledged: set[str], *, finished: int) -> None:
    with store.transaction() as tx:
        while sequence(tx):
            pass
    with store.snapshot() as tx:
        assert reservations.audit(tx) == ()
        report = verify(tx, [])
        assert report.failures == ()
        recorded: dict[str, list[str]] = {"decision": [], "settlement": []}
        for entry in tx.entries():
            body = decode(entry.body)
            recorded[str(entry.kind)].append(body["request_key"])
        asked = {key for key in acknowledged if not key.endswith("settled")}
        settled = {key.removesuffix(" settled") for key in acknowledged - asked}
        assert asked <= set(recorded["decision"]), "an acknowledged decision is missing"
        assert settled <= set(recorded["settlement"]), "an acknowledged settlement is missing"
        for keys in recorded.values():
            assert len(keys) == len(set(keys)), "something was recorded twice"
        assert len(asked) >= finished
        for key in settled:
            found = tx.reservations(series_key=f"series {key}")
            assert [one.state for one in found] == [ReservationState.SETTLED]
        (scarce,) = tx.allotments("acme/scarce")
        assert scarce.held + scarce.spent == SCARCE, "a scarce budget is used up exactly, whatever crashed"
        assert scarce.overrun == 0


def test_killed_clients_and_a_crashed_server_lose_nothing_that_was_acknowledged(
    url: str, store: Store, server: LocalPostgres, workers: ForkServerContext, tmp_path: Path
) -> None:
    crash_under_load(url, store, server, workers, tmp_path, processes=6, requests=45)


@pytest.mark.prove
@pytest.mark.parametrize("repetition", range(2))
def test_crashes_at_length_lose_nothing(
    url: str, store: Store, server: LocalPostgres, workers: ForkServerContext, tmp_path: Path, repetition: int
) -> None:
    crash_under_load(url, store, server, workers, tmp_path, processes=16, requests=250)


def test_a_client_that_dies_in_its_transaction_leaves_nothing_and_blocks_nobody(
    url: str, store: Store, workers: ForkServerContext
) -> None:
    with store.transaction() as tx:
        set_budget(tx, budget("acme", 100, period=Period.TOTAL))
    for when in ("before", "after"):
        worker = workers.Process(target=die_holding, args=(url, "acme", when))
        worker.start()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    with store.transaction() as tx:  # takes the locks that the dead client held
        assert ask(tx, "mine", "acme", 95)[0] is not None
        assert tx.reservation("killed before") is None
        ended = {one.request_key: one for one in reservations.expire(tx, now=tx.now() + timedelta(minutes=10))}
        assert set(ended["killed after"].amounts.values()) == {5}
    with store.snapshot() as tx:
        assert reservations.audit(tx) == ()


def test_a_server_that_went_away_is_one_clear_error_and_comes_back(
    url: str, store: Store, server: LocalPostgres
) -> None:
    with store.transaction() as tx:
        append(tx, draft("before"))

    def record_through_a_crash() -> None:
        with store.transaction() as tx:
            append(tx, draft("during"))
            server.kill_immediately()
            append(tx, draft("after"))

    with pytest.raises(StoreUnavailable) as caught:
        record_through_a_crash()
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreUnavailable), store.snapshot() as tx:
        tx.tree_size()
    server.restart()
    with store.transaction() as tx:
        assert tx.queued() == 1
        append(tx, draft("again"))
    with store.snapshot() as tx:
        assert tx.queued() == 2
