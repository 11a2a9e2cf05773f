"""64 writers at once, every tenth request common to all, every tenth taken back: nothing lost, nothing doubled."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from cagg.clock import SystemClock
from cagg.ledger.entry import read_body
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.ports import Store
from cagg.store.engine import open_store
from cagg.testing.postgresql import LocalPostgres

WRITERS = """
import sys, threading
from cagg.clock import SystemClock
from cagg.ledger.entry import append
from cagg.store.engine import open_store
from cagg.testing.stores import draft

url, name, threads, entries, gated = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
store = open_store(url, clock=SystemClock(), lock_timeout_seconds=120)
go, speaking = threading.Event(), threading.Lock()


class TakeBack(Exception):
    pass


def say(line):
    with speaking:
        print(line, flush=True)


def write(thread):
    for number in range(entries):
        share = (number + thread) % 10
        key = f"common-{number}" if share == 0 else f"gone-{name}-{thread}-{number}" if share == 1 else None
        key = key or f"{name}-{thread}-{number}"
        try:
            with store.transaction() as tx:
                if gated and number == 0:
                    say("ready -")
                    go.wait()
                append(tx, draft(key, text="x" * 200))
                if share == 1:
                    raise TakeBack
        except TakeBack:
            say(f"taken {key}")
        else:
            say(f"kept {key}")


crowd = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
for one in crowd:
    one.start()
if gated:
    sys.stdin.readline()
    go.set()
for one in crowd:
    one.join()
store.close()
"""


class Told(NamedTuple):
    """What the writers said."""

    kept: list[str]
    taken: list[str]


class Crowd:
    """Processes of several threads each, all of which write to one store."""

    def __init__(self, url: str, *, processes: int, threads: int, entries: int, gated: bool) -> None:
        self.count = processes * threads
        self._running = [
            subprocess.Popen(
                [sys.executable, "-c", WRITERS, url, f"p{number}", str(threads), str(entries), str(int(gated))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        self._threads = threads

    def wait_at_the_gate(self) -> None:
        """Return when every writer stands in an open transaction of its own."""
        for process in self._running:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(self._threads)] == ["ready -\n"] * self._threads

    def finish(self) -> Told:
        lines = [line.split() for process in self._running for line in process.communicate("go\n")[0].splitlines()]
        assert [process.returncode for process in self._running] == [0] * len(self._running)
        return Told([key for word, key in lines if word == "kept"], [key for word, key in lines if word == "taken"])


def check(store: Store, told: Told, *, tries: int) -> None:
    """Each acknowledged request has one entry, each taken back none, and the places are dense."""
    assert len(told.kept) + len(told.taken) == tries
    with store.snapshot() as tx:
        entries = list(tx.entries())
        keys = [read_body(tx, entry)["request_key"] for entry in entries]
        report = verify(tx, [])
    assert report.failures == ()
    assert (report.size, report.queued) == (len(entries), 0)
    assert [entry.index for entry in entries] == list(range(len(entries)))
    assert sorted(keys) == sorted(set(told.kept))
    assert not set(keys) & set(told.taken)
    common = [key for key in told.kept if key.startswith("common")]
    assert len(common) > len(set(common)) > 0


def on_a_file(folder: Path, *, processes: int, threads: int, entries: int) -> None:
    url = str(folder / "s.db")
    store = open_store(url, clock=SystemClock())
    store.migrate()
    told = Crowd(url, processes=processes, threads=threads, entries=entries, gated=False).finish()
    check(store, told, tries=processes * threads * entries)
    store.close()


def on_a_server(server: LocalPostgres, url: str, *, processes: int, threads: int, entries: int) -> None:
    """A sequencer works meanwhile: what commits late must not be missed."""
    store = open_store(url, clock=SystemClock())
    crowd = Crowd(url, processes=processes, threads=threads, entries=entries, gated=True)
    crowd.wait_at_the_gate()
    open_transactions = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    assert int(server.execute(open_transactions)) == processes * threads
    done = threading.Event()

    def place() -> None:
        while not done.wait(0.01):
            with store.transaction() as tx:
                sequence(tx, 7)

    with ThreadPoolExecutor(1) as pool:
        placing = pool.submit(place)
        try:
            told = crowd.finish()
        finally:
            done.set()
        placing.result()
    with store.transaction() as tx:
        while sequence(tx):
            pass
    check(store, told, tries=processes * threads * entries)
    store.close()


def test_64_writers_on_a_file(tmp_path: Path) -> None:
    on_a_file(tmp_path, processes=8, threads=8, entries=10)


def test_64_connections_to_a_server(postgres: LocalPostgres, postgres_url: str) -> None:
    on_a_server(postgres, postgres_url, processes=4, threads=16, entries=10)


@pytest.mark.prove
def test_64_writers_on_a_file_at_length(tmp_path: Path) -> None:
    on_a_file(tmp_path, processes=8, threads=8, entries=300)


@pytest.mark.prove
def test_64_connections_to_a_server_at_length(postgres: LocalPostgres, postgres_url: str) -> None:
    on_a_server(postgres, postgres_url, processes=8, threads=8, entries=300)
