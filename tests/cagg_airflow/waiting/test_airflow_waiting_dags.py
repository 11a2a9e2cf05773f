"""Sensors, a group's gate and its teardown in ``dag.test()``: parsed, deferred, woken and settled by Airflow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.records import ReservationState


@pytest.fixture
def play(airflow_database: Path, site: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a DAG file once, on the site's clock and gate; returns the states of its tasks."""
    folder = airflow_database / "dags"
    folder.mkdir(exist_ok=True)

    def run(text: str, dag_id: str) -> dict[str, str]:
        from airflow.dag_processing.dagbag import DagBag

        file = folder / f"{dag_id}.py"
        file.write_text(text, encoding="utf-8")
        bag = DagBag(str(file))
        assert bag.import_errors == {}
        done = bag.dags[dag_id].test()
        return {item.task_id: str(item.state) for item in done.get_task_instances()}

    yield run
    shutil.rmtree(folder)


GROUP = """
from airflow.sdk import DAG, task
from cagg_airflow import CarbonBudgetSensor, CarbonGateOperator, CarbonIntensitySensor, GateOptions

with DAG("night", schedule=None) as dag:
    room = CarbonBudgetSensor(task_id="room", budget="acme", amount="1 kWh")
    clean = CarbonIntensitySensor(task_id="clean", duration="1h", max_wait="{{ '6h' }}")
    gate = CarbonGateOperator(
        task_id="gate", carbon=GateOptions(duration="1h", energy="1 kWh", budget="acme", max_wait="8h"), settle=True
    )

    @task.carbon_aware(budget="acme", duration="10m", energy="100 Wh")
    def work(fail):
        from cagg_airflow.opening import open_gate
        open_gate().components.clock.advance(600)
        if fail:
            raise RuntimeError("no data")

    good, bad = work.override(task_id="good")(False), work.override(task_id="bad")(True)
    room >> clean >> gate >> [good, bad] >> gate.settle_task
"""


def test_a_night_with_sensors_a_gate_and_its_teardown(play: Any, site: Any) -> None:
    site.budget("acme", "3 kWh/day")
    began = site.clock.now()
    states = play(GROUP, "night")
    assert states == {
        "room": "success",
        "clean": "success",
        "gate": "success",
        "good": "success",
        "bad": "failed",
        "gate_settle": "success",  # the teardown runs although a task inside failed
    }
    assert site.clock.now() >= began + timedelta(hours=3)
    with site.gate.components.store.snapshot() as tx:
        (group,) = [item for item in tx.reservations() if item.encloses_run]
        spent = sum(item.spent for item in tx.allotments("acme"))
        held = sum(item.held for item in tx.allotments("acme"))
    assert group.state is ReservationState.SETTLED
    assert held == 0
    assert spent == 2 * 100_000 * 600  # two tasks of ten minutes at 100 W


def test_a_gate_that_is_denied_leaves_nothing_to_settle(play: Any, site: Any) -> None:
    site.budget("acme", "100 Wh/day")
    text = GROUP.replace("room >> clean >> gate", "gate").replace('DAG("night"', 'DAG("denied"')
    text = "\n".join(line for line in text.splitlines() if "room =" not in line and "clean =" not in line)
    states = play(text, "denied")
    assert states["gate"] == "failed"
    assert states["good"] == states["bad"] == "upstream_failed"
    assert states["gate_settle"] in {"upstream_failed", "skipped"}
    with site.gate.components.store.snapshot() as tx:
        assert sum(item.held + item.spent for item in tx.allotments("acme")) == 0
