"""Deferral of deployed runs, one process at a time: the engine is called as a worker's process would call it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_client, task
from prefect.cache_policies import INPUTS, RUN_ID
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Pending, Scheduled

from cagg.errors import DeferralUnsupported, NotAdmitted
from cagg.ports import RunState
from cagg_prefect import AWAITING_GREEN_WINDOW, carbon_aware, deferral
from cagg_prefect.host import PrefectRuns

Deploy = Callable[..., FlowRun]


@pytest.fixture
def deploy(prefect_server: Any) -> Iterator[Deploy]:
    """Create a deployment of a flow and one run of it, as ``prefect deployment run`` would."""
    made: list[UUID] = []

    def create(what: Flow[..., Any], cron: str | None = None) -> FlowRun:
        schedules = [CronSchedule(cron=cron, timezone="Europe/London")] if cron else None
        made_of: Any = RunnerDeployment.from_flow(what, name="test", schedules=schedules)
        deployment_id: UUID = made_of.apply(_sync=True)
        made.append(deployment_id)
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(deployment_id)
            return client.read_flow_run(run.id)

    yield create
    with get_client(sync_client=True) as client:
        for deployment_id in made:
            client.delete_deployment(deployment_id)


def read(run: FlowRun) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def start(what: Flow[..., Any], run: FlowRun) -> Any:
    """Run the body as a worker's process does; a scheduled run is made due first."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Scheduled(scheduled_time=datetime.now(UTC)), force=True)
        fresh = client.read_flow_run(run.id)
    result = run_flow(what, flow_run=fresh)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


def test_deferred_run_waits_under_its_name_and_continues_under_its_id(
    scripted: Any, verdicts: Any, deploy: Deploy
) -> None:
    verdict = verdicts.defer(3600)
    scripted.rule = lambda request, ask: verdict if ask < 2 else verdicts.admit()
    entered: list[int] = []

    @carbon_aware(finish_by="06:00")
    @flow(retries=2)
    def nightly() -> None:
        entered.append(1)
        if len(entered) < 3:
            raise ValueError("not yet")

    run = deploy(nightly)
    for _ in range(2):
        with pytest.raises(Pause):
            start(nightly, run)
        waiting = read(run)
        assert waiting.state is not None
        assert (waiting.state.name, waiting.state.is_scheduled()) == (AWAITING_GREEN_WINDOW, True)
        assert waiting.state.state_details.scheduled_time == verdict.until
        assert waiting.state.message == verdict.message
        assert PrefectRuns().run_state(str(run.id)) is RunState.ALIVE
    assert entered == []
    start(nightly, run)
    done = read(run)
    assert done.state is not None
    assert done.state.is_completed()
    assert len(entered) == 3
    # two deferrals, then the first try and both retries: the retries that the person allowed are all there
    assert [request.identity.attempt for request in scripted.requests] == [1, 1, 1, 2, 3]
    assert len({request.identity.key for request in scripted.requests[:3]}) == 1
    request = scripted.requests[0]
    assert (request.host.wake_margin, request.host.can_defer) == (timedelta(seconds=60), True)
    assert request.scheduled_start is None
    assert PrefectRuns().run_state(str(run.id)) is RunState.ENDED


def test_async_flow_is_deferred(scripted: Any, verdicts: Any, deploy: Deploy) -> None:
    scripted.rule = lambda request, ask: verdicts.defer() if ask == 0 else verdicts.admit()

    @carbon_aware()
    @flow
    async def nightly_async() -> int:
        return 7

    run = deploy(nightly_async)
    with pytest.raises(Pause):
        start(nightly_async, run)
    assert start(nightly_async, run) == 7


