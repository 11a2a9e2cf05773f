"""Prefect's run history through its API: every flow run that had a process of its own, a day at a time.

Subflows and tasks are inside of their flow run's time and not counted again; a deployment that a flow runs is a run of
its own. Runs that were tried again, deferred or paused are told apart by their states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort
from prefect.exceptions import PrefectException
from pydantic import ValidationError

from cagg.errors import HostUnavailable
from cagg.pastruns import PastPipeline, PastRun, RunOutcome, RunTrigger
from cagg_prefect.compat import FlowRun, State, SyncPrefectClient
from cagg_prefect.naming import SKIPPED

__all__ = ["PrefectHistory"]

_PAGE = 200
"""``server.api.default_limit`` of Prefect 3: the most that a server gives at once unless configured."""

_SLICE = timedelta(days=1)
_IDLE = timedelta(minutes=1)
"""A run that lasted this much longer than it worked was paused or waited in between; its states tell when."""

_MOST_STATES = 2_000
"""Runs whose states are read, one request each; the rest is noted."""

_OUTCOMES = {
    "COMPLETED": RunOutcome.SUCCEEDED,
    "FAILED": RunOutcome.FAILED,
    "CRASHED": RunOutcome.FAILED,
    "CANCELLED": RunOutcome.CANCELLED,
}


class PrefectHistory:
    """Implements :class:`cagg.ports.HostHistory` over a client that is open.

    Args:
        client: whom to ask.
        address: where it asks, for messages.
    """

    def __init__(self, client: SyncPrefectClient, address: str) -> None:
        self.notes: list[str] = []
        self._client = client
        self._address = address
        self._flows: dict[UUID, str] = {}
        self._deployments: dict[UUID, Any] = {}

    def pipelines(self) -> Sequence[PastPipeline]:
        """Every deployment as ``flow/deployment``, and every flow; raises HostUnavailable."""
        self._read_names()
        found = []
        for item in self._deployments.values():
            schedules = [text for text in map(_schedule_text, item.schedules or []) if text]
            paused = bool(item.paused) or (bool(item.schedules) and not any(one.active for one in item.schedules))
            name = self._deployment_name(item)
            found.append(
                PastPipeline(name=name, schedule="; ".join(schedules), tags=tuple(item.tags or ()), active=not paused)
            )
        found.extend(PastPipeline(name=name) for name in self._flows.values())
        return found

    def runs(self, since: datetime, until: datetime, progress: Callable[[int, int | None], None]) -> Iterator[PastRun]:
        """Every stretch of work of every flow run that started in ``[since, until)``; raises HostUnavailable."""
        if not self._flows:
            self._read_names()
        with self._asking():
            total = self._client.count_flow_runs(flow_run_filter=_started(since, until))
        read = states_read = states_left = 0
        start = since
        while start < until:
            stop = min(until, start + _SLICE)
            for page in self._pages(start, stop):
                for run in page:
                    read += 1
                    if run.start_time is None or not start <= run.start_time < stop:
                        continue  # the server's bounds are both included
                    if run.parent_task_run_id is not None and run.deployment_id is None:
                        continue  # a subflow: its parent's time holds it
                    states: Sequence[State[Any]] = ()
                    if _interrupted(run):
                        if states_read < _MOST_STATES:
                            states_read += 1
                            with self._asking():
                                states = self._client.read_flow_run_states(run.id)
                        else:
                            states_left += 1
                    yield from self._stretches(run, states)
                progress(read, total)
            start = stop
        if states_left:
            self.notes.append(
                f"{states_left} runs that were tried again or paused are counted as one stretch: too many to read each"
            )

    def snippet(self, pipeline: str, zone: str | None, max_wait: str) -> str:
        """The lines that gate a flow."""
        where = f'zone="{zone}", ' if zone else ""
        flow = pipeline.partition("/")[0]
        name = flow.replace("-", "_")
        function = name if name.isidentifier() else "the_flow"
        return f'@carbon_aware({where}max_wait="{max_wait}")  # from cagg_prefect\n@flow\ndef {function}(): ...'

    # ---- requests -------------------------------------------------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            remedy = {
                401: "set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING, for this server",
                403: "give this key the right to read flow runs and deployments",
                404: "check that the address ends with /api, and that it is Prefect 3",
                405: "check that the address is the one of Prefect's API, which ends with /api",
            }.get(status, "check the server's log")
            raise HostUnavailable(f"Prefect at {self._address} answered with HTTP {status}; {remedy}.") from error
        except httpx.HTTPError as error:
            raise HostUnavailable(
                f"Prefect at {self._address} cannot be reached ({type(error).__name__}); check the address, and that "
                "the server runs."
            ) from error
        except (ValidationError, ValueError, TypeError, KeyError, PrefectException, OSError, RuntimeError) as error:
            raise HostUnavailable(
                f"Prefect at {self._address} did not answer as its API does ({type(error).__name__}); check that the "
                "address ends with /api, and that it is Prefect 3."
            ) from error

    def _read_names(self) -> None:
        with self._asking():
            # read_flows of the synchronous client sends nulls that the server refuses (Prefect 3.8.8): asked by hand.
            for flows in _all(self._flow_rows):
                self._flows.update({UUID(row["id"]): str(row["name"]) for row in flows})
            for deployments in _all(self._deployment_rows):
                self._deployments.update({item.id: item for item in deployments})

    def _flow_rows(self, offset: int) -> Sequence[Any]:
        body = {"limit": _PAGE, "offset": offset, "sort": "NAME_ASC"}
        rows = self._client.request("POST", "/flows/filter", json=body).json()
        if not isinstance(rows, list):
            raise TypeError("a list of flows was expected")
        return rows

    def _deployment_rows(self, offset: int) -> Sequence[Any]:
        return self._client.read_deployments(limit=_PAGE, offset=offset, sort=DeploymentSort.NAME_ASC)

    def _pages(self, start: datetime, stop: datetime) -> Iterator[Sequence[FlowRun]]:
        offset = 0
        while True:
            with self._asking():
                page = self._client.read_flow_runs(
                    flow_run_filter=_started(start, stop), sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset
                )
            if page:
                yield page
            if len(page) < _PAGE:
                return
            offset += len(page)

    # ---- reading --------------------------------------------------------------------------------------------------

    def _deployment_name(self, item: Any) -> str:
        return f"{self._flows.get(item.flow_id, 'flow')}/{item.name}"

    def _pipeline_of(self, run: FlowRun) -> str:
        deployment = None if run.deployment_id is None else self._deployments.get(run.deployment_id)
        if deployment is not None:
            return self._deployment_name(deployment)
        return self._flows.get(run.flow_id, f"flow {run.flow_id}")

    def _stretches(self, run: FlowRun, states: Sequence[State[Any]]) -> Iterator[PastRun]:
        """One attempt, or one for each time that the run worked."""
        ordered = sorted(states, key=lambda state: state.timestamp)
        planned = [state.state_details.scheduled_time for state in ordered if state.is_scheduled()]
        scheduled_at = next((instant for instant in planned if instant is not None), run.expected_start_time)
        cpu_thousandths = _cpus(run.job_variables)
        stretches = _worked(ordered) if ordered else [(run.start_time, run.end_time, _outcome(run))]
        attempt = 1
        for started_at, ended_at, outcome in stretches:
            yield PastRun(
                pipeline=self._pipeline_of(run),
                run_id=str(run.id),
                outcome=outcome,
                attempt=attempt,
                trigger=_trigger(run),
                scheduled_at=_plain(scheduled_at),
                started_at=_plain(started_at),
                ended_at=_plain(ended_at),
                pool=run.work_pool_name or "",
                cpu_thousandths=cpu_thousandths,
            )
            attempt += outcome is RunOutcome.RETRIED


def _all(read: Callable[[int], Sequence[Any]]) -> Iterator[Sequence[Any]]:
    offset = 0
    while True:
        page = read(offset)
        yield page
        if len(page) < _PAGE:
            return
        offset += len(page)


def _started(start: datetime, stop: datetime) -> FlowRunFilter:
    return FlowRunFilter(start_time=FlowRunFilterStartTime(after_=start, before_=stop))  # type: ignore[arg-type]


def _plain(instant: datetime | None) -> datetime | None:
    """Pydantic gives Prefect's instants as pendulum's, whose differences do not divide as a timedelta does."""
    return None if instant is None else datetime.fromisoformat(instant.isoformat())


def _interrupted(run: FlowRun) -> bool:
    if run.run_count > 1:
        return True
    if run.start_time is None or run.end_time is None:
        return False
    return run.end_time - run.start_time - run.total_run_time > _IDLE


def _outcome(run: FlowRun) -> RunOutcome:
    if run.state_name == SKIPPED:
        return RunOutcome.SKIPPED
    return _OUTCOMES.get(str(getattr(run.state_type, "value", run.state_type)), RunOutcome.RUNNING)


def _worked(states: Sequence[State[Any]]) -> Iterator[tuple[datetime, datetime | None, RunOutcome]]:
    """Each stretch in a state of type RUNNING, and how it ended: by the state that came next."""
    started_at: datetime | None = None
    for state in states:
        if state.is_running():
            started_at = started_at or state.timestamp
        elif started_at is not None:
            kind = state.type.value
            if kind in _OUTCOMES:
                outcome = RunOutcome.SKIPPED if state.name == SKIPPED else _OUTCOMES[kind]
            elif state.name == "AwaitingRetry":
                outcome = RunOutcome.RETRIED
            else:
                outcome = RunOutcome.SUCCEEDED  # paused, or deferred by a gate: that work was not lost
            yield started_at, state.timestamp, outcome
            started_at = None
    if started_at is not None:
        yield started_at, None, RunOutcome.RUNNING


def _trigger(run: FlowRun) -> RunTrigger:
    if run.auto_scheduled:
        return RunTrigger.SCHEDULED
    kind = str(getattr(run.created_by, "type", "") or "").upper()
    if run.parent_task_run_id is not None or kind == "AUTOMATION":
        return RunTrigger.EVENT
    return RunTrigger.MANUAL


def _schedule_text(item: Any) -> str:
    schedule = item.schedule
    for name in ("cron", "rrule"):
        if getattr(schedule, name, None):
            return str(getattr(schedule, name))
    interval = getattr(schedule, "interval", None)
    return f"every {interval}" if interval else ""


def _cpus(job_variables: Mapping[str, Any] | None) -> int | None:
    """Processors in thousandths that a run asked for by its job variables ``cpu`` or ``cpu_request``.

    Kubernetes writes ``500m`` or ``2``; ECS writes units of 1/1024, 256 and up (AWS, "Amazon ECS task definition
    parameters", cpu), which no pod asks for.
    """
    stated = (job_variables or {}).get("cpu") or (job_variables or {}).get("cpu_request")
    text = str(stated or "").strip()
    try:
        if text.endswith("m"):
            found = round(float(text[:-1]))
        else:
            number = float(text)
            found = round(number * 1_000 / 1_024) if number >= 256 else round(number * 1_000)
    except (ValueError, OverflowError):
        return None
    return found if 0 < found < 1_000_000 else None
