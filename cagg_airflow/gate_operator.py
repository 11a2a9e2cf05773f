"""``CarbonGateOperator``: one task that chooses the window for all that comes after it, and may hold the budget too."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, assert_never

from airflow.sdk import BaseOperator

from cagg.errors import InvalidInput, StoreUnavailable
from cagg.request import GateOptions, Request
from cagg.verdict import Admit, Defer, Deny, Review
from cagg_airflow import opening
from cagg_airflow.asking import build_request, deferral, may_skip, say
from cagg_airflow.compat import AirflowFailException, AirflowSkipException, push_xcom, task_logger
from cagg_airflow.mixin import options_mapping
from cagg_airflow.naming import DECISION_KEY, READING_KEY, RESUME_METHOD, task_key
from cagg_airflow.xcom import decision_xcom, group_xcom, summary_line

__all__ = ["CarbonGateOperator"]

_COLOUR: Final = "#d5ecd4"


class CarbonGateOperator(BaseOperator):
    """Waits for the window of what is downstream, checks headroom, and with ``settle=True`` holds it.

    Without ``settle`` it only chooses: nothing is held when it is over, and gated tasks downstream ask for themselves.

    With ``settle=True`` it holds the budget for the whole group. Gated tasks of the same DAG run draw on that hold:
    they start when they come, and what they measure is part of it. The teardown ``gate.settle_task`` charges the sum
    of their readings, whether they succeed or fail; where none was measured, the hold is charged, and says so::

        gate = CarbonGateOperator(task_id="gate", carbon=GateOptions(zone="GB", finish_by="06:00"), settle=True)
        gate >> work >> gate.settle_task

    The hold lasts until the deadline, or the bound of the duration if that is later, and 15 minutes on; a group that
    nobody settles by then is charged as held. One gate with ``settle`` per DAG run: it encloses all gated tasks of it.

    Declare ``energy`` or ``power`` and ``duration``, for the group: the gate's own history begins with the first
    group that it settled. The XCom ``carbon_decision`` and ``return_value`` tell the decision.

    Args:
        carbon: what is asked for the group.
        settle: hold the budget, and make ``settle_task``.
        kwargs: arguments of ``BaseOperator``.

    Raises:
        InvalidInput: an option cannot be used.
    """

    ui_color = _COLOUR

    def __init__(
        self, *, carbon: GateOptions | Mapping[str, Any] | None = None, settle: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.carbon = options_mapping(carbon)
        self.settle = settle

    @property
    def settle_task(self) -> BaseOperator:
        """The teardown that settles, made at the first use in the gate's DAG and task group.

        Raises:
            InvalidInput: the gate holds nothing to settle.
        """
        if not self.settle:
            raise InvalidInput(
                f"gate {self.task_id!r} holds nothing that could be settled; make it with settle=True, or leave "
                "settle_task out."
            )
        name = f"{self.task_id}_settle"
        dag = self.dag if self.has_dag() else None  # type: ignore[no-untyped-call]
        if dag is not None and name in dag.task_dict:
            made: Any = dag.task_dict[name]
            return made  # type: ignore[no-any-return]
        task = _SettleOperator(
            task_id=name.rpartition(".")[2],
            gate_task_id=self.task_id,
            carbon=self.carbon,
            task_group=self.task_group,
            dag=dag,
        )
        task.as_teardown(setups=self)
        return task

    def execute(self, context: Any) -> Any:
        """Ask; pass, defer, skip or fail as the verdict says."""
        return self._ask(context)

    def resume_after_gate(self, context: Any, event: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Ask again with the forecast of now. All state is in the store: ``dag.test()`` drops arguments."""
        del event, kwargs
        return self._ask(context)

    def _ask(self, context: Any) -> Any:
        if not opening.enabled():
            task_logger().debug("carbon gate: off, [cagg] enabled is not set")
            return None
        from cagg.steps.groups import end_check, extend_group, settle_admitted

        options = GateOptions.from_mapping(self.carbon, where=f"carbon of task {self.task_id}")
        request = replace(build_request(context, options), encloses_run=self.settle)
        gate = opening.open_gate()
        if self.settle:
            with suppress(StoreUnavailable):
                settle_admitted(gate.components, request)  # of an earlier try that was killed, or cleared half-way
        decision = gate.ask(request)
        say(decision)
        told = decision_xcom(decision)
        push_xcom(context, DECISION_KEY, told)
        verdict = decision.verdict
        match verdict:
            case Admit():
                gate.forget(decision.request.identity)  # no process runs under it: asked again, it is a new ask
                with suppress(StoreUnavailable):  # then the lease ends by itself, and is charged as the run expected
                    if self.settle:
                        until = extend_group(gate.components, decision)
                        task_logger().info("carbon gate: held for the group until %s", until)
                    else:
                        end_check(gate.components, decision)
                return told
            case Defer():
                raise deferral(gate, decision, verdict, RESUME_METHOD)
            case Deny() | Review():
                with suppress(StoreUnavailable):  # `cagg maintain` does it then
                    gate.release(decision.request.identity)
                if may_skip(decision):
                    raise AirflowSkipException(verdict.message)
                raise AirflowFailException(verdict.message)
            case _:
                assert_never(verdict)


class _SettleOperator(BaseOperator):
    """The teardown of a gate that holds: charges what the group used. Repeating it changes nothing."""

    ui_color = _COLOUR

    def __init__(self, *, gate_task_id: str, carbon: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**{"retries": 3, "retry_delay": timedelta(minutes=1), **kwargs})
        self.gate_task_id = gate_task_id
        self.carbon = dict(carbon)

    def execute(self, context: Any) -> Any:
        """Settle, whatever became of the group."""
        if not opening.enabled():
            return None
        from cagg.steps.groups import settle_group

        request = self._request_of_the_gate(context)
        summaries = settle_group(opening.open_gate().components, request)
        if not summaries:
            task_logger().info("carbon gate: nothing is left to settle")
        told = []
        for summary in summaries:
            task_logger().info("carbon gate: the group used %s", summary_line(summary))
            for note in summary.notes:
                task_logger().info("carbon gate: %s", note)
            if summary.checkpoint:
                task_logger().info("%s", summary.checkpoint)
            told.append(group_xcom(summary))
        if told:
            push_xcom(context, READING_KEY, told[-1])
        return told

    def _request_of_the_gate(self, context: Any) -> Request:
        ti = context["ti"]
        own = build_request(context, GateOptions.from_mapping(self.carbon, where=f"carbon of {self.gate_task_id}"))
        identity = replace(own.identity, task_key=task_key(ti.dag_id, self.gate_task_id), attempt=1)
        return replace(own, identity=identity, encloses_run=True)
