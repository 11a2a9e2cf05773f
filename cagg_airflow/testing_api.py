"""What a test does through Airflow's REST API: run, look, mark, clear, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import httpx

from cagg.clock import SystemClock
from cagg.errors import CaggError
from cagg.ports import Clock

__all__ = ["FINAL", "LocalApi", "until"]

FINAL = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task instance or run that do not change by themselves."""

_PATIENCE_SECONDS = 120.0

_T = TypeVar("_T")


def until(
    what: str,
    look: Callable[[], _T | None],
    *,
    timeout_seconds: float,
    every_seconds: float = 0.25,
    clock: Clock | None = None,
) -> _T:
    """Return the first answer of ``look`` that is not None.

    Raises:
        CaggError: none came in time; names what was waited for.
    """
    clock = clock or SystemClock()
    end_ns = clock.monotonic_ns() + round(timeout_seconds * 1e9)
    while True:
        found = look()
        if found is not None:
            return found
        if clock.monotonic_ns() >= end_ns:
            raise CaggError(f"waited {timeout_seconds:g} s in vain for {what}.")
        clock.sleep(every_seconds)


class LocalApi:
    """Airflow's REST API (``/api/v2``, Airflow 3.2 and later) as the simple auth manager's administrator.

    Args:
        address: of the API server.
        password: of the user ``admin``.
        clock: time; None = the system's.
        transport: instead of the network, for tests.
    """

    def __init__(
        self,
        address: str,
        password: str,
        *,
        clock: Clock | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        # cagg's tests point HTTP_PROXY nowhere; this server is on the loopback interface
        self._http = httpx.Client(base_url=address, timeout=30.0, trust_env=False, transport=transport)
        answer = self._http.post("/auth/token", json={"username": "admin", "password": password})
        if not answer.is_success:
            raise CaggError(f"Airflow at {address} gave no token ({answer.status_code}); is the password right?")
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, *, body: object = None, query: Mapping[str, Any] | None = None) -> Any:
        """Call ``/api/v2/PATH`` and return its JSON, None when the answer is empty.

        Raises:
            CaggError: the API refused; shows its answer.
        """
        answer = self._http.request(method, f"/api/v2/{path}", json=body, params=dict(query or {}))
        if not answer.is_success:
            raise CaggError(f"{method} {path} was answered with {answer.status_code}: {answer.text[:2000]}")
        return answer.json() if answer.content else None

    # ---- DAGs -----------------------------------------------------------------------------------------------------

    def wait_for_dag(self, dag_id: str, *, timeout_seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until the DAG processor has parsed it; an import error of any file ends the wait at once."""

        def look() -> str | None:
            if errors := self.import_errors():
                raise CaggError("\n".join(errors.values()))
            return dag_id if self._http.get(f"/api/v2/dags/{dag_id}/details").is_success else None

        until(f"the DAG {dag_id}", look, timeout_seconds=timeout_seconds, every_seconds=0.5, clock=self._clock)

    def import_errors(self) -> dict[str, str]:
        """Return stack traces of the files that could not be parsed, by file name."""
        found = self.call("GET", "importErrors")["import_errors"]
        return {item["filename"]: item["stack_trace"] for item in found}

    # ---- runs -----------------------------------------------------------------------------------------------------

    def trigger(
        self, dag_id: str, *, conf: Mapping[str, Any] | None = None, logical_date: datetime | None = None
    ) -> str:
        """Start a run by hand and return its id; a logical date of None is Airflow 3's run without one."""
        date = None if logical_date is None else logical_date.isoformat()
        body = {"logical_date": date, "conf": dict(conf or {})}
        return str(self.call("POST", f"dags/{dag_id}/dagRuns", body=body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return the run as the API describes it."""
        return dict(self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}"))

    def wait_for_run(
        self, dag_id: str, run_id: str, state: str = "success", *, timeout_seconds: float = _PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """Wait until the run is in the state; raises CaggError at once when it ends in another one."""

        def look() -> dict[str, Any] | None:
            run = self.run(dag_id, run_id)
            if run["state"] != state and run["state"] in FINAL:
                states = {(item["task_id"], item["map_index"]): item["state"] for item in self.tasks(dag_id, run_id)}
                raise CaggError(f"{dag_id} {run_id} is {run['state']}, not {state}: {states}")
            return run if run["state"] == state else None

        return until(
            f"{dag_id} {run_id} to be {state}",
            look,
            timeout_seconds=timeout_seconds,
            every_seconds=0.5,
            clock=self._clock,
        )

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Set a run's state, and that of its unfinished tasks, as a person does in the user interface."""
        self.call("PATCH", f"dags/{dag_id}/dagRuns/{run_id}", body={"state": state})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run and its task instances; Airflow 3.3 refuses while it is running, see :meth:`mark_run`."""
        self.call("DELETE", f"dags/{dag_id}/dagRuns/{run_id}")

    # ---- task instances -------------------------------------------------------------------------------------------

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run, mapped ones included."""
        query = {"limit": 200}
        return list(self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", query=query)["task_instances"])

    def task(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        """Return one task instance as the API describes it."""
        return dict(self.call("GET", self._task_path(dag_id, run_id, task_id, map_index)))

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        state: str = "success",
        *,
        map_index: int = -1,
        timeout_seconds: float = _PATIENCE_SECONDS,
    ) -> dict[str, Any]:
        """Wait until the task instance is in the state; raises CaggError at once when it ends in another one."""

        def look() -> dict[str, Any] | None:
            for item in self.tasks(dag_id, run_id):  # a mapped one exists only once its upstream has ended
                if (item["task_id"], item["map_index"]) != (task_id, map_index):
                    continue
                if item["state"] == state:
                    return item
                if item["state"] in FINAL:
                    log = self.log(dag_id, run_id, task_id, map_index=map_index, attempt=item["try_number"])
                    raise CaggError(f"{task_id} of {run_id} is {item['state']}, not {state}:\n{log[-4000:]}")
            return None

        return until(
            f"{task_id} of {run_id} to be {state}",
            look,
            timeout_seconds=timeout_seconds,
            every_seconds=0.5,
            clock=self._clock,
        )

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str, *, map_index: int = -1) -> None:
        """Set a task instance's state as a person does in the user interface."""
        self.call("PATCH", self._task_path(dag_id, run_id, task_id, map_index), body={"new_state": state})

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[str]) -> None:
        """Clear task instances whatever their state, so that they run again."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "only_failed": False,
            "only_running": False,
            "reset_dag_runs": True,
        }
        self.call("POST", f"dags/{dag_id}/clearTaskInstances", body=body)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return what a task has pushed under the key; None when it has pushed nothing."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        answer = self._http.get(path, params={"map_index": map_index, "deserialize": False})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if not answer.is_success:
            raise CaggError(f"XCom {key} of {task_id} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer.json()["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, attempt: int = 1) -> str:
        """Return a task's log; says so in words when it cannot be had."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{max(1, attempt)}"
        answer = self._http.get(path, params={"map_index": map_index}, headers={"Accept": "application/json"})
        if not answer.is_success:
            return f"(no log: {answer.status_code})"
        lines = answer.json().get("content", [])
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in lines)

    @staticmethod
    def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        mapped = "" if map_index < 0 else f"/{map_index}"
        return f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}{mapped}"
