"""``dag.test()``: real parsing, policy, templates, XComs and triggers in this process, on a metadata database."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.evidence import forecast_digest, recompute
from cagg.gating import Gate
from cagg.ledger.entry import read_body
from cagg.records import EntryKind, ReservationState
from cagg_airflow import opening, waiting


@pytest.fixture
def play(airflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Run a DAG file once as ``airflow dags test`` does; returns the run."""
    monkeypatch.setenv("AIRFLOW__CAGG__ENABLED", "True")
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "cagg"))
    monkeypatch.chdir(tmp_path)
    folder = airflow_database / "dags"  # dag.test() parses the configured folder
    folder.mkdir(exist_ok=True)

    def run(text: str, dag_id: str) -> Any:
        from airflow.dag_processing.dagbag import DagBag

        file = folder / f"{dag_id}.py"
        file.write_text("from airflow.sdk import dag, task\n" + text, encoding="utf-8")
        bag = DagBag(str(file))
        assert bag.import_errors == {}
        return bag.dags[dag_id].test()

    yield run
    shutil.rmtree(folder)


def states(run: Any) -> dict[str, str]:
    return {
        item.task_id if item.map_index < 0 else f"{item.task_id}[{item.map_index}]": str(item.state)
        for item in run.get_task_instances()
    }


def xcom(run: Any, task_id: str, key: str, map_index: int = -1) -> Any:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.scalars(
            XComModel.get_many(key=key, run_id=run.run_id, task_ids=task_id, dag_ids=run.dag_id, map_indexes=map_index)
        )
        values = [XComModel.deserialize_value(row) for row in rows]
    return values[0] if values else None


def test_decorated_mapped_and_classic_tasks_are_gated(play: Any, tmp_path: Path) -> None:
    run = play(
        """
from airflow.providers.standard.operators.bash import BashOperator
from cagg_airflow import GateOptions, carbon_aware

@dag(schedule=None)
def explicit():
    @task.carbon_aware(duration="1m", power="100 W")
    def work(item): return item

    @task.carbon_aware
    async def later(): return 7

    @task
    def total(items): return sum(items)

    total(work.expand(item=[1, 2]))
    later()
    Gated = carbon_aware(BashOperator)
    Gated(task_id="bash", bash_command="echo {{ ti.task_id }}", carbon=GateOptions(kind="training"))

explicit()
""",
        "explicit",
    )
    assert states(run) == dict.fromkeys(["work[0]", "work[1]", "later", "total", "bash"], "success")
    assert xcom(run, "total", "return_value") == 3
    assert xcom(run, "bash", "return_value") == "bash"  # templates are rendered as before
    for name, index in (("work", 0), ("work", 1), ("later", -1), ("bash", -1)):
        assert xcom(run, name, "carbon_decision", index)["verdict"] == "admit"
        assert xcom(run, name, "carbon_reading", index)["complete"] is True
    assert xcom(run, "total", "carbon_decision") is None


def test_a_tagged_dag_is_gated_unchanged(play: Any) -> None:
    run = play(
        """
from airflow.providers.standard.operators.bash import BashOperator

@dag(schedule=None, tags=["cagg"], params={"carbon": {"kind": "training"}})
def tagged():
    @task
    def work(item): return item

    BashOperator(task_id="bash", bash_command="true") >> work.expand(item=[1, 2])

tagged()
""",
        "tagged",
    )
    assert set(states(run).values()) == {"success"}
    for name, index in (("work", 0), ("work", 1), ("bash", -1)):
        assert xcom(run, name, "carbon_decision", index)["verdict"] == "admit"


def test_a_denied_task_fails_and_a_denied_validation_is_skipped(play: Any) -> None:
    run = play(
        """
@dag(schedule=None)
def denied():
    @task.carbon_aware(budget="acme/nobody", retries=3)
    def train(): return 1

    @task.carbon_aware(budget="acme/nobody", kind="validation", purpose="work", on_deny="skip")
    def check(): return 1

    train()
    check()

denied()
""",
        "denied",
    )
    assert states(run) == {"train": "failed", "check": "skipped"}
    [train] = [item for item in run.get_task_instances() if item.task_id == "train"]
    assert train.try_number == 1
    assert xcom(run, "check", "carbon_decision")["not_validated"] is True


def test_a_deferred_task_wakes_is_asked_again_and_the_story_can_be_recomputed(
    play: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trigger runs in this process; its sleep is the only thing that is left out, so it wakes too early twice."""
    anchor = datetime.now(UTC).replace(microsecond=0)
    rows = [(anchor + timedelta(minutes=step), 400 if step < 5 else 100) for step in range(60)]
    lines = ["start,g_per_kwh", *(f"{at.isoformat()},{value}" for at, value in rows)]
    (tmp_path / "trace.csv").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("CAGG_GRID_TRACE_FILE", str(tmp_path / "trace.csv"))
    monkeypatch.setenv("CAGG_POLICY_MAX_DEFERRALS", "2")
    slept: list[datetime] = []

    async def sleep_until(instant: datetime) -> None:
        slept.append(instant)

    monkeypatch.setattr(waiting, "sleep_until", sleep_until)
    run = play(
        """
@dag(schedule=None)
def waits():
    @task.carbon_aware(zone="trace:trace", energy="1 kWh", duration="1m", max_wait="20m")
    def work(): return "woke"

    work()

waits()
""",
        "waits",
    )
    assert states(run) == {"work": "success"}
    assert slept == [anchor + timedelta(minutes=5)] * 2
    gate: Gate = opening.open_gate()
    with gate.components.store.snapshot() as tx:
        entries = list(tx.entries(kind=EntryKind.DECISION, task_key="waits/work"))
        bodies = [read_body(tx, entry) for entry in entries]
        assert [(body["verdict"]["verdict"], body["verdict"]["reason"]) for body in bodies] == [
            ("defer", "cleaner_window"),
            ("defer", "cleaner_window"),
            ("admit", "deferrals_used_up"),
        ]
        assert len({body["request_key"] for body in bodies}) == 1
        for body in bodies:
            digest = forecast_digest(body)
            assert recompute(body, None if digest is None else tx.blob(digest)).same
        [reservation] = tx.reservations(host="airflow", root_run_id=f"waits/{run.run_id}")
        assert reservation.state is ReservationState.SETTLED
        assert json.loads(reservation.run_reference)["try_number"] == 1
