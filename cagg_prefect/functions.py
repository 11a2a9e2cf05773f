"""Gate a plain function: inside a flow run it counts as part of that run, elsewhere it waits in this process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cagg.errors import InvalidInput, NotAdmitted
from cagg.request import GateOptions, RequestIdentity
from cagg.verdict import Admit
from cagg_prefect.asking import Skip, Subject, Ungated, Way, ask, build_request, may_skip
from cagg_prefect.compat import FlowRunContext, TaskRunContext, drawing, gated_signature, scope_of, wrong_order
from cagg_prefect.metering import wrap
from cagg_prefect.naming import HOST, LOCAL, inputs_digest
from cagg_prefect.runs import root_run

__all__ = ["gate_function"]


def gate_function(function: Callable[..., Any], options: GateOptions) -> Callable[..., Any]:
    """Return the function behind a gate; refused work with ``on_deny="skip"`` returns None.

    Raises:
        InvalidInput: later, when ``@task`` or ``@flow`` is put above it.
    """
    name = getattr(function, "__qualname__", type(function).__name__).replace("<locals>.", "")
    subject = Subject(options=options, name=f"{function.__module__}.{name}")
    gated = wrap(function, _FunctionGate(subject=subject, function=function))
    gated.__dict__["cagg_subject"] = subject
    gated.__dict__["__signature__"] = gated_signature(function)
    return gated


@dataclass(frozen=True, slots=True, kw_only=True)
class _FunctionGate:
    """Clears the way for one call of a gated function."""

    subject: Subject
    function: Callable[..., Any]

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Way:
        if drawing():
            return Ungated()
        flow, task = FlowRunContext.get(), TaskRunContext.get()
        for above, context in (("@task", task and task.task), ("@flow", flow and flow.flow)):
            if getattr(getattr(context, "fn", None), "cagg_subject", None) == self.subject:
                raise InvalidInput(wrong_order(above))
        root = root_run(flow) if flow is not None and flow.flow_run is not None else None
        identity = RequestIdentity(
            host=LOCAL if root is None else HOST,
            root_run_id=str(uuid.uuid4()) if root is None else root.run_id,
            task_key=self.subject.name,
            ordinal=0 if flow is None or root is None else scope_of(flow).next_ordinal(self.subject.name),
            inputs_digest=inputs_digest(self.function, args, kwargs),
            attempt=1 if root is None else root.attempt,
        )
        can_defer = root is None or not root.deployed or task is None
        within = {} if task is None else {"task": task.task.name}
        tries = None if task is None else max(1, task.task_run.run_count)
        request = build_request(self.subject, identity, root, can_defer=can_defer, labels=within, try_number=tries)
        admission = ask(request, root)
        if isinstance(admission.decision.verdict, Admit):
            return admission
        if may_skip(admission.decision):
            return Skip(value=None)
        raise NotAdmitted(admission.decision)
