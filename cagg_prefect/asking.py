"""Build the request, ask the gate, follow a deferral. What Deny means is said where the work is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import prefect

from cagg.engine_run import EngineRun
from cagg.errors import StoreUnavailable
from cagg.request import GateOptions, HostProfile, OnDeny, Purpose, Request, RequestIdentity
from cagg.verdict import Admit, Decision, Defer, Deny
from cagg_prefect import opening
from cagg_prefect.compat import Completed, State, run_logger
from cagg_prefect.deferral import give_way
from cagg_prefect.naming import HOST, LOCAL, SKIPPED
from cagg_prefect.runs import RootRun

if TYPE_CHECKING:
    from cagg.gating import Gate

__all__ = [
    "Admission",
    "Skip",
    "Subject",
    "Ungated",
    "Way",
    "ask",
    "build_request",
    "deployed_host",
    "may_skip",
    "skipped",
]

WAKE_MARGIN = timedelta(seconds=60)
"""How long a deployed run may take from its scheduled instant to running code: process start and imports took 8 to
27 s on a worker of Prefect 3.9.1 on two cores; containers take longer."""

SHORTEST_WAIT = timedelta(seconds=10)
"""Workers look 10 s ahead (setting PREFECT_WORKER_PREFETCH_SECONDS, Prefect 3.8): shorter waits free no slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is gated.

    Attributes:
        options: what the decorator was told.
        name: how Prefect calls it; a task's history is kept by the names of its flow and itself.
    """

    options: GateOptions
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The gate let the work in; it runs under the meter."""

    gate: Gate
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """The work is left out; ``value`` stands in for its result."""

    value: Any


class Ungated:
    """No gate here: an outer one decided already, or the body was called by hand."""


Way = Admission | Skip | Ungated
"""What becomes of one call of a gated body."""


def deployed_host(*, can_defer: bool) -> HostProfile:
    """What the core has to know about a run that a worker or a ``serve`` process can start again."""
    return HostProfile(name=HOST, wake_margin=WAKE_MARGIN, shortest_wait=SHORTEST_WAIT, can_defer=can_defer)


def build_request(
    subject: Subject,
    identity: RequestIdentity,
    root: RootRun | None,
    *,
    can_defer: bool,
    encloses_run: bool = False,
    labels: Mapping[str, str] | None = None,
    try_number: int | None = None,
) -> Request:
    """Put a request together.

    Args:
        subject: what is gated.
        identity: which call.
        root: None outside of any flow run.
        can_defer: whether the call can be taken up again later.
        encloses_run: whether the gate is around the whole run.
        labels: names and ids for the record.
        try_number: Prefect's own count of tries; None = the identity's attempt, which counts the tries of the flow runs
            around it, too.
    """
    if root is None:
        host = HostProfile(name=LOCAL, can_defer=can_defer)
    elif root.deployed:
        host = deployed_host(can_defer=can_defer)
    else:
        host = HostProfile(name=HOST, can_defer=can_defer)
    return Request(
        identity=identity,
        options=subject.options,
        host=host,
        scheduled_start=root.scheduled_start if root is not None else None,
        schedule_time_zone=root.time_zone if root is not None else None,
        encloses_run=encloses_run,
        labels={**(root.labels if root is not None else {}), **(labels or {})},
        engine_run=_engine_run(subject, identity, root, labels or {}, try_number or identity.attempt),
    )


def _engine_run(
    subject: Subject, identity: RequestIdentity, root: RootRun | None, labels: Mapping[str, str], try_number: int
) -> EngineRun | None:
    """Return what Prefect calls the run, for the record; None outside of Prefect."""
    if identity.host != HOST:
        return None
    around = root.labels if root is not None else {}
    return EngineRun(
        engine=HOST,
        engine_version=prefect.__version__,
        deployment=around.get("deployment_id"),
        workflow=around.get("flow"),
        run_id=around.get("flow_run_id", identity.root_run_id),
        task_id=labels.get("task")
        or (None if root is not None else subject.name),  # no root: picked up by a task worker
        try_number=try_number,
    )


def ask(request: Request, root: RootRun | None) -> Admission:
    """Ask until the verdict is another than Defer. Blocks; asynchronous callers use a thread.

    Returns the last decision, which may be a refusal: see :func:`may_skip`.

    Raises:
        Pause: the run gave its process back and continues later; let it pass.
        DeferralUnsupported: giving the process back would repeat finished work.
        CaggError: the request or the settings cannot be used.
    """
    gate = opening.open_gate()
    decision = gate.ask(request)
    while isinstance(decision.verdict, Defer):
        if give_way(gate, decision, root):
            request = replace(request, host=replace(request.host, can_defer=False))
        decision = gate.ask(request)
    verdict = decision.verdict
    quiet = isinstance(verdict, Admit) and not verdict.over_limit
    if isinstance(decision.verdict, Deny):
        with suppress(StoreUnavailable):  # `cagg maintain` does it then
            gate.release(decision.request.identity)  # the run ends here; nothing will continue it
    level = run_logger().info if quiet else run_logger().warning
    level("carbon gate: %s: %s", type(verdict).__name__.lower(), verdict.message)
    for note in decision.notes:
        run_logger().info("carbon gate: %s", note)
    return Admission(gate=gate, decision=decision)


def may_skip(decision: Decision) -> bool:
    """True when refused work is left out instead of failing. A release fails closed, whatever ``on_deny`` says."""
    options = decision.request.options
    return options.on_deny == OnDeny.SKIP and options.resolved_purpose is not Purpose.RELEASE


def skipped(decision: Decision) -> State[Any]:
    """The final state of skipped work: Prefect's own convention, a Completed state with another name and no result."""
    return Completed(name=SKIPPED, message=decision.verdict.message, data=None)
