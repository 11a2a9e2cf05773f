"""The gate around one task instance: identity, wakes, retries, clears, leaving early, being off, and what is left."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator, ShortCircuitOperator
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, setup, task
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
    DownstreamTasksSkipped,
    TaskDeferred,
)

from cagg.engine_run import EngineRun
from cagg.errors import CaggError, InvalidInput
from cagg.request import GateOptions
from cagg_airflow import asking, carbon_aware, naming, opening
from cagg_airflow.cluster_policy import task_policy
from cagg_airflow.compat import attempt_of
from cagg_airflow.decorators import carbon_aware_task
from cagg_airflow.mixin import CarbonGateMixin
from cagg_airflow.naming import DECISION_KEY, READING_KEY
from cagg_airflow.triggers import GateTrigger

Gated = carbon_aware(PythonOperator)


def one(body: Any = lambda: "done", *, retries: int = 0, carbon: Any = None, **dag: Any) -> Any:
    with DAG("nightly", **dag):
        return Gated(task_id="validate", python_callable=body, retries=retries, carbon=carbon)


# ---- who asks -----------------------------------------------------------------------------------------------------


def test_a_request_names_the_task_instance_in_ways_that_can_be_read_back(bench: Any, scripted: Any) -> None:
    context = bench.context(one(), try_number=1)
    bench.start(context)
    [request] = scripted.requests
    identity = request.identity
    assert (identity.host, identity.task_key, identity.ordinal, identity.attempt) == (
        "airflow",
        "nightly/validate",
        0,
        1,
    )
    assert identity.root_run_id.partition("/")[::2] == ("nightly", context["ti"].run_id)
    assert json.loads(request.run_reference) == {
        "dag_id": "nightly",
        "run_id": context["ti"].run_id,
        "task_id": "validate",
        "map_index": -1,
        "try_number": 1,
    }
    assert request.run_reference == json.dumps(json.loads(request.run_reference), sort_keys=True, separators=(",", ":"))
    assert dict(request.labels) == {
        "dag_id": "nightly",
        "task_id": "validate",
        "run_id": context["ti"].run_id,
        "run_type": "manual",
        "operator": "CarbonAwarePythonOperator",
    }
    assert request.engine_run == EngineRun(
        engine="airflow",
        engine_version=version("apache-airflow-core"),
        deployment=None,
        workflow="nightly",
        run_id=context["ti"].run_id,
        task_id="validate",
        map_index=None,
        try_number=1,
    )
    assert not request.encloses_run
    assert naming.identity_from(naming.identity_payload(identity)) == identity


def test_a_mapped_task_and_its_bundle_are_named(bench: Any, scripted: Any) -> None:
    """The version of a DAG bundle, where it has one, is the commit of the DAG's code."""
    ti = bench.context(one(), try_number=2)["ti"]
    bundled = SimpleNamespace(
        dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=3, try_number=2, max_tries=3,
        bundle_instance=SimpleNamespace(name="dags-folder", version="0123abc"),
    )  # fmt: skip
    run = asking.build_request({**bench.context(one()), "ti": bundled}, GateOptions()).engine_run
    assert run is not None
    assert (run.map_index, run.try_number, run.deployment) == (3, 2, "dags-folder@0123abc")
    bundled.bundle_instance = SimpleNamespace(name="dags-folder", version=None)
    run = asking.build_request({**bench.context(one()), "ti": bundled}, GateOptions()).engine_run
    assert run is not None
    assert run.deployment == "dags-folder"


@pytest.mark.parametrize(
    ("try_number", "max_tries", "retries", "attempt"),
    [
        (1, 0, 0, 1),
        (2, 3, 3, 2),  # the engine's own retry
        (2, 1, 0, 1),  # cleared after its only try
        (5, 7, 3, 1),  # cleared after four tries
        (6, 7, 3, 2),  # the first retry after that clear
        (3, 1, 5, 3),  # the DAG was edited: more retries than Airflow counts with
        (1, None, None, 1),
    ],
)
def test_a_cleared_task_is_a_first_attempt_again(try_number: int, max_tries: Any, retries: Any, attempt: int) -> None:
    assert attempt_of(try_number, max_tries, retries) == attempt


