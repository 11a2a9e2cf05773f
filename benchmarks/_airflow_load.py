"""The part of the Airflow benchmark that needs Airflow's database: run as a program with the home to work in.

python _airflow_load.py migrate        a new metadata database with the DAG in it
python _airflow_load.py defer RUNS     so many runs of the DAG, scheduled as the scheduler does it
python _airflow_load.py count          how many task instances are deferred, and how many triggers a triggerer has
"""

from __future__ import annotations

import json
import sys

SENSORS = 20

DAG_FILE = f"""
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG
from cagg_airflow.sensors import CarbonIntensitySensor

with DAG("bench", schedule=None) as dag:
    for number in range({SENSORS}):
        CarbonIntensitySensor(task_id=f"wait_{{number}}", zone="neso:GB", duration="1h", max_wait="24h")

with DAG("bench_peer", schedule=None) as peer:
    for number in range({SENSORS}):
        DateTimeSensorAsync(
            task_id=f"wait_{{number}}", target_time="2099-01-01T00:00:00+00:00", start_from_trigger=True
        )
"""


def migrate() -> None:
    """Make the database and put the DAGs into it."""
    from airflow.__main__ import main as airflow

    for command in (["db", "migrate"], ["dags", "reserialize"]):
        sys.argv = ["airflow", *command]
        try:
            airflow()
        except SystemExit as done:
            if done.code:
                raise


def defer(dag_id: str, runs: int) -> None:
    """Create runs and hand their tasks to the scheduler's own function, which defers them without a worker."""
    from airflow.models.dagbag import DBDagBag
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType
    from pendulum import now

    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
        if dag is None:
            raise RuntimeError(f"the DAG {dag_id} is not in the database")
        for number in range(runs):
            run = dag.create_dagrun(
                run_id=f"{dag_id}-{number}",
                run_after=now("UTC"),
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                session=session,
            )
            run.dag = dag
            schedulable, _ = run.update_state(session=session)
            run.schedule_tis(schedulable, session=session)
            session.commit()  # one writer at a time: a triggerer that waits too long for its turn gives up


def count() -> None:
    """Print both numbers."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import func, select

    with create_session() as session:
        deferred = session.scalar(
            select(func.count()).select_from(TaskInstance).where(TaskInstance.state == TaskInstanceState.DEFERRED)
        )
        taken = session.scalar(select(func.count()).select_from(Trigger).where(Trigger.triggerer_id.is_not(None)))
        print(json.dumps({"deferred": deferred, "taken": taken}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["migrate"]:
            migrate()
        case ["defer", dag_id, runs]:
            defer(dag_id, int(runs))
        case ["count"]:
            count()
        case _:
            sys.exit(__doc__)
