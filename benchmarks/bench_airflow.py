"""What the gate costs around an operator, what a DAG file pays for the decorators, and what a thousand sensors cost.

Needs Airflow: ``make bench ONLY=airflow`` runs it in the environment of the Airflow adapter. The triggerer is a real
``airflow triggerer`` on a SQLite database; its thousand tasks are deferred by the scheduler's own code; the grid
source is a fake on the loopback interface that counts what it is asked.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _harness import benchmark, paired, percentile, record

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def _environment(home: Path, **more: str) -> dict[str, str]:
    """Return this process's environment with an Airflow and a cagg of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "CAGG_"))}
    return {
        **own,
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__CAGG__ENABLED": "True",
        "CAGG_HOME": str(home / "cagg"),
        "CAGG_CONFIG": str(home / "cagg.toml"),
        **more,
    }


# ---- execute ------------------------------------------------------------------------------------------------------


def _context(task: Any) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="bench",
        run_id=str(time.perf_counter_ns()),
        task_id=task.task_id,
        map_index=-1,
        try_number=1,
        max_tries=0,
        xcom_push=lambda key, value: None,
    )
    return {"ti": ti, "task": task, "dag_run": SimpleNamespace(run_type="manual"), "dag": SimpleNamespace()}


@benchmark("airflow execute")
def execute() -> None:
    """An admitted task's ``execute`` against the bare operator's: ask, hold, meter, settle, three ledger entries."""
    if find_spec("airflow") is None:
        print("  left out: Airflow is not installed here; run: make bench ONLY=airflow")
        return
    from bench_gate import _home, _open

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update({**_home(folder), "AIRFLOW__CAGG__ENABLED": "True", "AIRFLOW_HOME": f"{folder}/airflow"})
        os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
        from airflow.sdk import BaseOperator

        from cagg_airflow import GateOptions, carbon_aware, opening

        class Nothing(BaseOperator):
            def execute(self, context: Any) -> None:
                return None

        gate = _open(folder)
        opening.find_connection = lambda name: None  # type: ignore[assignment]  # no Airflow to ask in a benchmark
        options = GateOptions(duration="1m", energy="1 Wh", max_wait="2h", budget="acme/ml/nightly")
        gated, bare = carbon_aware(Nothing)(task_id="gated", carbon=options), Nothing(task_id="bare")
        pairs = paired(
            lambda: gated.execute(_context(gated)), lambda: bare.execute(_context(bare)), rounds=100, warm_up=20
        )
        extra = [mine - other for mine, other in zip(pairs.ours_seconds, pairs.peer_seconds, strict=True)]
        for metric, value in (("median", statistics.median(extra)), ("p95", percentile(extra, 95))):
            record(
                benchmark="airflow execute",
                metric=f"admitted task over the bare operator, {metric}",
                value=value * 1e3,
                unit="ms",
                n=len(extra),
                target="value <= 25" if metric == "median" else None,
            )
        gate.components.store.close()


# ---- parse --------------------------------------------------------------------------------------------------------

_PARSE = """
import sys, time
from airflow.sdk import DAG, task
import airflow.providers.standard.decorators.python

def work():
    return 1

with DAG("warm", schedule=None):
    task(work)()

touched = []
watched = ("socket.connect", "sqlite3.connect")
sys.addaudithook(lambda event, arguments: touched.append(event) if event in watched else None)
start = time.perf_counter()
from cagg_airflow.decorators import carbon_aware_task
imported = time.perf_counter() - start
with DAG("gated", schedule=None):
    carbon_aware_task(zone="GB", finish_by="06:00", budget="acme/ml/nightly")(work)()
whole = time.perf_counter() - start
start = time.perf_counter()
with DAG("plain", schedule=None):
    task(work)()
plain = time.perf_counter() - start
import json
print(json.dumps({"imported": imported, "added": whole - plain, "touched": touched}))
"""


