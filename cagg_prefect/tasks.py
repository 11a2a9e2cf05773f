"""Gate a task: ask before its task run exists, meter each attempt inside it."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cagg.errors import NotAdmitted
from cagg.request import GateOptions, Request, RequestIdentity
from cagg.verdict import Admit, Decision
from cagg_prefect import opening
from cagg_prefect.asking import Admission, Skip, Subject, Ungated, Way, ask, build_request, may_skip, skipped
from cagg_prefect.compat import (
    FlowRunContext,
    PrefectFuture,
    State,
    Task,
    TaskRunContext,
    drawing,
    has_pending_futures,
    map_over,
    restorable,
    retry_unless,
    scope_of,
)
from cagg_prefect.metering import never_ran, wrap
from cagg_prefect.naming import HOST, LOCAL, inputs_digest
from cagg_prefect.runs import RootRun, root_run
from cagg_prefect.shapes import GatedWork, gated_class, move_binding, recast

__all__ = ["gate_task"]

_NOT_ENTERED = frozenset({"Cached", "NotReady"})
"""Names of states in which a task run ends without its body having been called."""


class _Call:
    """One call of a gated task: its request, and the admission that was given before the task run existed.

    Travels with the copy of the task that Prefect runs, also to other processes.
    """

    def __init__(self, subject: Subject, request: Request | None, root: RootRun | None) -> None:
        self.subject = subject
        self.request = request
        self.root = root
        self.first: Decision | None = None
        self.entered = False
        self.skipped = False

    def ask_first(self) -> None:
        """Ask before the task run exists; raises Pause when the flow run gives its process back."""
        if self.request is not None:
            self.first = ask(self.request, self.root).decision

    def __call__(self, _args: tuple[Any, ...], _kwargs: Mapping[str, Any]) -> Way:
        """Clear the way for one attempt, inside the task run."""
        context = TaskRunContext.get()
        if context is None or getattr(context.task, "cagg_subject", None) != self.subject:
            return Ungated()  # task.fn(), as Prefect's documentation advises for unit tests
        attempt = max(1, context.task_run.run_count)
        if attempt == 1 and self.first is not None and not self.entered:
            decision, gate = self.first, opening.open_gate()
        else:
            request = self.request or _background_request(self.subject, context)
            identity = replace(request.identity, attempt=request.identity.attempt + attempt - 1)
            # Inside a task run nothing can be given back: its task run would stay in Running for ever.
            waits = request.host.can_defer and (self.root is None or not self.root.deployed)
            host = replace(request.host, can_defer=waits and context.task.timeout_seconds is None)
            engine_run = request.engine_run and replace(request.engine_run, try_number=attempt)
            admission = ask(replace(request, identity=identity, host=host, engine_run=engine_run), None)
            decision, gate = admission.decision, admission.gate
        self.entered = True
        if isinstance(decision.verdict, Admit):
            return Admission(gate=gate, decision=decision)
        if may_skip(decision):
            self.skipped = True
            return Skip(value=skipped(decision))
        raise NotAdmitted(decision)

    def close_when_restored(self, future: PrefectFuture[Any]) -> None:
        """Settle an admission when a submitted run took its result from elsewhere. Another process may have run the
        body, so the state has to say it."""
        if future.state.name in _NOT_ENTERED:
            self.close()

    def close(self) -> None:
        """Settle an admission that no attempt used."""
        if self.first is not None and not self.entered and isinstance(self.first.verdict, Admit):
            self.entered = True
            never_ran(Admission(gate=opening.open_gate(), decision=self.first))


class _GatedTask(GatedWork):
    """Mixed into the class of a task; asks where Prefect would create the task run."""

    cagg_subject: Subject
    cagg_retry: Any

    def ungated(self) -> Any:
        """Return a copy without the gate and with the retry condition that the person gave."""
        plain = super().ungated()
        plain.retry_condition_fn = plain.__dict__.pop("cagg_retry")
        return plain

    def with_options(self, *args: Any, **changes: Any) -> Any:
        """Return a task with other options and the same gate."""
        return gate_task(self.ungated().with_options(*args, **changes), self.cagg_options)

    def __call__(self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any) -> Any:
        """Ask, then run the task as Prefect does."""
        task: Any = self
        if drawing():
            return super().__call__(*args, return_state=return_state, wait_for=wait_for, **kwargs)  # type: ignore[misc]
        if task.isasync and not task.isgenerator:
            return self._call_async(args, kwargs, return_state=return_state, wait_for=wait_for)
        call = self._new_call(args, kwargs)
        if not task.isgenerator and self._may_ask(args, kwargs, wait_for):
            call.ask_first()
        run = super(_GatedTask, self._bound(call)).__call__  # type: ignore[misc]
        if task.isgenerator:
            return run(*args, return_state=return_state, wait_for=wait_for, **kwargs)
        try:
            result = run(*args, return_state=return_state, wait_for=wait_for, **kwargs)
        finally:
            call.close()
        return None if call.skipped and not return_state and isinstance(result, State) else result

    async def _call_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, return_state: bool, wait_for: Any
    ) -> Any:
        call = await asyncio.to_thread(self._new_call, args, kwargs)
        if await asyncio.to_thread(self._may_ask, args, kwargs, wait_for):
            await asyncio.to_thread(call.ask_first)
        run = super(_GatedTask, self._bound(call)).__call__  # type: ignore[misc]
        try:
            result = await run(*args, return_state=return_state, wait_for=wait_for, **kwargs)
        finally:
            await asyncio.to_thread(call.close)
        return None if call.skipped and not return_state and isinstance(result, State) else result

    def submit(self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any) -> Any:
        """Ask, unless inputs are still being made, then submit the task as Prefect does."""
        call = self._new_call(args, kwargs)
        if self._may_ask(args, kwargs, wait_for):
            call.ask_first()
        submit = super(_GatedTask, self._bound(call)).submit  # type: ignore[misc]
        try:
            future = submit(*args, wait_for=wait_for, **kwargs)
        except BaseException:
            call.close()
            raise
        future.add_done_callback(call.close_when_restored)
        if not return_state:
            return future
        future.wait()
        return future.state

    def map(
        self, *args: Any, return_state: bool = False, wait_for: Any = None, deferred: bool = False, **kwargs: Any
    ) -> Any:
        """Map the task as Prefect does; the first element may defer the whole map, the others start when they start."""
        task: Any = self
        if deferred or FlowRunContext.get() is None or drawing():
            return super().map(  # type: ignore[misc]
                *args, return_state=return_state, wait_for=wait_for, deferred=deferred, **kwargs
            )
        calls: list[_Call] = []

        def bind(parameters: dict[str, Any]) -> tuple[Task[..., Any], Callable[[PrefectFuture[Any]], None]]:
            call = self._new_call((), parameters)
            if not calls and self._may_ask((), parameters, wait_for):
                call.ask_first()
            calls.append(call)
            return self._bound(call), call.close_when_restored

        futures = map_over(task, bind, args, kwargs, wait_for)
        if not return_state:
            return futures
        futures.wait()
        return [future.state for future in futures]

    def _may_ask(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], wait_for: Any) -> bool:
        """True when the run starts at once and really runs: not inside a task, no input pending, nothing cached."""
        task: Any = self
        if TaskRunContext.get() is not None or has_pending_futures(args, kwargs, wait_for):
            return False
        return not restorable(task, args, kwargs)

    def _new_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Call:
        task: Any = self
        context, subject = FlowRunContext.get(), self.cagg_subject
        if context is None or context.flow_run is None:
            inside_task = TaskRunContext.get() is not None
            identity = RequestIdentity(
                host=LOCAL,
                root_run_id=str(uuid.uuid4()),
                task_key=subject.name,
                inputs_digest=inputs_digest(self.cagg_body, args, kwargs),
            )
            return _Call(subject, build_request(subject, identity, None, can_defer=not inside_task), None)
        root = root_run(context)
        key = f"{context.flow.name}/{subject.name}" if context.flow is not None else subject.name
        identity = RequestIdentity(
            host=HOST,
            root_run_id=root.run_id,
            task_key=key,
            ordinal=scope_of(context).next_ordinal(key),
            # a context that was sent to another process counts its calls anew there
            inputs_digest=inputs_digest(
                self.cagg_body, args, kwargs, salt=str(uuid.uuid4()) if context.detached else ""
            ),
            attempt=(root.attempt - 1) * (task.retries + 1) + 1,
        )
        # the timeout of a flow that is no deployment's would end a wait in its body
        timed = not root.deployed and context.flow is not None and context.flow.timeout_seconds is not None
        labels = {"task": subject.name}
        request = build_request(subject, identity, root, can_defer=not timed, labels=labels, try_number=1)
        return _Call(subject, request, root)

    def _bound(self, call: _Call) -> Any:
        """Return a copy of this task for one call."""
        bound: Any = copy.copy(self)
        bound.fn = wrap(self.cagg_body, call)
        move_binding(getattr(self, "fn", None), bound.fn)
        return bound


def gate_task(task: Task[..., Any], options: GateOptions) -> Task[..., Any]:
    """Return a copy of the task with a gate; name, key, cache policy, retries and hooks stay as they were."""
    gated = recast(task, gated_class(_GatedTask, type(task)))
    subject = Subject(options=options, name=task.name)
    gated.__dict__.update(cagg_options=options, cagg_body=task.fn, cagg_class=type(task), cagg_subject=subject)
    gated.fn = wrap(task.fn, _Call(subject, None, None))
    gated.cagg_retry, gated.retry_condition_fn = (
        task.retry_condition_fn,
        retry_unless(NotAdmitted, task.retry_condition_fn),
    )
    move_binding(task.fn, gated.fn)
    return gated  # type: ignore[no-any-return]


def _background_request(subject: Subject, context: TaskRunContext) -> Request:
    """Request of a task run that a task worker picked up: it has no flow run, and nothing can be given back."""
    run_id = str(context.task_run.id)
    identity = RequestIdentity(host=HOST, root_run_id=run_id, task_key=subject.name)
    return build_request(subject, identity, None, can_defer=False, labels={"task_run_id": run_id})
