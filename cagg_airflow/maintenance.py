"""``cagg maintain`` as a DAG, in one line: ``dag = maintain_dag()``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cagg_airflow import opening
from cagg_airflow.compat import AirflowFailException, task_logger
from cagg_airflow.host import AirflowRuns
from cagg_airflow.naming import HOST

if TYPE_CHECKING:
    from airflow.sdk import DAG

__all__ = ["maintain_dag"]

_TAGS = ("carbon",)
"""Not ``cagg``: that tag would gate the maintenance itself."""


def maintain_dag(
    dag_id: str = "cagg_maintain",
    *,
    schedule: Any = timedelta(minutes=10),
    start_date: datetime | None = None,
    tags: Sequence[str] = _TAGS,
    **kwargs: Any,
) -> DAG:
    """Return a DAG of one task that does a pass of ``cagg maintain``: ``dag = maintain_dag()`` in a file of its own.

    It brings in what waits in this machine's spool, ends what has expired, releases what waits for runs that Airflow
    no longer has, fetches forecasts, and signs a checkpoint; the task fails when a pass met a problem, so that alerts
    on failed tasks work. Signing keys lie in the worker's cagg home, so let it run on a machine that keeps it.

    Args:
        dag_id: its id.
        schedule: as for ``DAG``; every ten minutes.
        start_date: None = 2026-01-01; what lies before now is never caught up.
        tags: shown in the UI.
        kwargs: further arguments of ``DAG``.
    """
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG
    from pendulum import datetime as instant

    settings: dict[str, Any] = {"catchup": False, "max_active_runs": 1, "doc_md": maintain_dag.__doc__, **kwargs}
    dag = DAG(
        dag_id, schedule=schedule, start_date=start_date or instant(2026, 1, 1, tz="UTC"), tags=list(tags), **settings
    )
    PythonOperator(task_id="maintain", python_callable=_maintain, dag=dag)
    return dag


def _maintain() -> dict[str, Any] | None:
    if not opening.enabled():
        task_logger().info("cagg is off: [cagg] enabled is not set, so there is nothing to maintain")
        return None
    from dataclasses import asdict

    from cagg.maintenance import load_hosts, maintain

    problems: list[str] = []
    with AirflowRuns() as runs:
        report = maintain(opening.open_gate().components, hosts={**load_hosts(problems), HOST: runs})
    told = asdict(report)
    task_logger().info("cagg maintain: %s", told)
    for note in report.notes:
        task_logger().info("cagg maintain: %s", note)
    problems = [*problems, *report.problems]
    if problems:
        raise AirflowFailException(f"cagg maintain met {len(problems)} problems: {' '.join(problems)}")
    return {**told, "problems": [], "notes": list(report.notes)}
