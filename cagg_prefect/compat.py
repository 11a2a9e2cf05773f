"""The seams where Prefect's versions matter. Written against 3.7 and 3.8; everything else uses its public names."""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError, Pause
from prefect.flows import Flow
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings
from prefect.states import Completed, Scheduled
from prefect.task_runners import TaskRunner
from prefect.tasks import Task
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
    "drawing",
    "has_pending_futures",
    "gated_signature",
    "run_logger",
    "scope_of",
    "sync_client",
    "wrong_order",
]


def sync_client() -> SyncPrefectClient:
    """Return a client for use in a ``with`` block; it reuses the connection of the flow run around it."""
    return get_client(sync_client=True)


def api_address() -> str | None:
    """Return the address of the Prefect API; None when only a temporary server inside the process would answer."""
    return get_current_settings().api.url


def as_uuid(text: str) -> UUID | None:
    """Read a run id; None when the text is none."""
    try:
        return UUID(text)
    except ValueError:
        return None


def run_logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    """Return the logger whose lines Prefect shows beside the run; a plain one outside of any run."""
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
