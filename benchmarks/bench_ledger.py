"""The ledger: appending to a file and to PostgreSQL, verifying a million entries, and proving any one of them.

Each side of a pair writes the same rows: ours, a loop of the bare driver with everything computed beforehand, and a
peer from the package index that keeps the same payloads in a hash chain. ``BENCH_LEDGER_ENTRIES`` is the size of the
large log (default 1 000 000: some GB in the temporary folder, removed afterwards); the small one has a tenth of it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
from _harness import FOLDER, benchmark, paired, percentile, record, times
from _ledger_load import (
    KEY,
    ORIGIN,
    PEER,
    SIGNER,
    Order,
    PeerFile,
    RawFile,
    drafts,
    grow,
    sequence_server,
    write_to_servers,
)

from cagg.clock import SystemClock
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append, append_many
from cagg.ledger.proving import prove_entry
from cagg.ledger.verify import verify
from cagg.ports import Store
from cagg.store.engine import open_store
from cagg.testing.postgresql import LocalPostgres

LARGE = int(os.environ.get("BENCH_LEDGER_ENTRIES", "1000000"))
SMALL = LARGE // 10
CHAINED = min(20_000, SMALL)
"""Entries that the peer verifies too: it holds all of them in memory."""

PROCESSES, THREADS = 4, 8
ROUNDS, SECONDS = 3, 5.0
PROOFS = 2_000
WORKERS = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextlib.contextmanager
def _file(folder: Path, name: str) -> Iterator[Store]:
    store = open_store(str(folder / name), clock=SystemClock(), origin=ORIGIN)
    yield store
    store.close()


# ---- appending to a file --------------------------------------------------------------------------------------------


@benchmark("ledger append sqlite")
def append_to_a_file() -> None:
    """One entry per flushed transaction, and a hundred."""
    for batch, rounds in ((1, 400), (100, 40)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            raw = RawFile(folder, batch * (rounds + 10))
            with _file(folder, "ours.db") as store:
                ready = iter([drafts(n * batch, batch) for n in range(2 * rounds + 10)])

                def ours(store: Store = store, ready: Iterator[Any] = ready) -> None:
                    wanted = next(ready)
                    with store.transaction() as tx:
                        if len(wanted) == 1:
                            append(tx, wanted[0])
                        else:
                            append_many(tx, wanted)

                _both(batch, rounds, ours, raw, PeerFile(folder / "peer.db"))
            raw.close()


def _both(batch: int, rounds: int, ours: Any, raw: RawFile, chain: PeerFile) -> None:
    what = "one per transaction" if batch == 1 else f"{batch} per transaction"
    pairs = paired(ours, lambda: raw.insert(batch), rounds=rounds)
    seconds = times(lambda: chain.append(batch), rounds=max(10, rounds // 4))
    for peer, peer_seconds, ratio, target in (
        ("the same rows by bare sqlite3", pairs.peer, 1 / pairs.ratio, "ratio >= 0.4"),
        (PEER, statistics.median(seconds), None, None),
    ):
        record(
            benchmark="ledger append sqlite",
            metric=f"entries per second, {what}, beside {peer.split(' ', 1)[0] if ratio is None else 'sqlite3'}",
            value=batch / pairs.ours,
            unit="1/s",
            n=rounds,
            target=target,
            peer=peer,
            peer_value=batch / peer_seconds,
            ratio=ratio,
        )
    chain.close()


# ---- appending to PostgreSQL ----------------------------------------------------------------------------------------


class Crew:
    """The writing processes and the sequencing one."""

    def __init__(self, ours: str, raw: str) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._ours = ours
        self._processes: list[Any] = []
        self._writers = [self._begin(write_to_servers, ours, raw, THREADS) for _ in range(PROCESSES)]
        self._sequencer = self._begin(sequence_server, ours)
        self._sequencer.recv()

    def _begin(self, work: Any, *arguments: Any) -> Connection:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(*arguments, theirs))
        process.start()
        self._processes.append(process)
        return mine

    def run(self, side: str, seconds: float) -> tuple[int, float]:
        """Let all write; return how many entries, and after how many seconds the last of them had its place."""
        starts_at = time.monotonic() + 0.1
        for end in self._writers:
            end.send(Order(side=side, starts_at=starts_at, ends_at=starts_at + seconds))
        count = 0
        for end in self._writers:
            answer: Any = end.recv()
            if isinstance(answer, str):
                raise RuntimeError(f"{side}: {answer}")
            count += answer
        if side == "ours":
            with psycopg.connect(self._ours, autocommit=True) as connection:
                while connection.execute("SELECT 1 FROM cagg_queue LIMIT 1").fetchone() is not None:
                    time.sleep(0.01)
        return count, time.monotonic() - starts_at

    def end(self) -> list[tuple[int, float]]:
        """Send everybody home; return what the sequencer did, step by step."""
        self._sequencer.send(None)
        steps: list[tuple[int, float]] = self._sequencer.recv()
        for end in self._writers:
            end.send(None)
        for process in self._processes:
            process.join()
        return steps


@benchmark("ledger append postgresql")
def append_to_a_server() -> None:
    """32 connections, one entry per transaction, with a sequencer running."""
    with LocalPostgres() as server:
        ours, raw = server.new_database(), server.new_database()
        crew = Crew(ours, raw)
        written = sum(crew.run(side, 1.0)[0] * (side == "ours") for side in ("ours", "raw"))
        rates = []
        for _ in range(ROUNDS):
            first, between, last = (crew.run(side, SECONDS) for side in ("ours", "raw", "ours"))
            written += first[0] + last[0]
            rates.append(((first[0] / first[1] + last[0] / last[1]) / 2, between[0] / between[1]))
        steps = crew.end()
        store = open_store(ours, clock=SystemClock())
        with store.snapshot() as tx:
            report = verify(tx, [], workers=WORKERS)
        store.close()
    if report.failures or report.size != written or sum(placed for placed, _ in steps) != written:
        raise RuntimeError(f"{written} entries were written and {report.size} are in the log: {report.sentence}")
    record(
        benchmark="ledger append postgresql",
        metric=f"entries sequenced per second, {PROCESSES * THREADS} connections",
        value=statistics.median(mine for mine, _ in rates),
        unit="1/s",
        n=written,
        target="ratio >= 0.4",
        peer="the same rows by bare psycopg, nobody sequences them",
        peer_value=statistics.median(other for _, other in rates),
        ratio=statistics.median(mine / other for mine, other in rates),
    )
    lags = [lag for placed, lag in steps for _ in range(placed)]
    for label, percent, target in (("median", 50, None), ("p99", 99, "value <= 1")):
        record(
            benchmark="ledger append postgresql",
            metric=f"wait for the place in the log (of the batch's oldest entry), {label}",
            value=percentile(lags, percent),
            unit="s",
            n=len(lags),
            target=target,
        )


# ---- verifying and proving ------------------------------------------------------------------------------------------


@benchmark("ledger verify")
def verify_and_prove() -> None:
    """One log, verified at a tenth of its size and whole, in processes of their own; proofs of random entries."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _file(folder, "log.db") as store:
            _grow_and_sign(store, 0, SMALL)
            small = {mode: _verified(folder / "log.db", mode) for mode in ("full", "tree")}
            _grow_and_sign(store, SMALL, LARGE - SMALL)
            for mode, rate in (("full", 40_000), ("tree", 250_000)):
                _record_verification(mode, rate, small[mode], _verified(folder / "log.db", mode))
            alone = _verified(folder / "log.db", "full", workers=1)
            for per, seconds in (("second", "seconds"), ("second of its processor", "processor_seconds")):
                record(
                    benchmark="ledger verify",
                    metric=f"all of it, entries per {per} at {LARGE:,} entries, one process",
                    value=alone["entries"] / alone[seconds],
                    unit="1/s",
                    n=LARGE,
                )
            _prove(store)