def test_task_that_defers_repeats_no_persisted_work(scripted: Any, verdicts: Any, deploy: Deploy) -> None:
    scripted.rule = lambda request, ask: (
        verdicts.defer() if request.identity.task_key.endswith("/train") and ask == 0 else verdicts.admit()
    )
    entered: list[str] = []

    @carbon_aware()
    @task(persist_result=True, cache_policy=RUN_ID + INPUTS)
    def load(path: str) -> str:
        entered.append("load")
        return path

    @carbon_aware()
    @task
    def train(data: str) -> str:
        entered.append("train")
        return f"model of {data}"

    @flow
    def long_flow() -> str:
        return train(load("a"))

    run = deploy(long_flow)
    with pytest.raises(Pause):
        start(long_flow, run)
    assert start(long_flow, run) == "model of a"
    assert entered == ["load", "train"]
    assert scripted.asked == [("long-flow/load", 1), ("long-flow/train", 1), ("long-flow/train", 1)]
    assert len({request.identity.key for request in scripted.requests[1:]}) == 1
    assert scripted.outcomes == [("long-flow/load", 1, "completed"), ("long-flow/train", 1, "completed")]


def test_task_that_defers_refuses_when_finished_work_would_be_repeated(
    scripted: Any, verdicts: Any, deploy: Deploy
) -> None:
    scripted.rule = lambda request, ask: verdicts.defer()

    @task
    def load() -> int:
        return 1

    @carbon_aware()
    @task
    def train(data: int) -> int:
        return data

    @flow
    def forgetful() -> int:
        return train(load())

    run = deploy(forgetful)
    with pytest.raises(DeferralUnsupported, match="persist_result=True"):
        start(forgetful, run)
    assert scripted.released == ["forgetful/train"]


def test_task_is_not_deferred_while_others_run_beside_it(
    scripted: Any, verdicts: Any, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferral, "_SETTLE_LIMIT_SECONDS", 3.0)
    scripted.rule = lambda request, ask: verdicts.defer()
    trained = Event()

    @task(persist_result=True)
    def beside() -> int:
        assert trained.wait(60)
        return 1

    @carbon_aware()
    @task
    def train() -> int:
        trained.set()
        return 2

    @flow
    def busy() -> int:
        future = beside.submit()
        return train() + future.result()

    run = deploy(busy)
    assert start(busy, run) == 3
    assert [request.host.can_defer for request in scripted.requests] == [True, False]
    assert scripted.outcomes == [("busy/train", 1, "completed")]


def test_map_is_deferred_as_a_whole_before_any_element_starts(scripted: Any, verdicts: Any, deploy: Deploy) -> None:
    scripted.rule = lambda request, ask: (
        verdicts.defer() if ask == 0 and not scripted.released and len(scripted.requests) == 1 else verdicts.admit()
    )
    entered: list[int] = []

    @carbon_aware()
    @task
    def element(number: int) -> int:
        entered.append(number)
        return number

    @flow
    def mapping() -> list[int]:
        return list(element.map([1, 2, 3]).result())

    run = deploy(mapping)
    with pytest.raises(Pause):
        start(mapping, run)
    assert entered == []
    assert start(mapping, run) == [1, 2, 3]
    assert scripted.requests[0].identity.key == scripted.requests[1].identity.key
    assert len({request.identity.key for request in scripted.requests}) == 3


def test_subflow_reschedules_the_root(scripted: Any, verdicts: Any, deploy: Deploy) -> None:
    scripted.rule = lambda request, ask: verdicts.defer() if ask == 0 else verdicts.admit()

    @carbon_aware()
    @flow
    def child() -> int:
        return 5

    @flow
    def parent() -> int:
        return child()

    run = deploy(parent)
    with pytest.raises(Pause):
        start(parent, run)
    waiting = read(run)
    assert waiting.state is not None
    assert waiting.state.name == AWAITING_GREEN_WINDOW
    assert start(parent, run) == 5
    assert len({request.identity.key for request in scripted.requests}) == 1
    assert scripted.requests[0].identity.root_run_id == str(run.id)
    assert not scripted.requests[0].encloses_run


