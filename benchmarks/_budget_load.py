"""What the benchmark of budgets does: requests, the store's way to hold and settle them, and the bare driver's way.

Both ways read and write the same rows of the same tables and commit as often. The bare one is what an engineer would
write by hand for PostgreSQL: one statement per table, rows locked in one order, everything precomputed that can be.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.gating import Gate
from cagg.ledger.encoding import decode
from cagg.ledger.entry import ENVELOPE, append, idempotency_key
from cagg.ports import Store, Transaction
from cagg.quantities import Energy, Unit
from cagg.records import Budget, BudgetMode, EntryDraft, EntryKind, Period, Reservation, ReservationState
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.settings import load_settings

TEAMS, PROJECTS, PIPELINES = 4, 4, 4
"""Children of the organisation, of each team and of each project: 1, 4, 16 and 64 budgets."""

AMOUNT = 1_000
ENERGY = Energy(millijoules=3_600_000)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def paths() -> list[list[str]]:
    """Return the paths of the tree, one list per level, from the organisation down."""
    levels = [["org"]]
    for children in (TEAMS, PROJECTS, PIPELINES):
        levels.append([f"{parent}/{number}" for parent in levels[-1] for number in range(children)])
    return levels


def plant(store: Store) -> None:
    """Create the tree: enforced budgets that are never reached."""
    with store.transaction() as tx:
        for path in (path for level in paths() for path in level):
            set_budget(
                tx,
                Budget(
                    path=path,
                    unit=Unit.CARBON,
                    period=Period.MONTH,
                    time_zone="UTC",
                    limit=2**62,
                    mode=BudgetMode.ENFORCE,
                ),
            )


@cache
def decision_fields() -> dict[str, Any]:
    """Return the fields of a decision as a gate records it: asked with a day's forecast and a budget of four levels."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
        rows = ["start,g_per_kwh"]
        rows += [f"{(start + timedelta(minutes=30 * n)).isoformat()},{150 + n % 24}" for n in range(97)]
        (folder / "trace.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (folder / "cagg.toml").write_text(
            'zone = "trace:GB"\ntimezone = "UTC"\n[grid.trace]\nfile = "trace.csv"\nname = "GB"\n', encoding="utf-8"
        )
        environ = {"CAGG_HOME": str(folder / "home"), "CAGG_CONFIG": str(folder / "cagg.toml")}
        gate = Gate.open(settings=load_settings(environ=environ, start=folder))
        plant(gate.components.store)
        leaf = paths()[-1][0]
        options = GateOptions(zone="trace:GB", duration="1m", energy="1 Wh", max_wait="2h", budget=leaf)
        identity = RequestIdentity(host="local", root_run_id="run", task_key="bench")
        gate.ask(Request(identity=identity, options=options, host=HostProfile(name="local")))
        with gate.components.store.snapshot() as tx:
            (entry,) = tx.entries(kind=EntryKind.DECISION)
        gate.components.store.close()
    body = decode(entry.body)
    assert isinstance(body, dict)
    return {name: value for name, value in body.items() if name not in ENVELOPE}


# ---- ours ---------------------------------------------------------------------------------------------------------


def _reservation(key: str, path: str, now: datetime) -> Reservation:
    return Reservation(
        request_key=key,
        series_key=key,
        host="local",
        root_run_id="run",
        task_key="bench",
        attempt=1,
        budget_path=path,
        state=ReservationState.WAITING,
        first_asked_at=now,
        deadline=None,
        asks=1,
        deferrals=0,
        planning_intensity_milligrams_per_kwh=100_000,
        planning_basis="declared",
        planned_start=now,
        upper_energy=ENERGY,
        holds=(),
        lease_until=None,
        lease_epoch=0,
        last_beat_at=None,
        started_at=None,
        used_energy=Energy.ZERO,
        last_power_milliwatts=0,
        encloses_run=False,
        created_at=now,
        updated_at=now,
    )


def _ask(tx: Transaction, key: str, path: str) -> None:
    now = tx.now()
    headrooms = reservations.assess(tx, path=path, amounts={Unit.CARBON: AMOUNT}, energy=ENERGY, at=now, ignoring=key)
    if reservations.refusals(headrooms):
        raise RuntimeError("the benchmark's budgets must never be reached")
    append(tx, EntryDraft(kind=EntryKind.DECISION, request_key=key, ordinal=0, body=decision_fields()))
    reservations.hold(tx, _reservation(key, path, now), headrooms)


