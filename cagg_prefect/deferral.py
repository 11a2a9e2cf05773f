"""Defer in Prefect's gesture: give the process back and continue later under the same id, or wait here in a script."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import TaskRunSort

from cagg.errors import DeferralUnsupported, StoreUnavailable
from cagg.verdict import Decision, Defer
from cagg.windows import format_duration
from cagg_prefect.compat import (
    Pause,
    Scheduled,
    State,
    SyncPrefectClient,
    TaskRun,
    run_logger,
    sync_client,
)
from cagg_prefect.naming import AWAITING_GREEN_WINDOW

if TYPE_CHECKING:
    from cagg.gating import Gate
    from cagg.ports import Clock
    from cagg_prefect.runs import RootRun

__all__ = ["AWAITING_GREEN_WINDOW", "Upstream", "give_way", "hand_back", "look_upstream", "wait_here"]

_SETTLE_SECONDS = 2.0
_SETTLE_LIMIT_SECONDS = 15.0
_POLL_SECONDS = 0.25
_PAGE = 200
_LOG_EVERY = timedelta(minutes=10)


def give_way(gate: Gate, decision: Decision, root: RootRun | None) -> bool:
    """Follow a deferral: wait here, or end this process; True when neither can be done without harm.

    True means that task runs beside this one are still running: ending the process would run them again. The caller
    asks again without the ability to defer, so that the admission and its reason are recorded.

    Raises:
        Pause: the run was rescheduled and this process must end.
        DeferralUnsupported: finished task runs would run again, because their results were not persisted.
    """
    verdict = decision.verdict
    if not isinstance(verdict, Defer):
        return False
    if root is None or not root.deployed:
        wait_here(gate, decision)
        return False
    if not decision.request.encloses_run:
        upstream = look_upstream(root, gate.components.clock)
        if upstream.lost:
            _release(gate, decision)
            raise DeferralUnsupported(
                f"{decision.request.identity.task_key} should wait until {verdict.until:%H:%M} UTC, but the finished "
                f"task runs {', '.join(upstream.lost[:3])} would run again then: give those tasks persist_result=True "
                "and a cache policy, or put @carbon_aware on the flow."
            )
        if upstream.running:
            return True
    hand_back(gate, decision, root)
    return False


def hand_back(gate: Gate, decision: Decision, root: RootRun) -> None:
    """Reschedule the root run and end this process; its slot is free until then.

    The state is forced: Prefect's rules let only failures leave Running for Scheduled. Allowed retries grow by one,
    because Prefect counts the start after a deferral as one of them (rule RetryFailedFlows, Prefect 3.8).

    Raises:
        Pause: always; the engine then ends without another state.
    """
    verdict = decision.verdict
    if not isinstance(verdict, Defer):
        raise TypeError("only a deferral can be handed back")
    with sync_client() as client:
        run = client.read_flow_run(UUID(root.run_id))
        if run.state is not None and not run.state.is_running():
            # Cancelled or rescheduled by a person while the gate was asked: that stands.
            _release(gate, decision)
            raise Pause(state=run.state)
        if run.empirical_policy.retries:
            policy = run.empirical_policy.model_copy(update={"retries": run.empirical_policy.retries + 1})
            client.update_flow_run(run.id, empirical_policy=policy)
        waiting: State[object] = Scheduled(
            name=AWAITING_GREEN_WINDOW, scheduled_time=verdict.until, message=verdict.message
        )
        answer = client.set_flow_run_state(run.id, waiting, force=True)
    run_logger().info("carbon gate: deferred: %s This process ends now; the run continues later.", verdict.message)
    raise Pause(state=answer.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Task runs that started before the one that asks.

    Attributes:
        lost: names of finished ones whose results were not persisted, so that they would run again.
        running: names of those that have not ended.
    """

    lost: Sequence[str]
    running: Sequence[str]


def look_upstream(root: RootRun, clock: Clock) -> Upstream:
    """Ask the API what the flow run has done so far.

    Task runs report their states as events, up to about a second late: the answer counts once it has been the same
    for two seconds, or after fifteen; what has not ended by then is running.
    """
    with sync_client() as client:
        start_ns = stable_ns = clock.monotonic_ns()
        seen = _snapshot(client, root)
        while True:
            clock.sleep(_POLL_SECONDS)
            latest = _snapshot(client, root)
            now_ns = clock.monotonic_ns()
            if latest != seen:
                seen, stable_ns = latest, now_ns
            busy = any(state == "running" for _, _, state in seen)
            if not busy and now_ns - stable_ns >= _SETTLE_SECONDS * 1e9:
                break
            if now_ns - start_ns >= _SETTLE_LIMIT_SECONDS * 1e9:
                break
    return Upstream(
        lost=[name for _, name, state in seen if state == "lost"],
        running=[name for _, name, state in seen if state == "running"],
    )


def _snapshot(client: SyncPrefectClient, root: RootRun) -> list[tuple[str, str, str]]:
    runs: list[TaskRun] = []
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id) for run_id in root.chain]))
    while True:
        page = client.read_task_runs(flow_run_filter=wanted, sort=TaskRunSort.ID_DESC, limit=_PAGE, offset=len(runs))
        runs += page
        if len(page) < _PAGE:
            break
    return sorted((str(run.id), run.name, _fate(run)) for run in runs if str(run.id) not in root.stand_ins)


def _fate(run: TaskRun) -> str:
    if run.state is None or not run.state.is_final():
        return "running"
    if run.state.is_completed() and run.state.data is None:
        return "lost"
    return "kept"


def wait_here(gate: Gate, decision: Decision) -> None:
    """Block this process until the window opens, with a countdown on the terminal, or in the log when there is none.

    An interrupt gives the reservation back.
    """
    from cagg.gating import wait_until

    verdict = decision.verdict
    if not isinstance(verdict, Defer):
        return
    countdown = _Countdown(run_logger())
    countdown.begin(verdict, verdict.until - gate.components.clock.now())
    waited = False
    try:
        wait_until(gate, verdict, countdown.tick)
        waited = True
    finally:
        countdown.close()
        if not waited:
            _release(gate, decision)


def _release(gate: Gate, decision: Decision) -> None:
    """Give the waiting reservation back; with the store down ``cagg maintain`` does it later."""
    with suppress(StoreUnavailable):
        gate.release(decision.request.identity)


class _Countdown:
    """One line that counts down on a terminal; elsewhere a log line at the start and every ten minutes."""

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._logger = logger
        self._terminal = sys.stderr.isatty()
        self._next_log = timedelta.max

    def begin(self, verdict: Defer, left: timedelta) -> None:
        self._logger.info("carbon gate: defer: %s Waiting here for %s.", verdict.message, format_duration(left))
        self._next_log = left - _LOG_EVERY

    def tick(self, verdict: Defer, left: timedelta) -> None:
        if left <= self._next_log and not self._terminal:
            self._logger.info("carbon gate: %s left until %s UTC.", format_duration(left), f"{verdict.until:%H:%M:%S}")
            self._next_log = left - _LOG_EVERY
        if self._terminal:
            sys.stderr.write(f"\r\x1b[Kwaiting for a cleaner window: {format_duration(left)} left (Ctrl-C gives up)")
            sys.stderr.flush()

    def close(self) -> None:
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
