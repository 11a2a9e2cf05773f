"""Airflow's run history through its REST API: every attempt of every task instance, a day at a time.

A day's pages are short offsets in a fixed order, so that a history of any length is read in time proportional to it:
100 rows a request, unless ``[api] maximum_page_limit`` allows more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cagg.errors import HostUnavailable, InvalidInput
from cagg.pastruns import PastPipeline, PastRun, RunOutcome, RunTrigger
from cagg.windows import format_instant, parse_instant
from cagg_airflow.api import AirflowApi, path_of

__all__ = ["AirflowHistory"]

_SLICE = timedelta(days=1)
_EARLIER = timedelta(days=7)
"""How much earlier than its task a DAG run may have started and still be found; else its id tells the trigger."""

_MOST_TRIES = 2_000
"""Task instances whose earlier tries are read, one request each; the rest is noted."""

_OUTCOMES = {
    "success": RunOutcome.SUCCEEDED,
    "failed": RunOutcome.FAILED,
    "up_for_retry": RunOutcome.RETRIED,
    "skipped": RunOutcome.SKIPPED,
    "upstream_failed": RunOutcome.SKIPPED,
    "removed": RunOutcome.CANCELLED,
}

_TRIGGERS = {
    "scheduled": RunTrigger.SCHEDULED,
    "backfill": RunTrigger.BACKFILL,
    "manual": RunTrigger.MANUAL,
    "asset_triggered": RunTrigger.EVENT,
    "asset_materialization": RunTrigger.EVENT,
    "operator_triggered": RunTrigger.EVENT,
}

_WAITING = re.compile(r"(Sensor(Async)?$|Sensor_|^ExternalTask|^TimeDelta|HITL|Approval)")
_REQUESTS = re.compile(r"['\"]requests['\"]:\s*\{([^{}]*)\}")
_ASKED = re.compile(r"['\"](cpu|memory)['\"]:\s*['\"]?([0-9.]+)([a-zA-Z]*)")
_MEMORY = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
"""Kubernetes, "Resource Management for Pods and Containers", units of memory (v1.31)."""


class AirflowHistory:
    """Implements :class:`cagg.ports.HostHistory` over a client that is open."""

    def __init__(self, api: AirflowApi) -> None:
        self.notes: list[str] = []
        self._api = api
        self._deferred = 0
        self._triggers: dict[tuple[str, str], RunTrigger] = {}

    def pipelines(self) -> Sequence[PastPipeline]:
        """Every DAG that this user may read, paused ones too; raises HostUnavailable."""
        found = []
        for page in self._api.pages("/dags", "dags", {"order_by": "dag_id"}):
            for row in page.rows:
                tags = row.get("tags") or []
                found.append(
                    PastPipeline(
                        name=str(row.get("dag_id") or "?"),
                        schedule=str(row.get("timetable_summary") or ""),
                        tags=tuple(str(tag.get("name", "")) for tag in tags if isinstance(tag, dict)),
                        active=not row.get("is_paused", False),
                    )
                )
        return found

    def runs(self, since: datetime, until: datetime, progress: Callable[[int, int | None], None]) -> Iterator[PastRun]:
        """Every attempt of every task instance that started in ``[since, until)``; raises HostUnavailable."""
        self._read_triggers(since - _EARLIER, until)
        read = tries_read = tries_left = 0
        start = since
        while start < until:
            stop = min(until, start + _SLICE)
            before = read
            for page in self._day("/dags/~/dagRuns/~/taskInstances", "task_instances", start, stop):
                for row in page.rows:
                    earlier: list[PastRun] = []
                    if _number(row.get("try_number")) > 1:
                        if tries_read < _MOST_TRIES:
                            tries_read += 1
                            earlier = self._earlier_tries(row)
                        else:
                            tries_left += 1
                    yield from earlier
                    run = self._past_run(row, trigger_of=row)
                    if run is not None:
                        yield run
                read += len(page.rows)
                whole = stop == until and page.total is not None
                progress(read, before + page.total if whole and page.total is not None else None)
            start = stop
        if self._deferred:
            self.notes.append(f"{self._deferred} attempts were deferred and count from their last resumption on")
        if tries_left:
            self.notes.append(f"the earlier tries of {tries_left} task instances were not read and are not counted")

    def snippet(self, pipeline: str, zone: str | None, max_wait: str) -> str:
        """The lines that gate a DAG: its tag for all of its tasks, or the decorator for one."""
        where = f'zone="{zone}", ' if zone else ""
        return (
            f'with DAG({json.dumps(pipeline)}, tags=["cagg"], ...):  # gates all of its tasks; or gate one of them:\n'
            f'    @task.carbon_aware({where}max_wait="{max_wait}")\n'
            "    def train(): ..."
        )

    # ---- requests -------------------------------------------------------------------------------------------------

    def _day(self, path: str, key: str, start: datetime, stop: datetime) -> Iterator[Any]:
        bounds = {"start_date_gte": format_instant(start), "start_date_lt": format_instant(stop), "order_by": "id"}
        return self._api.pages(path, key, bounds)

    def _read_triggers(self, since: datetime, until: datetime) -> None:
        start = since
        while start < until:
            stop = min(until, start + 7 * _SLICE)
            for page in self._day("/dags/~/dagRuns", "dag_runs", start, stop):
                for row in page.rows:
                    kind = _TRIGGERS.get(str(row.get("run_type")), RunTrigger.UNKNOWN)
                    self._triggers[str(row.get("dag_id")), str(row.get("dag_run_id"))] = kind
            start = stop

    def _earlier_tries(self, row: Mapping[str, Any]) -> list[PastRun]:
        """The tries before the last one; an instance that was deleted meanwhile has none."""
        parts = ["dags", str(row["dag_id"]), "dagRuns", str(row["dag_run_id"]), "taskInstances", str(row["task_id"])]
        index = _number(row.get("map_index"), -1)
        found = self._api.find(path_of(*parts, *([str(index)] if index >= 0 else []), "tries"))
        tries = (found or {}).get("task_instances") if isinstance(found, dict) else None
        if not isinstance(tries, list):
            return []
        runs = []
        for item in tries:
            if isinstance(item, dict) and _number(item.get("try_number")) < _number(row.get("try_number")):
                run = self._past_run(item, trigger_of=row)
                if run is not None:
                    runs.append(run)
        return runs

    def _past_run(self, row: Mapping[str, Any], *, trigger_of: Mapping[str, Any]) -> PastRun | None:
        try:
            key = str(row["dag_id"]), str(row["dag_run_id"])
            latest = row is trigger_of
            outcome = _outcome(row.get("state"), latest=latest)
            operator = str(row.get("operator") or "")
            queued_at, started_at = _instant(row.get("queued_when")), _instant(row.get("start_date"))
            ended_at = _instant(row.get("end_date"))
            if started_at and queued_at and ended_at and started_at < queued_at <= ended_at:
                # Deferred: Airflow keeps the first start and queues the task again when its trigger has fired (3.3.2).
                # What it worked before it deferred is not told, and little as a rule.
                self._deferred += 1
                started_at = queued_at
            cpu_thousandths, memory_bytes = _asked(str(row.get("executor_config") or ""))
            return PastRun(
                pipeline=key[0],
                run_id=key[1],
                task=str(row["task_id"]),
                outcome=outcome,
                attempt=max(1, _number(row.get("try_number"))),
                trigger=self._triggers.get(key) or _trigger_of_id(key[1]),
                scheduled_at=_instant(trigger_of.get("run_after")),
                queued_at=queued_at,
                started_at=started_at,
                ended_at=ended_at,
                operator=operator,
                waits=_WAITING.search(operator) is not None,
                pool=str(row.get("pool") or ""),
                cpu_thousandths=cpu_thousandths,
                memory_bytes=memory_bytes,
            )
        except (KeyError, InvalidInput) as error:
            raise HostUnavailable(
                f"Airflow described a task instance in a way that is not understood ({error}); check that it is "
                "Airflow 3.2 or later."
            ) from error


def _outcome(state: object, *, latest: bool) -> RunOutcome:
    """A try that failed and was not the last one was retried; one that is none of the final states still goes on."""
    found = _OUTCOMES.get(str(state), RunOutcome.RUNNING)
    if latest:
        return found
    return RunOutcome.RETRIED if found in (RunOutcome.FAILED, RunOutcome.RUNNING) else found


def _trigger_of_id(run_id: str) -> RunTrigger:
    """Airflow begins the ids that it makes with the run's type and two underscores."""
    return _TRIGGERS.get(run_id.partition("__")[0], RunTrigger.UNKNOWN)


def _instant(value: object) -> datetime | None:
    return parse_instant(value, "an instant of Airflow") if isinstance(value, str) else None


def _number(value: object, default: int = 0) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _asked(executor_config: str) -> tuple[int | None, int | None]:
    """Read the processors (in thousandths) and the memory that a Kubernetes pod override asks for.

    Airflow gives the override as Python text; anything else in it is passed over.
    """
    cpu_thousandths: int | None = None
    memory_bytes: int | None = None
    for block in _REQUESTS.findall(executor_config[:20_000]):
        for name, number, unit in _ASKED.findall(block):
            try:
                amount = float(number)
            except ValueError:
                continue
            if name == "cpu" and unit in {"", "m"}:
                cpu_thousandths = (cpu_thousandths or 0) + round(amount * (1 if unit == "m" else 1_000))
            elif name == "memory" and unit in _MEMORY:
                memory_bytes = (memory_bytes or 0) + round(amount * _MEMORY[unit])
    return cpu_thousandths or None, memory_bytes or None
