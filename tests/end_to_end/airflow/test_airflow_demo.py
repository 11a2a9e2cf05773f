"""``cagg demo --engine airflow``: the play from the budget to the verified ledger, and nothing left when it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cagg_airflow.testing import LocalAirflow
from cagg_airflow.testing_api import until

pytestmark = pytest.mark.prove


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cagg", "demo", "--engine", "airflow", *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder / "elsewhere")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_demo_defers_runs_meters_charges_and_verifies(tmp_path: Path) -> None:
    out, said = (process := _start(tmp_path, "--json")).communicate(timeout=280)
    assert process.returncode == 0, said
    document = json.loads(out)
    assert document["complete"] is True
    assert document["verify"]["verified"] is True
    assert [body["verdict"]["verdict"] for body in document["decisions"]] == ["defer", "admit"]
    (measured,) = document["measurements"]
    assert measured["outcome"] == "completed"
    before, after = document["budgets_before"][-1], document["budgets_after"][-1]
    assert before["spent"] == 0 < after["spent"]
    assert after["held"] == 0
    for words in ("DECLARES", "chosen window", "slots are", "waiting", "MEASURED", "verified (signed)"):
        assert words in said, words
    assert [item.name for item in tmp_path.iterdir()] == [".demo"]


def test_a_demo_that_is_stopped_leaves_no_airflow_behind(tmp_path: Path) -> None:
    process = _start(tmp_path)
    airflow = LocalAirflow.prepare(tmp_path / "unused")
    airflow.home = tmp_path / ".demo" / "airflow"
    try:
        until("its triggerer", lambda: airflow.processes("triggerer") or None, timeout_seconds=120)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode != 0
        assert airflow.processes() == []
    finally:
        process.kill()
        airflow.stop()
