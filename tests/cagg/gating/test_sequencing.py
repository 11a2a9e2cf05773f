"""Entries get their places while ``maintain`` runs: between the passes too, one sequencer at a time, and not after it
was told to stop; a store that goes away is said once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cagg.composition import Components
from cagg.errors import StoreUnavailable
from cagg.gating import Gate
from cagg.ledger.entry import append
from cagg.ledger.report import FailureKind
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.maintenance import between_passes, maintain
from cagg.ports import RunState, Store, Transaction
from cagg.request import HostProfile
from cagg.steps import sequencing
from cagg.steps.sequencing import Sequencer, lag_of
from cagg.testing.stores import draft

Make = Callable[..., Gate]


class WatchedStore:
    """Counts transactions, is down for as long as it is told, and does something before a transaction when asked."""

    def __init__(self, store: Store) -> None:
        self._store, self.url = store, store.url
        self.looks, self.writes = 0, 0
        self.down = False
        self.before_look: Callable[[], None] = lambda: None

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        self.looks += 1
        self.before_look()
        if self.down:
            raise StoreUnavailable("the store is gone")
        with self._store.snapshot() as tx:
            yield tx

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self.writes += 1
        with self._store.transaction() as tx:
            yield tx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def store_address(postgres_url: str) -> str:
    """Where entries wait: in a file every append gives the place itself."""
    return postgres_url


@pytest.fixture
def parts(make_gate: Make) -> Components:
    """The components of a gate whose entries wait for a sequencer."""
    components = make_gate().components
    with components.store.transaction():
        pass
    return replace(components, store=WatchedStore(components.store))  # type: ignore[arg-type]


def watched(parts: Components) -> WatchedStore:
    assert isinstance(parts.store, WatchedStore)
    return parts.store


def write(parts: Components, *names: str) -> None:
    with watched(parts)._store.transaction() as tx:
        for name in names:
            append(tx, draft(name))


def elsewhere(work: Callable[[], object]) -> None:
    """Do something in another thread, which may have a transaction of its own, to its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def sizes(parts: Components) -> tuple[int, int, int]:
    """(in the tree, waiting, signed)."""
    with watched(parts)._store.snapshot() as tx:
        last = tx.last_checkpoint()
        return tx.tree_size(), tx.queued(), 0 if last is None else last.size


def run(parts: Components, sequencer: Sequencer, seconds: float) -> list[str]:
    said: list[str] = []
    between_passes(parts, sequencer, seconds=seconds, say=said.append)
    return said


# ---- a pass ---------------------------------------------------------------------------------------------------------


def test_a_pass_places_everything_batch_by_batch(parts: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencing, "_AT_ONCE", 3)
    write(parts, *(f"k{number}" for number in range(10)))
    report = maintain(parts, hosts={})
    assert (report.sequenced, report.waiting, report.problems) == (10, 0, ())
    assert report.lag_seconds is not None
    assert report.lag_seconds >= 0
    assert sizes(parts) == (10, 0, 10)
    again = maintain(parts, hosts={})
    assert (again.sequenced, again.lag_seconds, again.waiting) == (0, None, 0)


def test_nothing_is_ever_passed_over(parts: Components) -> None:
    """An entry that commits after one with a later queue id was placed is placed by the next step."""
    store = watched(parts)._store
    with store.transaction() as early:
        append(early, draft("early"))
        sequencer = Sequencer(parts)
        elsewhere(lambda: write(parts, "late"))
        elsewhere(sequencer.drain)
        assert sizes(parts)[0] == 1
    sequencer.drain()
    assert sizes(parts)[:2] == (2, 0)
    with store.snapshot() as tx:
        assert verify(tx, []).failures == ()


def test_the_lag_is_that_of_the_entry_that_waited_longest(parts: Components) -> None:
    with watched(parts)._store.transaction() as tx:
        append(tx, draft("a"))
        connection: Any = tx.connection  # type: ignore[attr-defined]
        connection.exec_driver_sql("UPDATE cagg_queue SET queued_us = queued_us - 90000000")
    with watched(parts)._store.snapshot() as tx:
        lag = lag_of(tx)
    assert lag.waiting == 1
    assert lag.oldest is not None
    assert timedelta(seconds=90) <= lag.oldest < timedelta(seconds=120)
    report = maintain(parts, hosts={})
    assert report.lag_seconds is not None
    assert 90 <= report.lag_seconds < 120
    assert report.problems == (), "it has its place now"