def test_each_index_of_a_mapped_task_is_a_request_of_its_own(bench: Any, scripted: Any) -> None:
    operator = one()
    for index in (-1, 0, 1):
        bench.start(bench.context(operator, map_index=index))
    assert [request.identity.ordinal for request in scripted.requests] == [0, 1, 2]
    assert len({request.identity.key for request in scripted.requests}) == 3


@pytest.mark.parametrize("run_type", ["manual", "backfill", "asset_triggered"])
def test_only_the_schedules_own_runs_count_from_the_schedule(bench: Any, scripted: Any, run_type: str) -> None:
    after = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
    scheduled = SimpleNamespace(run_type="scheduled", run_after=after, logical_date=None)
    bench.start(bench.context(one(schedule="0 2 * * *"), dag_run=scheduled))
    assert scripted.requests[-1].scheduled_start == after
    assert scripted.requests[-1].schedule_time_zone == "UTC"
    other = SimpleNamespace(run_type=run_type, run_after=after, logical_date=None)
    bench.start(bench.context(one(), dag_run=other))
    assert scripted.requests[-1].scheduled_start is None
    assert scripted.requests[-1].schedule_time_zone is None  # Airflow's default says nothing about a DAG without one


def test_the_schedules_time_zone_is_the_dags(bench: Any, scripted: Any) -> None:
    import pendulum

    start = pendulum.datetime(2026, 1, 1, tz="Europe/London")
    bench.start(bench.context(one(start_date=start)))
    assert scripted.requests[-1].schedule_time_zone == "Europe/London"


# ---- waits --------------------------------------------------------------------------------------------------------


