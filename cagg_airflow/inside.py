"""What a running task can ask Airflow about other runs, without credentials: through the Task SDK's own channel.

Written against Airflow 3.2 and 3.3; ``RuntimeTaskInstance.get_task_states`` and ``get_dr_count`` are its public static
methods, the channel's presence is read off the module's global.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["inside_a_task", "task_state_inside", "why_no_connection"]

_RUNNER = "airflow.sdk.execution_time.task_runner"


def inside_a_task() -> bool:
    """True in a process that Airflow runs a task or trigger in. Imports nothing."""
    return hasattr(sys.modules.get(_RUNNER), "SUPERVISOR_COMMS")


def task_state_inside(dag_id: str, run_id: str, task_id: str, map_index: int) -> tuple[bool, str | None] | None:
    """Return (exists, state) of a task instance; None where nobody can be asked, or Airflow does not answer.

    Args:
        dag_id, run_id: the DAG run.
        task_id: the task in it; empty = the run itself.
        map_index: -1 for a task that is not mapped.
    """
    if not inside_a_task():
        return None
    runner: Any = sys.modules[_RUNNER]
    # a task is running: Airflow is loaded already
    from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

    instance = runner.RuntimeTaskInstance
    try:
        if not task_id:
            if not instance.get_dr_count(dag_id=dag_id, run_ids=[run_id]):
                return False, None
            return True, _text(instance.get_dagrun_state(dag_id=dag_id, run_id=run_id))
        # Without the map index: the server filters by it but answers in the same words for all of them.
        states = instance.get_task_states(dag_id=dag_id, task_ids=[task_id], run_ids=[run_id])
    except (AirflowException, AirflowRuntimeError, OSError, EOFError, RuntimeError, TypeError, ValueError):
        return None
    # An index that is not mapped answers under the task's id, a mapped one under "task_index" (Airflow 3.3.2,
    # execution_api/routes/task_instances.py, get_task_instance_states).
    tasks = states.get(run_id, {})
    name = task_id if map_index < 0 else f"{task_id}_{map_index}"
    if name not in tasks:
        return False, None
    return True, _text(tasks[name])


def why_no_connection(name: str) -> str | None:
    """Return why Airflow could not say whether there is a Connection; None = there is none, or nobody can be asked.

    The look-up of Airflow 3.2 and 3.3 tries one secrets backend after the other and takes the API server's failure
    for "not here" (3.3.2, sdk/execution_time/secrets/execution_api.py). Removable when it tells the two apart.
    """
    if not inside_a_task():
        return None
    from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection

    runner: Any = sys.modules[_RUNNER]
    try:
        answer = runner.SUPERVISOR_COMMS.send(GetConnection(conn_id=name))
    except AirflowRuntimeError as problem:
        answer = problem.error
    except (AirflowException, OSError, EOFError, RuntimeError) as problem:
        return str(problem) or type(problem).__name__
    if isinstance(answer, ErrorResponse) and answer.error is not ErrorType.CONNECTION_NOT_FOUND:
        return f"{answer.error.value}: {answer.detail}" if answer.detail else answer.error.value
    return None


def _text(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