def test_what_still_waits_after_a_pass_is_a_problem(parts: Components) -> None:
    """Another sequencer that hangs holds the log: the pass ends, and says so."""
    with watched(parts)._store.transaction() as tx:
        append(tx, draft("a"))
        append(tx, draft("b"))
        connection: Any = tx.connection  # type: ignore[attr-defined]
        connection.exec_driver_sql("UPDATE cagg_queue SET queued_us = queued_us - 90000000")
    with watched(parts)._store.transaction() as hanging:
        assert sequence(hanging, 1) == 1
        reports: list[Any] = []
        elsewhere(lambda: reports.append(maintain(parts, hosts={})))
    (report,) = reports
    assert (report.sequenced, report.waiting) == (0, 2)
    assert len(report.problems) == 1
    assert "2 entries still wait" in report.problems[0]
    assert maintain(parts, hosts={}).problems == ()


def test_what_anybody_may_put_into_the_queue_keeps_nobody_waiting(parts: Components) -> None:
    """A gate's role may insert any row there: no hash, no time."""
    with watched(parts)._store.transaction() as tx:
        bad = append(tx, draft("no hash")).entry_id
        connection: Any = tx.connection  # type: ignore[attr-defined]
        connection.exec_driver_sql("UPDATE cagg_queue SET leaf_hash = 'x', queued_us = -9223372036854775808")
    write(parts, *(f"e{number}" for number in range(300)))
    report = maintain(parts, hosts={})
    assert (report.sequenced, report.waiting, sizes(parts)) == (300, 1, (300, 1, 300))
    with watched(parts)._store.snapshot() as tx:
        assert lag_of(tx).waiting == 1
        assert tx.queue_faults() == [bad]
        assert {FailureKind.QUEUE, FailureKind.BODY} <= {failure.kind for failure in verify(tx, []).failures}


def test_a_slow_engine_does_not_keep_entries_waiting(parts: Components, bench: Any) -> None:
    """While a pass asks about one run after the other, what comes in meanwhile gets its place."""
    for number in range(3):
        gate = Gate(replace(parts, store=watched(parts)._store))
        gate.ask(bench.request(f"run-{number}", host=HostProfile(name="local", can_defer=True)))
    maintain(parts, hosts={})
    before = sizes(parts)[0]
    seen: list[int] = []

    class SlowRuns:
        name = "local"

        def run_state(self, root_run_id: str, reference: str = "") -> RunState:
            seen.append(sizes(parts)[0] - before)
            write(parts, f"meanwhile {len(seen)}")
            parts.clock.sleep(20)
            return RunState.ALIVE

        def describe(self) -> dict[str, str]:
            return {}

    report = maintain(parts, hosts={"local": SlowRuns()})
    assert seen == [0, 1, 2]
    assert (report.sequenced, report.waiting) == (3, 0)


# ---- between the passes ---------------------------------------------------------------------------------------------


def test_entries_get_their_places_between_the_passes(parts: Components) -> None:
    sequencer = Sequencer(parts)
    write(parts, "a")
    began = parts.clock.monotonic_ns()
    assert run(parts, sequencer, 1.0) == []
    assert parts.clock.monotonic_ns() - began == 1_000_000_000
    assert sizes(parts) == (1, 0, 0)
    write(parts, "b")
    report = maintain(parts, hosts={}, sequencer=sequencer)
    assert report.sequenced == 2, "what was placed since the last report"
    assert sizes(parts) == (2, 0, 2)


def test_a_quiet_queue_is_looked_at_once_a_second_and_never_locked(parts: Components) -> None:
    store = watched(parts)
    run(parts, Sequencer(parts), 60.0)
    assert store.writes == 0
    assert 58 <= store.looks <= 64