def test_a_deferral_carries_all_its_state_in_the_trigger(bench: Any, scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.defer() if ask == 0 else verdicts.admit()
    context = bench.context(one())
    with pytest.raises(TaskDeferred) as raised:
        bench.start(context)
    trigger = raised.value.trigger
    assert isinstance(trigger, GateTrigger)
    now_ms = round(scripted.clock.now().timestamp() * 1000)
    assert trigger.not_before_ms == now_ms + 15_000
    assert trigger.until_ms == now_ms + 3_600_000
    assert trigger.deadline_ms == now_ms + 3 * 3_600_000
    assert naming.identity_from(trigger.identity) == scripted.requests[0].identity
    assert raised.value.timeout == timedelta(hours=3, minutes=15)
    assert json.loads(json.dumps(trigger.serialize()[1])) == trigger.serialize()[1]
    assert context["ti"].pushed[DECISION_KEY]["verdict"] == "defer"
    assert bench.wake(raised.value, context, keep_kwargs=False) == "done"
    assert bench.events[-1] == {"decision_id": "d-1", "status": "due"}


def test_each_wake_asks_again_and_may_defer_again(bench: Any, scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.defer() if ask < 2 else verdicts.admit()
    context = bench.context(one())
    with pytest.raises(TaskDeferred) as first:
        bench.start(context)
    with pytest.raises(TaskDeferred) as second:
        bench.wake(first.value, context)
    assert bench.wake(second.value, context) == "done"
    assert [request.identity.key for request in scripted.requests] == [scripted.requests[0].identity.key] * 3
    assert scripted.outcomes == [("nightly/validate", 1, "completed")]


def test_a_wake_that_is_denied_fails_for_good_and_holds_nothing(bench: Any, scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.defer() if ask == 0 else verdicts.deny()
    context = bench.context(one(retries=3))
    with pytest.raises(TaskDeferred) as deferred:
        bench.start(context)
    with pytest.raises(AirflowFailException, match="cagg budget set"):
        bench.wake(deferred.value, context)
    assert scripted.released == [(scripted.requests[0].identity, "")]


def test_a_retry_asks_as_a_later_attempt(bench: Any, scripted: Any) -> None:
    operator = one(retries=2)
    bench.start(bench.context(operator, try_number=1))
    bench.start(bench.context(operator, try_number=2))
    assert [request.identity.attempt for request in scripted.requests] == [1, 2]
    first, second = (request.identity for request in scripted.requests)
    assert first.series_key == second.series_key
    assert first.key != second.key


def test_a_hold_is_given_back_by_what_the_trigger_carries(bench: Any, scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.defer()
    with pytest.raises(TaskDeferred) as deferred:
        bench.start(bench.context(one()))
    asking.release_identity(json.loads(json.dumps(deferred.value.trigger.identity)))
    # the try's own name goes with it: what a clear made wait anew under the same identity is left alone
    assert scripted.released == [(scripted.requests[0].identity, scripted.requests[0].run_reference)]
    with pytest.raises(InvalidInput):
        asking.release_identity({})


def test_the_profile_keeps_clear_of_airflows_stale_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = asking.host_profile()
    assert (profile.wake_margin, profile.shortest_wait) == (timedelta(seconds=60), timedelta(seconds=30))
    assert profile.can_defer


# ---- how work ends ------------------------------------------------------------------------------------------------


def boom() -> None:
    raise ValueError("training diverged")


def test_a_failure_of_the_work_is_settled_and_passed_on(bench: Any, scripted: Any) -> None:
    with pytest.raises(ValueError, match="training diverged"):
        bench.start(bench.context(one(boom)))
    assert scripted.outcomes == [("nightly/validate", 1, "failed")]


class _OwnDeferral(BaseOperator):
    """An operator that defers itself after some work."""

    def execute(self, context: Any) -> Any:
        self.defer(trigger=GateTrigger(0, 0, None, {}, {}), method_name="finish")

    def finish(self, context: Any, event: Any = None) -> str:
        return "finished"


class _Rescheduled(BaseSensorOperator):
    def execute(self, context: Any) -> Any:
        raise AirflowRescheduleException(datetime(2026, 11, 24, tzinfo=UTC))


class _Skipping(BaseOperator):
    def execute(self, context: Any) -> Any:
        raise AirflowSkipException("nothing to do")


@pytest.mark.parametrize(
    ("operator_class", "signal"),
    [(_OwnDeferral, TaskDeferred), (_Rescheduled, AirflowRescheduleException), (_Skipping, AirflowSkipException)],
)
def test_work_that_goes_on_elsewhere_is_settled_and_never_counted_as_a_full_run(
    bench: Any, scripted: Any, operator_class: Any, signal: Any
) -> None:
    with DAG("nightly"):
        operator = carbon_aware(operator_class)(task_id="validate")
    context = bench.context(operator)
    with pytest.raises(signal) as raised:
        bench.start(context)
    assert scripted.outcomes == [("nightly/validate", 1, "interrupted")]
    if operator_class is _OwnDeferral:
        assert context["task"].resume_execution(raised.value.method_name, {"event": {}}, context) == "finished"
        assert len(scripted.requests) == 1


def test_a_short_circuit_is_a_completed_run(bench: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def skip_rest(self: Any, context: Any) -> None:
        raise DownstreamTasksSkipped(tasks=["next"])

    monkeypatch.setattr(ShortCircuitOperator, "execute", skip_rest)
    with DAG("nightly"):
        operator = carbon_aware(ShortCircuitOperator)(task_id="validate", python_callable=lambda: False)
    with pytest.raises(DownstreamTasksSkipped):
        bench.start(bench.context(operator))
    assert scripted.outcomes == [("nightly/validate", 1, "completed")]


# ---- what is left for others --------------------------------------------------------------------------------------


def test_the_xcom_of_a_skipped_validation_says_that_it_did_not_run(bench: Any, scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.deny()
    skippable = GateOptions(kind="validation", purpose="work", on_deny="skip")
    context = bench.context(one(carbon=skippable))
    with pytest.raises(AirflowSkipException):
        bench.start(context)
    value = context["ti"].pushed[DECISION_KEY]
    assert (value["verdict"], value["not_validated"], value["skipped"]) == ("deny", True, True)
    assert json.loads(json.dumps(value)) == value

    context = bench.context(one(carbon=GateOptions(kind="training", on_deny="skip")))
    with pytest.raises(AirflowSkipException):
        bench.start(context)
    assert context["ti"].pushed[DECISION_KEY]["not_validated"] is False


def test_xcoms_that_cannot_be_stored_never_fail_the_task(bench: Any, scripted: Any) -> None:
    class Deaf:
        def __getattr__(self, name: str) -> Any:
            return getattr(instance, name)

        def xcom_push(self, key: str, value: Any) -> None:
            raise RuntimeError("the API server is down")

    context = bench.context(one())
    instance = context["ti"]
    context["ti"] = Deaf()
    assert bench.start(context) == "done"


# ---- off ----------------------------------------------------------------------------------------------------------


def test_until_it_is_enabled_a_task_runs_as_if_nothing_were_there(
    bench: Any, enabled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__CAGG__ENABLED")
    monkeypatch.setattr(opening, "open_gate", lambda: pytest.fail("a gate was opened"))
    context = bench.context(one())
    assert bench.start(context) == "done"
    assert context["ti"].pushed == {}
    with DAG("tagged", tags=["cagg"]):
        plain = PythonOperator(task_id="validate", python_callable=lambda: 1)
    task_policy(plain)
    assert type(plain) is PythonOperator


# ---- classes ------------------------------------------------------------------------------------------------------


def test_a_gated_class_stays_the_operator_it_was() -> None:
    gated = carbon_aware(BashOperator)
    assert gated is carbon_aware(BashOperator)
    assert issubclass(gated, BashOperator)
    assert gated.template_fields == BashOperator.template_fields
    assert gated.ui_color == BashOperator.ui_color
    assert gated.__module__ == BashOperator.__module__
    assert pickle.loads(pickle.dumps(gated)) is gated
    assert copy.deepcopy(gated) is gated
    with DAG("nightly") as dag:
        operator = gated(task_id="b", bash_command="true", carbon={"zone": "GB", "duration": "30m"}, pool="small")
        default = gated(task_id="c", bash_command="true")
    assert operator.carbon == {"zone": "GB", "duration": "1800.000000 s"}
    assert json.loads(json.dumps(operator.carbon)) == operator.carbon
    assert (operator.pool, operator.task_type, default.carbon) == ("small", "CarbonAwareBashOperator", {})
    assert set(dag.task_ids) == {"b", "c"}


def test_options_may_stand_in_the_default_arguments_of_a_dag() -> None:
    with DAG("nightly", default_args={"carbon": {"budget": "acme/ml"}}):
        plain = Gated(task_id="a", python_callable=lambda: 1)
        said = Gated(task_id="b", python_callable=lambda: 1, carbon=GateOptions(zone="GB"))

        @task.carbon_aware
        def bare() -> None: ...

        decorated = bare().operator
    assert (plain.carbon, said.carbon, decorated.carbon) == (
        {"budget": "acme/ml"},
        {"zone": "GB"},
        {"budget": "acme/ml"},
    )


def test_a_mapped_task_keeps_plain_json_until_it_is_expanded() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("nightly") as dag:
        mapped = Gated.partial(
            task_id="v", python_callable=boom, carbon=GateOptions(energy="1 kWh", finish_by="06:00")
        ).expand(op_args=[[0], [1]])
    assert mapped.partial_kwargs["carbon"] == {"energy": "3600000000 mJ", "finish_by": "06:00"}
    document = DagSerialization.to_dict(dag)
    assert "CarbonAwarePythonOperator" in json.dumps(document)
    assert isinstance(mapped.unmap({"op_args": [0]}), CarbonGateMixin)


class _Clashing(BaseOperator):
    def __init__(self, *, carbon: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class _Attributed(BaseOperator):
    carbon = 12


class _Triggered(BaseOperator):
    start_from_trigger = True


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (_Clashing, "parameter 'carbon' of its own"),
        (_Attributed, "attribute 'carbon' of its own"),
        (Gated, "has a carbon gate already"),
        (dict, "is no Airflow operator class"),
        (boom, "takes an operator class"),
        (GateOptions(), "takes an operator class"),
    ],
)
def test_what_cannot_be_gated_is_refused_where_it_is_written(thing: Any, message: str) -> None:
    with pytest.raises(CaggError, match=message):
        carbon_aware(thing)


def test_a_task_that_starts_in_the_triggerer_is_refused() -> None:
    with DAG("nightly"), pytest.raises(InvalidInput, match="start_from_trigger"):
        carbon_aware(_Triggered)(task_id="v")


@pytest.mark.parametrize(
    ("carbon", "message"),
    [({"zon": "GB"}, "unknown option 'zon'"), ("GB", "GateOptions"), ({"duration": "30"}, "needs a number and a unit")],
)
def test_options_that_cannot_be_used_are_refused_at_parse(carbon: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        one(carbon=carbon)


def test_the_decorator_takes_exactly_the_gates_options() -> None:
    own = inspect.signature(carbon_aware_task).parameters
    options = inspect.signature(GateOptions).parameters
    taken = [item for item in own.values() if item.kind is inspect.Parameter.KEYWORD_ONLY]
    assert [(item.name, item.default, item.annotation) for item in taken] == [
        (item.name, item.default, item.annotation) for item in options.values()
    ]


# ---- the cluster policy -------------------------------------------------------------------------------------------


def test_the_policy_leaves_alone_what_it_must(enabled: None) -> None:
    with DAG("tagged", tags=["cagg"]):
        operators = [
            one_of(task_id=name)
            for name, one_of in {"sensor": _Rescheduled, "empty": EmptyOperator, "triggered": _Triggered}.items()
        ]
        explicit = Gated(task_id="explicit", python_callable=boom, carbon={"zone": "GB"})

        @setup
        def prepare() -> None: ...

        prepared = prepare().operator
        clashing = _Clashing(task_id="clashing")
    with DAG("untagged", tags=["cagg-like"]):
        untagged = BashOperator(task_id="b", bash_command="true")
    before = [type(item) for item in [*operators, explicit, prepared, clashing, untagged]]
    for item in [*operators, explicit, prepared, clashing, untagged]:
        task_policy(item)
    assert [type(item) for item in [*operators, explicit, prepared, clashing, untagged]] == before
    assert explicit.carbon == {"zone": "GB"}


def test_the_policy_changes_nothing_that_people_see(enabled: None) -> None:
    with DAG("tagged", tags=["cagg"], params={"carbon": {"budget": "acme/ml"}}):
        plain = BashOperator(task_id="b", bash_command="true", retries=2, pool="small")
        mapped = BashOperator.partial(task_id="m").expand(bash_command=["true"])
    for item in (plain, mapped):
        task_policy(item)
        task_policy(item)  # a second policy manager, or a second parse of the same object
    assert isinstance(plain, BashOperator)
    assert isinstance(plain, CarbonGateMixin)
    assert (plain.task_type, plain.operator_name, plain.retries, plain.pool) == (
        "BashOperator",
        "BashOperator",
        2,
        "small",
    )
    assert plain.carbon == mapped.partial_kwargs["carbon"] == {"budget": "acme/ml"}
    assert mapped.operator_class.__name__ == "BashOperator"


def test_the_policy_refuses_options_that_do_not_exist(enabled: None) -> None:
    with DAG("tagged", tags=["cagg"], params={"carbon": {"zon": "GB"}}):
        plain = BashOperator(task_id="b", bash_command="true")
    with pytest.raises(InvalidInput, match="unknown option 'zon'"):
        task_policy(plain)


# ---- the reading --------------------------------------------------------------------------------------------------


def test_a_real_gate_leaves_a_decision_and_a_reading(
    bench: Any, enabled: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAGG_HOME", str(tmp_path))
    monkeypatch.setattr(opening, "find_connection", lambda name: None)
    context = bench.context(one())
    assert bench.start(context) == "done"
    decision, reading = context["ti"].pushed[DECISION_KEY], context["ti"].pushed[READING_KEY]
    assert (decision["verdict"], decision["reason"]) == ("admit", "no_zone")
    assert reading["decision_id"] == decision["decision_id"]
    assert reading["complete"] is True
    assert reading["measurement_id"]
    assert json.loads(json.dumps(reading)) == reading

    with DAG("nightly"):
        leaving = carbon_aware(_OwnDeferral)(task_id="leaving")
    context = bench.context(leaving)
    with pytest.raises(TaskDeferred):
        bench.start(context)
    assert context["ti"].pushed[READING_KEY]["complete"] is False


# ---- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("carbon", "ends"),
    [
        ({"budget": "acme/ml"}, AirflowFailException),  # may be enforced: nobody can say
        ({"kind": "validation"}, AirflowFailException),  # a release fails closed
        ({"budget": "acme/ml", "purpose": "monitor"}, None),
        ({}, None),
    ],
)
def test_a_store_that_is_down_is_named_in_what_the_task_says(
    bench: Any, enabled: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, carbon: Any, ends: Any
) -> None:
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("a file where the store's folder should be")
    monkeypatch.setenv("CAGG_STORE", f"sqlite:///{tmp_path}/file/cagg.db")
    monkeypatch.setattr(opening, "find_connection", lambda name: None)
    context = bench.context(one(carbon=carbon, retries=2))
    if ends is None:
        assert bench.start(context) == "done"
    else:
        with pytest.raises(ends, match="Not admitted"):
            bench.start(context)
    said = context["ti"].pushed[DECISION_KEY]
    assert (said["reason"], said["decision_id"]) == ("store_down", None)
    assert list((tmp_path / "home" / "spool").iterdir())  # nothing is silent


def test_a_remote_executor_without_a_shared_store_enforces_nothing_and_says_so(
    bench: Any, enabled: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAGG_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setattr(opening, "find_connection", lambda name: None)
    context = bench.context(one(carbon={"budget": "acme/ml"}))
    assert bench.start(context) == "done"
    assert any("acme/ml is not enforced" in note for note in context["ti"].pushed[DECISION_KEY]["notes"])
    context = bench.context(one(carbon={"budget": "acme/ml", "kind": "validation"}))
    with pytest.raises(AirflowFailException, match="postgresql://"):
        bench.start(context)


def test_a_task_that_was_switched_off_while_it_waited_runs(
    bench: Any, scripted: Any, verdicts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.rule = lambda request, ask: verdicts.defer()
    context = bench.context(one())
    with pytest.raises(TaskDeferred) as deferred:
        bench.start(context)
    monkeypatch.delenv("AIRFLOW__CAGG__ENABLED")
    assert bench.wake(deferred.value, context) == "done"


# ---- operators that defer themselves ---------------------------------------------------------------------------------


class Resumed(BaseOperator):
    """Defers itself and continues where it began."""

    def execute(self, context: Any, event: Any = None) -> Any:
        if event is None:
            raise TaskDeferred(trigger=GateTrigger(0, 0, None, {}, {}), method_name="execute")
        return event["status"]


def test_an_operator_that_defers_itself_to_execute_goes_on_without_another_ask(bench: Any, scripted: Any) -> None:
    with DAG("nightly"):
        operator = carbon_aware(Resumed)(task_id="validate")
    context = bench.context(operator)
    with pytest.raises(TaskDeferred) as raised:
        bench.start(context)
    assert bench.wake(raised.value, context) == "due"
    assert len(scripted.requests) == 1
