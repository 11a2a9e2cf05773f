"""A server on loopback that answers as Airflow 3.3.2 did, and a client of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from cagg.testing import ManualClock
from cagg_airflow.api import AirflowApi
from cagg_airflow.api_settings import ApiSettings

NIGHT = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
PASSWORD = "s3cret-pass"
RUN = "scheduled__2026-11-23T20:01:32.187166+00:00"


def stamp(minutes: float) -> str:
    return (NIGHT + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def an_instance(task: str, start: float | None, end: float | None, **fields: Any) -> dict[str, Any]:
    """A task instance as ``/taskInstances`` gave it, less what nobody reads."""
    return {
        "task_id": task,
        "dag_id": "nightly_train",
        "dag_run_id": RUN,
        "map_index": -1,
        "run_after": stamp(0),
        "start_date": None if start is None else stamp(start),
        "end_date": None if end is None else stamp(end),
        "state": "success",
        "try_number": 1,
        "pool": "default_pool",
        "operator": "_PythonDecoratedOperator",
        "queued_when": stamp(0),
        "executor_config": "{}",
        **fields,
    }


class Airflow:
    """A pretended Airflow. What it answers lies in its attributes; what it was asked, in ``asked``."""

    def __init__(self) -> None:
        self.token = "good-token"
        self.anonymous = False
        self.users = {"admin": PASSWORD}
        self.failures: list[int] = []
        self.page_limit = 100
        self.dags: list[dict[str, Any]] = []
        self.dag_runs: list[dict[str, Any]] = []
        self.instances: list[dict[str, Any]] = []
        self.tries: dict[str, list[dict[str, Any]]] = {}
        self.detail: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str]] = []

    def answer(self, method: str, address: str, body: Any, token: str) -> tuple[int, Any]:
        parts = urlsplit(address)
        path, query = parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.asked.append((method, address))
        if self.failures:
            return self.failures.pop(0), {"detail": "later"}
        if path == "/auth/token":
            if method == "GET":
                return (201, {"access_token": self.token}) if self.anonymous else (403, {"detail": "not allowed"})
            known = self.users.get(body["username"]) == body["password"]
            return (201, {"access_token": self.token}) if known else (401, {"detail": "Invalid credentials"})
        if path in self.detail:
            return self.detail[path]
        if path == "/api/v2/version":
            return 200, {"version": "3.3.2", "git_version": None}
        if token != self.token:
            return (403, {"detail": "Invalid JWT token"}) if token == "bad" else (401, {"detail": "Token Expired"})
        if path.endswith("/tries"):
            return 200, {"task_instances": self.tries.get(path, []), "total_entries": 1}
        lists = {
            "/api/v2/dags": ("dags", self.dags, ""),
            "/api/v2/dags/~/dagRuns": ("dag_runs", self.dag_runs, "start_date"),
            "/api/v2/dags/~/dagRuns/~/taskInstances": ("task_instances", self.instances, "start_date"),
        }
        if path in lists:
            return 200, self.page(*lists[path], query)
        return 404, {"detail": f"The Task Instance {unquote(path)} was not found"}

    def page(self, key: str, rows: list[dict[str, Any]], by: str, query: dict[str, str]) -> dict[str, Any]:
        if by:
            low, high = (datetime.fromisoformat(query[f"{by}_{end}"]) for end in ("gte", "lt"))
            rows = [row for row in rows if row[by] and low <= datetime.fromisoformat(row[by]) < high]
        first, limit = int(query["offset"]), min(int(query["limit"]), self.page_limit)
        return {key: rows[first : first + limit], "total_entries": len(rows)}


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture
def url(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that runs while the test does; nothing of this machine's Airflow is looked at."""
    for name in ("CAGG_AIRFLOW_URL", "CAGG_AIRFLOW_TOKEN", "CAGG_AIRFLOW_USERNAME", "CAGG_AIRFLOW_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            status, document = airflow.answer(self.command, self.path, body, token)
            html = isinstance(document, str)
            data = document.encode() if html else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "text/html" if html else "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _do  # noqa: N815 - the server looks for these names

        def log_message(self, *args: object) -> None:
            """Tests stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def api(url: str) -> Iterator[AirflowApi]:
    with AirflowApi(ApiSettings(url=url, token="good-token"), clock=ManualClock(NIGHT)) as client:
        yield client


@pytest.fixture
def instance() -> Callable[..., dict[str, Any]]:
    """Makes task instances."""
    return an_instance
