"""Wrap a body so that the gate is asked before it and the meter runs around it, whatever kind of function it is."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cagg_prefect.artifacts import report
from cagg_prefect.asking import Admission, Skip, Ungated, Way

__all__ = ["ClearWay", "metered", "never_ran", "wrap"]

ClearWay = Callable[[tuple[Any, ...], Mapping[str, Any]], Way]
"""Asks for one call of the body, given its arguments; blocks; raises what refuses or defers the call."""


def wrap(body: Callable[..., Any], clear_way: ClearWay, *, artifact: bool = False) -> Callable[..., Any]:
    """Return the body behind its gate: a function, coroutine function or generator function like the body itself.

    Args:
        body: what runs.
        clear_way: called before each run; on a thread when the body is asynchronous.
        artifact: leave a markdown artifact beside the run.
    """
    if inspect.isasyncgenfunction(body):

        @functools.wraps(body)
        async def stream_async(*args: Any, **kwargs: Any) -> Any:
            way = await asyncio.to_thread(clear_way, args, kwargs)
            if isinstance(way, Skip):
                return
            with metered(way, artifact=artifact):
                async for item in body(*args, **kwargs):
                    yield item

        return stream_async

    if inspect.iscoroutinefunction(body):

        @functools.wraps(body)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            way = await asyncio.to_thread(clear_way, args, kwargs)
            if isinstance(way, Skip):
                return way.value
            # Opening and settling take milliseconds and set a context variable: they stay on this task's context.
            with metered(way, artifact=artifact):
                return await body(*args, **kwargs)

        return run_async

    if inspect.isgeneratorfunction(body):

        @functools.wraps(body)
        def stream(*args: Any, **kwargs: Any) -> Any:
            way = clear_way(args, kwargs)
            if isinstance(way, Skip):
                return None
            with metered(way, artifact=artifact):
                return (yield from body(*args, **kwargs))

        return stream

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        way = clear_way(args, kwargs)
        if isinstance(way, Skip):
            return way.value
        with metered(way, artifact=artifact):
            return body(*args, **kwargs)

    return run


@contextmanager
def metered(way: Admission | Ungated, *, artifact: bool) -> Iterator[None]:
    """Run the block under the meter, settle when it ends however it ends, and report what it came to."""
    if isinstance(way, Ungated):
        yield
        return
    run = None
    try:
        with way.gate.run(way.decision) as run:
            yield
    finally:
        if run is not None and run.summary is not None:
            report(way.decision, run.summary, artifact=artifact)


class _NeverRanError(Exception):
    """Ends a metered block whose body was not called."""


def never_ran(admission: Admission) -> None:
    """Settle an admission whose body Prefect did not call, for example because its result came from the cache.

    The outcome is recorded as not completed, so that the estimates do not learn from a run of no length.
    """
    try:
        with admission.gate.run(admission.decision):
            raise _NeverRanError
    except _NeverRanError:
        return
