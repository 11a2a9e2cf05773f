"""What each verdict does to a flow, a task and a function that run in a script, against a real Prefect server."""

from __future__ import annotations

import asyncio
import inspect
import io
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prefect import flow, get_client, task, unmapped
from prefect.cache_policies import INPUTS, NO_CACHE
from prefect.client.schemas.objects import State

from cagg.errors import InvalidInput, NotAdmitted
from cagg.request import GateOptions
from cagg_prefect import carbon_aware


def test_signature_is_that_of_the_options() -> None:
    decorator, options = inspect.signature(carbon_aware).parameters, inspect.signature(GateOptions).parameters
    assert list(decorator) == list(options)
    assert [item.default for item in decorator.values()] == [item.default for item in options.values()]
    assert all(item.kind is inspect.Parameter.KEYWORD_ONLY for item in decorator.values())


def test_admitted_flow_runs_under_the_meter_and_keeps_its_result(scripted: Any) -> None:
    @carbon_aware(zone="GB", budget="acme/ml")
    @flow(name="admitted-nightly")
    def nightly(amount: int) -> int:
        assert scripted.open_runs == ["admitted-nightly"]
        return amount + 1

    assert nightly(712_345_678) == 712_345_679
    assert scripted.outcomes == [("admitted-nightly", 1, "completed")]
    request = scripted.requests[0]
    assert (request.identity.host, request.encloses_run, request.host.can_defer) == ("prefect", True, True)
    assert (request.options.zone, request.options.budget) == ("GB", "acme/ml")
    assert "712345678" not in repr(request)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(request.labels["flow_run_id"])
    assert str(run.id) == request.identity.root_run_id
    assert run.state is not None
    assert run.state.is_completed()


def test_async_flow_and_async_task(scripted: Any) -> None:
    @carbon_aware()
    @task
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    @carbon_aware()
    @flow
    async def doubling(number: int) -> list[int]:
        return list(await asyncio.gather(double(number), double(number)))

    assert asyncio.run(doubling(4)) == [8, 8]
    assert len({request.identity.key for request in scripted.requests}) == 3
    assert [outcome for _, _, outcome in scripted.outcomes] == ["completed"] * 3


