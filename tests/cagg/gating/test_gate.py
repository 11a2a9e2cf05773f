"""The whole story over a real store: admit, defer, wake, deny, settle, nest, expire, and what the ledger says."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cagg.budget.reservations import audit
from cagg.errors import InvalidInput, NotAdmitted, ZoneUnknown
from cagg.evidence import forecast_digest, recompute
from cagg.gating import Gate, gate
from cagg.maintenance import maintain
from cagg.ports import RunState
from cagg.quantities import Unit
from cagg.records import BudgetMode, EntryKind, ReservationState
from cagg.request import HostProfile, Request
from cagg.steps import running
from cagg.verdict import Admit, Defer, Deny, Reason

Make = Callable[..., Gate]


def counters(opened: Gate, path: str) -> tuple[int, int, int]:
    with opened.components.store.snapshot() as tx:
        assert audit(tx) == ()
        rows = tx.allotments(path)
    return sum(row.held for row in rows), sum(row.spent for row in rows), sum(row.overrun for row in rows)


def test_a_nightly_run_is_deferred_woken_metered_and_settled(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml/nightly", "10 kg/month")
    request = bench.request(budget="acme/ml/nightly")

    first = opened.ask(request)
    assert isinstance(first.verdict, Defer)
    assert first.verdict.until == bench.clock.now() + timedelta(hours=3)
    assert first.verdict.expected_difference_micrograms == 400_000_000
    held, spent, _ = counters(opened, "acme/ml/nightly")
    assert (held, spent) == (1_250_000_000, 0)  # 2 kWh x 1.25 (upper bound of a declared energy) x 500 g/kWh

    bench.clock.advance(timedelta(hours=3))
    woken = opened.ask(request)
    assert isinstance(woken.verdict, Admit)
    assert woken.first_asked_at == first.asked_at
    with opened.run(woken) as run:
        bench.clock.advance(timedelta(minutes=30))
    assert run.reading is not None
    assert run.reading.energy is not None
    assert run.reading.energy.millijoules == 100 * 1_800 * 1_000
    assert run.summary is not None
    assert run.summary.carbon is not None
    assert run.summary.carbon.micrograms == 5_000_000  # 50 Wh x 100 g/kWh
    assert run.summary.difference_micrograms == 10_000_000  # x (300 - 100)
    assert counters(opened, "acme/ml/nightly") == (0, 5_000_000, 0)

    kinds = [body["kind"] for body in bench.bodies(opened)]
    assert kinds == ["budget", "decision", "decision", "measurement", "settlement"]
    measurement = bench.bodies(opened, EntryKind.MEASUREMENT)[0]
    assert measurement["carbon_micrograms"] == "5000000"
    assert measurement["outcome"] == "completed"
    assert measurement["intensity_difference_micrograms"] == "10000000"


def test_a_decision_can_be_recomputed_from_the_ledger_alone(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml", "10 kg/month")
    opened.ask(bench.request(budget="acme/ml"))
    opened.ask(bench.request("run-2", budget="acme/ml", finish_by=None))
    opened.ask(bench.request("run-3", budget="acme/ml", energy="2000 kWh"))
    for body in bench.bodies(opened, EntryKind.DECISION):
        with opened.components.store.snapshot() as tx:
            data = tx.blob(forecast_digest(body) or "")
        assert recompute(body, data).same
    body["budgets_now"][0]["held"] = "0"
    body["budgets_now"][0]["limit"] = "9" * 15
    assert not recompute(body, data).same


def test_an_enforced_budget_denies_without_a_trace_in_the_counters(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "1 kg/month")
    bench.budget(opened, "acme/ml", "100 kg/month")
    decision = opened.ask(bench.request(budget="acme/ml"))
    assert isinstance(decision.verdict, Deny)
    assert "Budget acme has" in decision.verdict.message
    assert counters(opened, "acme/ml") == (0, 0, 0)
    with pytest.raises(NotAdmitted):
        opened.run(decision)
    assert bench.bodies(opened)[-1]["verdict"]["verdict"] == "deny"
    bench.budget(opened, "acme", "2 kg/month")
    assert isinstance(opened.ask(bench.request(budget="acme/ml")).verdict, Defer)  # a refusal does not burn the key


def test_a_zero_budget_is_a_real_budget(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "0 kWh/day")
    assert isinstance(opened.ask(bench.request(budget="acme")).verdict, Deny)


def test_an_observing_budget_lets_in_names_itself_and_books_the_overrun(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "1 g/month", BudgetMode.OBSERVE)
    decision = opened.ask(bench.request(budget="acme", finish_by=None))
    assert isinstance(decision.verdict, Admit)
    assert decision.verdict.over_limit == ("acme",)
    with opened.run(decision):
        bench.clock.advance(timedelta(minutes=30))
    held, spent, overrun = counters(opened, "acme")
    assert (held, spent) == (0, 15_000_000)
    assert overrun >= 14_000_000


def test_a_path_that_nobody_created_is_denied_and_ledgered(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    decision = opened.ask(bench.request(budget="acme/typo"))
    assert isinstance(decision.verdict, Deny)
    assert decision.verdict.reason is Reason.BUDGET_UNKNOWN
    assert "cagg budget set" in decision.verdict.message
    assert bench.bodies(opened)[-1]["verdict"]["reason"] == "budget_unknown"


def test_the_deadline_is_fixed_at_the_first_ask(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    first = opened.ask(bench.request())
    assert isinstance(first.verdict, Defer)
    bench.write_trace([300] * 9)
    bench.clock.advance(timedelta(hours=9))  # the host woke it far too late
    woken = opened.ask(bench.request())
    assert isinstance(woken.verdict, Admit)
    assert woken.verdict.reason is Reason.DEADLINE_PASSED


def test_a_later_attempt_keeps_the_deadline_and_is_never_deferred(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    decision = opened.ask(bench.request(finish_by=None, max_wait="1m"))
    with pytest.raises(ZeroDivisionError), opened.run(decision):
        _ = bench.clock.advance(timedelta(minutes=1)) or 1 // 0
    again = opened.ask(bench.request(attempt=2))
    assert isinstance(again.verdict, Admit)
    outcomes = [body["outcome"] for body in bench.bodies(opened, EntryKind.MEASUREMENT)]
    assert outcomes == ["failed"]
    with opened.run(again):
        bench.clock.advance(timedelta(minutes=1))
    assert [body["outcome"] for body in bench.bodies(opened, EntryKind.MEASUREMENT)] == ["failed", "completed"]


def test_the_same_ask_heard_twice_is_one_admission(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    one = opened.ask(bench.request(budget="acme", finish_by=None))
    two = opened.ask(bench.request(budget="acme", finish_by=None))
    assert one.decision_id == two.decision_id
    assert one.lease_epoch == two.lease_epoch
    assert counters(opened, "acme")[0] == 1_250_000_000


def test_work_that_is_repeated_after_it_ended_is_charged_again(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    for _ in range(3):
        with opened.run(opened.ask(bench.request(budget="acme", finish_by=None))):
            bench.clock.advance(timedelta(minutes=6))
    assert counters(opened, "acme") == (0, 3 * 3_000_000, 0)
    assert len(bench.bodies(opened, EntryKind.MEASUREMENT)) == 3


def inside(request: Request) -> Request:
    return replace(request, identity=replace(request.identity, task_key="inner"))


def test_an_inner_gate_answers_to_budgets_that_the_outer_one_does_not_pay_for(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    bench.budget(opened, "acme/ml", "1 kWh/month")
    bench.budget(opened, "other", "0 kWh/month")
    with opened.run(opened.ask(bench.request(budget="acme", finish_by=None))):
        assert isinstance(opened.ask(inside(bench.request(budget="other"))).verdict, Deny)
        assert isinstance(opened.ask(inside(bench.request(budget="acme/ml"))).verdict, Deny)
        assert isinstance(opened.ask(inside(bench.request(budget="acme/typo"))).verdict, Deny)
        small = opened.ask(inside(bench.request(budget="acme/ml", energy="10 Wh")))
        assert isinstance(small.verdict, Admit)
        with opened.run(small):
            bench.clock.advance(timedelta(minutes=6))
    assert counters(opened, "acme/ml") == (0, 36_000_000, 0)
    assert counters(opened, "acme") == (0, 3_000_000, 0)  # once, by the outer one


def test_an_outer_run_whose_lease_has_ended_covers_nothing(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    with opened.run(opened.ask(bench.request(budget="acme", finish_by=None))):
        bench.clock.advance(timedelta(minutes=30))  # and no beat: the gate's sweep charges it
        inner = opened.ask(inside(bench.request(budget="acme")))
        assert inner.lease_epoch is not None
        with opened.run(inner):
            bench.clock.advance(timedelta(minutes=6))
    # 100 W for 36 min, of which the inner run's 6 min count for both: the outer one had been given up
    assert counters(opened, "acme") == (0, 18_000_000 + 3_000_000, 0)


def test_a_process_that_is_told_whose_run_it_is_in_draws_on_it(
    bench: Any, make_gate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, child = make_gate(), make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    outer = opened.ask(bench.request("outer", budget="acme", finish_by=None))
    monkeypatch.setenv(running.ENCLOSING_VARIABLE, outer.request.identity.key)
    inner = child.ask(bench.request("elsewhere", budget="acme"))
    assert (inner.outer_key, inner.lease_epoch) == (outer.request.identity.key, None)
    bench.clock.advance(timedelta(minutes=6))
    assert child.ask(bench.request("later", budget="acme", finish_by=None)).outer_key is None


def test_a_forked_child_leaves_the_parents_run_alone(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(finish_by=None))) as run:
        child = os.fork()
        if child == 0:
            run.__exit__(None, None, None)
            os._exit(0 if run.summary is None else 1)
        assert os.waitpid(child, 0)[1] == 0
        bench.clock.advance(timedelta(minutes=6))
    assert run.summary is not None
    assert len(bench.bodies(opened, EntryKind.SETTLEMENT)) == 1


def test_a_meter_that_cannot_start_does_not_keep_the_work_from_running(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    decision = opened.ask(bench.request(budget="acme", finish_by=None))

    def broken() -> Any:
        raise InvalidInput("no such meter")

    with replace_factory(opened, broken).run(decision) as run:
        bench.clock.advance(timedelta(minutes=6))
    assert run.reading is not None
    assert run.reading.energy is None
    assert "no such meter" in run.reading.reason
    assert counters(opened, "acme") == (0, 1_250_000_000, 0)  # unknown energy is charged as it was held


def replace_factory(opened: Gate, factory: Callable[[], Any]) -> Gate:
    return Gate(replace(opened.components, meter_factory=factory))


def test_a_run_left_in_another_context_is_settled_all_the_same(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    run = opened.run(opened.ask(bench.request(finish_by=None)))
    contextvars.copy_context().run(run.__enter__)
    bench.clock.advance(timedelta(minutes=1))
    run.__exit__(None, None, None)
    assert run.summary is not None


def test_a_denied_first_ask_fixes_the_deadline_too(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "0 kg/month")
    deadline = bench.clock.now() + timedelta(hours=2)
    assert isinstance(opened.ask(bench.request(budget="acme", finish_by=deadline)).verdict, Deny)
    bench.budget(opened, "acme", "10 kg/month")
    bench.clock.advance(timedelta(hours=3))
    again = opened.ask(bench.request(budget="acme", finish_by=deadline, attempt=2))
    assert isinstance(again.verdict, Admit)
    assert again.verdict.reason is Reason.DEADLINE_PASSED


def test_a_refused_wake_keeps_what_was_held(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    request = bench.request(budget="acme")
    assert isinstance(opened.ask(request).verdict, Defer)
    bench.budget(opened, "acme", "1 kg/month")
    bench.clock.advance(timedelta(hours=3))
    assert isinstance(opened.ask(request).verdict, Deny)
    assert counters(opened, "acme")[0] == 1_250_000_000
    assert opened.release(request.identity)
    assert counters(opened, "acme")[0] == 0


def test_an_interrupted_local_wait_gives_its_hold_back(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")

    def stop(_: Defer, __: timedelta) -> None:
        raise KeyboardInterrupt

    options = {"opened": opened, "budget": "acme", "energy": "2 kWh", "duration": "1h", "finish_by": "06:00"}
    with pytest.raises(KeyboardInterrupt), gate("score", on_tick=stop, **options):
        pass
    with pytest.raises(NotAdmitted), gate("score", wait=False, **options):
        pass
    assert counters(opened, "acme") == (0, 0, 0)


def test_an_inner_gate_draws_on_the_outer_one(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    outer = opened.ask(bench.request(budget="acme", finish_by=None))
    with opened.run(outer):
        held = counters(opened, "acme")
        inner = opened.ask(inside(bench.request(budget="acme")))
        assert isinstance(inner.verdict, Admit)
        assert inner.outer_key == outer.request.identity.key
        with opened.run(inner):
            bench.clock.advance(timedelta(minutes=6))
        assert counters(opened, "acme") == held
    bodies = bench.bodies(opened, EntryKind.MEASUREMENT)
    assert [body["part_of"] for body in bodies] == [outer.request.identity.key, None]
    assert counters(opened, "acme") == (0, 3_000_000, 0)


def test_a_gate_in_another_process_of_an_enclosed_run_draws_on_it_too(bench: Any, make_gate: Make) -> None:
    opened, elsewhere = make_gate(), make_gate()
    outer = opened.ask(replace(bench.request(finish_by=None), encloses_run=True))
    with opened.run(outer) as run:
        token = running._CURRENT.set(None)
        running._MAIN_THREAD_RUNS.remove(run)
        other = replace(bench.request(), identity=replace(bench.request().identity, task_key="task"))
        inner = elsewhere.ask(other)
        running._CURRENT.reset(token)
        assert inner.outer_key == outer.request.identity.key


# ---- death and deletion -------------------------------------------------------------------------------------------


def test_a_run_that_dies_is_charged_for_what_it_used(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kWh/day")
    decision = opened.ask(bench.request(budget="acme", finish_by=None))
    run = opened.run(decision)
    run.__enter__()
    bench.clock.advance(timedelta(minutes=2))
    opened.components.meter().beat()  # 100 W for 120 s
    bench.clock.advance(timedelta(minutes=6))  # then SIGKILL: no more beats, the lease of five minutes ends
    run.__exit__  # noqa: B018 - never called
    sweeper = make_gate()
    report = maintain(sweeper.components, hosts={})
    assert report.expired == 1
    held, spent, _ = counters(opened, "acme")
    assert held == 0
    assert spent == 100 * 1_000 * (120 + 300)
    lost = bench.bodies(opened, EntryKind.MEASUREMENT)[0]
    assert (lost["outcome"], lost["grade"]) == ("lost", "D")
    assert maintain(sweeper.components, hosts={}).expired == 0

    # the process was only frozen: it comes back and settles the difference
    run.__exit__(None, None, None)
    assert counters(opened, "acme") == (0, 100 * 1_000 * 480, 0)
    settlements = bench.bodies(opened, EntryKind.SETTLEMENT)
    assert [body["outcome"] for body in settlements] == ["expired", "late_settled"]
    assert bench.bodies(opened, EntryKind.CORRECTION)[0]["outcome"] == "completed"


def test_the_gate_sweeps_its_own_path_without_maintain(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "3 kWh/day")
    opened.ask(bench.request(budget="acme", finish_by=None))
    assert isinstance(opened.ask(bench.request("run-2", budget="acme", finish_by=None)).verdict, Deny)
    bench.clock.advance(timedelta(minutes=6))
    # the first never beat: it is charged its expected 2 kW until the end of its lease, 167 Wh
    assert isinstance(opened.ask(bench.request("run-3", budget="acme", finish_by=None)).verdict, Admit)
    assert counters(opened, "acme")[1] == 2_000_000 * 300


class Host:
    """An engine that has forgotten its runs."""

    name = "local"

    def __init__(self, state: RunState) -> None:
        self.state = state

    def run_state(self, root_run_id: str, reference: str = "") -> RunState:
        assert root_run_id == "run-1"
        return self.state

    def describe(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(
    ("state", "released"),
    [(RunState.GONE, 1), (RunState.ENDED, 1), (RunState.ALIVE, 0), (RunState.UNKNOWN, 0)],
)
def test_a_deferred_run_that_was_deleted_is_released_at_zero(
    bench: Any, make_gate: Make, state: RunState, released: int
) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    opened.ask(bench.request(budget="acme"))
    assert maintain(opened.components, hosts={"local": Host(state)}).reconciled == released
    held, spent, _ = counters(opened, "acme")
    assert (held == 0) == (released == 1)
    assert spent == 0


def test_a_deferred_run_without_a_host_is_released_after_deadline_and_grace(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    opened.ask(bench.request(budget="acme"))
    bench.clock.advance(timedelta(hours=8, minutes=14))
    assert maintain(opened.components, hosts={}).expired == 0
    bench.clock.advance(timedelta(minutes=2))
    assert maintain(opened.components, hosts={}).expired == 1
    assert counters(opened, "acme") == (0, 0, 0)
    late = opened.ask(bench.request(budget="acme"))  # and if it is woken after all, it may ask again
    assert isinstance(late.verdict, Admit)
    assert late.verdict.reason is Reason.DEADLINE_PASSED


def test_a_reservation_can_be_released_by_hand(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    request = bench.request(budget="acme")
    opened.ask(request)
    assert opened.release(request.identity)
    assert not opened.release(request.identity)
    assert counters(opened, "acme") == (0, 0, 0)


# ---- what cannot be known -----------------------------------------------------------------------------------------


def test_without_a_zone_carbon_is_null_with_the_reason(bench: Any, make_gate: Make) -> None:
    (bench.folder / "cagg.toml").write_text('timezone = "UTC"\n', encoding="utf-8")
    opened = make_gate()
    decision = opened.ask(bench.request())
    assert isinstance(decision.verdict, Admit)
    assert decision.verdict.reason is Reason.NO_ZONE
    with opened.run(decision) as run:
        bench.clock.advance(timedelta(minutes=1))
    body = bench.bodies(opened, EntryKind.MEASUREMENT)[0]
    assert body["carbon_micrograms"] is None
    assert body["carbon_reason"] == "no zone is set"
    assert run.summary is not None
    assert Unit.CARBON not in run.summary.charged


def test_unknown_carbon_is_charged_at_the_planning_price_never_as_zero(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    bench.clock.advance(timedelta(hours=9, minutes=45))
    decision = opened.ask(bench.request(budget="acme", finish_by=None))
    with opened.run(decision) as run:
        bench.clock.advance(timedelta(minutes=30))  # the trace ends after 15
    assert run.summary is not None
    assert run.summary.carbon is None
    assert "has no intensity for" in run.summary.carbon_reason
    assert run.summary.charged[Unit.CARBON] == 25_000_000  # 50 Wh x 500 g/kWh


def test_an_unknown_zone_is_an_error_before_anything_is_stored(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    with pytest.raises(ZoneUnknown, match=r"cagg zones|did you mean"):
        opened.ask(bench.request(zone="climatology:XX"))
    with pytest.raises(InvalidInput, match="ago"):
        opened.ask(bench.request(finish_by=bench.clock.now() - timedelta(minutes=1)))


def test_mode_off_bypasses_everything_and_journals_it(bench: Any, make_gate: Make) -> None:
    opened = make_gate(mode="off")
    decision = opened.ask(bench.request(budget="acme/typo"))
    assert isinstance(decision.verdict, Admit)
    with opened.run(decision) as run:
        pass
    assert run.summary is None
    assert [body["kind"] for body in bench.bodies(opened)] == ["override"]


def test_mode_observe_runs_now_meters_and_records(bench: Any, make_gate: Make) -> None:
    opened = make_gate(mode="observe")
    bench.budget(opened, "acme", "1 g/month")
    decision = opened.ask(bench.request(budget="acme"))
    assert isinstance(decision.verdict, Admit)
    assert decision.verdict.reason is Reason.MODE_OBSERVE
    with opened.run(decision):
        bench.clock.advance(timedelta(minutes=30))
    assert counters(opened, "acme")[1] == 15_000_000


def test_what_the_host_cannot_wait_for_runs_now(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    host = HostProfile(name="local", can_defer=False)
    decision = opened.ask(bench.request(host=host))
    assert isinstance(decision.verdict, Admit)
    assert decision.verdict.reason is Reason.HOST_CANNOT_DEFER


def test_history_replaces_what_was_declared(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    for night in range(20):
        with opened.run(opened.ask(bench.request(f"night-{night}", finish_by=None))):
            bench.clock.advance(timedelta(minutes=12))
    opened.ask(bench.request("tonight", finish_by=None))
    estimate = bench.bodies(opened, EntryKind.DECISION)[-1]["estimate"]
    assert estimate["sample_size"] == 20
    assert estimate["expected_energy_millijoules"] == str(100 * 720 * 1_000)


# ---- in process ---------------------------------------------------------------------------------------------------


def test_a_local_block_waits_in_process_with_a_countdown(bench: Any, make_gate: Make) -> None:
    opened, left = make_gate(), []
    with gate(
        "score",
        opened=opened,
        energy="2 kWh",
        duration="1h",
        finish_by="06:00",
        on_tick=lambda _, rest: left.append(rest),
    ) as run:
        bench.clock.advance(timedelta(minutes=1))
    assert left[0] == timedelta(hours=3)
    assert run.summary is not None
    assert run.summary.difference_micrograms is not None
    assert run.summary.difference_micrograms > 0
    with opened.components.store.snapshot() as tx:
        states = {item.state for item in tx.reservations()}
    assert states == {ReservationState.SETTLED}


def test_a_local_block_that_must_not_wait_raises(make_gate: Make) -> None:
    with (
        pytest.raises(NotAdmitted) as caught,
        gate("score", opened=make_gate(), wait=False, energy="2 kWh", duration="1h", finish_by="06:00"),
    ):
        pass
    assert isinstance(caught.value.decision.verdict, Defer)


def test_a_release_that_names_a_run_leaves_the_one_that_replaced_it_alone(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    request = replace(bench.request(), run_reference="try 1")
    assert isinstance(opened.ask(request).verdict, Defer)
    again = opened.ask(replace(request, run_reference="try 2"))  # cleared by hand, and asked anew
    assert isinstance(again.verdict, Defer)
    assert opened.release(request.identity, reference="try 1") is False
    with opened.components.store.snapshot() as tx:
        [waiting] = tx.reservations(root_run_id="run-1")
    assert (waiting.state, waiting.run_reference) == (ReservationState.WAITING, "try 2")
    assert opened.release(request.identity, reference="try 2") is True
