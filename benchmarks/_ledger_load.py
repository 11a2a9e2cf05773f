"""What the benchmark of the ledger does: entries of realistic size, the bare drivers' way to write the same rows, the
peer's way to keep the same payloads, and the processes that write to PostgreSQL and sequence there.

The peer is ledgerchain 0.1.0 (MIT): a hash chain with Merkle checkpoints on SQLAlchemy, on the same SQLite settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
from _budget_load import decision_fields

from cagg.clock import SystemClock
from cagg.composition import compose
from cagg.ledger.entry import append, append_many
from cagg.ledger.notes import verifier_key
from cagg.maintenance import between_passes
from cagg.ports import Store
from cagg.records import EntryDraft, EntryKind
from cagg.settings import load_settings
from cagg.steps.sequencing import Sequencer
from cagg.store.engine import open_store
from cagg.testing.stores import MemorySigner

ORIGIN = "example.org/bench"
SIGNER = MemorySigner(ORIGIN)
KEY = str(verifier_key(SIGNER))
PEER = "ledgerchain 0.1.0"
PAGES = 4_000
"""The write-ahead log is copied back every 16 MB on every side, as the store has it."""

_LEFT_OUT = frozenset({"budgets", "budgets_now", "forecast", "proposal", "question"})

# ---- entries ------------------------------------------------------------------------------------------------------


@cache
def _templates() -> tuple[tuple[EntryKind, dict[str, Any]], ...]:
    """Bodies as a gate records them: the decision (without budgets and forecast), the measurement and the settlement of
    one run, 0.5 to 2 KB each."""
    decision = {name: value for name, value in decision_fields().items() if name not in _LEFT_OUT}
    request = decision["request"]
    times = [f"2026-11-23T0{hour}:{minute}:00.000000Z" for hour in (1, 2) for minute in ("00", "30")]
    slices = [
        {
            "start": start,
            "end": end,
            "energy_millijoules": "1234567890",
            "intensity_milligrams_per_kwh": "123456",
            "source": "neso 2026-11-23T03:00:00Z",
        }
        for start, end in pairwise(times)
    ]
    energy = 3 * 1_234_567_890
    component = {
        "domain": "cpu",
        "source": "rapl",
        "method": "share of processor time in the process tree",
        "grade": "B",
        "energy_millijoules": str(energy),
        "dynamic_millijoules": "3000000000",
        "idle_millijoules": str(energy - 3_000_000_000),
        "low_millijoules": "3500000000",
        "high_millijoules": "3900000000",
        "share_ppm": 765_432,
        "reason": "",
    }
    measurement = {
        "request": request,
        "start": times[0],
        "end": times[3],
        "outcome": "completed",
        "part_of": None,
        "energy_millijoules": str(energy),
        "energy_low_millijoules": "3500000000",
        "energy_high_millijoules": "3900000000",
        "energy_reason": "",
        "grade": "B",
        "slices": slices,
        "pue_ppm": None,
        "carbon_micrograms": str(-(-energy * 123_456 // 3_600_000)),
        "carbon_reason": "",
        "convention": {"signal": "average", "basis": "direct", "gas": "co2"},
        "components": [component],
        "cpu_milliseconds": 5_400_000,
        "gpu_milliseconds": None,
        "notes": [],
        "hardware": [{"name": "cpu", "value": "AMD EPYC 7B13"}],
    }
    settlement = {
        "request": {name: request[name] for name in ("key", "host", "root_run_id", "task_key", "attempt")},
        "outcome": "settled",
        "budget_path": "org/0/0/0",
        "measurement_id": None,
        "held": [{"allotment": 1, "unit": "carbon", "amount": "200000000"}],
        "charged": {"carbon": "127012345"},
        "differences": {"carbon": "127012345"},
        "overrun": [],
        "planning_basis": "declared",
        "lease_ms": 5_400_000,
        "late": False,
        "unpriced": [],
        "note": "",
    }
    return (
        (EntryKind.DECISION, decision),
        (EntryKind.MEASUREMENT, measurement),
        (EntryKind.SETTLEMENT, settlement),
    )


def drafts(first: int, count: int, *, salt: str = "") -> list[EntryDraft]:
    """Return drafts with keys of their own: three entries per run, as a gate writes them."""
    found = []
    for number in range(first, first + count):
        kind, body = _templates()[number % 3]
        key = hashlib.sha256(f"{salt}{number // 3}".encode()).hexdigest()
        found.append(EntryDraft(kind=kind, request_key=key, ordinal=0, body=body))
    return found


def grow(store: Store, first: int, count: int, *, batch: int = 2_000) -> None:
    """Append many."""
    for start in range(first, first + count, batch):
        with store.transaction() as tx:
            append_many(tx, drafts(start, min(batch, first + count - start)))


# ---- SQLite: the bare driver ----------------------------------------------------------------------------------------


class RawFile:
    """A file with the store's tables, and the rows that the store wrote for the same drafts, ready to be inserted."""

    def __init__(self, folder: Path, count: int) -> None:
        source = folder / "source.db"
        store = open_store(str(source), clock=SystemClock(), origin=ORIGIN)
        grow(store, 0, count)
        store.close()
        self._entries, self._leaves, self._tiles = _stored_rows(source)
        target = folder / "raw.db"
        empty = open_store(str(target), clock=SystemClock(), origin=ORIGIN)
        with empty.transaction():
            pass
        empty.close()
        self._connection = sqlite3.connect(target, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._connection.execute(f"PRAGMA wal_autocheckpoint={PAGES}")
        self._next = 0

    def insert(self, count: int) -> None:
        """Insert the rows of the next entries in one transaction."""
        rows = slice(self._next, self._next + count)
        self._next += count
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        if count == 1:
            connection.execute(_insert("cagg_entry", self._entries[rows][0]), self._entries[rows][0])
            connection.execute(_insert("cagg_leaf", self._leaves[rows][0]), self._leaves[rows][0])
        else:
            connection.executemany(_insert("cagg_entry", self._entries[0]), self._entries[rows])
            connection.executemany(_insert("cagg_leaf", self._leaves[0]), self._leaves[rows])
        for tile in self._tiles:
            if rows.start < (tile[2] + 1) * 256 <= rows.stop and tile[1] == 0:
                connection.execute(_insert("cagg_tile", tile), tile)
        connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _insert(table: str, row: Sequence[Any]) -> str:
    return f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})"


