"""Sensors that take no worker slot while they wait: for clean power, and for headroom of a budget.

They hold nothing and record nothing; what runs after them asks a gate of its own if a budget is to pay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs

from cagg.errors import CaggError, HostUnavailable, InvalidInput, StoreUnavailable
from cagg_airflow import opening
from cagg_airflow.asking import EARLIEST_EVENT, GRACE
from cagg_airflow.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
    schedule_of,
    task_logger,
)
from cagg_airflow.headroom import latest_poll, need_of, room_once
from cagg_airflow.triggers import BudgetTrigger, WindowTrigger
from cagg_airflow.watching import (
    DEADLINE,
    OFF_EVENT,
    REFUSED,
    Moment,
    Wish,
    look_once,
)

if TYPE_CHECKING:
    from cagg.composition import Components

__all__ = ["CarbonBudgetSensor", "CarbonIntensitySensor", "OnTimeout"]

_TRIGGERS_RENDER: Final = hasattr(BaseTrigger, "render_template_fields")
"""Triggers see templates rendered since Airflow 3.3; before, a sensor defers from a worker."""


class OnTimeout(StrEnum):
    """What a sensor does when the time for waiting is over."""

    RUN = "run"
    """succeed: what follows runs now"""
    SKIP = "skip"
    """skip: what follows is skipped, unless its trigger rule says otherwise"""
    FAIL = "fail"
    """fail, without a retry"""


class _CarbonSensor(BaseSensorOperator):
    """What the two sensors share."""

    trigger_class: type[BaseTrigger]
    waits_for: tuple[str, ...]
    """names of the arguments that the trigger takes, all of them templates"""

    def __init__(self, *, on_timeout: str = "run", start_from_trigger: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        try:
            self.on_timeout = OnTimeout(on_timeout).value
        except ValueError:
            raise InvalidInput(f"on_timeout {on_timeout!r} is unknown; use one of {', '.join(OnTimeout)}.") from None
        self.start_from_trigger = start_from_trigger and _TRIGGERS_RENDER

    def _start_in_trigger(self) -> None:
        """Let the scheduler start the task in the triggerer. Called last in ``__init__``: all arguments are known."""
        if not self.start_from_trigger:
            return
        backstop = timedelta(seconds=self.timeout) + GRACE
        limits = [backstop, *([self.execution_timeout] if self.execution_timeout is not None else [])]
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{self.trigger_class.__module__}.{self.trigger_class.__name__}",
            trigger_kwargs={
                **self._asked(),
                "timeout_seconds": float(self.timeout),
                "backstop_seconds": min(limits).total_seconds(),
                "moment": None,
            },
            next_method="resume",
            next_kwargs=None,
            timeout=backstop,
        )

    def _asked(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.waits_for}

    def execute(self, context: Any) -> Any:
        """Look once in the worker, for mapped sensors, ``dag.test()``, and Airflow 3.2; defer if it is too early."""
        if not opening.enabled():
            return self._conclude(OFF_EVENT)
        try:
            parts = opening.open_gate().components
            now = parts.clock.now()
            start, zone = schedule_of(context)
            moment = Moment(asked_at=now, scheduled_start=start, time_zone=zone)
            event = self._look(parts, moment)
        except (HostUnavailable, StoreUnavailable):
            raise  # may pass: Airflow's own retries ask again
        except CaggError as problem:
            raise AirflowFailException(str(problem)) from problem
        if event is not None:
            return self._conclude(event)
        moment = replace(moment, not_before=now + EARLIEST_EVENT)
        trigger: Any = self.trigger_class
        raise TaskDeferred(
            trigger=trigger(**self._asked(), timeout_seconds=self.timeout, moment=moment.as_values()),
            method_name="resume",
            timeout=timedelta(seconds=self.timeout) + GRACE,
        )

    def _look(self, parts: Components, moment: Moment) -> Mapping[str, Any] | None:
        raise NotImplementedError

    def resume(self, context: Any, event: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Go on with what the trigger found. All is in the event: ``dag.test()`` drops a deferral's arguments."""
        del context, kwargs
        return self._conclude(event or {"status": REFUSED, "message": "the trigger said nothing; clear the task."})

    def _conclude(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is pushed as the task's XCom, or end as the sensor's end says."""
        message = str(event.get("message", ""))
        status = event.get("status")
        task_logger().info("carbon sensor: %s: %s", status, message)
        if status == REFUSED:
            raise AirflowFailException(message)
        if status == DEADLINE and self.on_timeout == OnTimeout.SKIP:
            raise AirflowSkipException(message)
        if status == DEADLINE and self.on_timeout == OnTimeout.FAIL:
            raise AirflowSensorTimeout(message)
        return dict(event)


class CarbonIntensitySensor(_CarbonSensor):
    """Waits for clean power: the cleanest window before a deadline, or an intensity within a threshold.

    The task starts in the triggerer: it takes no worker slot until it is over. All sensors of a triggerer share one
    look at the forecast of a zone, which is repeated at most every 15 minutes. Without any knowledge of the grid a
    sensor for the cleanest window holds nothing back, and says ``unshifted``; one for a threshold waits on.

    The XCom ``return_value`` tells status (due, deadline, off), zone, window, intensity in mg/kWh, source and quality.

    Args:
        zone: grid zone; None = the settings'.
        duration: length of the run that follows, ``"30m"``; None = the settings' default, and with ``below`` the
            intensity of the moment.
        finish_by: an instant with an offset, or a time of day: the run that follows is over by then.
        max_wait: longest wait, instead of ``finish_by``.
        below: threshold, ``"150 g/kWh"``, for the mean over ``duration``; None = the cleanest window.
        on_timeout: run, skip or fail, when the time is over before the threshold is met.
        start_from_trigger: False = a worker looks first. Ignored by Airflow 3.2, which cannot render templates there.
        kwargs: arguments of ``BaseSensorOperator``; its ``timeout`` bounds the wait too.

    Raises:
        InvalidInput: ``on_timeout`` is unknown. What else cannot be used fails the task, because it may hold templates.
    """

    template_fields: Collection[str] = ("zone", "duration", "finish_by", "max_wait", "below")
    waits_for = ("zone", "duration", "finish_by", "max_wait", "below")
    trigger_class = WindowTrigger
    ui_color = "#d5ecd4"

    def __init__(
        self,
        *,
        zone: str | None = None,
        duration: str | timedelta | None = None,
        finish_by: str | datetime | None = None,
        max_wait: str | timedelta | None = None,
        below: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.zone = zone
        self.duration = _text(duration)
        self.finish_by = _text(finish_by)
        self.max_wait = _text(max_wait)  # type: ignore[assignment]  # the base class's is a pause between pokes
        self.below = below
        self._start_in_trigger()

    def _look(self, parts: Components, moment: Moment) -> Mapping[str, Any] | None:
        wish = Wish.resolve(parts, moment, **self._asked(), longest=timedelta(seconds=self.timeout))
        return look_once(parts, wish)[0]


class CarbonBudgetSensor(_CarbonSensor):
    """Waits for headroom on a budget path: until every enforced budget from the path up has room for an amount.

    The task starts in the triggerer: it takes no worker slot until it is over. The budgets are read at most once a
    minute and when a period begins, once for all sensors of a triggerer. Room that was found is not held: gate what
    follows, or let a ``CarbonGateOperator`` hold it.

    The XCom ``return_value`` tells status (due, deadline, off), the budgets on the path with what they have left, and
    how energy was priced.

    Args:
        budget: path of the budget, ``"acme/ml/nightly"``.
        amount: energy (``"1.5 kWh"``), which carbon budgets count at the planning intensity, or carbon (``"200 g"``).
        zone: whose planning intensity prices energy; None = the settings'.
        max_wait: longest wait; None = the sensor's ``timeout``.
        on_timeout: run, skip or fail, when the time is over without room.
        start_from_trigger: False = a worker looks first. Ignored by Airflow 3.2.
        kwargs: arguments of ``BaseSensorOperator``.

    Raises:
        InvalidInput: ``on_timeout`` is unknown. What else cannot be used fails the task, because it may hold templates.
    """

    template_fields: Collection[str] = ("budget", "amount", "zone", "max_wait")
    waits_for = ("budget", "amount", "zone", "max_wait")
    trigger_class = BudgetTrigger
    ui_color = "#d5ecd4"

    def __init__(
        self,
        *,
        budget: str,
        amount: str,
        zone: str | None = None,
        max_wait: str | timedelta | None = None,
        on_timeout: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(on_timeout=on_timeout, **kwargs)
        self.budget = budget
        self.amount = amount
        self.zone = zone
        self.max_wait = _text(max_wait)  # type: ignore[assignment]  # the base class's is a pause between pokes
        self._start_in_trigger()

    def _look(self, parts: Components, moment: Moment) -> Mapping[str, Any] | None:
        latest = latest_poll(moment, self._asked()["max_wait"], timedelta(seconds=self.timeout))
        need = need_of(parts, budget=self.budget, amount=self.amount, zone=self.zone, until=latest)
        try:
            return room_once(parts, need, latest)
        except StoreUnavailable as problem:
            task_logger().warning("carbon sensor: asks again later: %s", problem)
            return None


def _text(value: str | timedelta | datetime | None) -> str | None:
    """Return plain text, which a serialised DAG can hold and a template can be."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    return value.isoformat() if isinstance(value, datetime) else value
