"""The example as its reader runs it: as a script, with a model that is not good enough, and served on a schedule."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.exceptions import ObjectNotFound

from cagg_prefect.testing import until

_EXAMPLE = Path(__file__).parents[3] / "examples" / "nightly_validation_prefect"

pytest.importorskip("sklearn", reason="the example needs scikit-learn: pip install scikit-learn")


@pytest.fixture
def environment(stand: Any) -> dict[str, str]:
    stand.configure([200] * 400)
    stand.cagg("budget", "set", "acme/ml/nightly", "12 kg/month", "--mode", "enforce")
    folders = os.pathsep.join([str(_EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return {**stand.prefect.environment(stand.environment()), "PYTHONPATH": folders}


def _python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=_EXAMPLE, capture_output=True, text=True, check=False
    )


def test_script_trains_validates_and_records(stand: Any, environment: dict[str, str]) -> None:
    done = _python(environment, "nightly.py")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.95
    assert "carbon gate: used" in done.stderr


def test_validation_that_fails_still_costs_what_it_used(stand: Any, environment: dict[str, str]) -> None:
    done = _python(environment, "-c", "from nightly import nightly; nightly(trees=3, least_accuracy=0.99)")
    assert done.returncode != 0
    assert "ValidationFailed" in done.stderr
    with stand.components().store.snapshot() as tx:
        last = [json.loads(entry.body) for entry in tx.entries() if entry.kind == "measurement"][-1]
    assert last["outcome"] == "failed"
    assert int(last["energy_millijoules"]) > 0


def test_served_flow_runs_on_its_deployment(stand: Any, environment: dict[str, str]) -> None:
    with (stand.home / "serve.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "serve.py"], env=environment, cwd=_EXAMPLE, stdout=log, stderr=log, start_new_session=True
        )
    try:

        def deployed() -> UUID | None:
            assert server.poll() is None, (stand.home / "serve.log").read_text()
            with get_client(sync_client=True) as client:
                try:
                    return client.read_deployment_by_name("nightly/nightly").id
                except ObjectNotFound:
                    return None

        deployment_id = until("the deployment", deployed, timeout_seconds=60)
        with get_client(sync_client=True) as client:
            schedule = client.read_deployment(deployment_id).schedules[0].schedule
            run_id = client.create_flow_run_from_deployment(deployment_id).id
        assert (getattr(schedule, "cron", None), getattr(schedule, "timezone", None)) == ("0 22 * * *", "Europe/London")
        stand.wait_for(run_id, "Completed")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
