"""The Task SDK's channel, with a runner that answers as Airflow 3.3.2's did in a real task."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cagg_airflow.inside import inside_a_task, task_state_inside

RUNNER = "airflow.sdk.execution_time.task_runner"
STATES = {"hold": "deferred", "train": "success", "part_0": "success", "part_1": None}


class SaidNo(Exception):
    """Stands for AirflowRuntimeError."""


class Instance:
    """The two questions that are asked, of one run ``r`` of the DAG ``d``."""

    broken = False

    @classmethod
    def get_task_states(cls, *, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        if cls.broken:
            raise SaidNo
        if (dag_id, run_ids) != ("d", ["r"]):
            return {}
        found = {name: state for name, state in STATES.items() if name.partition("_")[0] in task_ids}
        return {"r": found} if found else {}

    @classmethod
    def get_dr_count(cls, *, dag_id: str, run_ids: list[str]) -> int:
        return int((dag_id, run_ids) == ("d", ["r"]))

    @classmethod
    def get_dagrun_state(cls, *, dag_id: str, run_id: str) -> Any:
        return SimpleNamespace(value="running")


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType(RUNNER)
    vars(module).update(SUPERVISOR_COMMS=object(), RuntimeTaskInstance=Instance)
    exceptions = ModuleType("airflow.sdk.exceptions")
    vars(exceptions).update(AirflowException=SaidNo, AirflowRuntimeError=SaidNo)
    for name in ("airflow", "airflow.sdk"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "airflow.sdk.exceptions", exceptions)
    monkeypatch.setitem(sys.modules, RUNNER, module)
    return module


def test_outside_of_a_task_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, RUNNER, raising=False)
    assert not inside_a_task()
    assert task_state_inside("d", "r", "hold", -1) is None


def test_a_loaded_runner_without_a_channel_is_outside(runner: ModuleType) -> None:
    del runner.SUPERVISOR_COMMS
    assert task_state_inside("d", "r", "hold", -1) is None


@pytest.mark.parametrize(
    ("task", "index", "expected"),
    [
        ("hold", -1, (True, "deferred")),
        ("part", 0, (True, "success")),
        ("part", 1, (True, None)),
        ("part", 2, (False, None)),
        ("part", -1, (False, None)),
        ("other", -1, (False, None)),
        ("", -1, (True, "running")),
    ],
)
def test_states_are_found_by_task_and_index(
    runner: ModuleType, task: str, index: int, expected: tuple[bool, str | None]
) -> None:
    assert task_state_inside("d", "r", task, index) == expected


def test_a_deleted_run_does_not_exist(runner: ModuleType) -> None:
    assert task_state_inside("d", "gone", "hold", -1) == (False, None)
    assert task_state_inside("d", "gone", "", -1) == (False, None)


def test_an_error_of_airflow_is_no_answer(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instance, "broken", True)
    assert task_state_inside("d", "r", "hold", -1) is None
