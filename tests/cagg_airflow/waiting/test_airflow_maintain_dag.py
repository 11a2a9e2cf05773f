"""``cagg maintain`` as a DAG: one line, a pass each time, a failed task when something is wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from cagg import maintenance as core
from cagg.ports import RunState
from cagg.records import ReservationState
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg_airflow import maintain_dag
from cagg_airflow.compat import AirflowFailException
from cagg_airflow.host import AirflowRuns


def run(dag: Any) -> Any:
    return dag.get_task("maintain").execute({"params": {}})


def test_it_is_one_line_and_never_gates_itself() -> None:
    dag = maintain_dag()
    assert dag.dag_id == "cagg_maintain"
    assert "cagg" not in dag.tags
    assert not dag.catchup
    assert dag.max_active_runs == 1
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("maintain")
    assert maintain_dag("nightly", schedule="@daily", tags=["ops"]).schedule == "@daily"


def test_a_pass_releases_what_airflow_no_longer_has(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.budget("acme", "5 kWh/day")
    identity = RequestIdentity(host="airflow", root_run_id="d/r", task_key="d/t")
    options = GateOptions(duration="1h", energy="1 kWh", max_wait="8h", budget="acme")
    site.gate.ask(Request(identity=identity, options=options, host=HostProfile(name="airflow")))
    monkeypatch.setattr(AirflowRuns, "run_state", lambda self, root_run_id, reference="": RunState.GONE)
    told = run(maintain_dag())
    assert told["reconciled"] == 1
    with site.gate.components.store.snapshot() as tx:
        assert tx.reservation(identity.key).state is ReservationState.RELEASED


def test_problems_fail_the_task(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = core.maintain
    monkeypatch.setattr(
        core, "maintain", lambda parts, hosts: replace(real(parts, hosts=hosts), problems=("a key is missing.",))
    )
    with pytest.raises(AirflowFailException, match="a key is missing"):
        run(maintain_dag())


def test_nothing_is_opened_while_cagg_is_off(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CAGG__ENABLED", "False")
    monkeypatch.setattr("cagg_airflow.opening.open_gate", lambda: pytest.fail("opened"))
    assert run(maintain_dag(schedule=timedelta(hours=1))) is None
