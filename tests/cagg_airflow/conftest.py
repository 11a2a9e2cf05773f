"""A gate whose verdicts the test writes down, tasks run without Airflow's server, and a metadata database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cagg.request import Request
from cagg.testing.clock import ManualClock
from cagg.verdict import Admit, Decision, Defer, Deny, Reason, Review, Verdict
from cagg.windows import Window

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)


def admit() -> Admit:
    return Admit(reason=Reason.NOW_IS_BEST, message="Runs now: no cleaner hour before the deadline.")


def deny() -> Deny:
    return Deny(reason=Reason.BUDGET_EXCEEDED, message="Denied: acme/ml has 0 g left, raise it with `cagg budget set`.")


def review() -> Review:
    return Review(reason=Reason.NO_REVIEWER, message="Not admitted: a review is needed and no reviewer is configured.")


def defer(seconds: float = 3600.0, *, now: datetime = NOW) -> Defer:
    until = now + timedelta(seconds=seconds)
    return Defer(
        reason=Reason.CLEANER_WINDOW,
        message="Deferred: a cleaner window comes.",
        until=until,
        deadline=until + timedelta(hours=2),
        window=Window(start=until, end=until + timedelta(minutes=30)),
        expected_difference_micrograms=1_000_000,
    )


@dataclass
class ScriptedGate:
    """Answers each ask by a function of the request and of how often its key was asked."""

    rule: Callable[[Request, int], Verdict] = lambda request, ask: admit()
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    requests: list[Request] = field(default_factory=list)
    released: list[Any] = field(default_factory=list)
    outcomes: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def components(self) -> Any:
        return SimpleNamespace(clock=self.clock)

    def ask(self, request: Request) -> Decision:
        earlier = sum(1 for item in self.requests if item.identity.key == request.identity.key)
        self.requests.append(request)
        verdict = self.rule(request, earlier)
        now = self.clock.now()
        return Decision(verdict=verdict, request=request, decision_id="d-1", asked_at=now, first_asked_at=now)

    @contextmanager
    def run(self, decision: Decision) -> Iterator[Any]:
        identity = decision.request.identity
        assert isinstance(decision.verdict, Admit)
        outcome = "failed"
        try:
            yield SimpleNamespace(summary=None)
            outcome = "completed"
        except BaseException as error:
            outcome = "failed" if isinstance(error, Exception) else "interrupted"
            raise
        finally:
            self.outcomes.append((identity.task_key, identity.attempt, outcome))

    def release(self, identity: Any, *, reference: str = "") -> bool:
        self.released.append((identity, reference))
        return True


@dataclass
class Instance:
    """What a task sees of itself, as Airflow's RuntimeTaskInstance shows it."""

    dag_id: str
    task_id: str
    run_id: str = "manual__2026-11-23T22:00:00+00:00"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


class Bench:
    """Runs tasks as Airflow's task runner does, without its server."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def context(self, task: Any, **instance: Any) -> dict[str, Any]:
        """Return a context; ``dag_run`` may be given, the rest goes into the task instance."""
        dag_run = instance.pop("dag_run", None) or SimpleNamespace(run_type="manual", run_after=NOW, logical_date=None)
        retries = instance.pop("retries_before_clear", task.retries or 0)
        instance.setdefault("max_tries", retries)
        ti = Instance(dag_id=task.dag_id, task_id=task.task_id, **instance)
        return {"ti": ti, "task_instance": ti, "task": task, "dag": task.get_dag(), "dag_run": dag_run, "params": {}}

    def start(self, context: dict[str, Any]) -> Any:
        """Execute as at a task's first start of a try."""
        context["task"] = context["task"].prepare_for_execution()
        return context["task"].execute(context)

    def wake(self, deferred: Any, context: dict[str, Any], *, keep_kwargs: bool = True) -> Any:
        """Send a deferral's trigger through serialisation, then resume; ``dag.test()`` drops the keyword arguments."""
        from airflow.sdk.module_loading import import_string

        path, kwargs = deferred.trigger.serialize()
        trigger = import_string(path)(**kwargs)
        event = {**trigger.echo, "status": "due"}
        self.events.append(event)
        carried = {**(deferred.kwargs or {})} if keep_kwargs else {}
        return context["task"].resume_execution(deferred.method_name, {**carried, "event": event}, context)


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """``[cagg] enabled``, and operators that may be executed without a task runner."""
    from airflow.sdk.bases.operator import ExecutorSafeguard

    monkeypatch.setenv("AIRFLOW__CAGG__ENABLED", "True")
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)


@pytest.fixture
def scripted(enabled: None, monkeypatch: pytest.MonkeyPatch) -> ScriptedGate:
    from cagg_airflow import opening

    gate = ScriptedGate()
    monkeypatch.setattr(opening, "open_gate", lambda: gate)
    return gate


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def verdicts() -> SimpleNamespace:
    return SimpleNamespace(admit=admit, deny=deny, review=review, defer=defer)


@pytest.fixture(scope="session")
def airflow_database() -> Path:
    """A migrated metadata database in this session's AIRFLOW_HOME; ``dag.test()`` needs one."""
    home = Path(os.environ["AIRFLOW_HOME"])
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return home
