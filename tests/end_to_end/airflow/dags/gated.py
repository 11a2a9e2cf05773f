"""The DAGs of the end-to-end tests: each appends one line to a file when its work runs."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task

from cagg.clock import SystemClock
from cagg.request import GateOptions
from cagg_airflow import carbon_aware

MARKS = Path(os.environ["CAGG_TEST_MARKS"])
POOL = "one_slot"
GATE = {"budget": "acme/ml/nightly", "energy": "1 kWh", "duration": "5s", "max_wait": "8m"}


def mark(name: str) -> int:
    """Append this process to the file of that name; returns how many lines it has now."""
    path = MARKS / name
    with path.open("a") as log:
        log.write(f"{os.getpid()}\n")
    return path.read_text().count("\n")


def work() -> int:
    return sum(number * number for number in range(1_000_000))


@dag(schedule=None)
def night() -> None:
    @task.carbon_aware(pool=POOL, **GATE)
    def validate() -> int:
        mark("night")
        return work()

    @task
    def report(result: int) -> int:
        return result

    report(validate())


@dag(schedule=None)
def other() -> None:
    @task(pool=POOL)
    def between() -> int:
        return mark("other")

    between()


@dag(schedule=None, params={"count": 3, "seconds": 0})
def mapped() -> None:
    @task
    def parts(params: dict[str, int]) -> list[int]:
        return list(range(params["count"]))

    @task.carbon_aware(**GATE)
    def score(part: int, params: dict[str, int]) -> int:
        mark(f"mapped-{part}")
        SystemClock().sleep(params["seconds"])
        return part * part + 0 * work()

    @task
    def total(scores: list[int]) -> int:
        return sum(scores)

    total(score.expand(part=parts()))


@dag(schedule=None)
def retried() -> None:
    @task.carbon_aware(retries=2, retry_delay=timedelta(seconds=1), **GATE)
    def flaky() -> int:
        work()
        if mark("retried") < 2:
            raise RuntimeError("the first attempt fails")
        return 2

    flaky()


@dag(schedule=None, tags=["cagg"])
def untouched() -> None:
    """Knows nothing of cagg: the cluster policy gates it because of its tag, with the defaults of cagg.toml."""
    BashOperator(task_id="plain", bash_command=f"echo $$ >> {MARKS}/untouched-plain")
    BashOperator.partial(task_id="spread").expand(
        bash_command=[f"echo $$ >> {MARKS}/untouched-{index}" for index in range(2)]
    )


@dag(schedule=None)
def doomed() -> None:
    @task.carbon_aware(**GATE)
    def never() -> None:
        mark("doomed")

    never()


@dag(schedule=None)
def classy() -> None:
    carbon_aware(BashOperator)(task_id="score", bash_command=f"echo $$ >> {MARKS}/classy", carbon=GateOptions(**GATE))


@dag(schedule=None)
def endless() -> None:
    @task.carbon_aware(budget="acme/ml/nightly", energy="1 kWh", duration="1h")
    def stay() -> None:
        mark("endless")
        SystemClock().sleep(600)

    stay()


@dag(schedule=None, params={"seconds": 0})
def slow() -> None:
    @task.carbon_aware(**GATE)
    def stay(params: dict[str, int]) -> int:
        mark("slow")
        SystemClock().sleep(params["seconds"])
        return work()

    stay()


@dag(schedule=None, params={"when": "before"})
def dies_settling() -> None:
    @task.carbon_aware(retries=1, retry_delay=timedelta(seconds=1), **GATE)
    def die(params: dict[str, str]) -> None:
        """Work, and let the first attempt's process be killed right before, or right after, it has settled."""
        if mark(f"dies-{params['when']}") > 1:
            return
        from cagg.steps.settling import Settler

        settle = Settler.settle

        def killed(self: Settler, *arguments: object) -> object:
            if params["when"] == "after":
                settle(self, *arguments)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        Settler.settle = killed  # type: ignore[method-assign,assignment]

    die()


night()
other()
slow()
dies_settling()
mapped()
retried()
untouched()
doomed()
classy()
endless()
