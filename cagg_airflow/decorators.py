"""``@task.carbon_aware``: the gate on a TaskFlow function."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from cagg.quantities import Energy, Power
from cagg.request import Capacity, GateOptions, Kind, OnDeny, Purpose, Risk

__all__ = ["carbon_aware_task"]


def carbon_aware_task(
    python_callable: Callable[..., Any] | None = None,
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
    **task_arguments: Any,
) -> Any:
    """Make a task of a function, with a gate in front: asked before it runs, metered while it runs, settled after.

    A deferred task frees its worker slot, waits in the triggerer and is asked again when it wakes. Each index of a
    mapped task is asked by itself. Airflow's own retries are asked again, admitted or denied, never deferred; a
    cleared task is a first attempt again. Denied work fails without a retry, or is skipped with ``on_deny="skip"``
    unless its purpose is ``release``. Retries, pools, timeouts and callbacks stay as they are.

    Args:
        python_callable: the function, when the decorator is used without parentheses.
        zone, duration, energy, power, finish_by, max_wait, interruptible, resume_cost, capacity, budget, kind,
            purpose, risk, work_item, min_difference, on_deny: see :class:`cagg.request.GateOptions`. Times of day
            are read in the schedule's time zone, else in the ``timezone`` of the settings.
        task_arguments: arguments of ``@task``: ``task_id``, ``multiple_outputs``, ``retries``, ``pool`` …

    Raises:
        InvalidInput: an option cannot be used.
    """
    from cagg_airflow.compat import task_decorator_factory

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
    said = options.to_mapping()
    if said:  # otherwise `default_args={"carbon": ...}` of the DAG holds
        task_arguments["carbon"] = said
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=_operator_class(),
        **task_arguments,
    )


@cache
def _operator_class() -> type[Any]:
    from cagg_airflow.compat import python_task_class
    from cagg_airflow.operators import gated_class

    made = gated_class(python_task_class(), "CarbonAwarePythonOperator")
    made.custom_operator_name = "@task.carbon_aware"
    return made