def _grow_and_sign(store: Store, first: int, count: int) -> None:
    grow(store, first, count)
    with store.transaction() as tx:
        sign_checkpoint(tx, SIGNER)


def _verified(path: Path, mode: str, *, workers: int = WORKERS) -> dict[str, float]:
    """Verify in a new process, three times where that is quick; return the median run."""
    runs = []
    for _ in range(3 if LARGE <= 200_000 or mode == "tree" else 1):
        command = [sys.executable, str(FOLDER / "_ledger_verify.py"), str(path), mode, KEY, str(workers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    return sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]


def _record_verification(mode: str, rate: int, small: dict[str, float], large: dict[str, float]) -> None:
    how = "all of it" if mode == "full" else "--tree"
    helpers = f"{WORKERS} helping processes" if mode == "full" and WORKERS > 1 else "one process"
    entries = round(large["entries"])
    record(
        benchmark="ledger verify",
        metric=f"{how}, entries per second at {entries:,} entries, {helpers}",
        value=entries / large["seconds"],
        unit="1/s",
        n=entries,
        target=f"value >= {rate}",
    )
    record(
        benchmark="ledger verify",
        metric=f"{how}, peak memory at {entries:,} entries beside that at a tenth",
        value=large["peak_bytes"] / 1e6,
        unit="MB",
        n=entries,
        target="ratio <= 1.1",
        peer=f"itself at {round(small['entries']):,} entries",
        peer_value=small["peak_bytes"] / 1e6,
    )


def _prove(store: Store) -> None:
    chance = random.Random(1)

    def one() -> None:
        index = chance.randrange(LARGE)
        with store.snapshot() as tx:
            (entry,) = tx.entries(start=index, limit=1)
            proof = prove_entry(tx, entry)
        assert proof.index == index

    seconds = times(one, rounds=PROOFS)
    for label, percent in (("median", 50), ("p99", 99)):
        record(
            benchmark="ledger verify",
            metric=f"a proof for a random one of {LARGE:,} entries, its reading included, {label}",
            value=percentile(seconds, percent) * 1e3,
            unit="ms",
            n=PROOFS,
            target="value <= 5",
        )


@benchmark("ledger verify beside a peer")
def verify_beside_a_peer() -> None:
    """The same payloads in a log of ours and in the peer's chain, verified in turn in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chain = PeerFile(folder / "peer.db")
        for _ in range(0, CHAINED, 500):
            chain.append(min(500, CHAINED))
        with _file(folder, "log.db") as store:
            _grow_and_sign(store, 0, CHAINED)

            def ours() -> None:
                with store.snapshot() as tx:
                    if not verify(tx, [KEY]).verified:
                        raise RuntimeError("the log does not verify")

            pairs = paired(ours, chain.verify, rounds=3, warm_up=1)
        chain.close()
    record(
        benchmark="ledger verify beside a peer",
        metric=f"entries per second at {CHAINED:,} entries, one process",
        value=CHAINED / pairs.ours,
        unit="1/s",
        n=3,
        peer=PEER,
        peer_value=CHAINED / pairs.peer,
        ratio=1 / pairs.ratio,
    )