def test_a_busy_queue_is_looked_at_four_times_a_second(parts: Components) -> None:
    store, names = watched(parts), iter(range(1_000))
    store.before_look = lambda: write(parts, f"k{next(names)}")
    run(parts, Sequencer(parts), 10.0)
    assert 38 <= store.looks <= 41
    assert sizes(parts)[:2] == (store.looks, 0)


def test_a_backlog_is_worked_off_without_a_pause(parts: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencing, "_AT_ONCE", 5)
    write(parts, *(f"k{number}" for number in range(52)))
    run(parts, Sequencer(parts), 0.3)
    assert sizes(parts)[:2] == (52, 0)


def test_many_new_entries_are_signed_before_the_next_pass(parts: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencing, "_SIGNED_AFTER", 10)
    sequencer = Sequencer(parts)
    write(parts, *(f"a{number}" for number in range(9)))
    run(parts, sequencer, 1.0)
    assert sizes(parts) == (9, 0, 0)
    write(parts, "b")
    run(parts, sequencer, 1.0)
    assert sizes(parts) == (10, 0, 10)
    write(parts, *(f"c{number}" for number in range(30)))
    run(parts, sequencer, 8.0)
    assert sizes(parts) == (40, 0, 10), "not more often than every ten seconds"
    write(parts, "d")
    run(parts, sequencer, 3.0)
    assert sizes(parts) == (41, 0, 41)
    write(parts, *(f"e{number}" for number in range(9)))
    run(parts, sequencer, 60.0)
    assert sizes(parts) == (50, 0, 41)


def test_a_stop_ends_the_wait_and_begins_no_further_batch(parts: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencing, "_AT_ONCE", 5)
    store, stop = watched(parts), threading.Event()
    write(parts, *(f"k{number}" for number in range(50)))
    store.before_look = lambda: stop.set() if store.looks == 3 else None
    sequencer = Sequencer(parts, stop=stop)
    run(parts, sequencer, 3_600.0)
    assert sizes(parts)[:2] == (15, 35), "the batch that was under way was kept"
    sequencer.drain()
    run(parts, sequencer, 3_600.0)
    assert sizes(parts)[:2] == (20, 30)


def test_a_store_that_goes_away_is_said_once_and_tried_less_often(parts: Components) -> None:
    store = watched(parts)
    store.down = True

    def back_after_ten() -> None:
        store.down = store.looks <= 10

    store.before_look = back_after_ten
    write(parts, "a")
    began = parts.clock.now()
    said = run(parts, Sequencer(parts), 600.0)
    assert said == ["the store is gone", "the store answers again; entries get their places."]
    assert sizes(parts)[:2] == (1, 0)
    assert parts.clock.now() - began == timedelta(seconds=600)
    store.looks, store.before_look, store.down = 0, lambda: None, True
    assert run(parts, Sequencer(parts), 600.0) == ["the store is gone"]
    assert store.looks < 30


def test_two_maintainers_share_the_work(parts: Components) -> None:
    """Each entry gets one place, whoever gives it; neither waits for the other for long."""
    other = replace(parts, store=watched(parts)._store)
    mine, theirs = Sequencer(parts), Sequencer(other)
    write(parts, *(f"k{number}" for number in range(300)))
    threads = [threading.Thread(target=one.drain) for one in (mine, theirs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine.drain()
    assert mine.tally()[0] + theirs.tally()[0] == 300
    assert maintain(parts, hosts={}).signed_size == maintain(other, hosts={}).signed_size == 300
    with watched(parts)._store.snapshot() as tx:
        report = verify(tx, [])
    assert (report.failures, report.size) == ((), 300)


# ---- a file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store_address", [None])
def test_in_a_file_nothing_waits_and_nobody_looks(make_gate: Make, store_address: None) -> None:
    components = make_gate().components
    with components.store.transaction() as tx:
        append(tx, draft("a"))
    store = WatchedStore(components.store)
    shared = replace(components, store=store)  # type: ignore[arg-type]
    between_passes(shared, Sequencer(shared), seconds=3_600.0, say=pytest.fail)
    assert (store.looks, store.writes) == (2, 0), "once at the beginning, once at the end of the hour"
    report = maintain(shared, hosts={})
    assert (report.sequenced, report.lag_seconds, report.waiting, report.signed_size) == (0, None, 0, 1)
