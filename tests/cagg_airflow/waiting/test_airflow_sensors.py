"""The sensors: no worker while they wait, one look where a worker starts them, and an end as the person chose."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.module_loading import import_string

from cagg.errors import HostUnavailable, InvalidInput, StoreUnavailable
from cagg_airflow.compat import AirflowFailException, AirflowSensorTimeout, AirflowSkipException, TaskDeferred
from cagg_airflow.sensors import CarbonBudgetSensor, CarbonIntensitySensor

NOW = datetime.fromisoformat("2026-11-23T22:00:00+00:00")
CONTEXT: dict[str, Any] = {"dag_run": SimpleNamespace(run_type="manual"), "dag": SimpleNamespace(timezone=None)}


def sensor(kind: Any = CarbonIntensitySensor, **arguments: Any) -> Any:
    stated = {"duration": "2h", "max_wait": "6h"} if kind is CarbonIntensitySensor else {"amount": "1 kWh"}
    return kind(task_id="wait", **{**stated, **arguments})


def started_by_the_scheduler(site: Any, task: Any) -> Any:
    """What happens to the task between scheduler and worker: its arguments become a trigger, whose event resumes it."""
    wanted = task.start_trigger_args
    trigger = import_string(wanted.trigger_cls)(**wanted.trigger_kwargs)
    return getattr(task, wanted.next_method)(CONTEXT, event=site.fire(trigger))


def test_it_starts_in_the_triggerer_and_ends_with_the_window(site: Any) -> None:
    task = sensor()
    assert task.start_from_trigger
    told = started_by_the_scheduler(site, task)
    assert site.clock.now() == NOW + timedelta(hours=3)
    assert (told["status"], told["intensity_milligrams_per_kwh"]) == ("due", 100_000)


def test_a_worker_looks_once_and_gives_its_slot_back(site: Any) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor().execute(CONTEXT)
    event = site.fire(deferred.value.trigger)
    assert event["status"] == "due"
    assert getattr(sensor(), deferred.value.method_name)(CONTEXT, event=event) == event
    assert deferred.value.timeout > timedelta(days=7)


def test_a_worker_that_deferred_is_not_overtaken_by_its_trigger(site: Any) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor(duration=None, below="299 g/kWh", max_wait="10s").execute(CONTEXT)
    site.fire(deferred.value.trigger)
    assert site.clock.now() == NOW + timedelta(seconds=15)


def test_a_sensor_whose_moment_is_now_never_defers(site: Any) -> None:
    assert sensor(duration=None, below="300 g/kWh").execute(CONTEXT)["status"] == "due"


@pytest.mark.parametrize(
    ("on_timeout", "error"), [("skip", AirflowSkipException), ("fail", AirflowSensorTimeout), ("run", None)]
)
def test_the_end_of_the_time_is_what_the_person_chose(
    site: Any, on_timeout: str, error: type[BaseException] | None
) -> None:
    task = sensor(duration=None, below="10 g/kWh", on_timeout=on_timeout)
    if error is None:
        assert started_by_the_scheduler(site, task)["status"] == "deadline"
    else:
        with pytest.raises(error, match="time is over"):
            started_by_the_scheduler(site, task)


def test_what_cannot_be_awaited_fails_without_a_retry(site: Any) -> None:
    with pytest.raises(AirflowFailException, match="Atlantis"):
        started_by_the_scheduler(site, sensor(zone="Atlantis"))
    with pytest.raises(AirflowFailException, match="Atlantis"):
        sensor(zone="Atlantis").execute(CONTEXT)
    with pytest.raises(InvalidInput, match="explode"):
        sensor(on_timeout="explode")


@pytest.mark.parametrize("problem", [HostUnavailable("no answer."), StoreUnavailable("down.")])
def test_what_may_pass_is_left_to_airflows_retries(
    site: Any, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def opened() -> Any:
        raise problem

    monkeypatch.setattr("cagg_airflow.opening.open_gate", opened)
    with pytest.raises(type(problem)):
        sensor().execute(CONTEXT)


def test_it_passes_while_cagg_is_off(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CAGG__ENABLED", "False")
    assert sensor(zone="Atlantis").execute(CONTEXT)["status"] == "off"
    assert started_by_the_scheduler(site, sensor())["status"] == "off"


def test_a_scheduled_run_counts_from_its_schedule(site: Any) -> None:
    run = SimpleNamespace(run_type="scheduled", run_after=NOW - timedelta(hours=1))
    with pytest.raises(TaskDeferred) as deferred:
        sensor(duration=None, below="10 g/kWh", max_wait="2h").execute({**CONTEXT, "dag_run": run})
    assert site.fire(deferred.value.trigger)["status"] == "deadline"
    assert site.clock.now() == NOW + timedelta(hours=1)


def test_the_serialised_dag_does_not_change_from_parse_to_parse(site: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    def one() -> Any:
        with DAG("d", schedule=None) as dag:
            sensor(below="{{ var.value.limit }}", duration=timedelta(minutes=30))
        return DagSerialization.to_dict(dag)["dag"]["tasks"]

    first = one()
    site.clock.advance(3600)
    assert one() == first
    task = DagSerialization.from_dict(_wrapped()).get_task("wait")
    assert task.start_from_trigger
    assert "below" in task.template_fields


def _wrapped() -> Any:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("d", schedule=None) as dag:
        sensor(below="{{ var.value.limit }}")
    return DagSerialization.to_dict(dag)


def test_templates_are_rendered_in_the_trigger(site: Any) -> None:
    task = sensor(duration=None, below="{{ limit }}")
    trigger = import_string(task.start_trigger_args.trigger_cls)(**task.start_trigger_args.trigger_kwargs)
    if not hasattr(trigger, "render_template_fields"):
        assert not task.start_from_trigger  # Airflow 3.2 starts it in a worker
        return
    trigger.task_instance = SimpleNamespace(task_id="wait", task=task)
    assert "below" in trigger.template_fields
    import jinja2

    trigger.render_template_fields({"limit": "210 g/kWh"}, jinja2.Environment(autoescape=False))
    assert trigger.below == "210 g/kWh"


def test_a_mapped_sensor_starts_in_a_worker(site: Any) -> None:
    with DAG("d", schedule=None):
        mapped = CarbonIntensitySensor.partial(task_id="each", max_wait="6h").expand(zone=["fake:GB", "fake:GB"])
    assert not mapped.start_from_trigger


def test_a_budget_sensor_ends_with_room_and_fails_without(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    assert started_by_the_scheduler(site, sensor(CarbonBudgetSensor, budget="acme"))["status"] == "due"
    assert sensor(CarbonBudgetSensor, budget="acme").execute(CONTEXT)["status"] == "due"
    with pytest.raises(AirflowSensorTimeout, match="no room in acme"):
        started_by_the_scheduler(site, sensor(CarbonBudgetSensor, budget="acme", amount="3 kWh", max_wait="5m"))
    with pytest.raises(TaskDeferred):
        sensor(CarbonBudgetSensor, budget="acme", amount="3 kWh").execute(CONTEXT)
    with pytest.raises(AirflowFailException, match="nobody"):
        sensor(CarbonBudgetSensor, budget="nobody").execute(CONTEXT)


def test_energy_and_carbon_never_pass_a_short_max_wait(site: Any) -> None:
    site.budget("acme", "0 kWh/day")
    task = sensor(CarbonBudgetSensor, budget="acme", max_wait=timedelta(minutes=3), on_timeout="skip")
    with pytest.raises(AirflowSkipException):
        started_by_the_scheduler(site, task)
    assert site.clock.now() == NOW + timedelta(minutes=3)
