"""Which tasks of a tagged DAG get a gate, and how: their class becomes the gated class, nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cagg.errors import CaggError
from cagg_airflow.compat import is_mapped, is_sensor, recast, task_logger
from cagg_airflow.mixin import CarbonGateMixin, options_mapping
from cagg_airflow.operators import PARAMETER, gated_class

__all__ = ["gate_task"]

PARAMS_KEY = "carbon"
"""Name of the task's or DAG's param that holds gate options for the cluster policy."""


def gate_task(task: Any) -> None:
    """Gate a task that the policy was called for, unless it is one that is left alone.

    Raises:
        InvalidInput: ``params["carbon"]`` names an option that does not exist or cannot be used.
    """
    operator_class: Any = task.operator_class if is_mapped(task) else type(task)
    if _left_alone(task, operator_class):
        return
    options = options_mapping(_stated(task))
    try:
        gated = gated_class(operator_class, operator_class.__name__)
    except CaggError as problem:
        task_logger().warning("carbon gate: %s is not gated by its DAG's tag: %s", task.task_id, problem)
        return
    if is_mapped(task):
        task.operator_class = gated
        task.partial_kwargs[PARAMETER] = options
    else:
        recast(task, gated, {PARAMETER: options})


def _left_alone(task: Any, operator_class: type[Any]) -> bool:
    return (
        issubclass(operator_class, CarbonGateMixin)
        or operator_class.__module__.partition(".")[0] == "cagg_airflow"
        or is_sensor(operator_class)
        or bool(task.is_setup or task.is_teardown)
        or bool(task.inherits_from_empty_operator)
        or bool(task.start_from_trigger)  # starts in the triggerer: there is no work of a worker to gate
    )


def _stated(task: Any) -> Mapping[str, Any] | None:
    params = getattr(task, "params", None)
    if not params or PARAMS_KEY not in params:
        return None
    stated: Mapping[str, Any] = params[PARAMS_KEY]
    return stated