def _stored_rows(path: Path) -> tuple[list[Any], list[Any], list[Any]]:
    with sqlite3.connect(path) as connection:
        leaves = connection.execute("SELECT * FROM cagg_leaf ORDER BY leaf_index").fetchall()
        entries = {row[1]: row for row in connection.execute("SELECT * FROM cagg_entry").fetchall()}
        tiles = connection.execute("SELECT * FROM cagg_tile ORDER BY level, number").fetchall()
    connection.close()
    return [entries[leaf[2]] for leaf in leaves], leaves, tiles


# ---- SQLite: the peer -----------------------------------------------------------------------------------------------


class PeerFile:
    """ledgerchain on a SQLite file with the same settings and its triggers against changes installed."""

    def __init__(self, path: Path) -> None:
        import ledgerchain
        from sqlalchemy import create_engine, event
        from sqlalchemy.orm import sessionmaker

        self._peer = ledgerchain
        engine = create_engine(f"sqlite:///{path}")

        @event.listens_for(engine, "connect")
        def _settings(raw: Any, _: object) -> None:
            raw.execute("PRAGMA journal_mode=WAL")
            raw.execute("PRAGMA synchronous=FULL")
            raw.execute(f"PRAGMA wal_autocheckpoint={PAGES}")

        ledgerchain.create_all(engine)
        self._engine = engine
        self._session = sessionmaker(engine)
        self._next = 0

    def append(self, count: int) -> None:
        """Append the next entries in one transaction."""
        wanted = drafts(self._next, count)
        self._next += count
        with self._session.begin() as session:
            for item in wanted:
                self._peer.LedgerWriter.append(
                    session,
                    event_type=str(item.kind),
                    payload=item.body,
                    actor={"host": "bench"},
                    tenant_id="bench",
                    subject_uri=item.request_key,
                )

    def verify(self) -> None:
        """Recompute the whole chain."""
        with self._session() as session:
            result = self._peer.verify_chain(session)
        if not result.valid or result.checked_entries < self._next:
            raise RuntimeError(f"the peer does not verify its own chain: {result.reason}")

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------

