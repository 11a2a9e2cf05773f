"""``carbon_aware``: the one decorator, on a flow, a task or a plain function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from cagg.errors import InvalidInput
from cagg.quantities import Energy, Power
from cagg.request import Capacity, GateOptions, Kind, OnDeny, Purpose, Risk
from cagg_prefect.compat import Flow, Task
from cagg_prefect.flows import gate_flow
from cagg_prefect.functions import gate_function
from cagg_prefect.tasks import gate_task

__all__ = ["CarbonAware", "carbon_aware"]

P = ParamSpec("P")
R = TypeVar("R")


class CarbonAware(Protocol):
    """A gate, ready to be put on something. What it returns has the type of what it was given."""

    @overload
    def __call__(self, work: Flow[P, R], /) -> Flow[P, R]: ...

    @overload
    def __call__(self, work: Task[P, R], /) -> Task[P, R]: ...

    @overload
    def __call__(self, work: Callable[P, R], /) -> Callable[P, R]: ...

    def __call__(self, work: Any, /) -> Any:
        """Return the flow, task or function behind the gate."""
        ...


def carbon_aware(
    *,
    zone: str | None = None,
    duration: str | timedelta | None = None,
    energy: str | Energy | None = None,
    power: str | Power | None = None,
    finish_by: str | datetime | None = None,
    max_wait: str | timedelta | None = None,
    interruptible: bool = False,
    resume_cost: str | Energy | timedelta | None = None,
    capacity: str | Capacity | None = None,
    budget: str | None = None,
    kind: str | Kind | None = None,
    purpose: str | Purpose | None = None,
    risk: str | Risk | None = None,
    work_item: str | None = None,
    min_difference: str | float | None = None,
    on_deny: str | OnDeny | None = None,
) -> CarbonAware:
    """Put a gate in front of a flow, a task or a function: asked before it runs, metered while it runs, settled after.

    Write it above ``@flow`` or ``@task``. The flow is the default place:

    - a *flow* of a deployment that is deferred is rescheduled under the state name ``AwaitingGreenWindow``, its
      process ends, and the same run continues later; a script waits in its process with a countdown;
    - a *task* is asked for before its task run exists. To give the process back it needs task runs before it whose
      results are persisted (``persist_result=True`` and a cache policy), else it raises DeferralUnsupported. With
      task runs still in flight, inside another task, or submitted with unfinished inputs, it is not deferred but
      runs, recorded with that reason. The first element of ``map`` may defer the whole map;
    - retries are asked for again, each as an attempt of its own: admitted or denied, never deferred.

    Denied work fails with NotAdmitted and is not retried; with ``on_deny="skip"`` it completes as ``Skipped`` with
    the result None, except for the purpose ``release``, which fails closed.

    Args:
        zone, duration, energy, power, finish_by, max_wait, interruptible, resume_cost, capacity, budget, kind,
            purpose, risk, work_item, min_difference, on_deny: see :class:`cagg.request.GateOptions`. Times of day
            are read in the schedule's time zone, else in the ``timezone`` of the settings.

    Raises:
        InvalidInput: an option cannot be used, or the decorated thing cannot be gated.
    """
    options = GateOptions(
        zone=zone,
        duration=duration,
        energy=energy,
        power=power,
        finish_by=finish_by,
        max_wait=max_wait,
        interruptible=interruptible,
        resume_cost=resume_cost,
        capacity=capacity,
        budget=budget,
        kind=kind,
        purpose=purpose,
        risk=risk,
        work_item=work_item,
        min_difference=min_difference,
        on_deny=on_deny,
    )

    def put_gate(work: Any, /) -> Any:
        if getattr(work, "cagg_subject", None) is not None:
            raise InvalidInput(f"{_name(work)} has a @carbon_aware gate already; keep one of them.")
        if isinstance(work, Flow):
            return gate_flow(work, options)
        if isinstance(work, Task):
            return gate_task(work, options)
        if not callable(work) or inspect.isclass(work) or isinstance(work, staticmethod | classmethod):
            raise InvalidInput(
                f"@carbon_aware goes on a flow, a task or a function, not on {_name(work)}; with methods put it "
                "directly above the function or above @task."
            )
        return gate_function(work, options)

    return put_gate


def _name(work: object) -> str:
    return repr(getattr(work, "__name__", None) or getattr(work, "name", None) or work)
