"""A real Prefect server, a process worker whose pool runs one flow at a time, and a cagg home of one's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cagg_prefect.testing import LocalPrefect, point_prefect_here, shared_prefect, until

point_prefect_here()

from prefect import get_client  # noqa: E402  (reads its settings when it is imported)
from prefect.client.schemas.objects import FlowRun  # noqa: E402
from prefect.deployments.runner import RunnerDeployment  # noqa: E402

from cagg.composition import Components, compose  # noqa: E402
from cagg.records import Entry  # noqa: E402
from cagg.settings import load_settings  # noqa: E402

POOL = "one-at-a-time"
_FLOWS = Path(__file__).with_name("gated_flows.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Everything a test touches."""

    prefect: LocalPrefect
    home: Path
    deployments: dict[str, UUID]

    def configure(self, trace: list[int], *, now: datetime | None = None) -> None:
        """Let a trace of half hours, played 120 times as fast, begin now: one value in g/kWh for each 15 seconds."""
        start = datetime(2026, 3, 1, tzinfo=UTC)
        rows = [f"{(start + index * timedelta(minutes=30)).isoformat()},{value}" for index, value in enumerate(trace)]
        (self.home / "trace.csv").write_text("start,g_per_kwh\n" + "\n".join(rows) + "\n")
        anchor = (now or datetime.now(UTC)).isoformat()
        (self.home / "cagg.toml").write_text(
            'zone = "trace:night"\ntimezone = "UTC"\n'
            '[grid]\nsteering = ["trace"]\naccounting = ["trace"]\nplanning_intensity = "400 g/kWh"\n'
            f'[grid.trace]\nfile = "trace.csv"\nname = "night"\ntime_scale = 120\nanchor = "{anchor}"\n'
            '[reservation]\nlease = "8s"\nbeat = "1s"\n'
        )

    def environment(self) -> dict[str, str]:
        """What turns a process into a user of this home."""
        return {"CAGG_HOME": str(self.home), "CAGG_CONFIG": str(self.home / "cagg.toml")}

    def components(self) -> Components:
        """Open the store as another process would."""
        return compose(load_settings(environ=self.environment()))

    def cagg(self, *arguments: str) -> tuple[int, Any]:
        """Run ``cagg ARGUMENTS --json``; returns its status and its answer."""
        done = subprocess.run(
            [sys.executable, "-m", "cagg", *arguments, "--json"],
            env=self.prefect.environment(self.environment()),
            capture_output=True,
            text=True,
            cwd=self.home,
            check=False,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr

    def start(self, name: str, **parameters: Any) -> UUID:
        """Create a run of a deployment, due now."""
        with get_client(sync_client=True) as client:
            return client.create_flow_run_from_deployment(self.deployments[name], parameters=parameters).id

    def run(self, run_id: UUID) -> FlowRun:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run_id)

    def states(self, run_id: UUID) -> list[tuple[str | None, datetime]]:
        with get_client(sync_client=True) as client:
            return [(state.name, state.timestamp) for state in client.read_flow_run_states(run_id)]

    def wait_for(self, run_id: UUID, name: str, timeout_seconds: float = 200.0) -> FlowRun:
        """Wait until the run is in a state of that name; a run that ends otherwise fails the test at once."""

        def look() -> FlowRun | None:
            run = self.run(run_id)
            if run.state is not None and run.state.name == name:
                return run
            if run.state is not None and run.state.is_final():
                raise AssertionError(f"{run.state!r}\n{self.prefect.log('worker.log')[-6000:]}")
            return None

        return until(f"state {name} of {run_id}", look, timeout_seconds=timeout_seconds)

    def entries(self, run_id: UUID) -> list[tuple[Entry, dict[str, Any]]]:
        """Ledger entries of one flow run, in their order in the tree."""
        with self.components().store.snapshot() as tx:
            found = [(entry, json.loads(entry.body)) for entry in tx.entries()]
        return [(entry, body) for entry, body in found if str(run_id) in entry.body.decode()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prefect leaves connections to its server open until they are collected; that is not ours to repair."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(
                pytest.mark.filterwarnings(
                    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
                )
            )


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    prefect = shared_prefect()
    home = tmp_path_factory.mktemp("cagg-home")
    with get_client(sync_client=True) as client:
        client._client.post(
            "/work_pools/", json={"name": POOL, "type": "process", "concurrency_limit": 1, "base_job_template": {}}
        )
    stand = Stand(prefect=prefect, home=home, deployments={})
    stand.configure([400])
    worker = prefect.spawn(
        "worker",
        "start",
        "--pool",
        POOL,
        "--type",
        "process",
        log="worker.log",
        environment={
            **stand.environment(),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        },
        folder=home,
    )
    for name in ("nightly", "doomed", "other", "endless"):
        deployment: Any = RunnerDeployment.from_entrypoint(
            entrypoint=f"{_FLOWS}:{name}", name="end-to-end", work_pool_name=POOL
        )
        stand.deployments[name] = deployment.apply(_sync=True)
    yield stand
    prefect.stop(worker)
