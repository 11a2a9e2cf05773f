"""What Prefect says about the run that is asking: which run a person sees, who would wake it, which attempt it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cagg_prefect.compat import FlowRun, FlowRunContext, SyncPrefectClient, scope_of, sync_client
from cagg_prefect.naming import AWAITING_GREEN_WINDOW

__all__ = ["RootRun", "root_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRun:
    """The flow run that a person sees and that a worker can start again.

    Attributes:
        run_id: id of the outermost flow run that this process executes.
        chain: ids of the flow runs from the asking one up to the root.
        stand_ins: ids of the task runs that stand for the subflows of the chain in their parents.
        call_key: Prefect's own key of the asking subflow's call in its parent, the same when the parent runs again;
            empty for a root.
        deployed: True when it belongs to a deployment, so that a worker or a ``serve`` process continues it later;
            False for a script, which nothing would start again.
        attempt: 1 for the first try. Restarts after a deferral are not counted.
        deferrals: how often the run gave its process back.
        scheduled_start: when the schedule wanted it, the same on every wake; None for runs started by hand.
        time_zone: IANA zone of the schedule; None when unknown.
        labels: names and ids for the record.
    """

    run_id: str
    chain: tuple[str, ...]
    stand_ins: frozenset[str]
    call_key: str
    deployed: bool
    attempt: int
    deferrals: int
    scheduled_start: datetime | None
    time_zone: str | None
    labels: Mapping[str, str]

    @property
    def nested(self) -> bool:
        """True when the asking flow run is a subflow."""
        return len(self.chain) > 1


def root_run(context: FlowRunContext) -> RootRun:
    """Return the root of a flow run context; asks the API once per execution of the flow's body."""
    scope = scope_of(context)
    if not isinstance(scope.facts, RootRun):
        with sync_client() as client:
            scope.facts = _look_up(context, client)
    return scope.facts


def _look_up(context: FlowRunContext, client: SyncPrefectClient) -> RootRun:
    run = context.flow_run
    if run is None:
        raise RuntimeError("a flow run context without a flow run")  # background tasks have no flow run context
    chain, stand_ins, call_key = [str(run.id)], set[str](), ""
    # A run with a deployment has a process of its own, whoever started it: it is the one that can be rescheduled.
    while run.deployment_id is None and run.parent_task_run_id is not None:
        stand_ins.add(str(run.parent_task_run_id))
        stand_in = client.read_task_run(run.parent_task_run_id)
        if stand_in.flow_run_id is None:
            break
        call_key = call_key or stand_in.dynamic_key
        run = client.read_flow_run(stand_in.flow_run_id)
        chain.append(str(run.id))
    deferrals, first_scheduled = _history(run, client) if run.deployment_id is not None else (0, None)
    scheduled_start = (first_scheduled or run.expected_start_time) if run.auto_scheduled else None
    labels = {"flow_run_id": str(context.flow_run.id if context.flow_run else run.id), "root_flow_run_id": str(run.id)}
    if context.flow is not None:
        labels["flow"] = context.flow.name
    if run.deployment_id is not None:
        labels["deployment_id"] = str(run.deployment_id)
    return RootRun(
        run_id=str(run.id),
        chain=tuple(chain),
        stand_ins=frozenset(stand_ins),
        call_key=call_key,
        deployed=run.deployment_id is not None,
        attempt=max(1, run.run_count - deferrals),
        deferrals=deferrals,
        scheduled_start=scheduled_start,
        time_zone=_time_zone(run, client) if scheduled_start is not None else None,
        labels=labels,
    )


def _history(run: FlowRun, client: SyncPrefectClient) -> tuple[int, datetime | None]:
    """Deferrals so far, and the instant for which the run was scheduled first: every deferral moves the run's own."""
    states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    deferrals = sum(1 for state in states if state.name == AWAITING_GREEN_WINDOW)
    scheduled = [state.state_details.scheduled_time for state in states if state.is_scheduled()]
    return deferrals, next((instant for instant in scheduled if instant is not None), None)


def _time_zone(run: FlowRun, client: SyncPrefectClient) -> str | None:
    """The zone of the schedule that made the run; None when it has none or cannot be told among several."""
    if run.deployment_id is None:
        return None
    schedules = client.read_deployment(run.deployment_id).schedules
    made_by = run.created_by.id if run.created_by is not None else None
    mine = [item for item in schedules if item.id == made_by] or (list(schedules) if len(schedules) == 1 else [])
    return getattr(mine[0].schedule, "timezone", None) if mine else None
