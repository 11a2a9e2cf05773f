"""One night on a real Airflow: slots freed, every kind of task gated and woken, charged, recorded, checked, cleaned up.

All DAGs share one night: their runs start together, wait for the same clean window, and each test looks at one aspect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from cagg_airflow.testing_api import FINAL, until

GATED = {
    "night": ("validate",),
    "mapped": ("score",),
    "retried": ("flaky",),
    "untouched": ("plain", "spread"),
    "classy": ("score",),
    "doomed": ("never",),
}
GATED_INSTANCES = 1 + 3 + 1 + 3 + 1 + 1


@dataclass(frozen=True, kw_only=True)
class Night:
    """What was seen while the runs were going on.

    Attributes:
        runs: run id by DAG.
        waiting: task instances while they were deferred, by (DAG, task, map index).
        between: the task that ran in the pool's only slot meanwhile.
        held_while_waiting: of the budget.
    """

    runs: Mapping[str, str]
    waiting: Mapping[tuple[str, str, int], Mapping[str, Any]]
    between: Mapping[str, Any]
    held_while_waiting: int


def _once_all_wait(stand: Any, runs: Mapping[str, str]) -> Mapping[tuple[str, str, int], Mapping[str, Any]]:
    """Return the gated task instances once each of them is deferred; one that is not is told at once."""

    def look() -> Mapping[tuple[str, str, int], Mapping[str, Any]] | None:
        found = {
            (dag_id, item["task_id"], item["map_index"]): item
            for dag_id, run_id in runs.items()
            for item in stand.airflow.api.tasks(dag_id, run_id)
            if item["task_id"] in GATED[dag_id]
        }
        states = {key: item["state"] for key, item in found.items()}
        ran = {key: state for key, state in states.items() if state in FINAL}
        assert not ran, f"not deferred: {ran}"
        return found if len(found) == GATED_INSTANCES and set(states.values()) == {"deferred"} else None

    return until("every task to be deferred", look, timeout_seconds=120)


@pytest.fixture(scope="module")
def night(local_stand: Any) -> Night:
    stand, api = local_stand, local_stand.airflow.api
    stand.night_ahead(GATED_INSTANCES)
    runs = {dag_id: api.trigger(dag_id) for dag_id in GATED}

    waiting = _once_all_wait(stand, runs)
    between_run = api.trigger("other")
    held, _ = stand.counters()
    api.mark("doomed", runs["doomed"], "never", "failed")
    between = api.wait_for_task("other", between_run, "between")
    assert api.task("night", runs["night"], "validate")["state"] == "deferred"
    for dag_id in set(GATED) - {"doomed"}:
        api.wait_for_run(dag_id, runs[dag_id], timeout_seconds=180)
    return Night(runs=runs, waiting=waiting, between=between, held_while_waiting=held)


def _bodies(stand: Any, night: Night, dag_id: str, task_id: str = "", attempt: int | None = None) -> list[Any]:
    return [
        (entry, body)
        for entry, body in stand.entries(night.runs[dag_id], task_id)
        if attempt is None or (body.get("request") or {}).get("attempt") == attempt
    ]


def _kinds(entries: list[Any]) -> list[str]:
    return [str(entry.kind) for entry, _ in entries]


def _verdicts(entries: list[Any]) -> list[str]:
    return [body["verdict"]["verdict"] for entry, body in entries if entry.kind == "decision"]


def test_deferred_task_frees_its_slot_and_wakes(stand: Any, night: Night) -> None:
    api = stand.airflow.api
    done = api.task("night", night.runs["night"], "validate")
    assert night.between["state"] == "success"  # in the only slot of the pool that the deferred task is in as well
    assert night.between["end_date"] < done["end_date"]
    assert done["state"] == "success"
    assert done["try_number"] == 1
    assert stand.lines("night") == 1
    assert api.xcom("night", night.runs["night"], "report") == sum(number * number for number in range(1_000_000))


def test_the_ledger_tells_the_whole_story_of_each_task(stand: Any, night: Night) -> None:
    entries = _bodies(stand, night, "night")
    assert _kinds(entries) == ["decision", "decision", "measurement", "settlement"]
    assert _verdicts(entries) == ["defer", "admit"]
    measured = entries[2][1]
    assert measured["outcome"] == "completed"
    assert int(measured["energy_millijoules"]) > 0
    assert measured["carbon_micrograms"] is not None


def test_people_see_decision_and_reading_where_they_look(stand: Any, night: Night) -> None:
    api = stand.airflow.api
    decision = api.xcom("night", night.runs["night"], "validate", "carbon_decision")
    reading = api.xcom("night", night.runs["night"], "validate", "carbon_reading")
    assert "admit" in str(decision).lower()
    assert reading


def test_each_index_of_a_mapped_task_is_gated_for_itself(stand: Any, night: Night) -> None:
    assert {key[2] for key in night.waiting if key[:2] == ("mapped", "score")} == {0, 1, 2}
    entries = _bodies(stand, night, "mapped", "score")
    by_request: dict[str, list[Any]] = {}
    for entry, body in entries:
        by_request.setdefault(body["request"]["key"] if "request" in body else body["request_key"], []).append(
            (entry, body)
        )
    stories = [_verdicts(story) for story in by_request.values()]
    assert stories == [["defer", "admit"]] * 3
    assert [stand.lines(f"mapped-{index}") for index in range(3)] == [1, 1, 1]
    assert stand.airflow.api.xcom("mapped", night.runs["mapped"], "total") == 0 + 1 + 4


def test_a_retry_is_asked_again_and_both_attempts_are_charged(stand: Any, night: Night) -> None:
    done = stand.airflow.api.task("retried", night.runs["retried"], "flaky")
    assert (done["state"], done["try_number"]) == ("success", 2)
    assert _verdicts(_bodies(stand, night, "retried", attempt=1)) == ["defer", "admit"]
    assert _verdicts(_bodies(stand, night, "retried", attempt=2)) == ["admit"]  # a retry is never deferred again
    entries = _bodies(stand, night, "retried")
    assert [body["outcome"] for entry, body in entries if entry.kind == "measurement"] == ["failed", "completed"]
    assert _kinds(entries).count("settlement") == 2


def test_a_tagged_dag_is_gated_without_a_change(stand: Any, night: Night) -> None:
    assert {key[1:] for key in night.waiting if key[0] == "untouched"} == {("plain", -1), ("spread", 0), ("spread", 1)}
    assert sorted(_verdicts(_bodies(stand, night, "untouched"))) == ["admit"] * 3 + ["defer"] * 3
    assert [stand.lines(name) for name in ("untouched-plain", "untouched-0", "untouched-1")] == [1, 1, 1]


def test_an_operator_class_is_gated(stand: Any, night: Night) -> None:
    assert _verdicts(_bodies(stand, night, "classy")) == ["defer", "admit"]
    assert stand.lines("classy") == 1


def test_afterwards_nothing_is_held_and_the_ledger_verifies(stand: Any, night: Night) -> None:
    assert night.held_while_waiting > 0
    assert stand.lines("doomed") == 0
    status, report = stand.cagg("maintain")
    assert status == 0, report
    held, spent = stand.counters()
    assert held == 0
    assert spent > 0
    (released,) = _reservations(stand, night.runs["doomed"])
    assert released.state == "released"
    status, verified = stand.cagg("ledger", "verify")
    assert status == 0, verified


def test_the_history_that_the_night_left_can_be_assessed(stand: Any, night: Night) -> None:
    status, report = stand.cagg("assess", "airflow")
    assert status == 0, report
    assert set(night.runs) <= set(re.findall(r'"(\w+)"', json.dumps(report)))


def _reservations(stand: Any, run_id: str) -> list[Any]:
    with stand.components().store.snapshot() as tx:
        everything = tx.reservations(host="airflow", open_only=False)
    return [item for item in everything if run_id in item.root_run_id]
