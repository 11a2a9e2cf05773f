"""The flows that the worker of the end-to-end tests runs."""

from __future__ import annotations

import os
from pathlib import Path

from prefect import flow, task

from cagg.clock import SystemClock
from cagg_prefect import carbon_aware


@task
def validate(marker: str) -> int:
    with Path(marker).open("a") as log:
        log.write(f"{os.getpid()}\n")
    return sum(number * number for number in range(2_000_000))


@carbon_aware(budget="acme/ml/nightly", energy="1 kWh", duration="5s", max_wait="8m")
@flow(name="end-to-end-nightly")
def nightly(marker: str) -> int:
    return validate(marker)


@carbon_aware(budget="acme/ml/nightly", energy="1 kWh", duration="5s", max_wait="8m")
@flow(name="end-to-end-doomed")
def doomed() -> None:
    raise AssertionError("a deleted run was started")


@flow(name="end-to-end-other")
def other() -> None:
    return None


@carbon_aware(budget="acme/ml/nightly", energy="1 kWh", duration="1h")
@flow(name="end-to-end-endless")
def endless(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    SystemClock().sleep(600)
