"""The gestures of the contract that all adapters share, in Prefect tasks."""

from __future__ import annotations

from typing import Any

from prefect import flow, task

from cagg.request import Request
from cagg.testing.gestures import Answer, Gesture, GestureCase, gesture_table
from cagg.verdict import Verdict
from cagg_prefect import carbon_aware


class Played:
    """One case as a gated task: what was asked, how often its body ran, how its runs ended."""

    def __init__(self, case: GestureCase, number: int) -> None:
        self.case = case
        self.name = f"case-{number:03}"
        self.bodies = 0
        self.states: list[Any] = []

        def body(item: int) -> int:
            self.bodies += 1
            if self.bodies <= self.failing:
                raise ValueError("this attempt is meant to fail")
            return item

        plain = task(body, name=self.name, retries=2 if case.attempt > 1 else 0)
        self.task = carbon_aware(purpose=str(case.purpose), on_deny=str(case.on_deny))(plain)

    @property
    def runs(self) -> int:
        return 2 if self.case.mapped else 1

    @property
    def failing(self) -> int:
        """Bodies that fail first, so that the case is asked as a later attempt."""
        return self.runs if self.case.attempt > 1 else 0

    def play(self) -> None:
        futures = self.task.map(list(range(self.runs))) if self.case.mapped else [self.task.submit(0)]
        self.states = list(futures)

    def finish(self) -> None:
        for future in self.states:
            future.wait()
        self.states = [future.state for future in self.states]

    def gesture(self) -> Gesture | str:
        ran = self.bodies - self.failing
        names = {state.name for state in self.states}
        if ran == self.runs and names == {"Completed"}:
            return Gesture.RUN
        if ran == 0 and all(state.is_failed() for state in self.states):
            return Gesture.FAIL
        if ran == 0 and names == {"Skipped"}:
            return Gesture.SKIP
        return f"{ran} of {self.runs} bodies ran and ended {sorted(names)}"


def test_every_case_of_the_contract_ends_as_it_must(scripted: Any, verdicts: Any) -> None:
    played = [Played(case, number) for number, case in enumerate(gesture_table)]
    by_name = {one.name: one for one in played}

    def rule(request: Request, ask: int) -> Verdict:
        one = by_name[request.identity.task_key.rsplit("/", 1)[-1]]
        if request.identity.attempt < one.case.attempt:
            verdict: Verdict = verdicts.admit()
            return verdict
        answers: dict[Answer, Verdict] = {
            Answer.ADMIT: verdicts.admit(),
            Answer.DEFER: verdicts.defer(0.05) if ask == 0 else verdicts.admit(),
            Answer.REVIEW: verdicts.review(),
            Answer.DENY: verdicts.deny(),
        }
        return answers[one.case.verdict]

    scripted.rule = rule

    @flow(name="gestures")
    def play() -> None:
        for one in played:
            one.play()
        for one in played:
            one.finish()

    play(return_state=True)
    seen = {str(one.case): one.gesture() for one in played}
    # in a script nothing could start the run again, so giving the slot back is a wait in process before it runs
    expected = {
        str(one.case): Gesture.RUN if one.case.expected is Gesture.GIVE_BACK else one.case.expected for one in played
    }
    assert seen == expected
    for one in played:
        asks = [attempt for key, attempt in scripted.asked if key.rsplit("/", 1)[-1] == one.name]
        if one.case.expected is Gesture.GIVE_BACK:
            assert len(asks) == 2 * one.runs, str(one.case)
        if one.case.expected in (Gesture.FAIL, Gesture.SKIP):
            assert max(asks) == one.case.attempt, f"{one.case} was retried"
