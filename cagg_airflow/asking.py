"""Build the request from a task's context, ask the gate, translate the verdict into Airflow's gesture, settle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from cagg.engine_run import EngineRun
from cagg.errors import StoreUnavailable
from cagg.request import GateOptions, HostProfile, Kind, OnDeny, Purpose, Request, RequestIdentity
from cagg.verdict import Admit, Decision, Defer, Deny, Review
from cagg.windows import to_epoch_ms
from cagg_airflow import opening
from cagg_airflow.compat import (
    ENDS_WELL,
    GIVES_WAY,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
    attempt_of,
    bundle_of,
    engine_version,
    push_xcom,
    schedule_of,
    task_logger,
)
from cagg_airflow.naming import (
    DECISION_KEY,
    HOST,
    READING_KEY,
    WAKE_MARGIN,
    identity_from,
    identity_payload,
    root_run_id,
    run_reference,
    task_key,
)
from cagg_airflow.xcom import decision_xcom, reading_xcom, summary_line

if TYPE_CHECKING:
    from cagg.gating import Gate

__all__ = ["build_request", "deferral", "host_profile", "may_skip", "release_identity", "run_gated", "say"]

SHORTEST_WAIT: Final = timedelta(seconds=30)
"""Shorter waits run now: a task that resumes before its worker has reported the deferral is failed by the scheduler
(apache/airflow #66374, #67287, #72716; seen with Airflow 3.3.2). Removable when a fix is in the oldest version."""

EARLIEST_EVENT: Final = timedelta(seconds=15)
"""No trigger fires sooner after the deferral: reports came up to 10 s late with default settings (Airflow 3.3.2)."""

GRACE: Final = timedelta(minutes=15)
"""After the deadline and this, Airflow fails a task that nothing woke; its hold lapses at the same time."""


def run_gated(
    context: Mapping[str, Any],
    options: GateOptions,
    body: Callable[[], Any],
    *,
    resume_method: str,
) -> Any:
    """Ask for one start or wake of a task; run the body under the meter when it is admitted.

    Args:
        context: Airflow's context of the task.
        options: what the DAG said.
        body: the operator's own work.
        resume_method: name of the operator's method that continues after a deferral.

    Raises:
        TaskDeferred: the slot is given back; the method is called when the window opens.
        AirflowFailException: not admitted; the task fails without a retry.
        AirflowSkipException: not admitted, and ``on_deny="skip"`` of work that is no release.
        CaggError: the request or the settings cannot be used.
    """
    if not opening.enabled():
        task_logger().debug("carbon gate: off, [cagg] enabled is not set; the task runs as it is")
        return body()
    gate = opening.open_gate()
    decision = gate.ask(build_request(context, options))
    say(decision)
    push_xcom(context, DECISION_KEY, decision_xcom(decision))
    verdict = decision.verdict
    match verdict:
        case Admit():
            return _run(gate, decision, context, body)
        case Defer():
            raise deferral(gate, decision, verdict, resume_method)
        case Deny() | Review():
            with suppress(StoreUnavailable):  # `cagg maintain` does it then
                gate.release(decision.request.identity)  # the task ends here; nothing will continue it
            if may_skip(decision):
                raise AirflowSkipException(verdict.message)
            raise AirflowFailException(verdict.message)


def build_request(context: Mapping[str, Any], options: GateOptions) -> Request:
    """Return the request of the task instance in a context."""
    ti, task = context["ti"], context["task"]
    map_index = ti.map_index if ti.map_index is not None else -1
    identity = RequestIdentity(
        host=HOST,
        root_run_id=root_run_id(ti.dag_id, ti.run_id),
        task_key=task_key(ti.dag_id, ti.task_id),
        ordinal=map_index + 1,
        attempt=attempt_of(ti.try_number, getattr(ti, "max_tries", None), getattr(task, "retries", None)),
    )
    start, zone = schedule_of(context)
    run_type = getattr(context.get("dag_run"), "run_type", "")
    labels = {
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "run_type": str(getattr(run_type, "value", run_type)),
        "operator": str(getattr(task, "operator_name", type(task).__name__)),
    }
    return Request(
        identity=identity,
        options=options,
        host=host_profile(),
        scheduled_start=start,
        schedule_time_zone=zone,
        run_reference=run_reference(
            dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=map_index, try_number=ti.try_number
        ),
        labels=labels,
        engine_run=EngineRun(
            engine=HOST,
            engine_version=engine_version(),
            deployment=bundle_of(ti),
            workflow=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=map_index if map_index >= 0 else None,
            try_number=ti.try_number,
        ),
    )


def host_profile() -> HostProfile:
    """Return what the core has to know about this Airflow."""
    return HostProfile(
        name=HOST,
        wake_margin=WAKE_MARGIN,
        shortest_wait=SHORTEST_WAIT,
        remote_workers=opening.remote_workers(),
    )


def may_skip(decision: Decision) -> bool:
    """True when refused work is left out instead of failing. A release fails closed, whatever ``on_deny`` says."""
    options = decision.request.options
    return options.on_deny == OnDeny.SKIP and options.resolved_purpose is not Purpose.RELEASE


def release_identity(payload: Mapping[str, Any]) -> None:
    """Give back the hold of a waiting request, named by what :class:`~cagg_airflow.triggers.GateTrigger` carries.

    Raises:
        StoreUnavailable: the store is down; ``cagg maintain`` will do it.
        CaggError: the settings or the payload cannot be used.
    """
    opening.open_gate().release(identity_from(payload), reference=str(payload.get("run_reference", "")))


class _LeftEarly(BaseException):
    """Ends a metered block whose work goes on elsewhere: recorded as interrupted, so estimates don't learn from it."""


@dataclass(slots=True)
class _Leaving:
    """What the body raised to leave without failing."""

    signal: BaseException | None = None


def _run(gate: Gate, decision: Decision, context: Mapping[str, Any], body: Callable[[], Any]) -> Any:
    run, leaving, result = None, _Leaving(), None
    try:
        with gate.run(decision) as run:
            try:
                result = body()
            except ENDS_WELL as signal:
                leaving.signal = signal
            except GIVES_WAY as signal:
                leaving.signal = signal
                raise _LeftEarly from signal
    except _LeftEarly:
        task_logger().info(
            "carbon gate: the work left this process early (%s); what follows is not metered by this gate",
            type(leaving.signal).__name__,
        )
    finally:
        if run is not None and run.summary is not None:
            complete = leaving.signal is None or isinstance(leaving.signal, ENDS_WELL)
            task_logger().info("carbon gate: used %s", summary_line(run.summary))
            for note in run.summary.notes:
                task_logger().info("carbon gate: %s", note)
            if run.summary.checkpoint:
                task_logger().info("%s", run.summary.checkpoint)
            push_xcom(context, READING_KEY, reading_xcom(decision, run.summary, handed_over=not complete))
    if leaving.signal is not None:
        raise leaving.signal
    return result


def deferral(gate: Gate, decision: Decision, verdict: Defer, resume_method: str) -> TaskDeferred:
    """Return the deferral. All state lies in the trigger, because ``dag.test()`` drops a deferral's own arguments."""
    from cagg_airflow.triggers import GateTrigger

    now = gate.components.clock.now()
    trigger = GateTrigger(
        until_ms=to_epoch_ms(verdict.until, up=True),
        not_before_ms=to_epoch_ms(now + EARLIEST_EVENT, up=True),
        deadline_ms=to_epoch_ms(verdict.deadline),
        identity={**identity_payload(decision.request.identity), "run_reference": decision.request.run_reference},
        echo={"decision_id": decision.decision_id},
    )
    return TaskDeferred(
        trigger=trigger, method_name=resume_method, timeout=max(verdict.deadline, verdict.until) - now + GRACE
    )


def say(decision: Decision) -> None:
    """Log a decision where the task's log is read; what a person should see stands out as a warning."""
    verdict = decision.verdict
    quiet = isinstance(verdict, Defer) or (isinstance(verdict, Admit) and not verdict.over_limit)
    level = task_logger().info if quiet else task_logger().warning
    level("carbon gate: %s: %s", type(verdict).__name__.lower(), verdict.message)
    for note in decision.notes:
        task_logger().info("carbon gate: %s", note)
    if is_unvalidated(decision):
        task_logger().warning("carbon gate: this validation did not run; release gates downstream see not_validated")


def is_unvalidated(decision: Decision) -> bool:
    """True for a validation that is skipped: its XCom says so, and release gates treat it as a failure."""
    refused = isinstance(decision.verdict, Deny | Review)
    return refused and may_skip(decision) and decision.request.options.kind == Kind.VALIDATION
