"""Run states as ``cagg maintain`` hears them; what doctor and assess ask."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from cagg.pastruns import HistoryOptions
from cagg.ports import RemembersRuns, RunState
from cagg.testing import ManualClock
from cagg_airflow.api import path_of
from cagg_airflow.api_settings import ApiSettings
from cagg_airflow.host import AirflowRuns

NIGHT = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
PASSWORD = "s3cret-pass"
RUN = "scheduled__2026-11-23T20:01:32.187166+00:00"
Airflow = Any  # the pretended server of conftest.py

# ---- run state ----------------------------------------------------------------------------------------------------


def reference(**fields: Any) -> str:
    stated = {"dag_id": "nightly_train", "map_index": -1, "run_id": RUN, "task_id": "train", "try_number": 1}
    return json.dumps({**stated, **fields}, sort_keys=True, separators=(",", ":"))


def place(task: str = "train", *more: str) -> str:
    return "/api/v2" + path_of("dags", "nightly_train", "dagRuns", RUN, "taskInstances", task, *more)


@pytest.fixture
def runs(url: str) -> AirflowRuns:
    return AirflowRuns(ApiSettings(url=url, token="good-token"))


ALIVE = ("scheduled", "queued", "running", "restarting", "deferred", "up_for_reschedule", "awaiting_input", None)
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry")


@pytest.mark.parametrize(
    ("state", "expected"),
    [*((state, RunState.ALIVE) for state in ALIVE), *((state, RunState.ENDED) for state in ENDED), ("new", "unknown")],
)
def test_states_are_judged(airflow: Airflow, runs: AirflowRuns, state: str | None, expected: RunState) -> None:
    airflow.detail[place()] = (200, {"state": state, "try_number": 1})
    assert runs.run_state(f"nightly_train/{RUN}", reference()) == expected


def test_a_newer_try_ends_the_one_that_asked(airflow: Airflow, runs: AirflowRuns) -> None:
    airflow.detail[place()] = (200, {"state": "deferred", "try_number": 2})
    assert runs.run_state("x", reference()) is RunState.ENDED
    assert runs.run_state("x", reference(try_number=2)) is RunState.ALIVE


def test_a_mapped_instance_is_asked_for_by_its_index(airflow: Airflow, runs: AirflowRuns) -> None:
    airflow.detail[place("train", "3")] = (200, {"state": "deferred", "try_number": 1})
    assert runs.run_state("x", reference(map_index=3)) is RunState.ALIVE
    assert runs.run_state("x", reference(map_index=4)) is RunState.GONE


def test_a_run_without_a_task_is_judged_as_a_whole(airflow: Airflow, runs: AirflowRuns) -> None:
    airflow.detail[("/api/v2" + path_of("dags", "nightly_train", "dagRuns", RUN))] = (200, {"state": "failed"})
    assert runs.run_state(f"nightly_train/{RUN}") is RunState.ENDED
    assert runs.run_state("nightly_train/deleted") is RunState.GONE


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (404, {"detail": "Not Found"}),
        (404, "<p>proxy</p>"),
        (403, {"detail": "Forbidden"}),
        (401, {}),
        (500, {}),
        (200, "<p>login</p>"),
        (200, []),
        (200, {"other": 1}),
    ],
)
def test_what_is_no_answer_of_airflow_is_unknown(
    airflow: Airflow, runs: AirflowRuns, monkeypatch: pytest.MonkeyPatch, status: int, document: Any
) -> None:
    monkeypatch.setattr("cagg_airflow.api.SystemClock", lambda: ManualClock(NIGHT))
    airflow.detail[place()] = (status, document)
    assert runs.run_state("x", reference()) is RunState.UNKNOWN


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        "7",
        "{}",
        reference(task_id=""),
        reference(task_id="a/b"),
        reference(run_id="~"),
        reference(dag_id=None),
        reference(map_index="x"),
        "[" * 100_000,
    ],
)
def test_a_reference_that_is_not_ours_is_unknown(runs: AirflowRuns, airflow: Airflow, text: str) -> None:
    assert runs.run_state("nightly_train/x", text) is RunState.UNKNOWN
    assert airflow.asked == []


@pytest.mark.parametrize("root", ["", "/", "no-run", "/x", "dag/", "dag/a/b"])
def test_a_root_that_is_not_ours_is_unknown(runs: AirflowRuns, airflow: Airflow, root: str) -> None:
    assert runs.run_state(root) is RunState.UNKNOWN
    assert airflow.asked == []


def test_after_some_silence_the_others_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(NIGHT)
    monkeypatch.setattr("cagg_airflow.api.SystemClock", lambda: clock)
    silent = AirflowRuns(ApiSettings(url="http://127.0.0.1:9"))
    waited = []
    for _ in range(5):
        before = clock.now()
        assert silent.run_state("x", reference()) is RunState.UNKNOWN
        waited.append(clock.now() > before)
    assert waited == [True, True, True, False, False]


def test_it_closes_what_it_opened_and_opens_it_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    real = httpx.Client.close
    monkeypatch.setattr(httpx.Client, "close", lambda self: (closed.append(self), real(self)))
    with AirflowRuns(ApiSettings(url=url, token="good-token")) as runs:
        first = runs.run_state("x", reference())
    assert len(closed) == 1
    assert runs.run_state("x", reference()) is first
    runs.close()
    assert len(closed) == 2


def test_inside_a_task_the_task_sdk_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, str, int]] = []

    def inside(*place: Any) -> tuple[bool, str | None]:
        seen.append(place)
        return True, "deferred"

    monkeypatch.setattr("cagg_airflow.host.inside_a_task", lambda: True)
    monkeypatch.setattr("cagg_airflow.host.task_state_inside", inside)
    asked = AirflowRuns(ApiSettings(url="http://127.0.0.1:9"))
    assert asked.run_state("x", reference(map_index=2)) is RunState.ALIVE
    assert seen == [("nightly_train", RUN, "train", 2)]
    monkeypatch.setattr("cagg_airflow.host.task_state_inside", lambda *place: (False, None))
    assert asked.run_state("x", reference()) is RunState.GONE


# ---- what doctor and assess ask -----------------------------------------------------------------------------------


def test_the_description_holds_no_secret(url: str) -> None:
    text = str(AirflowRuns(ApiSettings(url=url, username="admin", password=PASSWORD)).describe())
    assert url in text
    assert PASSWORD not in text
    assert "version" in text


def test_a_wrong_address_is_described_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_AIRFLOW_URL", "nonsense")
    runs = AirflowRuns()
    assert "must be like" in runs.describe()["address"]
    assert runs.run_state("d/r") is RunState.UNKNOWN


def test_without_airflow_and_address_it_counts_as_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAGG_AIRFLOW_URL", raising=False)
    for module in ("host", "api_settings"):
        monkeypatch.setattr(f"cagg_airflow.{module}.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="CAGG_AIRFLOW_URL"):
        AirflowRuns()


def test_the_class_opens_a_history(url: str, airflow: Airflow) -> None:
    airflow.anonymous = True
    assert isinstance(AirflowRuns, RemembersRuns)
    with AirflowRuns.history(HistoryOptions(url=url)) as history:
        assert history.pipelines() == []
