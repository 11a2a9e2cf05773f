"""Flow runs of a real server as past runs, and the parts that a short test cannot let happen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.states import Cancelled, Completed, Failed, Paused, Pending, Running, Scheduled, State

from cagg.errors import ConfigurationError, HostUnavailable
from cagg.pastruns import HistoryOptions, PastRun, RunOutcome, RunTrigger
from cagg.ports import HostHistory, RemembersRuns
from cagg_prefect.compat import sync_client
from cagg_prefect.history import PrefectHistory, _cpus, _trigger, _worked
from cagg_prefect.host import PrefectRuns
from cagg_prefect.testing import LocalPrefect

EVER = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 3, tzinfo=UTC))


@pytest.fixture
def history(prefect_server: LocalPrefect) -> Iterator[HostHistory]:
    with PrefectRuns.history(HistoryOptions()) as found:
        yield found


def read(history: HostHistory, pipeline: str) -> list[PastRun]:
    now = datetime.now(UTC)
    runs = history.runs(now - timedelta(hours=1), now + timedelta(minutes=1), lambda read, total: None)
    return sorted((run for run in runs if run.pipeline == pipeline), key=lambda run: (run.run_id, run.attempt))


def test_a_flow_run_is_one_run_and_its_subflow_no_other(history: HostHistory) -> None:
    name, inner_name = f"outer-{uuid4()}", f"inner-{uuid4()}"

    @flow(name=inner_name)
    def inner() -> int:
        return 1

    @flow(name=name)
    def outer() -> int:
        return inner()

    outer()
    (run,) = read(history, name)
    assert (run.outcome, run.attempt, run.trigger) == (RunOutcome.SUCCEEDED, 1, RunTrigger.MANUAL)
    assert run.started_at is not None
    assert run.ended_at is not None
    assert type(run.started_at) is datetime
    assert timedelta(0) <= run.ended_at - run.started_at < timedelta(minutes=1)
    assert read(history, inner_name) == []
    assert {name, inner_name} <= {item.name for item in history.pipelines()}


def test_a_retried_run_is_told_apart(history: HostHistory) -> None:
    name, tries = f"shaky-{uuid4()}", []

    @flow(name=name, retries=1)
    def shaky() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no")

    shaky()
    first, second = read(history, name)
    assert (first.attempt, first.outcome) == (1, RunOutcome.RETRIED)
    assert (second.attempt, second.outcome) == (2, RunOutcome.SUCCEEDED)
    assert first.ended_at is not None
    assert second.started_at is not None
    assert first.ended_at <= second.started_at


def test_a_failed_run_is_failed(history: HostHistory) -> None:
    name = f"bad-{uuid4()}"

    @flow(name=name)
    def bad() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        bad()
    assert [run.outcome for run in read(history, name)] == [RunOutcome.FAILED]


def test_a_deployment_is_a_pipeline_with_its_schedule(history: HostHistory) -> None:
    name = f"served-{uuid4()}"
    with sync_client() as client:
        flow_id = client.create_flow_from_name(name)
        schedule = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 22 * * *", timezone="UTC"), active=True)
        client.create_deployment(flow_id=flow_id, name="nightly", schedules=[schedule], tags=["ml"], paused=True)
    (found,) = [item for item in history.pipelines() if item.name == f"{name}/nightly"]
    assert (found.schedule, found.tags, found.active) == ("0 22 * * *", ("ml",), False)


def test_nothing_is_read_outside_of_the_time(history: HostHistory) -> None:
    assert list(history.runs(*EVER, lambda read, total: None)) == []


def test_the_class_has_a_history(prefect_server: LocalPrefect) -> None:
    assert isinstance(PrefectRuns, RemembersRuns)


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("http://127.0.0.1:9", HostUnavailable, "cannot be reached"),
        ("ftp://127.0.0.1", ConfigurationError, "must be like"),
        ("nonsense", ConfigurationError, "must be like"),
        ("http://me:s3cret@127.0.0.1:9", ConfigurationError, "holds a user or password"),
    ],
)
def test_addresses_that_do_not_answer_are_one_sentence(
    prefect_server: LocalPrefect, url: str, kind: type[Exception], words: str
) -> None:
    with (
        pytest.raises(kind, match=words) as refused,
        PrefectRuns.history(HistoryOptions(url=url, timeout_seconds=2)) as found,
    ):
        found.pipelines()
    assert "s3cret" not in str(refused.value)


def test_an_address_is_only_for_the_history(prefect_server: LocalPrefect, history: HostHistory) -> None:
    from cagg_prefect.compat import api_address

    before = api_address()
    with PrefectRuns.history(HistoryOptions(url="http://127.0.0.1:9")):
        assert api_address() == "http://127.0.0.1:9/api"
    assert api_address() == before


# ---- parts --------------------------------------------------------------------------------------------------------


def states(*named: State[Any]) -> list[State[Any]]:
    begin = datetime(2026, 1, 5, tzinfo=UTC)
    return [item.model_copy(update={"timestamp": begin + timedelta(minutes=n)}) for n, item in enumerate(named)]


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ((Scheduled(), Pending(), Running(), Completed()), [(2, 3, "succeeded")]),
        (
            (Running(), Scheduled(name="AwaitingRetry"), Running(name="Retrying"), Failed()),
            [(0, 1, "retried"), (2, 3, "failed")],
        ),
        (
            (Running(), Scheduled(name="AwaitingGreenWindow"), Pending(), Running(), Completed()),
            [(0, 1, "succeeded"), (3, 4, "succeeded")],
        ),
        ((Running(), Paused(), Running(), Cancelled()), [(0, 1, "succeeded"), (2, 3, "cancelled")]),
        ((Running(), Running(name="Progress"), Completed(name="Skipped")), [(0, 2, "skipped")]),
        ((Running(),), [(0, None, "running")]),
        ((Scheduled(), Pending(), Cancelled()), []),
    ],
)
def test_stretches_of_work_are_read_off_the_states(
    sequence: tuple[State[Any], ...], expected: list[tuple[int, int | None, str]]
) -> None:
    begin = datetime(2026, 1, 5, tzinfo=UTC)
    found = [
        (
            round((start - begin) / timedelta(minutes=1)),
            None if end is None else round((end - begin) / timedelta(minutes=1)),
            str(outcome),
        )
        for start, end, outcome in _worked(states(*sequence))
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"cpu": "500m"}, 500),
        ({"cpu": 2}, 2_000),
        ({"cpu_request": "1.5"}, 1_500),
        ({"cpu": 1024}, 1_000),
        ({"cpu": "lots"}, None),
        ({"cpu": "nan"}, None),
        ({"cpu": "inf"}, None),
        ({"cpu": -1}, None),
        ({}, None),
        (None, None),
    ],
)
def test_processors_are_read_off_the_job_variables(variables: Any, expected: int | None) -> None:
    assert _cpus(variables) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"auto_scheduled": True}, RunTrigger.SCHEDULED),
        ({"parent_task_run_id": uuid4()}, RunTrigger.EVENT),
        ({"created_by": SimpleNamespace(type="AUTOMATION")}, RunTrigger.EVENT),
        ({}, RunTrigger.MANUAL),
    ],
)
def test_the_trigger_is_read_off_the_run(fields: dict[str, Any], expected: RunTrigger) -> None:
    stated = {"auto_scheduled": False, "parent_task_run_id": None, "created_by": None, **fields}
    assert _trigger(SimpleNamespace(**stated)) is expected  # type: ignore[arg-type]


def test_the_snippet_is_a_flow_of_that_name() -> None:
    text = PrefectHistory(None, "").snippet("nightly-train/prod", "neso:GB", "8h")  # type: ignore[arg-type]
    assert text.splitlines() == [
        '@carbon_aware(zone="neso:GB", max_wait="8h")  # from cagg_prefect',
        "@flow",
        "def nightly_train(): ...",
    ]
    assert "def the_flow" in PrefectHistory(None, "").snippet("2 x", None, "8h")  # type: ignore[arg-type]