def our_hold(store: Store, path: str) -> None:
    """Hold on four levels with the decision's entry, in one transaction."""
    with store.transaction() as tx:
        _ask(tx, uuid.uuid4().hex, path)


def our_cycle(store: Store, path: str) -> None:
    """Hold, start and record; then, in a second transaction, settle and record."""
    key = uuid.uuid4().hex
    with store.transaction() as tx:
        _ask(tx, key, path)
        reservations.start(tx, key, expected_power_milliwatts=1_000)
    with store.transaction() as tx:
        done = reservations.settle(tx, key, 1, {Unit.CARBON: AMOUNT // 2})
        charged = {"carbon": str(done.amounts[Unit.CARBON])}
        body = {"outcome": str(done.state), "measurement_id": None, "charged": charged}
        append(tx, EntryDraft(kind=EntryKind.SETTLEMENT, request_key=key, ordinal=0, body=body))


# ---- the bare driver ----------------------------------------------------------------------------------------------

_FIND_RESERVATION = "SELECT * FROM cagg_reservation WHERE request_key = %s FOR UPDATE"
_FIND_HOLDS = "SELECT allotment_id, amount FROM cagg_hold WHERE request_key = %s"
_BUDGETS = """
SELECT * FROM cagg_budget b WHERE path = ANY(%s) AND NOT EXISTS (
  SELECT FROM cagg_budget n
  WHERE (n.path, n.unit, n.period) = (b.path, b.unit, b.period) AND n.version > b.version)
"""
_LOCK = """
SELECT allotment_id, limit_amount + extra - held - spent FROM cagg_allotment
WHERE path = ANY(%s) AND unit = 'carbon' AND period = 'month' AND starts_us <= %s AND ends_us > %s
ORDER BY starts_us, path, unit, period FOR UPDATE
"""
_LOCK_HELD = """
SELECT allotment_id FROM cagg_allotment WHERE allotment_id = ANY(%s)
ORDER BY starts_us, path, unit, period FOR UPDATE
"""
_COUNT = "UPDATE cagg_allotment SET held = held + %s, spent = spent + %s WHERE allotment_id = ANY(%s)"
_JOURNAL = """
INSERT INTO cagg_journal (allotment_id, request_key, kind, d_held, d_spent, d_overrun, at_us)
SELECT unnest(%s::bigint[]), %s, %s, %s, %s, 0, %s
"""
_RESERVE = """
INSERT INTO cagg_reservation (
  request_key, series_key, host, root_run_id, task_key, attempt, budget_path, state, first_asked_us, asks, deferrals,
  planning_intensity_milligrams_per_kwh, planning_basis, planned_start_us, upper_energy_millijoules, lease_epoch,
  used_energy_millijoules, last_power_milliwatts, encloses_run, created_us, updated_us)
VALUES (%s, %s, 'local', 'run', 'bench', 1, %s, 'waiting', %s, 1, 0, 100000, 'declared', %s, 3600000, 0, 0, 0, 0, %s,
  %s)
"""
_HOLD = "INSERT INTO cagg_hold (request_key, allotment_id, unit, amount) SELECT %s, unnest(%s::bigint[]), 'carbon', %s"
_START = """
UPDATE cagg_reservation SET state = 'running', lease_until_us = %s, lease_epoch = 1, last_beat_us = %s, started_us = %s,
  last_power_milliwatts = 1000, updated_us = %s WHERE request_key = %s
"""
_END = "UPDATE cagg_reservation SET state = 'settled', updated_us = %s WHERE request_key = %s"
_END_HOLDS = "UPDATE cagg_hold SET amount = %s WHERE request_key = %s"
_FIND_ENTRY = """
SELECT e.entry_id, e.kind, e.idempotency_key, e.body, e.leaf_hash, l.leaf_index, e.recorded_us
FROM cagg_entry e LEFT JOIN cagg_leaf l ON l.log_id = e.log_id AND l.entry_id = e.entry_id
WHERE e.log_id = 1 AND e.idempotency_key = %s
"""
_ENTRY = """
INSERT INTO cagg_entry (log_id, entry_id, idempotency_key, body, leaf_hash, kind, recorded_us, request_key, host,
  root_run_id, task_key, attempt, budget_path)
VALUES (1, %s, %s, %s, %s, %s, %s, %s, 'local', 'run', 'bench', 1, %s)
"""
_QUEUE = "INSERT INTO cagg_queue (log_id, entry_id, leaf_hash, queued_us) VALUES (1, %s, %s, %s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Precomputed:
    """What the bare loop need not compute while it is measured."""

    decision: bytes
    settlement: bytes
    leaf_hash: bytes

    @classmethod
    def make(cls) -> Precomputed:
        """Bodies of the size that the ledger stores."""
        envelope = {
            "v": 1,
            "kind": "decision",
            "log": "x" * 30,
            "entry_id": "x" * 36,
            "idempotency_key": "x" * 64,
            "request_key": "x" * 32,
            "ordinal": 0,
            "recorded_at": "x" * 27,
        }
        decision = json.dumps({**decision_fields(), **envelope}, separators=(",", ":")).encode()
        settlement = json.dumps({"request": None, "state": "settled", **envelope}, separators=(",", ":")).encode()
        return cls(decision=decision, settlement=settlement, leaf_hash=hashlib.sha256(decision).digest())


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _record(cursor: psycopg.Cursor[Any], ready: Precomputed, kind: EntryKind, key: str, path: str, now: int) -> None:
    entry_id, idempotency = str(uuid.uuid4()), idempotency_key(kind, key, 0)
    body = ready.decision if kind is EntryKind.DECISION else ready.settlement
    cursor.execute(_FIND_ENTRY, (idempotency,)).fetchone()
    cursor.execute(_ENTRY, (entry_id, idempotency, body, ready.leaf_hash, kind.value, now, key, path))
    cursor.execute(_QUEUE, (entry_id, ready.leaf_hash, now))


def _raw_ask(cursor: psycopg.Cursor[Any], ready: Precomputed, key: str, path: str, now: int) -> None:
    wanted = _ancestors(path)
    cursor.execute(_FIND_RESERVATION, (key,)).fetchone()
    cursor.execute(_BUDGETS, (wanted,)).fetchall()
    locked = cursor.execute(_LOCK, (wanted, now, now)).fetchall()
    if len(locked) != len(wanted) or any(available < AMOUNT for _, available in locked):
        raise RuntimeError("the benchmark's budgets must be open and never be reached")
    ids = [allotment_id for allotment_id, _ in locked]
    _record(cursor, ready, EntryKind.DECISION, key, path, now)
    cursor.execute(_COUNT, (AMOUNT, 0, ids))
    cursor.execute(_JOURNAL, (ids, key, "hold", AMOUNT, 0, now))
    cursor.execute(_RESERVE, (key, key, path, now, now, now, now))
    cursor.execute(_HOLD, (key, ids, AMOUNT))


def _now_us() -> int:
    return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)


def raw_hold(connection: psycopg.Connection[Any], ready: Precomputed, path: str) -> None:
    """The statements of :func:`our_hold`."""
    with connection.transaction(), connection.cursor() as cursor:
        _raw_ask(cursor, ready, uuid.uuid4().hex, path, _now_us())


def raw_cycle(connection: psycopg.Connection[Any], ready: Precomputed, path: str) -> None:
    """The statements of :func:`our_cycle`."""
    key, now = uuid.uuid4().hex, _now_us()
    with connection.transaction(), connection.cursor() as cursor:
        _raw_ask(cursor, ready, key, path, now)
        cursor.execute(_START, (now + 300_000_000, now, now, now, key))
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_FIND_RESERVATION, (key,)).fetchone()
        ids = [allotment_id for allotment_id, _ in cursor.execute(_FIND_HOLDS, (key,)).fetchall()]
        cursor.execute(_LOCK_HELD, (ids,)).fetchall()
        cursor.execute(_COUNT, (-AMOUNT, AMOUNT // 2, ids))
        cursor.execute(_JOURNAL, (ids, key, "settle", -AMOUNT, AMOUNT // 2, now))
        cursor.execute(_END, (now, key))
        cursor.execute(_END_HOLDS, (AMOUNT // 2, key))
        _record(cursor, ready, EntryKind.SETTLEMENT, key, path, now)