def test_denied_flow_fails_with_the_message_and_is_not_retried(scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.deny()
    entered: list[int] = []

    @carbon_aware(budget="acme/ml")
    @flow(retries=3)
    def refused() -> None:
        entered.append(1)

    with pytest.raises(NotAdmitted, match="0 g left"):
        refused()
    assert entered == []
    assert scripted.asked == [("refused", 1)]
    state = _state_of(scripted.requests[0].identity.root_run_id)
    assert state.is_failed()
    assert "raise it with `cagg budget set`" in (state.message or "")


def test_review_fails_like_deny(scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.review()

    @carbon_aware(risk="critical")
    @flow
    def reviewed() -> None: ...

    with pytest.raises(NotAdmitted, match="no reviewer is configured"):
        reviewed()


def test_denied_work_that_may_be_skipped_completes_as_skipped(scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.deny() if "inner" in request.identity.task_key else verdicts.admit()

    @carbon_aware(on_deny="skip")
    @task
    def inner() -> int:
        raise AssertionError("a skipped body ran")

    @carbon_aware(on_deny="skip")
    @flow
    def skipping() -> list[Any]:
        state = inner(return_state=True)
        assert (state.name, state.is_completed()) == ("Skipped", True)
        return [inner(), inner.submit().result()]

    assert skipping() == [None, None]

    scripted.rule = lambda request, ask: verdicts.deny()
    state: State[Any] = skipping(return_state=True)
    assert (state.name, state.is_completed()) == ("Skipped", True)
    assert "0 g left" in (state.message or "")


def test_release_fails_closed_even_when_it_may_be_skipped(scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.deny()

    @carbon_aware(kind="validation", on_deny="skip")
    @flow
    def validation() -> None: ...

    with pytest.raises(NotAdmitted):
        validation()


def test_flow_retries_are_asked_as_attempts_of_their_own(scripted: Any) -> None:
    @carbon_aware()
    @flow(retries=2)
    def flaky() -> str:
        if len(scripted.requests) < 3:
            raise ValueError("not yet")
        return "done"

    assert flaky() == "done"
    assert scripted.asked == [("flaky", 1), ("flaky", 2), ("flaky", 3)]
    assert [outcome for _, _, outcome in scripted.outcomes] == ["failed", "failed", "completed"]
    assert len({request.identity.series_key for request in scripted.requests}) == 1


def test_task_retries_are_asked_and_metered_per_attempt(scripted: Any) -> None:
    @carbon_aware()
    @task(retries=2)
    def flaky(name: str) -> str:
        if sum(1 for key, _, _ in scripted.outcomes if key == "outer/flaky") < 2:
            raise ValueError("not yet")
        return name

    @flow
    def outer() -> str:
        return flaky("x")

    assert outer() == "x"
    assert scripted.asked == [("outer/flaky", 1), ("outer/flaky", 2), ("outer/flaky", 3)]
    assert [outcome for _, _, outcome in scripted.outcomes] == ["failed", "failed", "completed"]


def test_denied_task_is_not_retried_and_failures_still_respect_the_persons_condition(
    scripted: Any, verdicts: Any
) -> None:
    conditions: list[str] = []

    def only_value_errors(_task: Any, _run: Any, state: State[Any]) -> bool:
        conditions.append(type(state.data).__name__)
        return isinstance(state.data, ValueError)

    @carbon_aware()
    @task(retries=1, retry_condition_fn=only_value_errors)
    def work(error: type[Exception]) -> None:
        raise error("again")

    @flow
    def outer(kind: str) -> None:
        work({"key": KeyError, "value": ValueError}[kind])

    with pytest.raises(KeyError):
        outer("key")
    assert len(scripted.asked) == 1
    with pytest.raises(ValueError, match="again"):
        outer("value")
    assert len(scripted.asked) == 3
    scripted.rule = lambda request, ask: verdicts.deny()
    with pytest.raises(NotAdmitted):
        outer("value")
    assert len(scripted.asked) == 4
    assert conditions == ["KeyError", "ValueError"]
    assert work.retry_condition_fn is not only_value_errors
    assert work.with_options(retries=0).ungated().retry_condition_fn is only_value_errors  # type: ignore[attr-defined]


def test_submit_and_map_gate_every_call(scripted: Any) -> None:
    @carbon_aware()
    @task
    def add(left: int, right: int) -> int:
        return left + right

    @flow
    def mapping() -> list[int]:
        first = add.submit(1, 2)
        second = add.submit(first, 10)  # type: ignore[call-overload]
        return [first.result(), second.result(), *add.map([1, 2, 3], unmapped(100)).result()]

    assert mapping() == [3, 13, 101, 102, 103]
    assert len({request.identity.key for request in scripted.requests}) == 5
    assert [outcome for _, _, outcome in scripted.outcomes] == ["completed"] * 5


def test_map_in_states_and_with_pending_inputs(scripted: Any) -> None:
    @task
    def numbers() -> list[int]:
        return [1, 2]

    @carbon_aware()
    @task
    def square(number: int) -> int:
        return number * number

    @flow
    def mapping() -> list[int]:
        states = square.map(numbers.submit(), return_state=True)
        return [state.result() for state in states]

    assert mapping() == [1, 4]
    assert len(scripted.outcomes) == 2


def test_cached_task_is_neither_asked_for_nor_metered(scripted: Any) -> None:
    entered: list[int] = []

    @carbon_aware()
    @task(persist_result=True, cache_policy=INPUTS)
    def cached(number: int, salt: str) -> int:
        entered.append(number)
        return number

    @flow
    def twice(salt: str) -> list[int]:
        return [cached(1, salt), cached(1, salt), cached.submit(1, salt).result()]

    assert twice(str(id(entered))) == [1, 1, 1]
    assert entered == [1]
    assert len(scripted.asked) == 1
    assert scripted.outcomes == [("twice/cached", 1, "completed")]


def test_a_cache_key_that_fails_or_names_a_parameter_is_what_prefect_makes_of_it(scripted: Any) -> None:
    entered: list[str] = []

    class Broken(Exception):
        """An error of the user's own, below no class that we could name."""

    def fails(context: Any, parameters: Any) -> str:
        raise Broken

    @carbon_aware()
    @task(persist_result=True, cache_key_fn=fails)
    def keyless() -> int:
        entered.append("keyless")
        return 1

    @carbon_aware()
    @task(persist_result=True, cache_policy=NO_CACHE, result_storage_key="{parameters[name]}")
    def named(name: str) -> int:
        entered.append(name)
        return 2

    @flow
    def several(name: str) -> list[int]:
        return [keyless(), keyless(), named(name), named(name + "-b")]

    assert several(f"named-{id(entered)}") == [1, 1, 2, 2]
    assert len(entered) == len(scripted.asked) == 4


def test_a_long_lived_process_remembers_a_bounded_number_of_subflow_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from cagg_prefect import flows

    monkeypatch.setattr(flows, "_MOST_REMEMBERED", 2)
    monkeypatch.setattr(flows, "_executions", OrderedDict())
    assert [flows._entered(name) for name in ("a", "b", "a", "c", "a", "b")] == [1, 1, 2, 1, 3, 1]
    assert len(flows._executions) == 2


def test_variants_keep_the_gate_and_meter_once(scripted: Any) -> None:
    @carbon_aware(zone="GB")
    @task(tags={"a"})
    def work() -> int:
        return 1

    @carbon_aware(zone="GB")
    @flow(version="7")
    def outer() -> int:
        return work.with_options(name="other", retries=1)()

    variant = outer.with_options(name="renamed")
    assert variant() == 1
    assert scripted.asked == [("renamed", 1), ("renamed/other", 1)]
    assert variant.version == "7"
    assert work.with_options(name="other").task_key == work.task_key
    assert work.with_options(name="other").tags == {"a"}


def test_entry_point_version_and_source_are_those_of_the_body() -> None:
    def body() -> None: ...

    plain = flow(body)
    gated = carbon_aware()(plain)
    assert (gated._entrypoint, gated.version, gated.name) == (plain._entrypoint, plain.version, plain.name)
    plain_task, gated_task = task(body), carbon_aware()(task(body))
    assert (gated_task.task_key, gated_task.source_code) == (plain_task.task_key, plain_task.source_code)
    assert isinstance(gated, type(plain))
    assert isinstance(gated_task, type(plain_task))


def test_bodies_called_by_hand_are_not_gated(scripted: Any) -> None:
    @carbon_aware()
    @task
    def work(number: int) -> int:
        return number

    @carbon_aware()
    @flow
    def outer(number: int) -> int:
        return work.fn(number)

    assert (work.fn(1), outer.fn(2)) == (1, 2)
    assert scripted.asked == []


def test_task_outside_of_a_flow_is_gated_where_it_is(scripted: Any) -> None:
    @carbon_aware()
    @task
    def alone() -> int:
        return 5

    assert alone() == 5
    assert scripted.requests[0].identity.host == "local"
    assert scripted.outcomes == [("alone", 1, "completed")]


def test_methods_keep_their_binding(scripted: Any) -> None:
    class Model:
        factor = 3

        @carbon_aware()
        @task
        def scale(self, number: int) -> int:
            return self.factor * number

        @carbon_aware()
        @flow
        def run(self) -> int:
            scale: Any = self.scale  # Prefect types a bound task as if it were not bound
            return int(scale(2) + scale.with_options(name="again")(1))

    run: Any = Model().run
    assert run() == 9


def test_generators_stream_under_the_meter(scripted: Any) -> None:
    @carbon_aware()
    @task
    def count(number: int) -> Any:
        yield from range(number)

    @carbon_aware()
    @flow
    def streaming() -> Any:
        yield from count(3)

    assert list(streaming()) == [0, 1, 2]
    assert [outcome for _, _, outcome in scripted.outcomes] == ["completed", "completed"]


def test_subflow_shares_the_root_and_does_not_enclose_it(scripted: Any) -> None:
    @carbon_aware()
    @flow
    def child(number: int) -> int:
        return number

    @carbon_aware()
    @flow
    def parent() -> int:
        return child(1) + child(1)

    assert parent() == 2
    outer, *inner = scripted.requests
    assert outer.encloses_run
    assert [request.encloses_run for request in inner] == [False, False]
    assert {request.identity.root_run_id for request in inner} == {outer.identity.root_run_id}
    assert len({request.identity.key for request in scripted.requests}) == 3


def test_plain_functions_are_gated_and_refuse_to_be_wrapped() -> None:
    @carbon_aware()
    def plain(number: int) -> int:
        return number

    assert list(inspect.signature(plain).parameters) == ["number"]
    with pytest.raises(InvalidInput, match="above @task"):
        task(plain)
    with pytest.raises(InvalidInput, match="above @flow"):
        flow(plain)
    with pytest.raises(InvalidInput, match="already"):
        carbon_aware()(plain)
    with pytest.raises(InvalidInput, match="already"):
        carbon_aware()(carbon_aware()(flow(name="twice")(lambda: None)))
    for wrong in (3, int, staticmethod(lambda: None)):
        put_gate: Any = carbon_aware()
        with pytest.raises(InvalidInput, match="flow, a task or a function"):
            put_gate(wrong)


def test_plain_function_in_and_out_of_a_flow(scripted: Any, verdicts: Any) -> None:
    @carbon_aware(on_deny="skip")
    def plain(number: int) -> int:
        return number

    @flow
    def outer() -> list[int]:
        return [plain(1), plain(1)]

    assert plain(7) == 7
    assert outer() == [1, 1]
    assert [request.identity.host for request in scripted.requests] == ["local", "prefect", "prefect"]
    assert len({request.identity.key for request in scripted.requests}) == 3
    scripted.rule = lambda request, ask: verdicts.deny()
    assert plain(1) is None


def test_script_waits_in_process_and_asks_again(scripted: Any, verdicts: Any, caplog: pytest.LogCaptureFixture) -> None:
    scripted.rule = lambda request, ask: verdicts.defer(0.2) if ask == 0 else verdicts.admit()

    @carbon_aware()
    @flow
    def patient() -> str:
        return "ran"

    with caplog.at_level("INFO"):
        assert patient() == "ran"
    assert [type(verdict).__name__ for verdict in scripted.verdicts] == ["Defer", "Admit"]
    assert len({request.identity.key for request in scripted.requests}) == 1
    assert "Waiting here for" in caplog.text


def test_a_terminal_shows_a_countdown(scripted: Any, verdicts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    scripted.rule = lambda request, ask: verdicts.defer(1.5) if ask == 0 else verdicts.admit()
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    @carbon_aware()
    def plain() -> int:
        return 1

    assert plain() == 1
    assert "waiting for a cleaner window: 1 s left" in terminal.getvalue()


def test_wait_that_would_run_into_the_flows_timeout_is_not_begun(scripted: Any, verdicts: Any) -> None:
    scripted.rule = lambda request, ask: verdicts.defer(3600)

    @carbon_aware()
    @task
    def inner() -> int:
        return 1

    @carbon_aware()
    @flow(timeout_seconds=60)
    def hurried() -> int:
        return inner()

    assert hurried() == 1
    assert [request.host.can_defer for request in scripted.requests] == [False, False]


def test_interrupted_wait_gives_the_reservation_back(
    scripted: Any, verdicts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.rule = lambda request, ask: verdicts.defer(3600)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scripted.components.clock, "sleep", interrupt, raising=False)

    @carbon_aware()
    def plain() -> None: ...

    with pytest.raises(KeyboardInterrupt):
        plain()
    assert len(scripted.released) == 1


def test_two_threads_share_one_gate(scripted: Any) -> None:
    @carbon_aware()
    def plain(number: int) -> int:
        return number

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(plain, range(6))) == list(range(6))
    assert len({request.identity.key for request in scripted.requests}) == 6


def _state_of(run_id: str) -> State[Any]:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state  # type: ignore[arg-type]
    assert state is not None
    return state
