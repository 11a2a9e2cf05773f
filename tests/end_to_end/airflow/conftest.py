"""A real Airflow with its scheduler, DAG processor, triggerer and API server, and a cagg home of one's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from cagg.budget._auditing import audit
from cagg.clock import SystemClock
from cagg.composition import Components, compose
from cagg.quantities import Unit
from cagg.records import Budget, BudgetMode, Entry, Period
from cagg.settings import load_settings
from cagg.steps.budgets import change_budget
from cagg_airflow.testing import LocalAirflow

DAGS = Path(__file__).with_name("dags")
POOL = "one_slot"
BUDGET = "acme/ml/nightly"
DIRTY, CLEAN = 400, 40
SLOT_SECONDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Everything a test touches.

    Attributes:
        airflow: the running installation.
        home: of cagg: settings, keys, spool, and the store unless it is a server.
        marks: folder of the files to which tasks append a line when their work runs.
        store: URL of the store; None = SQLite in the home.
        pace_seconds: how long a run of one small task took here, from the trigger to its end.
    """

    airflow: LocalAirflow
    home: Path
    marks: Path
    store: str | None = None
    pace_seconds: float = 5.0

    def dirty_slots(self, tasks: int) -> int:
        """How many slots a trace must be dirty so that tasks that are triggered now, four at a time, all ask more than
        30 s before it gets clean: a shorter wait is never deferred."""
        return max(4, ceil((32 + self.pace_seconds * (2 + tasks / 4)) / SLOT_SECONDS))

    def night_ahead(self, tasks: int) -> None:
        """Let a night begin now in which so many tasks are deferred; the shortest that this machine can play."""
        self.configure([DIRTY] * self.dirty_slots(tasks) + [CLEAN] * 12 + [DIRTY] * 60)

    def configure(self, trace: list[int], *, lease: str = "8s") -> None:
        """Let a trace begin now: one value in g/kWh for each 15 seconds."""
        start = datetime(2026, 3, 1, tzinfo=UTC)
        rows = [f"{(start + index * timedelta(minutes=30)).isoformat()},{value}" for index, value in enumerate(trace)]
        (self.home / "trace.csv").write_text("start,g_per_kwh\n" + "\n".join(rows) + "\n")
        store = "" if self.store is None else f'store = "{self.store}"\n'
        (self.home / "cagg.toml").write_text(
            f'{store}zone = "trace:night"\ntimezone = "UTC"\n'
            '[grid]\nsteering = ["trace"]\naccounting = ["trace"]\nplanning_intensity = "400 g/kWh"\n'
            f'[grid.trace]\nfile = "trace.csv"\nname = "night"\ntime_scale = {1800 // SLOT_SECONDS}\n'
            f'anchor = "{datetime.now(UTC).isoformat()}"\n'
            # after a few nights the ledger knows how small these tasks are
            '[policy]\nmateriality = "0 Wh"\n'
            f'[reservation]\nlease = "{lease}"\nbeat = "1s"\n'
            f'[defaults]\nbudget = "{BUDGET}"\nenergy = "1 kWh"\nduration = "5s"\nmax_wait = "8m"\n'
        )

    def environment(self) -> dict[str, str]:
        """What turns a process into a user of this home."""
        return {"CAGG_HOME": str(self.home), "CAGG_CONFIG": str(self.home / "cagg.toml")}

    def components(self) -> Components:
        """Open the store as another process would."""
        return compose(load_settings(environ=self.environment()))

    def set_budget(self, grams: int = 100_000) -> None:
        with self.components().store.transaction() as tx:
            change_budget(
                tx,
                Budget(
                    path=BUDGET,
                    unit=Unit.CARBON,
                    period=Period.MONTH,
                    time_zone="UTC",
                    limit=grams * 1_000_000,
                    mode=BudgetMode.ENFORCE,
                ),
            )

    def cagg(self, *arguments: str) -> tuple[int, Any]:
        """Run ``cagg ARGUMENTS --json`` where the installation's API credentials are; returns status and answer."""
        done = subprocess.run(
            [sys.executable, "-m", "cagg", *arguments, "--json"],
            env=self.airflow.environment({**self.environment(), **self.airflow.credentials()}),
            capture_output=True,
            text=True,
            cwd=self.home,
            check=False,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr

    def entries(self, run_id: str, task_id: str = "") -> list[tuple[Entry, dict[str, Any]]]:
        """Ledger entries of one DAG run, or of one of its tasks, in their order in the tree."""
        with self.components().store.snapshot() as tx:
            found = [(entry, json.loads(entry.body)) for entry in tx.entries()]
        return [
            (entry, body)
            for entry, body in found
            if run_id in entry.body.decode() and task_id in str((body.get("request") or {}).get("task_key", ""))
        ]

    def counters(self) -> tuple[int, int]:
        """Held and spent of the budget, over all periods, after a check that every counter equals its journal."""
        with self.components().store.snapshot() as tx:
            assert audit(tx) == ()
            allotments = tx.allotments(BUDGET)
        return sum(item.held for item in allotments), sum(item.spent for item in allotments)

    def lines(self, name: str) -> int:
        """How often the work of that name has run."""
        path = self.marks / name
        return path.read_text().count("\n") if path.exists() else 0


def verdicts(entries: list[tuple[Entry, dict[str, Any]]]) -> list[str]:
    """The verdicts of the decisions among entries, in order."""
    return [body["verdict"]["verdict"] for entry, body in entries if entry.kind == "decision"]


@pytest.fixture
def stand(local_stand: Stand) -> Stand:
    """The installation of `make test`, with an empty trace file to be written by the test."""
    return local_stand


@pytest.fixture(scope="session")
def start_stand() -> Callable[..., AbstractContextManager[Stand]]:
    """Starts another installation; see :func:`running_stand`."""
    return running_stand


@pytest.fixture(scope="session")
def local_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running_stand(tmp_path_factory.mktemp("airflow")) as stand:
        yield stand


@contextmanager
def running_stand(
    folder: Path,
    *,
    database_url: str | None = None,
    store: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Stand]:
    """Start an Airflow for the DAGs beside this file and stop it afterwards; None for a URL = SQLite."""
    home, marks = folder / "cagg", folder / "marks"
    home.mkdir()
    marks.mkdir()
    shutil.copytree(DAGS, folder / "dags")
    airflow = LocalAirflow.prepare(
        folder / "airflow",
        dags=folder / "dags",
        database_url=database_url,
        environment={
            "CAGG_HOME": str(home),
            "CAGG_CONFIG": str(home / "cagg.toml"),
            "CAGG_TEST_MARKS": str(marks),
            "AIRFLOW__CAGG__ENABLED": "True",
            **(environment or {}),
        },
    )
    stand = Stand(airflow=airflow, home=home, marks=marks, store=store)
    stand.configure([DIRTY] * 4)
    stand.set_budget()
    try:
        airflow.launch()
        airflow.api.call("POST", "pools", body={"name": POOL, "slots": 1, "description": "", "include_deferred": False})
        for dag_id in ("night", "other", "untouched"):
            airflow.api.wait_for_dag(dag_id)
        clock = SystemClock()
        begin_ns = clock.monotonic_ns()
        airflow.api.wait_for_run("other", airflow.api.trigger("other"))
        yield replace(stand, pace_seconds=(clock.monotonic_ns() - begin_ns) / 1e9)
    finally:
        airflow.stop()
