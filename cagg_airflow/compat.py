"""The seams where Airflow's versions matter. Written against 3.2 and 3.3; everything else uses its public names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from airflow.sdk import exceptions as sdk_exceptions
from airflow.sdk.bases.decorator import task_decorator_factory
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowRuntimeError,
    AirflowSensorTimeout,
    AirflowSkipException,
    DagRunTriggerException,
    DownstreamTasksSkipped,
    TaskDeferred,
)

from cagg.errors import ConfigurationError, HostUnavailable

__all__ = [
    "ENDS_WELL",
    "GIVES_WAY",
    "AirflowFailException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "TaskDeferred",
    "attempt_of",
    "bundle_of",
    "configuration",
    "engine_version",
    "find_connection",
    "is_mapped",
    "is_sensor",
    "push_xcom",
    "python_task_class",
    "recast",
    "schedule_of",
    "task_decorator_factory",
    "task_logger",
]

ENDS_WELL: tuple[type[BaseException], ...] = (DownstreamTasksSkipped, DagRunTriggerException)
"""Raised by work that is done: a branch or short circuit, and TriggerDagRunOperator."""

GIVES_WAY: tuple[type[BaseException], ...] = (
    TaskDeferred,
    AirflowRescheduleException,
    AirflowSkipException,
    # waits for a person; since Airflow 3.3, so by name until that is the oldest version
    *filter(None, [getattr(sdk_exceptions, "TaskAwaitingInput", None)]),
)
"""Raised by work that goes on elsewhere or stops early; what it used says nothing about a full run."""

_UNREACHABLE = (AirflowException, AirflowRuntimeError, OSError, EOFError, RuntimeError)
"""What the channel to Airflow raises when it does not answer."""


def configuration() -> Any:
    """Return Airflow's configuration."""
    from airflow.sdk import conf

    return conf


def task_logger() -> logging.Logger:
    """Return the logger whose lines stand in the task's log."""
    return logging.getLogger("cagg.airflow")


def find_connection(name: str) -> Any | None:
    """Return a Connection; None when there is none of that id.

    Raises:
        HostUnavailable: Airflow cannot be asked for it now; asking again may help.
        ConfigurationError: it cannot be read, or this task may not read it.
    """
    from airflow.sdk import BaseHook

    from cagg_airflow.inside import why_no_connection

    silence: object
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException as missing:
        # Airflow 3.2 and 3.3 say so for an API server that failed, too
        silence, cause = why_no_connection(name), missing
        if silence is None:
            return None
    except (AirflowException, PermissionError, ValueError, TypeError) as problem:
        raise ConfigurationError(  # what was stated may hold a password, so it is not repeated
            f"the Airflow Connection {name!r} cannot be read ({type(problem).__name__}); correct it, allow this task "
            "to read it, or name another with [cagg] connection_id."
        ) from None
    except (AirflowRuntimeError, OSError, EOFError, RuntimeError) as problem:
        silence = cause = problem  # type: ignore[assignment]
    raise HostUnavailable(
        f"Airflow could not be asked for the Connection {name!r} ({silence}), so the gate does not know which store "
        "and budgets hold; look at the API server and its database."
    ) from cause


def push_xcom(context: Mapping[str, Any], key: str, value: Mapping[str, Any]) -> None:
    """Leave a value for downstream tasks; a failure to do so is logged and never fails the task."""
    try:
        context["ti"].xcom_push(key=key, value=dict(value))
    except (*_UNREACHABLE, TypeError, ValueError, AttributeError, KeyError, ImportError) as problem:
        task_logger().warning("carbon gate: the XCom %s could not be stored: %s", key, problem)


def attempt_of(try_number: int, max_tries: int | None, retries: int | None) -> int:
    """Return which attempt of the engine's own retries this is, from 1 on.

    A clear does not set ``try_number`` back but moves ``max_tries`` to try_number + retries
    (airflow.models.taskinstance.clear_task_instances, 3.3.2), so the first try after it is max_tries - retries + 1,
    as RuntimeTaskInstance.get_first_reschedule_date computes it. A cleared task is hence a first attempt again.
    """
    if max_tries is None:
        return max(1, try_number)
    cleared = max(0, max_tries - (retries or 0))
    return max(1, try_number - cleared)


def schedule_of(context: Mapping[str, Any]) -> tuple[datetime | None, str | None]:
    """Return when the schedule wanted this run, and the schedule's time zone.

    The instant is None for manual, backfill and asset-triggered runs, which count from their first ask. The zone is
    None for a DAG without a schedule that keeps Airflow's default of UTC: the settings' timezone holds there.
    """
    dag_run, dag = context.get("dag_run"), context.get("dag")
    kind = str(getattr(getattr(dag_run, "run_type", ""), "value", getattr(dag_run, "run_type", "")))
    start = getattr(dag_run, "run_after", None) if kind == "scheduled" else None
    zone = getattr(dag, "timezone", None)
    name = getattr(zone, "name", None) or getattr(zone, "key", None)
    if not isinstance(name, str) or not name or name[0] in "+-":
        name = None  # a fixed offset has no name in the time zone database
    if name == "UTC" and getattr(dag, "schedule", None) is None:
        name = None
    return start, name


@cache
def engine_version() -> str | None:
    """Return the version of Airflow; of its task SDK where only that is installed; None when neither says it."""
    for distribution in ("apache-airflow-core", "apache-airflow", "apache-airflow-task-sdk"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def bundle_of(ti: Any) -> str | None:
    """Return the DAG bundle that a task instance was loaded from, ``name@version``; None where Airflow does not say."""
    bundle = getattr(ti, "bundle_instance", None)  # airflow.sdk.execution_time.task_runner.RuntimeTaskInstance, 3.2
    name, revision = getattr(bundle, "name", None), getattr(bundle, "version", None)
    if not isinstance(name, str):
        return None
    return f"{name}@{revision}" if isinstance(revision, str) else name


def is_mapped(task: Any) -> bool:
    """True for a task that is expanded at run time, whose class and arguments are still apart."""
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    return isinstance(task, MappedOperator)


def is_sensor(operator_class: type[Any]) -> bool:
    """True for operators that only wait."""
    from airflow.sdk import BaseSensorOperator

    return issubclass(operator_class, BaseSensorOperator)


def python_task_class() -> Any:
    """Return the operator class of ``@task``: private in name, but what its own provider registers (standard 1.21)."""
    from airflow.providers.standard.decorators.python import _PythonDecoratedOperator

    return _PythonDecoratedOperator


def recast(task: Any, gated: type[Any], attributes: Mapping[str, Any]) -> None:
    """Change the class of a task that was built already.

    Past the operator's own ``__setattr__``, which looks for dependencies in what is set (Airflow 3.2, 3.3). Removable
    when a policy may replace a task instead of changing it.
    """
    object.__setattr__(task, "__class__", gated)
    for name, value in attributes.items():
        object.__setattr__(task, name, value)
