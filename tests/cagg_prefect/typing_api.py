"""What type checkers must see; checked by mypy and pyright in a test, never run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from prefect import Flow, Task, flow, task
from prefect.futures import PrefectFuture

from cagg_prefect import carbon_aware


@carbon_aware(zone="GB", finish_by="06:00", budget="acme/ml/nightly")
@flow
def nightly(number: int, *, name: str = "x") -> list[str]:
    return [name] * number


@carbon_aware(kind="validation")
@flow(retries=2)
async def nightly_async(number: int) -> str:
    return str(number)


@carbon_aware(energy="1 kWh")
@task
def train(rows: int, depth: int = 3) -> float:
    return rows / depth


@carbon_aware()
@task(retries=1)
async def fetch(url: str) -> bytes:
    return url.encode()


@carbon_aware(duration="30m")
def plain(left: int, right: str) -> tuple[int, str]:
    return left, right


@carbon_aware()
async def plain_async(left: int) -> int:
    return left


assert_type(nightly(3, name="y"), list[str])
assert_type(train(10), float)
assert_type(train.submit(10), PrefectFuture[float])
assert_type(plain(1, "b"), tuple[int, str])

as_flow: Flow[..., Any] = nightly_async
as_task: Task[..., Any] = fetch.with_options(retries=2)
as_function: Callable[[int, str], tuple[int, str]] = plain
as_coroutine_function: Callable[[int], Coroutine[Any, Any, int]] = plain_async


async def use() -> None:
    assert_type(await nightly_async(3), str)
    assert_type(await fetch("u"), bytes)
    assert_type(await plain_async(1), int)


def wrong() -> None:
    nightly("three")  # type: ignore[call-overload]
    train(rows="ten")  # type: ignore[call-overload]
    plain(1)  # type: ignore[call-arg]
    carbon_aware(zone=3)  # type: ignore[arg-type]
    carbon_aware(colour="green")  # type: ignore[call-arg]