def test_denied_deployed_run_is_not_retried(scripted: Any, verdicts: Any, deploy: Deploy) -> None:
    scripted.rule = lambda request, ask: verdicts.deny()

    @carbon_aware()
    @flow(retries=3, retry_delay_seconds=600)
    def refused() -> None: ...

    run = deploy(refused)
    with pytest.raises(NotAdmitted):
        start(refused, run)
    state = read(run).state
    assert state is not None
    assert state.is_failed()


def test_run_that_a_person_cancelled_meanwhile_stays_cancelled(scripted: Any, verdicts: Any, deploy: Deploy) -> None:
    runs: list[FlowRun] = []

    def cancelled_while_asking(request: Any, ask: int) -> Any:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(runs[0].id, Cancelling(), force=True)
        return verdicts.defer()

    scripted.rule = cancelled_while_asking

    @carbon_aware()
    @flow
    def nightly() -> None: ...

    runs.append(deploy(nightly))
    with pytest.raises(Pause):
        start(nightly, runs[0])
    state = read(runs[0]).state
    assert state is not None
    assert state.is_cancelling()
    assert scripted.released == ["nightly"]
    assert PrefectRuns().run_state(str(runs[0].id)) is RunState.ENDED


def test_scheduled_run_keeps_its_first_start_and_the_schedules_zone(
    scripted: Any, verdicts: Any, deploy: Deploy
) -> None:
    scripted.rule = lambda request, ask: verdicts.defer() if ask == 0 else verdicts.admit()

    @carbon_aware(finish_by="06:00")
    @flow
    def scheduled() -> None: ...

    manual = deploy(scheduled, cron="0 22 * * *")
    deployment_id = manual.deployment_id
    assert deployment_id is not None
    run = _made_by_the_schedule(deployment_id)
    first = run.expected_start_time
    with pytest.raises(Pause):
        start_kept(scheduled, run)
    start(scheduled, run)
    assert [request.scheduled_start for request in scripted.requests] == [first, first]
    assert [request.schedule_time_zone for request in scripted.requests] == ["Europe/London"] * 2


def start_kept(what: Flow[..., Any], run: FlowRun) -> Any:
    """Start an auto-scheduled run before its time without changing when it was scheduled for."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Pending(), force=True)
        fresh = client.read_flow_run(run.id)
    return run_flow(what, flow_run=fresh)


def _made_by_the_schedule(deployment_id: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        # what the server's scheduler does once a minute
        client._client.post(f"/deployments/{deployment_id}/schedule", json={"min_runs": 1})
        runs = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=20,
        )
    return next(run for run in runs if run.auto_scheduled)


def test_host_of_unknown_runs(prefect_server: Any) -> None:
    runs = PrefectRuns()
    assert runs.name == "prefect"
    assert runs.run_state("5f0c6a0e-0000-4000-8000-000000000000") is RunState.GONE
    assert runs.run_state("not a run id") is RunState.UNKNOWN
    assert runs.describe()["address"].startswith("http://127.0.0.1:")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert runs.run_state("5f0c6a0e-0000-4000-8000-000000000000") is RunState.UNKNOWN


def test_a_task_inside_another_task_gives_nothing_back(scripted: Any, verdicts: Any, deploy: Deploy) -> None:
    scripted.rule = lambda request, ask: verdicts.defer()

    @carbon_aware()
    @task
    def inner() -> int:
        return 1

    @carbon_aware()
    def plain() -> int:
        return 1

    @carbon_aware()
    @flow
    def subflow() -> int:
        return 1

    @task
    def outer() -> int:
        return inner() + plain() + subflow()

    @flow
    def nesting() -> int:
        return outer()

    run = deploy(nesting)
    assert start(nesting, run) == 3
    assert [request.host.can_defer for request in scripted.requests] == [False, False, False]
    state = read(run).state
    assert state is not None
    assert state.is_completed()