_ENTRY = """
INSERT INTO cagg_entry (log_id, entry_id, idempotency_key, body, leaf_hash, kind, recorded_us, request_key, host,
  root_run_id, task_key, attempt, budget_path, outcome, energy_millijoules, carbon_micrograms, grade)
VALUES (1, %s, %s, %s, %s, %s, %s, %s, 'local', 'run', 'bench', 1, 'org/0/0/0', %s, %s, %s, %s)
"""
_Ready = tuple[str, bytes, bytes, tuple[Any, ...]]
"""Kind, body, hash and further columns of a row."""

_QUEUE = "INSERT INTO cagg_queue (log_id, entry_id, leaf_hash, queued_us) VALUES (1, %s, %s, %s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What every writing process does next, from one instant of the monotonic clock to another."""

    side: str
    starts_at: float
    ends_at: float


def write_to_servers(ours: str, raw: str, threads: int, orders: Connection) -> None:
    """Carry out orders in threads with a connection each; the main function of a writing process."""
    store = open_store(f"{ours}?pool={threads}", clock=SystemClock())
    connections = [psycopg.connect(raw, autocommit=True) for _ in range(threads)]
    bodies = _raw_bodies()
    while (order := orders.recv()) is not None:
        counts = [0] * threads
        errors: list[str] = []

        def work(number: int, order: Order = order, counts: list[int] = counts, errors: list[str] = errors) -> None:
            chance = random.Random()
            try:
                time.sleep(max(0.0, order.starts_at - time.monotonic()))
                while time.monotonic() < order.ends_at:
                    if order.side == "ours":
                        _append_one(store, chance)
                    else:
                        _insert_one(connections[number], bodies, chance)
                    counts[number] += 1
            except BaseException as error:
                errors.append(repr(error))
                raise

        crew = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        orders.send(errors[0] if errors else sum(counts))
    for connection in connections:
        connection.close()
    store.close()


def _append_one(store: Store, chance: random.Random) -> None:
    kind, body = _templates()[chance.randrange(3)]
    with store.transaction() as tx:
        append(tx, EntryDraft(kind=kind, request_key=uuid.uuid4().hex, ordinal=0, body=body))


def _raw_bodies() -> list[_Ready]:
    """Bodies of the size that the ledger stores, with everything that can be computed before."""
    found = []
    for kind, body in _templates():
        envelope = {"v": 1, "kind": kind, "log": ORIGIN, "entry_id": "x" * 36, "idempotency_key": "x" * 64}
        envelope |= {"request_key": "x" * 32, "ordinal": 0, "recorded_at": "x" * 27}
        data = json.dumps({**body, **envelope}, separators=(",", ":")).encode()
        energy, carbon = (body.get(name) for name in ("energy_millijoules", "carbon_micrograms"))
        columns = (body.get("outcome"), energy and int(energy), carbon and int(carbon), body.get("grade"))
        found.append((str(kind), data, hashlib.sha256(data).digest(), columns))
    return found


def _insert_one(
    connection: psycopg.Connection[Any],
    bodies: Sequence[tuple[str, bytes, bytes, tuple[Any, ...]]],
    chance: random.Random,
) -> None:
    kind, data, digest, columns = bodies[chance.randrange(3)]
    entry_id, now_us = str(uuid.uuid4()), time.time_ns() // 1_000
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_ENTRY, (entry_id, os.urandom(32), data, digest, kind, now_us, uuid.uuid4().hex, *columns))
        cursor.execute(_QUEUE, (entry_id, digest, now_us))


def sequence_server(url: str, orders: Connection) -> None:
    """Run the sequencer as ``cagg maintain --every`` does between its passes, until something is received; then send
    (entries, longest wait of any of them in seconds) of each step. The main function of the sequencing process."""
    with tempfile.TemporaryDirectory() as home:
        environ = {"CAGG_HOME": home, "CAGG_STORE": url}
        components = compose(load_settings(environ=environ, start=Path(home)), clock=SystemClock())
        sequencer = Sequencer(components)
        steps: list[tuple[int, float]] = []
        orders.send("ready")
        while not orders.poll():
            begun = time.monotonic()
            between_passes(components, sequencer, seconds=0.25, say=print)
            placed, waited = sequencer.tally()
            if placed and waited is not None:
                # found waiting that long when the step began; its commit and the signature are in what the step took
                steps.append((placed, waited.total_seconds() + max(0.0, time.monotonic() - begun - 0.25)))
        orders.recv()
        orders.send(steps)
        components.store.close()
