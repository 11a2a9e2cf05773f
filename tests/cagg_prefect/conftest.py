"""A real Prefect server for the whole session, and a gate whose verdicts the test writes down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cagg.clock import SystemClock
from cagg.request import Request
from cagg.verdict import Admit, Decision, Defer, Deny, Reason, Review, Verdict
from cagg.windows import Window
from cagg_prefect.testing import LocalPrefect, point_prefect_here, shared_prefect

point_prefect_here()

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings  # noqa: E402  (reads the settings)

from cagg_prefect import opening  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prefect leaves connections to its server open until they are collected; that is not ours to repair."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(
                pytest.mark.filterwarnings(
                    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
                )
            )


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[LocalPrefect]:
    server = shared_prefect()
    # without heartbeats a flow run ends at once instead of up to a second later
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield server


def admit() -> Admit:
    return Admit(reason=Reason.NOW_IS_BEST, message="Runs now: no cleaner hour before the deadline.")


def deny() -> Deny:
    return Deny(reason=Reason.BUDGET_EXCEEDED, message="Denied: acme/ml has 0 g left, raise it with `cagg budget set`.")


def review() -> Review:
    return Review(reason=Reason.NO_REVIEWER, message="Not admitted: a review is needed and no reviewer is configured.")


def defer(seconds: float = 3600.0) -> Defer:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
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
    """Answers each ask by a function of the request and of how often its series was asked."""

    rule: Callable[[Request, int], Verdict] = lambda request, ask: admit()
    requests: list[Request] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    outcomes: list[tuple[str, int, str]] = field(default_factory=list)
    open_runs: list[str] = field(default_factory=list)
    components: Any = field(default_factory=lambda: SimpleNamespace(clock=SystemClock()))

    def ask(self, request: Request) -> Decision:
        earlier = sum(1 for item in self.requests if item.identity.key == request.identity.key)
        self.requests.append(request)
        verdict = self.rule(request, earlier)
        if isinstance(verdict, Defer) and (request.identity.attempt > 1 or not request.host.can_defer):
            verdict = admit()
        self.verdicts.append(verdict)
        now = datetime.now(UTC)
        return Decision(verdict=verdict, request=request, decision_id=None, asked_at=now, first_asked_at=now)

    @contextmanager
    def run(self, decision: Decision) -> Iterator[Any]:
        key, attempt = decision.request.identity.task_key, decision.request.identity.attempt
        assert isinstance(decision.verdict, Admit)
        self.open_runs.append(key)
        outcome = "failed"
        try:
            yield SimpleNamespace(summary=None, reading=None)
            outcome = "completed"
        finally:
            self.open_runs.remove(key)
            self.outcomes.append((key, attempt, outcome))

    def release(self, identity: Any) -> bool:
        self.released.append(identity.task_key)
        return True

    @property
    def asked(self) -> list[tuple[str, int]]:
        """(task key, attempt) of every ask, in order."""
        return [(request.identity.task_key, request.identity.attempt) for request in self.requests]


@pytest.fixture
def scripted(prefect_server: LocalPrefect, monkeypatch: pytest.MonkeyPatch) -> ScriptedGate:
    gate = ScriptedGate()
    monkeypatch.setattr(opening, "open_gate", lambda: gate)
    return gate


@pytest.fixture
def verdicts() -> SimpleNamespace:
    return SimpleNamespace(admit=admit, deny=deny, review=review, defer=defer)
