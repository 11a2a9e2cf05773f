"""The seams where Prefect's versions matter. Written against 3.7 and 3.8; everything else uses its public names."""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError, Pause, PrefectException
from prefect.flows import Flow
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.results import ResultStore, get_result_store
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.states import Completed, Scheduled
from prefect.task_engine import SyncTaskRunEngine
from prefect.task_runners import TaskRunner
from prefect.tasks import Task
from prefect.utilities.callables import get_call_parameters
from prefect.utilities.collections import visit_collection
from prefect.utilities.visualization import get_task_viz_tracker

from cagg.errors import InvalidInput

__all__ = [
    "Completed",
    "Flow",
    "FlowRun",
    "FlowRunContext",
    "FlowRunPolicy",
    "GatedSignature",
    "Pause",
    "PrefectFuture",
    "RunScope",
    "Scheduled",
    "State",
    "SyncPrefectClient",
    "Task",
    "TaskRun",
    "TaskRunContext",
    "TaskRunner",
    "api_address",
    "as_uuid",
    "at_address",
    "drawing",
    "gated_signature",
    "has_pending_futures",
    "map_over",
    "restorable",
    "retry_unless",
    "run_logger",
    "scope_of",
    "sync_client",
    "wrong_order",
]

_unheard = logging.getLogger("cagg.prefect.unheard")
_unheard.addHandler(logging.NullHandler())
_unheard.propagate = False


def sync_client() -> SyncPrefectClient:
    """Return a client for use in a ``with`` block; it reuses the connection of the flow run around it."""
    return get_client(sync_client=True)


def api_address() -> str | None:
    """Return the address of the Prefect API; None when only a temporary server inside the process would answer."""
    return get_current_settings().api.url


@contextmanager
def at_address(url: str, timeout_seconds: float) -> Iterator[None]:
    """Talk to the API at another address within the block; the user's profile stays as it is."""
    with temporary_settings({PREFECT_API_URL: url, PREFECT_API_REQUEST_TIMEOUT: timeout_seconds}):
        yield


def as_uuid(text: str) -> UUID | None:
    """Read a run id; None when the text is none."""
    try:
        return UUID(text)
    except ValueError:
        return None


def run_logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    """Return the logger whose lines Prefect shows beside the flow run; a plain one outside of any."""
    if FlowRunContext.get() is None:
        return logging.getLogger("cagg.prefect")
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("cagg.prefect")


def drawing() -> bool:
    """True while ``flow.visualize()`` runs the body to draw it; nothing is gated then."""
    return get_task_viz_tracker() is not None


def has_pending_futures(*values: object) -> bool:
    """True when an argument waits for another task run that has not ended."""
    pending: list[PrefectFuture[Any]] = []

    def look(value: object) -> object:
        if isinstance(value, PrefectFuture) and not value.state.is_final():
            pending.append(value)
        return value

    visit_collection(list(values), visit_fn=look, return_data=False, max_depth=3)
    return bool(pending)


def retry_unless(refusal: type[Exception], condition: Any) -> Any:
    """Return a retry condition that is False after a refusal and as given otherwise; None as given means always."""

    def refused(state: State[Any]) -> bool:
        return isinstance(state.data, refusal)

    if inspect.iscoroutinefunction(condition):

        async def decide_async(task: Any, run: TaskRun, state: State[Any]) -> bool:
            return not refused(state) and bool(await condition(task, run, state))

        return decide_async

    def decide(task: Any, run: TaskRun, state: State[Any]) -> bool:
        return not refused(state) and (condition is None or bool(condition(task, run, state)))

    return decide


