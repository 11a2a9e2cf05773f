"""The shipped test tools themselves: what they refuse, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cagg.errors import CaggError
from cagg.testing import ManualClock
from cagg_airflow.testing import LocalAirflow
from cagg_airflow.testing_api import LocalApi, until


@pytest.fixture
def prepared(tmp_path: Path) -> LocalAirflow:
    return LocalAirflow.prepare(tmp_path / "airflow")


def test_every_setting_points_at_loopback_and_at_its_own_home(prepared: LocalAirflow, tmp_path: Path) -> None:
    environment = prepared.environment()
    assert environment["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert str(prepared.port) in environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    ports = [
        prepared.port,
        *(int(environment[f"AIRFLOW__LOGGING__{name}_LOG_SERVER_PORT"]) for name in ("WORKER", "TRIGGER")),
    ]
    assert len(set(ports)) == 3


def test_the_users_own_airflow_stays_out(prepared: LocalAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production/airflow")
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in prepared.environment()
    assert prepared.environment({"X": "1"})["X"] == "1"


def test_a_database_url_serves_both_kinds_of_sessions(tmp_path: Path) -> None:
    airflow = LocalAirflow.prepare(tmp_path, database_url="postgresql://u:p@127.0.0.1:5/airflow")
    for name in ("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC"):
        assert airflow.settings[f"AIRFLOW__DATABASE__{name}"] == "postgresql+psycopg://u:p@127.0.0.1:5/airflow"


def test_an_airflow_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(CaggError, match=r"ended at once|in vain"):
        LocalAirflow.start(
            tmp_path / "airflow", environment={"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "nonsense://"}, timeout_seconds=60
        )


def test_processes_are_found_by_their_home_and_ended_whoever_their_parent_is(prepared: LocalAirflow) -> None:
    stray = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()", "triggerer"],
        env=prepared.environment(),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    other = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        env={**os.environ, "AIRFLOW_HOME": "/elsewhere"},
        stdin=subprocess.PIPE,
    )
    try:
        found = until(
            "the process to be seen",
            lambda: [item.pid for item in prepared.processes("triggerer")] or None,
            timeout_seconds=10,
        )
        assert found == [stray.pid]
        prepared.stop()
        assert prepared.processes() == []
        assert other.poll() is None
    finally:
        for process in (stray, other):
            process.kill()
            process.communicate()


def test_waiting_in_vain_says_for_what() -> None:
    clock = ManualClock()
    with pytest.raises(CaggError, match="waited 3 s in vain for a miracle"):
        until("a miracle", lambda: None, timeout_seconds=3, clock=clock)


def _api(handler: httpx.MockTransport) -> LocalApi:
    return LocalApi("http://airflow", "secret", clock=ManualClock(), transport=handler)


def _answers(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/auth/token":
        known = json.loads(request.content)["password"] == "secret"
        return httpx.Response(201, json={"access_token": "t"}) if known else httpx.Response(401)
    assert request.headers["Authorization"] == "Bearer t"
    if request.url.path.endswith("/importErrors"):
        return httpx.Response(200, json={"import_errors": [{"filename": "a.py", "stack_trace": "boom"}]})
    if request.url.path.endswith("/dagRuns/r"):
        return httpx.Response(200, json={"state": "failed"})
    if request.url.path.endswith("/taskInstances"):
        return httpx.Response(
            200, json={"task_instances": [{"task_id": "t", "map_index": -1, "state": "failed", "try_number": 2}]}
        )
    return httpx.Response(404, json={"detail": "not here"})


def test_a_wrong_password_is_said() -> None:
    with pytest.raises(CaggError, match="gave no token"):
        LocalApi("http://airflow", "wrong", transport=httpx.MockTransport(_answers))


def test_refusals_show_the_answer() -> None:
    with pytest.raises(CaggError, match=r"404.*not here"):
        _api(httpx.MockTransport(_answers)).call("GET", "nowhere")


def test_waiting_ends_at_once_where_it_cannot_succeed() -> None:
    api = _api(httpx.MockTransport(_answers))
    with pytest.raises(CaggError, match="boom"):
        api.wait_for_dag("d")
    with pytest.raises(CaggError, match="is failed, not success"):
        api.wait_for_run("d", "r")
    with pytest.raises(CaggError, match="t of r is failed"):
        api.wait_for_task("d", "r", "t")
    assert api.xcom("d", "r", "t") is None
    with pytest.raises(CaggError, match="in vain for other of r"):
        api.wait_for_task("d", "r", "other", timeout_seconds=5)
