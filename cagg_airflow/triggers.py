"""What waits in the triggerer: a deferred task for its instant, sensors for clean power or for headroom of a budget.

What a trigger is given holds absolute instants only. A triggerer that dies is replaced by one that builds the trigger
anew from these values, so nothing is lost and nothing starts over.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from cagg.errors import CaggError, HostUnavailable, StoreUnavailable
from cagg.windows import from_epoch_ms
from cagg_airflow import opening, waiting
from cagg_airflow.compat import schedule_of
from cagg_airflow.headroom import latest_poll, need_of, watch_budget
from cagg_airflow.sharing import shared
from cagg_airflow.watching import (
    DEADLINE,
    DUE,
    OFF_EVENT,
    Moment,
    Wish,
    refused,
    watch_window,
)

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.steps.room import Need

__all__ = ["BudgetTrigger", "GateTrigger", "WindowTrigger"]

logger = logging.getLogger("cagg")

_ASK_AGAIN: Final = timedelta(seconds=60)
"""Pause while Airflow or the store does not answer; one look for all sensors of a triggerer."""


class GateTrigger(BaseTrigger):
    """Sleeps until a gated task is to be asked again.

    Args:
        until_ms: planned instant, milliseconds since 1970 UTC.
        not_before_ms: the event never fires before it: Airflow may otherwise fail a task whose worker has not yet
            reported that it deferred (apache/airflow #66374, #72716).
        deadline_ms: last instant of the wait; None when the request has no deadline.
        identity: the waiting request, in plain JSON types, as ``cagg_airflow.asking.release_identity`` takes it;
            empty when nothing is held.
        echo: plain JSON values that the event repeats, because ``dag.test()`` drops the keyword arguments of a
            deferral.
    """

    def __init__(
        self,
        until_ms: int,
        not_before_ms: int,
        deadline_ms: int | None,
        identity: Mapping[str, Any],
        echo: Mapping[str, Any],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until_ms = int(until_ms)
        self.not_before_ms = int(not_before_ms)
        self.deadline_ms = None if deadline_ms is None else int(deadline_ms)
        self.identity = dict(identity)
        self.echo = dict(echo)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what builds it again."""
        return (
            f"{GateTrigger.__module__}.{GateTrigger.__name__}",
            {
                "until_ms": self.until_ms,
                "not_before_ms": self.not_before_ms,
                "deadline_ms": self.deadline_ms,
                "identity": self.identity,
                "echo": self.echo,
            },
        )

    @property
    def fires_at(self) -> datetime:
        """The planned instant or the deadline, whichever is earlier, but not before the worker has reported."""
        planned = self.until_ms if self.deadline_ms is None else min(self.until_ms, self.deadline_ms)
        return from_epoch_ms(max(planned, self.not_before_ms))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep, then fire once."""
        await waiting.sleep_until(self.fires_at)
        late = self.deadline_ms is not None and waiting.clock().now() >= from_epoch_ms(self.deadline_ms)
        yield TriggerEvent({**self.echo, "status": DEADLINE if late else DUE})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Release the hold when a person failed, cleared or passed the task by hand (Airflow 3.3 and newer call this;
        with older ones ``cagg maintain`` finds the ended run and releases it)."""
        if not self.identity:
            return
        from cagg_airflow.asking import release_identity

        try:
            await waiting.in_thread(release_identity, self.identity)
        except CaggError as error:
            logger.warning("cagg could not release the reservation now, `cagg maintain` will: %s", error)


class _SensorTrigger(BaseTrigger):
    """What the two sensors' triggers share. Arguments may hold templates, which the triggerer renders (Airflow 3.3).

    Args:
        timeout_seconds: longest wait.
        backstop_seconds: after this Airflow itself gives the task up; tells when the wait began.
        moment: when it began, where a worker deferred; None = started from the trigger, without a worker.
    """

    max_wait: str | None = None
    timeout_after: datetime | None = None
    """when Airflow gives the task up; set by the triggerer, the same after a restart"""

    def __init__(
        self, timeout_seconds: float, backstop_seconds: float | None, moment: Mapping[str, Any] | None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.timeout_seconds = float(timeout_seconds)
        self.backstop_seconds = None if backstop_seconds is None else float(backstop_seconds)
        self.moment = None if moment is None else dict(moment)

    def _arguments(self) -> dict[str, Any]:
        return {
            "timeout_seconds": self.timeout_seconds,
            "backstop_seconds": self.backstop_seconds,
            "moment": self.moment,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what builds it again."""
        return f"{type(self).__module__}.{type(self).__name__}", self._arguments()

    def _began(self) -> Moment:
        """Return when the wait began. Without a worker the scheduler's backstop tells, which outlives triggerers."""
        if self.moment is not None:
            return Moment.from_values(self.moment)
        asked_at = waiting.clock().now()
        if self.timeout_after is not None and self.backstop_seconds is not None:
            asked_at = min(asked_at, waiting.as_utc(self.timeout_after) - timedelta(seconds=self.backstop_seconds))
        start, zone = None, None
        instance = self.task_instance
        if instance is not None and hasattr(instance, "get_template_context"):
            start, zone = schedule_of(instance.get_template_context())
        return Moment(asked_at=asked_at, scheduled_start=start, time_zone=zone)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once; what cannot be awaited at all fires with the reason, and the sensor fails with it."""
        try:
            if opening.enabled():
                moment = self._began()
                event = await self._wait_through_silence(moment)
                if moment.not_before is not None:
                    await waiting.sleep_until(moment.not_before)
            else:
                event = OFF_EVENT
        except CaggError as problem:
            event = refused(problem)
        yield TriggerEvent(dict(event))  # type: ignore[no-untyped-call]

    async def _wait_through_silence(self, moment: Moment) -> Mapping[str, Any]:
        """Wait; ask again while Airflow or the store does not answer, until the time is over."""
        latest = latest_poll(moment, self.max_wait, timedelta(seconds=self.timeout_seconds))
        while True:
            try:
                return await self._wait(await shared().components(), moment)
            except (HostUnavailable, StoreUnavailable) as problem:
                now = waiting.clock().now()
                if now >= latest:
                    return {"status": DEADLINE, "message": f"The time is over and nothing was learned: {problem}"}
                logger.warning("a carbon sensor asks again in a minute: %s", problem)
            await waiting.sleep_until(min(now + _ASK_AGAIN, latest))

    async def _wait(self, parts: Components, moment: Moment) -> Mapping[str, Any]:
        raise NotImplementedError


class WindowTrigger(_SensorTrigger):
    """Waits for the cleanest window, or for an intensity below a threshold; see ``CarbonIntensitySensor``."""

    def __init__(
        self,
        *,
        zone: str | None,
        duration: str | None,
        finish_by: str | None,
        max_wait: str | None,
        below: str | None,
        timeout_seconds: float,
        backstop_seconds: float | None = None,
        moment: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(timeout_seconds, backstop_seconds, moment)
        self.zone, self.duration, self.finish_by, self.max_wait, self.below = (
            zone,
            duration,
            finish_by,
            max_wait,
            below,
        )

    def _arguments(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("zone", "duration", "finish_by", "max_wait", "below")}
        return {**own, **super()._arguments()}

    async def _wait(self, parts: Components, moment: Moment) -> Mapping[str, Any]:
        def resolve() -> Wish:
            return Wish.resolve(
                parts,
                moment,
                zone=self.zone,
                duration=self.duration,
                finish_by=self.finish_by,
                max_wait=self.max_wait,
                below=self.below,
                longest=timedelta(seconds=self.timeout_seconds),
            )

        return await watch_window(parts, await waiting.in_thread(resolve))


class BudgetTrigger(_SensorTrigger):
    """Waits for headroom on a budget path; see ``CarbonBudgetSensor``."""

    def __init__(
        self,
        *,
        budget: str,
        amount: str,
        zone: str | None,
        max_wait: str | None,
        timeout_seconds: float,
        backstop_seconds: float | None = None,
        moment: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(timeout_seconds, backstop_seconds, moment)
        self.budget, self.amount, self.zone, self.max_wait = budget, amount, zone, max_wait

    def _arguments(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("budget", "amount", "zone", "max_wait")}
        return {**own, **super()._arguments()}

    async def _wait(self, parts: Components, moment: Moment) -> Mapping[str, Any]:
        latest = latest_poll(moment, self.max_wait, timedelta(seconds=self.timeout_seconds))

        def price() -> Need:
            return need_of(parts, budget=self.budget, amount=self.amount, zone=self.zone, until=latest)

        return await watch_budget(parts, await waiting.in_thread(price), latest)
