"""The gestures of the contract that all adapters share, in Airflow: decorator, operator class and cluster policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from cagg.request import GateOptions, Request
from cagg.testing.gestures import Answer, Gesture, GestureCase, gesture_table
from cagg.verdict import Verdict
from cagg_airflow import carbon_aware
from cagg_airflow.cluster_policy import task_policy

Gated = carbon_aware(PythonOperator)


def options(case: GestureCase) -> dict[str, Any]:
    return {"purpose": str(case.purpose), "on_deny": str(case.on_deny)}


def decorated(case: GestureCase, body: Callable[[int], int]) -> list[Any]:
    with DAG("gestures"):

        @task.carbon_aware(retries=case.attempt - 1, **options(case))
        def work(item: int) -> int:
            return body(item)

        made = work.expand(item=[0, 1]) if case.mapped else work(0)
    operator = made.operator
    return [operator.unmap({"op_kwargs": {"item": item}}) for item in (0, 1)] if case.mapped else [operator]


def an_operator(case: GestureCase, body: Callable[[int], int]) -> list[Any]:
    given = {"task_id": "work", "python_callable": body, "carbon": GateOptions(**options(case))}
    with DAG("gestures", default_args={"retries": case.attempt - 1}):
        if not case.mapped:
            return [Gated(op_args=[0], **given)]
        mapped = Gated.partial(**given).expand(op_args=[[0], [1]])
    return [mapped.unmap({"op_args": [item]}) for item in (0, 1)]


def by_policy(case: GestureCase, body: Callable[[int], int]) -> list[Any]:
    given = {"task_id": "work", "python_callable": body, "params": {"carbon": options(case)}}
    with DAG("gestures", default_args={"retries": case.attempt - 1}, tags=["cagg"]):
        plain = PythonOperator.partial(**given).expand(op_args=[[0], [1]]) if case.mapped else PythonOperator(**given)
        if not case.mapped:
            plain.op_args = [0]
    task_policy(plain)
    return [plain.unmap({"op_args": [item]}) for item in (0, 1)] if case.mapped else [plain]


class Played:
    """One case as gated task instances: how often the body ran, and how each instance ended."""

    def __init__(self, case: GestureCase, bench: Any, scripted: Any, verdicts: Any) -> None:
        self.case, self.bench = case, bench
        self.bodies = 0
        answers = {
            Answer.ADMIT: verdicts.admit,
            Answer.DEFER: verdicts.defer,
            Answer.REVIEW: verdicts.review,
            Answer.DENY: verdicts.deny,
        }

        def rule(request: Request, ask: int) -> Verdict:
            assert request.identity.attempt == case.attempt
            assert request.identity.ordinal in ((1, 2) if case.mapped else (0,))
            answer = answers[case.verdict] if ask == 0 or case.verdict is not Answer.DEFER else verdicts.admit
            verdict: Verdict = answer()
            return verdict

        scripted.rule = rule

    def body(self, item: int) -> int:
        self.bodies += 1
        return item

    def play(self, operators: list[Any]) -> set[Gesture]:
        return {self._one(operator, index) for index, operator in enumerate(operators)}

    def _one(self, operator: Any, index: int) -> Gesture:
        before = self.bodies
        context = self.bench.context(
            operator, try_number=self.case.attempt, map_index=index if self.case.mapped else -1
        )
        gave_back = False
        try:
            try:
                result = self.bench.start(context)
            except TaskDeferred as deferred:
                gave_back = self.bodies == before
                result = self.bench.wake(deferred, context)
        except AirflowFailException:
            assert self.bodies == before
            return Gesture.FAIL
        except AirflowSkipException:
            assert self.bodies == before
            return Gesture.SKIP
        assert (result, self.bodies) == (index, before + 1)
        return Gesture.GIVE_BACK if gave_back else Gesture.RUN


@pytest.mark.parametrize("made_by", [decorated, an_operator, by_policy])
def test_every_case_of_the_contract_ends_as_it_must(made_by: Any, bench: Any, scripted: Any, verdicts: Any) -> None:
    seen, expected = {}, {}
    for case in gesture_table:
        played = Played(case, bench, scripted, verdicts)
        scripted.requests.clear()
        seen[str(case)] = played.play(made_by(case, played.body))
        expected[str(case)] = {case.expected}
        asked = scripted.requests[-1].options
        assert (asked.purpose, asked.on_deny) == (case.purpose, case.on_deny), str(case)
    assert seen == expected