@benchmark("airflow parse")
def parse() -> None:
    """What the decorator adds to the parse of a DAG file that uses ``@task`` anyway, in a fresh process."""
    if find_spec("airflow") is None:
        print("  left out: Airflow is not installed here; run: make bench ONLY=airflow")
        return
    with tempfile.TemporaryDirectory() as name:
        found = []
        for _ in range(9):
            done = subprocess.run(
                [sys.executable, "-c", _PARSE],
                env=_environment(Path(name)),
                check=True,
                capture_output=True,
                text=True,
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    touched = sorted({event for one in found for event in one["touched"]})
    if touched:
        raise RuntimeError(f"the parse opened {', '.join(touched)}")
    for metric, key, target in (
        ("importing the decorators, median", "imported", "value <= 20"),
        ("import and one gated task less a plain one, median", "added", None),
    ):
        record(
            benchmark="airflow parse",
            metric=metric,
            value=statistics.median(one[key] for one in found) * 1e3,
            unit="ms",
            n=len(found),
            target=target,
        )


# ---- triggerer ----------------------------------------------------------------------------------------------------


class _Source(BaseHTTPRequestHandler):
    """Answers like api.carbonintensity.org.uk: from the asked minute on, cleanest 20 hours later."""

    asked: list[str] = []  # noqa: RUF012  (one server per process)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        now = datetime.now(UTC)
        start = now.replace(minute=now.minute - now.minute % 30, second=0, microsecond=0)
        rows = []
        for number in range(96):
            begin, end = start + timedelta(minutes=30 * number), start + timedelta(minutes=30 * (number + 1))
            value = 120 + 10 * abs(number - 40)
            rows.append(
                {
                    "from": f"{begin:%Y-%m-%dT%H:%MZ}",
                    "to": f"{end:%Y-%m-%dT%H:%MZ}",
                    "intensity": {"forecast": value, "actual": None, "index": "moderate"},
                }
            )
        body = json.dumps({"data": rows}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def _source() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Source)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def _load(environ: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(HERE / "_airflow_load.py"), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr[-3000:]}")
    return done.stdout


@contextmanager
def _triggerer(environ: dict[str, str], log: Path) -> Iterator[int]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"],
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _cpu_seconds(pid: int) -> dict[int, float]:
    import psutil

    top = psutil.Process(pid)
    return {one.pid: sum(one.cpu_times()[:2]) for one in (top, *top.children(recursive=True))}


def _share(pid: int, seconds: float) -> tuple[float, float]:
    """Return the share of one core in percent that the triggerer took: all of it, and the process with the loop."""
    before, start = _cpu_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    after, wall = _cpu_seconds(pid), time.perf_counter() - start
    used = {one: after[one] - before.get(one, 0.0) for one in after}
    loop = sum(value for one, value in used.items() if one != pid)
    return 100 * sum(used.values()) / wall, 100 * loop / wall


def _settled(environ: dict[str, str], wanted: int) -> None:
    for _ in range(60):
        found = json.loads(_load(environ, "count").splitlines()[-1])
        if found["taken"] >= wanted:
            break
        time.sleep(2)
    else:
        raise RuntimeError(f"the triggerer took {found} of {wanted} triggers")
    time.sleep(30)  # all of them started, and the first look at the grid is over


@benchmark("airflow triggers")
def triggers() -> None:
    """A thousand waiting sensors in a real triggerer: its processor time over an empty one, and what the grid's source
    is asked. Beside it a thousand of Airflow's own DateTimeTrigger, in a triggerer of the same kind."""
    if find_spec("airflow") is None:
        print("  left out: Airflow is not installed here; run: make bench ONLY=airflow")
        return
    sys.path.insert(0, str(HERE))
    from _airflow_load import DAG_FILE, SENSORS

    shares: dict[str, tuple[float, float, float, float]] = {}
    waiting = 0
    seconds = float(os.environ.get("BENCH_SECONDS", "60"))
    with _source() as url:
        for dag_id in ("bench_peer", "bench"):
            with tempfile.TemporaryDirectory() as name:
                home = Path(name)
                (home / "dags").mkdir()
                (home / "dags" / "bench.py").write_text(DAG_FILE, encoding="utf-8")
                (home / "cagg.toml").write_text(
                    f'timezone = "UTC"\n[grid]\nsteering = ["neso"]\n[grid.neso]\nurl = "{url}"\n', encoding="utf-8"
                )
                environ = _environment(home)
                _load(environ, "migrate")
                with _triggerer(environ, home / "triggerer.log") as pid:
                    time.sleep(25)
                    empty = _share(pid, seconds)
                    _Source.asked.clear()
                    _load(environ, "defer", dag_id, str(1_000 // SENSORS))
                    _settled(environ, 1_000)
                    full = _share(pid, seconds)
                    shares[dag_id] = (*empty, *full)
                    state = json.loads(_load(environ, "count").splitlines()[-1])
                    if state["deferred"] != 1_000:
                        log = (home / "triggerer.log").read_text(encoding="utf-8")[-3000:]
                        raise RuntimeError(f"{state} instead of 1000 deferred tasks: {log}")
                    waiting = state["deferred"]
                print("  ", dag_id, shares[dag_id], len(_Source.asked), "requests")
    ours, peer = shares["bench"], shares["bench_peer"]
    record(
        benchmark="airflow triggers",
        metric="triggerer's loop with 1000 sensors less with none, percent of a core",
        value=max(0.0, ours[3] - ours[1]),
        unit="%",
        n=1_000,
        target="value <= 2",
        peer="1000 DateTimeTrigger",
        peer_value=max(0.0, peer[3] - peer[1]),
    )
    record(
        benchmark="airflow triggers",
        metric="whole triggerer with 1000 sensors less with none, percent of a core",
        value=max(0.0, ours[2] - ours[0]),
        unit="%",
        n=1_000,
        target="value <= 2",
        peer="1000 DateTimeTrigger",
        peer_value=max(0.0, peer[2] - peer[0]),
    )
    record(
        benchmark="airflow triggers",
        metric="worker slots taken by 1000 waiting sensors",
        value=1_000 - waiting,
        unit="1",
        n=1_000,
        target="value <= 0",
    )
    record(
        benchmark="airflow triggers",
        metric="requests to the source per zone and vintage",
        value=len(_Source.asked) / max(1, len({path.split("/")[-2] for path in _Source.asked})),
        unit="1",
        n=1_000,
        target="value <= 1",
    )
