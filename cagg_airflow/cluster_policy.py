"""The cluster policy: gates the tasks of DAGs tagged ``cagg`` without a change of the DAG. Off until configured.

Airflow loads this module in each of its processes and calls it for every task it parses, so it imports nothing of
cagg before it meets a tagged DAG while ``[cagg] enabled`` is set.
"""

from __future__ import annotations

from typing import Any

from airflow.policies import hookimpl

__all__ = ["task_policy"]

_TAG = "cagg"


@hookimpl
def task_policy(task: Any) -> None:
    """Put a gate in front of a task of a tagged DAG; options come from the task's ``params["carbon"]``, if any.

    Left alone: tasks with a gate of their own, sensors, setup and teardown tasks, tasks that do nothing, and operators
    that cannot be gated (which is logged).
    """
    dag = getattr(task, "dag", None)
    if dag is None or _TAG not in (getattr(dag, "tags", None) or ()):
        return
    from airflow.sdk import conf

    if not conf.getboolean("cagg", "enabled", fallback=False):
        return
    from cagg_airflow.policing import gate_task

    gate_task(task)
