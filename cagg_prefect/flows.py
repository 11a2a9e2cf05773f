"""Gate a flow: ask first thing in its body, in the run that a person sees."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cagg.errors import NotAdmitted
from cagg.request import GateOptions, RequestIdentity
from cagg.verdict import Admit, Decision
from cagg_prefect.asking import Skip, Subject, Ungated, Way, ask, build_request, may_skip, skipped
from cagg_prefect.compat import Flow, FlowRunContext, TaskRunContext, sync_client
from cagg_prefect.metering import wrap
from cagg_prefect.naming import HOST, inputs_digest
from cagg_prefect.runs import RootRun, root_run
from cagg_prefect.shapes import GatedWork, gated_class, move_binding, recast

__all__ = ["gate_flow"]

_MOST_REMEMBERED = 1_000

_executions: OrderedDict[str, int] = OrderedDict()
"""How often the bodies of subflow runs were entered since their root last woke: their own retries, no restarts.

Only the latest runs are remembered: a retry follows its first try closely, and a process may run for months."""

_guard = threading.Lock()


class _GatedFlow(GatedWork):
    """Mixed into the class of a flow; the gate sits around its function."""

    def with_options(self, *args: Any, **changes: Any) -> Any:
        """Return a flow with other options and the same gate."""
        return gate_flow(self.ungated().with_options(*args, **changes), self.cagg_options)


def gate_flow(flow: Flow[..., Any], options: GateOptions) -> Flow[..., Any]:
    """Return a copy of the flow with a gate; name, hooks, retries, entry point and version stay as they were."""
    gated: Flow[..., Any] = recast(flow, gated_class(_GatedFlow, type(flow)))
    subject = Subject(options=options, name=flow.name)
    gated.__dict__.update(cagg_options=options, cagg_body=flow.fn, cagg_class=type(flow), cagg_subject=subject)
    gated.fn = wrap(flow.fn, _FlowGate(subject=subject, flow=flow), artifact=True)
    move_binding(flow.fn, gated.fn)
    return gated


@dataclass(frozen=True, slots=True, kw_only=True)
class _FlowGate:
    """Clears the way for one execution of a gated flow's body."""

    subject: Subject
    flow: Flow[..., Any]

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Way:
        context = FlowRunContext.get()
        if context is None or getattr(context.flow, "cagg_subject", None) != self.subject:
            return Ungated()  # flow.fn(), as Prefect's documentation advises for unit tests, or flow.visualize()
        root = root_run(context)
        digest = inputs_digest(self.flow.fn, args, kwargs, salt=root.call_key)
        identity = RequestIdentity(
            host=HOST,
            root_run_id=root.run_id,
            task_key=self.subject.name,
            ordinal=int(root.call_key) if root.call_key.isdecimal() else 0,
            inputs_digest=digest,
            attempt=self._attempt(root, context),
        )
        # A wait inside the body would run into the flow's own timeout, and a task run around a subflow would be left
        # in Running for ever when the process ends.
        blocked = TaskRunContext.get() is not None if root.deployed else self.flow.timeout_seconds is not None
        request = build_request(self.subject, identity, root, can_defer=not blocked, encloses_run=not root.nested)
        admission = ask(request, root)
        if isinstance(admission.decision.verdict, Admit):
            return admission
        return _refuse(admission.decision, context)

    def _attempt(self, root: RootRun, context: FlowRunContext) -> int:
        if not root.nested or context.flow_run is None:
            return root.attempt
        execution = f"{context.flow_run.id} {root.deferrals}"
        return (root.attempt - 1) * (self.flow.retries + 1) + _entered(execution)


def _entered(execution: str) -> int:
    """Count one more entry of a body, and forget the run that was entered longest ago when there are too many."""
    with _guard:
        count = _executions.pop(execution, 0) + 1
        _executions[execution] = count
        if len(_executions) > _MOST_REMEMBERED:
            _executions.popitem(last=False)
        return count


def _refuse(decision: Decision, context: FlowRunContext) -> Way:
    if may_skip(decision):
        return Skip(value=skipped(decision))
    run = context.flow_run
    if run is not None and run.empirical_policy.retries:
        # Prefect's server retries every failure while retries are left (rule RetryFailedFlows, Prefect 3.8), and a
        # denied run would only be denied again.
        with sync_client() as client:
            client.update_flow_run(run.id, empirical_policy=run.empirical_policy.model_copy(update={"retries": 0}))
    raise NotAdmitted(decision)
