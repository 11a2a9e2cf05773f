"""The example as its reader runs it in one process (``dag.test()``): with a good model, and with one that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cagg.composition import compose
from cagg.settings import load_settings

_EXAMPLE = Path(__file__).parents[3] / "examples" / "nightly_validation_airflow"

pytest.importorskip("sklearn", reason="the example needs scikit-learn: pip install scikit-learn")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A migrated Airflow without a server, a steady grid, and the budget that the example's README creates."""
    home = tmp_path_factory.mktemp("example")
    (home / "trace.csv").write_text("start,g_per_kwh\n2026-03-01T00:00:00Z,200\n2026-03-03T00:00:00Z,200\n")
    (home / "cagg.toml").write_text(
        'zone = "trace:steady"\ntimezone = "Europe/London"\n[grid]\nplanning_intensity = "400 g/kWh"\n'
        f'[grid.trace]\nfile = "trace.csv"\nname = "steady"\nanchor = "{datetime.now(UTC).isoformat()}"\n'
    )
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": os.pathsep.join([str(_EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH", "")])]),
        "CAGG_HOME": str(home / "cagg"),
        "CAGG_CONFIG": str(home / "cagg.toml"),
        "MODELS": str(home),
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_EXAMPLE),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CAGG__ENABLED": "True",
    }
    for command in (
        ["airflow", "db", "migrate"],
        [sys.executable, "-m", "cagg", "budget", "set", "acme/ml/nightly", "12 kg/month", "--mode", "enforce"],
    ):
        subprocess.run(command, env=environment, capture_output=True, check=True)
    return environment


def _run(environment: dict[str, str], conf: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Run the DAG; returns its state and the measurements that this run added to the ledger."""
    before = len(_measurements(environment))
    code = f"import sys; from nightly import night; sys.stderr.write('state=' + night.test(run_conf={conf!r}).state)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=_EXAMPLE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.rpartition("state=")[2], _measurements(environment)[before:]


def _measurements(environment: dict[str, str]) -> list[dict[str, Any]]:
    with compose(load_settings(environ=environment)).store.snapshot() as tx:
        return [json.loads(entry.body) for entry in tx.entries() if entry.kind == "measurement"]


def test_a_good_model_is_trained_and_validated(environment: dict[str, str]) -> None:
    state, measured = _run(environment, {})
    assert state == "success"
    assert [body["request"]["kind"] for body in measured] == ["training", "validation"]
    assert {body["outcome"] for body in measured} == {"completed"}
    trained, validated = measured
    assert trained["outputs"] == validated["inputs"], "what was validated is what was trained"
    assert trained["outputs"][0]["digest"].startswith("sha256:")
    assert [body["request"]["engine_run"]["task_id"] for body in measured] == ["train", "validate"]


def test_a_validation_that_fails_still_costs_what_it_used(environment: dict[str, str]) -> None:
    state, measured = _run(environment, {"trees": 3, "least_accuracy": 0.99})
    assert state == "failed"
    assert [body["outcome"] for body in measured] == ["completed", "failed"]
    assert all(int(body["energy_millijoules"]) > 0 for body in measured)
