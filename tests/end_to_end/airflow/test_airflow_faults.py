"""What `make prove` does to an Airflow on PostgreSQL: many waits, killed parts, a store that is gone, people's hands.

After each: nothing is spent twice, nothing is held for ever, and every state tells the truth.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from cagg.testing.postgresql import LocalPostgres
from cagg_airflow.testing_api import FINAL, until

pytestmark = pytest.mark.prove

NOW = [40] * 40


@pytest.fixture(scope="module")
def store_server() -> Iterator[LocalPostgres]:
    with LocalPostgres() as server:
        yield server


@pytest.fixture(scope="module")
def pg(tmp_path_factory: pytest.TempPathFactory, store_server: LocalPostgres, start_stand: Any) -> Iterator[Any]:
    """An Airflow whose metadata are on one server and whose store is on another, which may be stopped."""
    with (
        LocalPostgres() as metadata,
        start_stand(
            tmp_path_factory.mktemp("airflow-pg"),
            database_url=metadata.empty_database(),
            store=store_server.new_database(),
            # Airflow's default, not what we recommend: the harder case of the stale-exit race
            environment={"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5"},
        ) as stand,
    ):
        yield stand


@pytest.fixture(autouse=True)
def _clean_marks(pg: Any) -> None:
    for path in pg.marks.iterdir():
        path.unlink()


def _settle_down(stand: Any, *, timeout_seconds: float = 90.0) -> int:
    """Run `cagg maintain` until nothing is held; check every counter and the ledger; returns what was spent in all."""

    def nothing_held() -> bool | None:
        status, report = stand.cagg("maintain")
        assert status == 0, report
        return True if stand.counters()[0] == 0 else None

    until("every hold to be settled or released", nothing_held, timeout_seconds=timeout_seconds, every_seconds=2)
    status, verified = stand.cagg("ledger", "verify")
    assert status == 0, verified
    return int(stand.counters()[1])


def _once_each(stand: Any, run_id: str) -> None:
    """No request of a run is measured or settled twice."""
    seen = Counter(
        (str(entry.kind), body["request"]["key"] if "request" in body else body["request_key"])
        for entry, body in stand.entries(run_id)
        if str(entry.kind) in {"measurement", "settlement"}
    )
    assert [key for key, count in seen.items() if count > 1] == []


def _deferred(stand: Any, dag_id: str, run_id: str, task_id: str, count: int) -> None:
    def look() -> bool | None:
        states = Counter(
            item["state"] for item in stand.airflow.api.tasks(dag_id, run_id) if item["task_id"] == task_id
        )
        assert not states.keys() & FINAL, f"not deferred: {states}"
        return True if states["deferred"] == count else None

    until(f"{count} x {task_id} to be deferred", look, timeout_seconds=120)


def _kinds(stand: Any, run_id: str) -> Counter[str]:
    return Counter(str(entry.kind) for entry, _ in stand.entries(run_id))


# ---- many at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("night", range(5))
def test_none_of_eight_deferring_tasks_is_lost(pg: Any, night: int) -> None:
    """Work that goes on for 9 s after the wake is what the stale report of the first worker would kill."""
    pg.night_ahead(9)
    run_id = pg.airflow.api.trigger("mapped", conf={"count": 8, "seconds": 9})
    _deferred(pg, "mapped", run_id, "score", 8)
    pg.airflow.api.wait_for_run("mapped", run_id, timeout_seconds=240)
    scores = [item for item in pg.airflow.api.tasks("mapped", run_id) if item["task_id"] == "score"]
    assert [item["try_number"] for item in scores] == [1] * 8
    assert [pg.lines(f"mapped-{index}") for index in range(8)] == [1] * 8
    assert _kinds(pg, run_id) == {"decision": 16, "measurement": 8, "settlement": 8}
    _settle_down(pg)


def test_twenty_indexes_of_a_mapped_task(pg: Any) -> None:
    pg.night_ahead(21)
    run_id = pg.airflow.api.trigger("mapped", conf={"count": 20})
    _deferred(pg, "mapped", run_id, "score", 20)
    pg.airflow.api.wait_for_run("mapped", run_id, timeout_seconds=300)
    assert pg.airflow.api.xcom("mapped", run_id, "total") == sum(index * index for index in range(20))
    assert _kinds(pg, run_id) == {"decision": 40, "measurement": 20, "settlement": 20}
    _settle_down(pg)


def test_two_schedulers_start_nothing_twice(pg: Any) -> None:
    second = pg.airflow.spawn("scheduler", environment={"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "0"})
    try:
        pg.night_ahead(7)
        run_id = pg.airflow.api.trigger("mapped", conf={"count": 6, "seconds": 2})
        _deferred(pg, "mapped", run_id, "score", 6)
        pg.airflow.api.wait_for_run("mapped", run_id, timeout_seconds=240)
        assert second.poll() is None
        assert [pg.lines(f"mapped-{index}") for index in range(6)] == [1] * 6
        _once_each(pg, run_id)
    finally:
        for process in [*psutil.Process(second.pid).children(recursive=True), second]:
            process.kill()
        second.wait()
    _settle_down(pg)


# ---- killed parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", ["triggerer", "scheduler", "dag-processor"])
def test_a_part_that_is_killed_while_a_task_waits_loses_nothing(pg: Any, component: str) -> None:
    pg.night_ahead(4)
    run_id = pg.airflow.api.trigger("slow")
    pg.airflow.api.wait_for_task("slow", run_id, "stay", "deferred")
    pg.airflow.kill(component)
    pg.airflow.spawn(component)
    pg.airflow.api.wait_for_run("slow", run_id, timeout_seconds=240)
    assert pg.lines("slow") == 1
    assert _kinds(pg, run_id) == {"decision": 2, "measurement": 1, "settlement": 1}
    _settle_down(pg)


def test_a_task_process_that_is_killed_is_charged_once_its_lease_has_ended(pg: Any) -> None:
    before = _settle_down(pg)
    pg.configure(NOW)
    run_id = pg.airflow.api.trigger("endless")
    pid = _pid(pg, "endless")
    os.kill(pid, signal.SIGKILL)
    pg.airflow.api.wait_for_run("endless", run_id, "failed")
    after = _settle_down(pg)
    assert after > before
    (measured,) = [body for entry, body in pg.entries(run_id) if entry.kind == "measurement"]
    assert measured["outcome"] == "lost"
    assert _settle_down(pg) == after  # maintain again: nothing more


def test_a_machine_that_dies_with_its_tasks_is_charged_once(pg: Any) -> None:
    """Scheduler, executor, supervisor and task process go at once. Airflow may start the orphan once more, as the
    same try: that is a run of its own, and dies here too."""
    before = _settle_down(pg)
    pg.configure(NOW)
    run_id = pg.airflow.api.trigger("endless")
    _pid(pg, "endless")
    pg.airflow.kill("scheduler")
    pg.airflow.spawn("scheduler")

    def again_or_over() -> str | None:
        state = str(pg.airflow.api.run("endless", run_id)["state"])
        return "again" if pg.lines("endless") > 1 else state if state in FINAL else None

    if until("the orphaned task to end or to start again", again_or_over, timeout_seconds=180) == "again":
        os.kill(int((pg.marks / "endless").read_text().split()[-1]), signal.SIGKILL)
    pg.airflow.api.wait_for_run("endless", run_id, "failed")
    assert _settle_down(pg) > before
    _once_each(pg, run_id)
    outcomes = [body["outcome"] for entry, body in pg.entries(run_id) if entry.kind == "measurement"]
    assert outcomes == ["lost"] * pg.lines("endless")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_while_it_settles_is_charged_exactly_once(pg: Any, when: str) -> None:
    before = _settle_down(pg)
    pg.configure(NOW)
    run_id = pg.airflow.api.trigger("dies_settling", conf={"when": when})
    pg.airflow.api.wait_for_run("dies_settling", run_id, timeout_seconds=180)
    assert pg.lines(f"dies-{when}") == 2
    assert _settle_down(pg) > before
    _once_each(pg, run_id)
    outcomes = [body["outcome"] for entry, body in pg.entries(run_id) if entry.kind == "measurement"]
    assert sorted(outcomes) == sorted(["lost" if when == "before" else "completed", "completed"])
    assert _kinds(pg, run_id)["settlement"] == 2  # both attempts, each once


def _pid(stand: Any, name: str) -> int:
    path = stand.marks / name
    return int(
        until("the work to start", lambda: path.read_text().strip() if path.exists() else None, timeout_seconds=60)
    )


# ---- a store that is gone -----------------------------------------------------------------------------------------


def test_parsing_needs_no_store(pg: Any, store_server: LocalPostgres) -> None:
    store_server.kill_immediately()
    try:
        gated = pg.airflow.dags / "gated.py"
        (pg.airflow.dags / "again.py").write_text(
            gated.read_text().replace("def slow()", "def slow_again()").replace("\nslow()", "\nslow_again()")
        )
        pg.airflow.api.wait_for_dag("slow_again")
        assert pg.airflow.api.import_errors() == {}
    finally:
        (pg.airflow.dags / "again.py").unlink(missing_ok=True)
        store_server.restart()


def test_no_store_at_the_decision_refuses_paid_work_once(pg: Any, store_server: LocalPostgres) -> None:
    before = _settle_down(pg)
    pg.configure(NOW)
    store_server.kill_immediately()
    try:
        run_id = pg.airflow.api.trigger("retried")
        pg.airflow.api.wait_for_run("retried", run_id, "failed")
        assert pg.airflow.api.task("retried", run_id, "flaky")["try_number"] == 1  # a refusal is not retried
    finally:
        store_server.restart()
    assert pg.lines("retried") == 0
    assert _settle_down(pg) == before


def test_no_store_at_the_wake_keeps_nothing_for_ever(pg: Any, store_server: LocalPostgres) -> None:
    before = _settle_down(pg)
    pg.night_ahead(4)
    run_id = pg.airflow.api.trigger("slow")
    pg.airflow.api.wait_for_task("slow", run_id, "stay", "deferred")
    store_server.kill_immediately()
    try:
        pg.airflow.api.wait_for_run("slow", run_id, "failed", timeout_seconds=180)
    finally:
        store_server.restart()
    assert pg.lines("slow") == 0
    assert _settle_down(pg) == before


def test_no_store_at_the_settlement_is_settled_later(pg: Any, store_server: LocalPostgres) -> None:
    before = _settle_down(pg)
    pg.configure(NOW, lease="120s")
    run_id = pg.airflow.api.trigger("slow", conf={"seconds": 8})
    _pid(pg, "slow")
    store_server.kill_immediately()
    try:
        pg.airflow.api.wait_for_run("slow", run_id)  # the work is done: it does not fail for want of a store
    finally:
        store_server.restart()
    assert _settle_down(pg) > before
    assert _kinds(pg, run_id) == {"decision": 1, "measurement": 1, "settlement": 1}


# ---- people's hands -----------------------------------------------------------------------------------------------


def test_marked_failed_while_deferred_gives_the_hold_back(pg: Any) -> None:
    before = _settle_down(pg)
    pg.night_ahead(4)
    run_id = pg.airflow.api.trigger("slow")
    pg.airflow.api.wait_for_task("slow", run_id, "stay", "deferred")
    pg.airflow.api.mark("slow", run_id, "stay", "failed")
    assert _settle_down(pg, timeout_seconds=30) == before
    assert pg.lines("slow") == 0


def test_cleared_while_deferred_asks_again_and_runs_once(pg: Any) -> None:
    pg.night_ahead(4)
    run_id = pg.airflow.api.trigger("slow")
    pg.airflow.api.wait_for_task("slow", run_id, "stay", "deferred")
    pg.airflow.api.clear("slow", run_id, ["stay"])
    pg.airflow.api.wait_for_run("slow", run_id, timeout_seconds=300)
    assert pg.lines("slow") == 1
    _once_each(pg, run_id)
    _settle_down(pg)


def test_cleared_after_it_succeeded_is_charged_again(pg: Any) -> None:
    pg.configure(NOW)
    run_id = pg.airflow.api.trigger("slow")
    pg.airflow.api.wait_for_run("slow", run_id)
    once = _settle_down(pg)
    pg.airflow.api.clear("slow", run_id, ["stay"])
    until("the second run", lambda: pg.lines("slow") == 2 or None, timeout_seconds=60)
    pg.airflow.api.wait_for_run("slow", run_id)
    assert _settle_down(pg) > once
    assert _kinds(pg, run_id) == {"decision": 2, "measurement": 2, "settlement": 2}


def test_deleted_while_deferred_gives_the_hold_back(pg: Any) -> None:
    before = _settle_down(pg)
    pg.night_ahead(4)
    run_id = pg.airflow.api.trigger("slow")
    pg.airflow.api.wait_for_task("slow", run_id, "stay", "deferred")
    pg.airflow.api.mark_run("slow", run_id, "failed")  # Airflow deletes no running run
    pg.airflow.api.delete_run("slow", run_id)
    assert _settle_down(pg, timeout_seconds=30) == before
    assert pg.lines("slow") == 0


def test_a_dag_that_is_edited_while_it_waits_wakes_with_the_new_code(pg: Any) -> None:
    pg.night_ahead(4)
    run_id = pg.airflow.api.trigger("slow")
    pg.airflow.api.wait_for_task("slow", run_id, "stay", "deferred")
    path: Path = pg.airflow.dags / "gated.py"
    before = path.read_text()
    try:
        path.write_text(before.replace('mark("slow")', 'mark("slow-edited")'))
        pg.airflow.api.wait_for_run("slow", run_id, timeout_seconds=240)
    finally:
        path.write_text(before)
    assert (pg.lines("slow"), pg.lines("slow-edited")) == (0, 1)
    assert _kinds(pg, run_id) == {"decision": 2, "measurement": 1, "settlement": 1}
    _settle_down(pg)


@pytest.mark.parametrize("dated", [False, True])
def test_runs_with_and_without_a_logical_date(pg: Any, *, dated: bool) -> None:
    pg.night_ahead(4)
    date = datetime(2026, 1, 5, 3, tzinfo=UTC) if dated else None
    run_id = pg.airflow.api.trigger("slow", logical_date=date)
    assert (pg.airflow.api.run("slow", run_id)["logical_date"] is None) is not dated
    pg.airflow.api.wait_for_task("slow", run_id, "stay", "deferred")
    pg.airflow.api.wait_for_run("slow", run_id, timeout_seconds=180)
    _settle_down(pg)
    pg.airflow.api.delete_run("slow", run_id)


# ---- afterwards ---------------------------------------------------------------------------------------------------


def test_the_history_that_these_runs_left_can_be_assessed(pg: Any) -> None:
    status, report = pg.cagg("assess", "airflow")
    assert status == 0, report
    assert "mapped" in json.dumps(report)
