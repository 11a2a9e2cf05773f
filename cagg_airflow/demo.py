"""The engine's part of ``cagg demo``: a nightly validation as a DAG, on an ``airflow standalone`` of its own.

Run by the demo as ``python -m cagg_airflow.demo FOLDER`` in an environment in which all state lies in that folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from cagg.cli.demo_story import begin
from cagg.clock import SystemClock
from cagg.errors import CaggError

__all__ = ["IN_A_PROJECT", "SCALE", "isolate", "main", "tidy"]

SCALE = 120
"""Seconds of the story per second of the clock: two hours last a minute, because Airflow cannot be woken reliably from
waits under 30 s."""

IN_A_PROJECT = "`[cagg] enabled = True` in airflow.cfg and @task.carbon_aware instead of @task"
"""What a reader does next."""

_DAG, _TASK = "nightly_validation", "validate"
_FILE = '''\
"""The nightly validation of `cagg demo`. Its deadline is 06:00 of the story, laid onto the clock."""

from pathlib import Path

from airflow.sdk import dag, task

from cagg.cli import demo_job
from cagg.cli.demo_story import BUDGET_PATH, ENERGY, read_story

story = read_story(Path(__file__).parents[1])


@dag(schedule=None)
def nightly_validation():
    @task.carbon_aware(
        budget=BUDGET_PATH, energy=ENERGY, duration=story.duration, finish_by=story.deadline, kind="validation"
    )
    def validate() -> float:
        return demo_job.validate()

    validate()


nightly_validation()
'''


def main(folder: Path) -> int:
    """Start Airflow, let the story begin, run the DAG; returns the exit status."""
    isolate(os.environ)
    from cagg_airflow.testing import LocalAirflow

    dags = folder / "dags"
    dags.mkdir()
    (dags / "nightly.py").write_text(_FILE, encoding="utf-8")
    airflow = LocalAirflow.prepare(
        folder / "airflow", dags=dags, environment={"AIRFLOW__CAGG__ENABLED": "True", "PYTHONWARNINGS": "ignore"}
    )
    try:
        airflow.launch()
        airflow.api.wait_for_dag(_DAG)
        begin(folder, SystemClock().now(), SCALE)  # the story's clock starts when Airflow is up
        accuracy = _nightly(airflow)
    except CaggError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    finally:
        airflow.stop()
    sys.stdout.write(f"\n  The DAG run succeeded; the validated model is right in {accuracy:.1%} of the cases.\n")
    sys.stdout.flush()
    return 0


def isolate(environ: MutableMapping[str, str]) -> None:
    """Take the user's Airflow out of an environment; where the demo's lives is said by ``LocalAirflow``."""
    for name in [name for name in environ if name.startswith("AIRFLOW_")]:
        del environ[name]


def tidy(folder: Path) -> None:
    """End every process of the demo's Airflow: a demo that is stopped takes its part with it, but not its children."""
    from cagg_airflow.testing import LocalAirflow

    LocalAirflow.prepare(folder / "airflow").stop()


def _nightly(airflow: Any) -> float:
    api = airflow.api
    run_id = api.trigger(_DAG)
    api.wait_for_task(_DAG, run_id, _TASK, "deferred")
    pool = api.call("GET", "pools/default_pool")
    sys.stdout.write(
        f"\n  Airflow: the task is in the state `deferred`; {pool['occupied_slots']} of {pool['slots']} slots are "
        "occupied, so others run meanwhile.\n"
    )
    sys.stdout.flush()
    api.wait_for_run(_DAG, run_id, timeout_seconds=300)
    return float(api.xcom(_DAG, run_id, _TASK))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
