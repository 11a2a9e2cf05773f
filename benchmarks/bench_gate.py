"""What the gate costs around an admitted no-op, in a warm process, in a fresh one, and what importing cagg costs.

SQLite with synchronous=FULL, a forecast in the cache, an enforced budget over three levels, the real meter. The raw
peer is what any such gate must do at least: two flushed transactions of one insert each, by the bare driver.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from _harness import benchmark, paired, percentile, record

from cagg.gating import Gate
from cagg.quantities import Unit
from cagg.records import Budget, BudgetMode, Period
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.settings import load_settings
from cagg.steps.budgets import change_budget

_OPTIONS = GateOptions(zone="trace:GB", duration="1m", energy="1 Wh", max_wait="2h", budget="acme/ml/nightly")


def _home(folder: Path) -> dict[str, str]:
    """Write a configuration with a trace of 48 hours from now, and return the environment that names it."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    rows = ["start,g_per_kwh"]
    for half_hour in range(97):
        instant = start + timedelta(minutes=30 * half_hour)
        rows += [f"{instant.isoformat()},{150 + 100 * (half_hour % 24) / 24:.1f}"]
    (folder / "trace.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "cagg.toml").write_text(
        'zone = "trace:GB"\ntimezone = "UTC"\n[grid.trace]\nfile = "trace.csv"\nname = "GB"\n', encoding="utf-8"
    )
    return {"CAGG_HOME": str(folder / "home"), "CAGG_CONFIG": str(folder / "cagg.toml")}


def _open(folder: Path) -> Gate:
    gate = Gate.open(settings=load_settings(environ=_home(folder), start=folder))
    with gate.components.store.transaction() as tx:
        for path in ("acme", "acme/ml", "acme/ml/nightly"):
            for unit in (Unit.CARBON, Unit.ENERGY):
                change_budget(
                    tx,
                    Budget(
                        path=path,
                        unit=unit,
                        period=Period.MONTH,
                        time_zone="UTC",
                        limit=10**15,
                        mode=BudgetMode.ENFORCE,
                    ),
                )
    return gate


def _cycle(gate: Gate) -> None:
    identity = RequestIdentity(host="local", root_run_id=str(uuid.uuid4()), task_key="bench")
    request = Request(identity=identity, options=_OPTIONS, host=HostProfile(name="local"))
    with gate.run(gate.ask(request)):
        pass


def _raw(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE entry (id TEXT PRIMARY KEY, body BLOB)")
    return connection


def _raw_cycle(connection: sqlite3.Connection) -> None:
    for _ in range(2):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO entry VALUES (?, ?)", (str(uuid.uuid4()), b"x" * 2_000))
        connection.execute("COMMIT")


@benchmark("gate warm")
def warm() -> None:
    """Decide + meter + settle around nothing, in a process that has done so before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gate, raw = _open(folder), _raw(folder)
        pairs = paired(lambda: _cycle(gate), lambda: _raw_cycle(raw), rounds=150, warm_up=20)
        ours, peer = pairs.ours_seconds, pairs.peer_seconds
        peer_name = "2 raw inserts, FULL"
        record(
            benchmark="gate warm",
            metric="admitted no-op, median",
            value=statistics.median(ours) * 1e3,
            unit="ms",
            n=len(ours),
            target="value <= 15",
            peer=peer_name,
            peer_value=statistics.median(peer) * 1e3,
        )
        record(
            benchmark="gate warm",
            metric="admitted no-op, p95",
            value=percentile(ours, 95) * 1e3,
            unit="ms",
            n=len(ours),
            target="value <= 50",
            peer=peer_name,
            peer_value=percentile(peer, 95) * 1e3,
        )


_FRESH = """
import cagg
with cagg.gate("bench", zone="trace:GB", duration="1m", energy="1 Wh", max_wait="2h", budget="acme/ml/nightly"):
    pass
import json, sys
print(json.dumps("alembic" in sys.modules))
"""


def _spawn(code: str, environ: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environ}, check=True, capture_output=True, text=True
    )
    return done.stdout


@benchmark("gate fresh process")
def fresh() -> None:
    """A whole process: interpreter, imports, one admitted no-op. Alembic must not be imported."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gate = _open(folder)
        _cycle(gate)
        environ = _home(folder)
        seen: list[bool] = []
        pairs = paired(
            lambda: seen.append(json.loads(_spawn(_FRESH, environ))),
            lambda: _spawn("import sqlalchemy, numpy", environ),
            rounds=10,
            warm_up=2,
        )
        ours, bare = pairs.ours_seconds, pairs.peer_seconds
        if any(seen):
            raise RuntimeError("alembic was imported on the path of a gate")
        record(
            benchmark="gate fresh process",
            metric="process with one admitted no-op, median",
            value=statistics.median(ours) * 1e3,
            unit="ms",
            n=len(ours),
            target="value <= 600",
            peer="python -c 'import sqlalchemy, numpy'",
            peer_value=statistics.median(bare) * 1e3,
        )


@benchmark("gate import")
def importing() -> None:
    """``import cagg``, less the interpreter's own start."""
    code = "import time; t = time.perf_counter(); import cagg; print(time.perf_counter() - t)"
    with tempfile.TemporaryDirectory() as name:
        environ = _home(Path(name))
        seconds = [float(_spawn(code, environ)) for _ in range(15)]
        record(
            benchmark="gate import",
            metric="import cagg, median",
            value=statistics.median(seconds) * 1e3,
            unit="ms",
            n=len(seconds),
            target="value <= 80",
        )
