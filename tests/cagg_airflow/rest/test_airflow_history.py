"""Airflow's task instances as past runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cagg.errors import HostUnavailable
from cagg.pastruns import RunOutcome, RunTrigger
from cagg_airflow.api import AirflowApi, path_of
from cagg_airflow.history import AirflowHistory

NIGHT = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
RUN = "scheduled__2026-11-23T20:01:32.187166+00:00"
Airflow = Any  # the pretended server of conftest.py
Instance = Callable[..., dict[str, Any]]


def stamp(minutes: float) -> str:
    return (NIGHT + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


# ---- history ------------------------------------------------------------------------------------------------------

Read = Callable[..., list[Any]]


@pytest.fixture
def read(api: AirflowApi) -> Read:
    def collect(history: AirflowHistory | None = None, days: float = 2) -> list[Any]:
        history = history or AirflowHistory(api)
        until = NIGHT + timedelta(hours=12)
        return list(history.runs(until - timedelta(days=days), until, lambda read, total: None))

    return collect


def test_task_instances_become_past_runs(instance: Instance, airflow: Airflow, read: Read) -> None:
    airflow.dag_runs = [{"dag_id": "nightly_train", "dag_run_id": RUN, "run_type": "scheduled", "start_date": stamp(0)}]
    airflow.instances = [
        instance("train", 1, 31),
        instance("part", 2, 3, map_index=1, state="failed"),
        instance("hold", 1, None, state="deferred", operator="DateTimeSensorAsync"),
        instance("skip", 4, 4, state="skipped"),
    ]
    found = {run.task: run for run in read()}
    train = found["train"]
    assert (train.pipeline, train.run_id, train.trigger) == ("nightly_train", RUN, RunTrigger.SCHEDULED)
    assert (train.scheduled_at, train.started_at) == (NIGHT, NIGHT + timedelta(minutes=1))
    assert train.ended_at == NIGHT + timedelta(minutes=31)
    outcomes = {name: run.outcome for name, run in found.items()}
    assert outcomes == {
        "train": RunOutcome.SUCCEEDED,
        "part": RunOutcome.FAILED,
        "hold": RunOutcome.RUNNING,
        "skip": RunOutcome.SKIPPED,
    }
    assert (found["hold"].waits, train.waits) == (True, False)


def test_earlier_tries_are_read_and_count_as_retried(instance: Instance, airflow: Airflow, read: Read) -> None:
    airflow.instances = [instance("shaky", 5, 6, try_number=3)]
    rows = [instance("shaky", 1 + n, 2 + n, try_number=1 + n, state="failed") for n in range(2)]
    path = "/api/v2" + path_of("dags", "nightly_train", "dagRuns", RUN, "taskInstances", "shaky", "tries")
    airflow.tries[path] = [*rows, airflow.instances[0]]
    found = read()
    assert [(run.attempt, run.outcome) for run in found] == [
        (1, RunOutcome.RETRIED),
        (2, RunOutcome.RETRIED),
        (3, RunOutcome.SUCCEEDED),
    ]


def test_a_deferred_task_counts_from_its_resumption_on(
    instance: Instance, airflow: Airflow, api: AirflowApi, read: Read
) -> None:
    airflow.instances = [instance("gated", 1, 300, queued_when=stamp(290))]
    history = AirflowHistory(api)
    (run,) = read(history)
    assert (run.started_at, run.ended_at) == (NIGHT + timedelta(minutes=290), NIGHT + timedelta(minutes=300))
    assert history.notes == ["1 attempts were deferred and count from their last resumption on"]


def test_the_id_tells_the_trigger_of_a_run_that_is_not_listed(instance: Instance, airflow: Airflow, read: Read) -> None:
    ids = ("scheduled__x", "manual__x", "backfill__x", "asset_triggered__x", "my own")
    airflow.instances = [instance("t", 1, 2, dag_run_id=run_id) for run_id in ids]
    kinds = RunTrigger
    assert [run.trigger for run in read()] == [
        kinds.SCHEDULED,
        kinds.MANUAL,
        kinds.BACKFILL,
        kinds.EVENT,
        kinds.UNKNOWN,
    ]


def test_a_long_history_is_read_once_and_completely(instance: Instance, airflow: Airflow, read: Read) -> None:
    airflow.instances = [instance(f"t{n}", -n * 11, -n * 11 + 5) for n in range(400)]  # three days
    found = read(days=10)
    assert sorted(int(run.task[1:]) for run in found) == list(range(400))
    assert all(method == "GET" for method, _ in airflow.asked)


def test_what_a_pod_asks_for_is_a_hint(instance: Instance, airflow: Airflow, read: Read) -> None:
    override = (
        "{'pod_override': {'spec': {'containers': [{'name': 'base', 'resources': {'limits': {'cpu': '8'}, "
        "'requests': {'cpu': '1500m', 'memory': '2Gi'}}}]}}}"
    )
    airflow.instances = [instance("big", 1, 2, executor_config=override), instance("plain", 1, 2)]
    big, plain = read()
    assert (big.cpu_thousandths, big.memory_bytes) == (1_500, 2 * 2**30)
    assert (plain.cpu_thousandths, plain.memory_bytes) == (None, None)


def test_dags_are_pipelines(airflow: Airflow, api: AirflowApi) -> None:
    airflow.dags = [
        {"dag_id": "a", "timetable_summary": "0 22 * * *", "is_paused": False, "tags": [{"name": "ml"}]},
        {"dag_id": "b", "timetable_summary": None, "is_paused": True, "tags": []},
    ]
    first, second = AirflowHistory(api).pipelines()
    assert (first.schedule, first.tags, first.active) == ("0 22 * * *", ("ml",), True)
    assert (second.schedule, second.active) == ("", False)


def test_an_instant_without_an_offset_is_refused(instance: Instance, airflow: Airflow, read: Read) -> None:
    airflow.instances = [instance("t", 1, 2, end_date="2026-11-23T20:09:00")]
    with pytest.raises(HostUnavailable, match="not understood"):
        read()


def test_the_snippet_names_the_dag_and_the_zone(api: AirflowApi) -> None:
    text = AirflowHistory(api).snippet('a"b', "neso:GB", "8h")
    assert 'DAG("a\\"b", tags=["cagg"]' in text
    assert '@task.carbon_aware(zone="neso:GB", max_wait="8h")' in text