def restorable(task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """True when Prefect would take the result of this call from its store instead of running the body.

    Prefect's own engine computes the key (BaseTaskRunEngine.compute_transaction_key, Prefect 3.7 and 3.8): a policy
    that fails gives none, as it will when the task runs and tells so. A store that cannot be asked holds nothing.
    """
    refresh = task.refresh_cache
    if refresh or (refresh is None and get_current_settings().tasks.refresh_cache):
        return False
    flow = FlowRunContext.get()
    try:
        parameters = get_call_parameters(task.fn, args, dict(kwargs))
        plain: Any = get_result_store()
        store: ResultStore = plain.update_for_task(task, _sync=True)  # dual function; _sync picks the blocking half
        flow_run_id = flow.flow_run.id if flow is not None and flow.flow_run is not None else None
        run = TaskRun(flow_run_id=flow_run_id, task_key=task.task_key, dynamic_key="")
        engine: Any = SyncTaskRunEngine(task=task, parameters=parameters, task_run=run, logger=_unheard)
        with (
            sync_client() as client,
            TaskRunContext(task=task, task_run=run, parameters=parameters, result_store=store, client=client),
        ):
            key = engine.compute_transaction_key()
        return key is not None and store.exists(key)
    except (PrefectException, OSError, TypeError, ValueError):  # wrong arguments, or the store: the run will say
        return False


def map_over(
    task: Any,
    bind: Callable[[dict[str, Any]], tuple[Task[..., Any], Callable[[PrefectFuture[Any]], None]]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Any,
) -> Any:
    """Map a task as its runner does, with a task of its own for each element.

    Args:
        task: the mapped task.
        bind: called with each element's parameters; returns the task that runs it and what to do when it has ended.
        args, kwargs: the arguments of ``map``.
        wait_for: what every element waits for.
    """
    context = FlowRunContext.get()
    if context is None:
        raise RuntimeError("a task is mapped inside a flow")
    parameters = get_call_parameters(task.fn, args, dict(kwargs), apply_defaults=False)
    return TaskRunner.map(cast(Any, _EachOnItsOwn(context.task_runner, bind)), task, parameters, wait_for)


class _EachOnItsOwn:
    """Stands in for a task runner while it expands a map, so that it submits another task for each element."""

    def __init__(self, runner: TaskRunner[Any], bind: Callable[[dict[str, Any]], Any]) -> None:
        self._runner = runner
        self._bind = bind

    def submit(self, task: object, parameters: dict[str, Any], wait_for: Any = None, dependencies: Any = None) -> Any:
        """Submit the element's own task instead of the mapped one."""
        del task
        bound, done = self._bind(parameters)
        future = self._runner.submit(bound, parameters, wait_for=wait_for, dependencies=dependencies)
        future.add_done_callback(done)
        return future

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


class RunScope:
    """What this process remembers while one execution of a flow run's body lasts."""

    def __init__(self) -> None:
        self.facts: object | None = None
        self._ordinals: Counter[str] = Counter()
        self._guard = threading.Lock()

    def next_ordinal(self, task_key: str) -> int:
        """Return how many gated calls of this key came before in this execution."""
        with self._guard:
            ordinal = self._ordinals[task_key]
            self._ordinals[task_key] += 1
            return ordinal


_scopes: dict[int, RunScope] = {}
_scopes_guard = threading.Lock()


def scope_of(context: FlowRunContext) -> RunScope:
    """Return the scope of a flow run context. Prefect enters a new context for every execution of the body, so that
    ordinals start again with each retry; threads of one execution share the context."""
    with _scopes_guard:
        scope = _scopes.get(id(context))
        if scope is None:
            scope = _scopes[id(context)] = RunScope()
            weakref.finalize(context, _scopes.pop, id(context), None)
        return scope


class GatedSignature(inspect.Signature):
    """Signature of a gated plain function, which Prefect must not wrap.

    ``@task`` and ``@flow`` read the parameters of what they wrap while they build the Task or Flow. No other moment
    lets the wrong order of decorators be refused before anything runs.
    """

    __slots__ = ()

    @property
    def parameters(self) -> Any:
        """The parameters, as of any signature."""
        _refuse_prefect_above()
        return super().parameters


def gated_signature(function: Callable[..., Any]) -> GatedSignature:
    """Return the function's signature in the form that Prefect's decorators trip over."""
    plain = inspect.signature(function)
    return GatedSignature(list(plain.parameters.values()), return_annotation=plain.return_annotation)


def _refuse_prefect_above() -> None:
    frame = sys._getframe(2)
    for _ in range(8):
        if frame.f_code.co_name == "__init__":
            built = frame.f_locals.get("self")
            if isinstance(built, Task | Flow):
                raise InvalidInput(wrong_order("@task" if isinstance(built, Task) else "@flow"))
        if frame.f_back is None:
            return
        frame = frame.f_back


def wrong_order(above: str) -> str:
    """The sentence for ``@task`` or ``@flow`` above ``@carbon_aware``."""
    return (
        f"{above} stands above @carbon_aware; write @carbon_aware(...) above {above}, so that the gate is asked before "
        "the run holds anything."
    )
