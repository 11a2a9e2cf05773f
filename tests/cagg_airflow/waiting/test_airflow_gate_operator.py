"""The gate of a group: it chooses the window, holds for what is inside, and is settled whatever becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from cagg.errors import InvalidInput
from cagg.ledger.encoding import decode
from cagg.maintenance import maintain
from cagg.records import EntryKind, ReservationState
from cagg.request import GateOptions
from cagg.steps import running
from cagg_airflow.asking import run_gated
from cagg_airflow.compat import AirflowFailException, AirflowSkipException, TaskDeferred
from cagg_airflow.gate_operator import CarbonGateOperator

NOW = datetime.fromisoformat("2026-11-23T22:00:00+00:00")
GROUP: dict[str, Any] = {"duration": "1h", "energy": "1 kWh", "budget": "acme", "max_wait": "8h"}


@pytest.fixture(autouse=True)
def _outside_of_any_run() -> Iterator[None]:
    token = running._CURRENT.set(None)
    yield
    running._CURRENT.reset(token)
    running._MAIN_THREAD_RUNS.clear()


class Instance(SimpleNamespace):
    """As much of a task instance as the adapter reads."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def context_of(task: Any, *, try_number: int = 1) -> dict[str, Any]:
    ti = Instance(
        dag_id="d", run_id="r", task_id=task.task_id, map_index=-1, try_number=try_number, max_tries=0, pushed={}
    )
    return {"ti": ti, "task": task, "dag_run": SimpleNamespace(run_type="manual"), "dag": SimpleNamespace()}


def gate_of(*, settle: bool = True, **carbon: Any) -> CarbonGateOperator:
    with DAG("d", schedule=None):
        gate = CarbonGateOperator(task_id="gate", carbon={**GROUP, **carbon}, settle=settle)
        if settle:
            gate >> BaseOperator(task_id="work") >> gate.settle_task
    return gate


def pass_gate(site: Any, gate: CarbonGateOperator) -> dict[str, Any]:
    """Take the gate through its deferral, as Airflow does."""
    context = context_of(gate)
    with pytest.raises(TaskDeferred) as deferred:
        gate.execute(context)
    event = site.fire(deferred.value.trigger)
    getattr(gate, deferred.value.method_name)(context, event=event)
    pushed: dict[str, Any] = context["ti"].pushed["carbon_decision"]
    return pushed


def inner_task(site: Any, *, watts: int, minutes: int, name: str = "work") -> None:
    """Run a gated task inside of the group that uses so much."""
    site.meter_milliwatts = watts * 1_000
    task = SimpleNamespace(task_id=name, retries=0)
    run_gated(
        context_of(task),
        GateOptions(duration="1h", energy="1 kWh", budget="acme"),
        lambda: site.clock.advance(timedelta(minutes=minutes)),
        resume_method="resume_after_gate",
    )


def held(site: Any) -> tuple[int, int]:
    with site.gate.components.store.snapshot() as tx:
        allotments = tx.allotments("acme")
    return sum(item.held for item in allotments), sum(item.spent for item in allotments)


def group(site: Any) -> Any:
    with site.gate.components.store.snapshot() as tx:
        return [item for item in tx.reservations(host="airflow", root_run_id="d/r") if item.task_key == "d/gate"]


def settle(gate: CarbonGateOperator) -> Any:
    task = gate.settle_task
    return task.execute(context_of(task))


def bodies(site: Any, kind: EntryKind) -> list[Any]:
    with site.gate.components.store.snapshot() as tx:
        return [decode(entry.body) for entry in tx.entries(kind=kind)]


def test_without_settle_it_chooses_the_window_and_holds_nothing(site: Any) -> None:
    site.budget("acme", "5 kWh/day")
    decision = pass_gate(site, gate_of(settle=False))
    assert decision["verdict"] == "admit"
    assert site.clock.now() == NOW + timedelta(hours=3)
    assert held(site) == (0, 0)
    assert bodies(site, EntryKind.MEASUREMENT) == []  # estimates must not learn that the group is small


def test_the_group_s_hold_outlives_a_lease_without_beats(site: Any) -> None:
    site.budget("acme", "5 kWh/day")
    pass_gate(site, gate_of())
    site.clock.advance(timedelta(hours=2))
    maintain(site.gate.components, hosts={})
    assert group(site)[0].state is ReservationState.RUNNING
    assert held(site)[0] >= 3_600_000_000


def test_tasks_inside_draw_on_the_hold_and_their_readings_are_charged_once(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    gate = gate_of()
    pass_gate(site, gate)
    before = held(site)
    inner_task(site, watts=100, minutes=30)
    assert held(site) == before  # no hold and no charge of its own
    inner_task(site, watts=200, minutes=15, name="more")
    (told,) = settle(gate)
    assert told["energy_millijoules"] == 2 * 50 * 3_600_000
    assert held(site) == (0, 2 * 50 * 3_600_000)
    outer = next(item for item in bodies(site, EntryKind.MEASUREMENT) if item["part_of"] is None)
    assert outer["request"]["task_key"] == "d/gate"
    assert outer["outcome"] == "completed"
    assert sum(int(item["energy_millijoules"]) for item in outer["slices"]) == told["energy_millijoules"]


def test_settling_again_changes_nothing(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    gate = gate_of()
    pass_gate(site, gate)
    inner_task(site, watts=100, minutes=30)
    settle(gate)
    after = held(site)
    assert settle(gate) == []
    assert held(site) == after


def test_what_nobody_measured_is_charged_as_held_and_labelled(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    gate = gate_of()
    pass_gate(site, gate)
    holding = held(site)[0]
    (told,) = settle(gate)
    assert held(site) == (0, holding)
    assert told["energy_millijoules"] is None
    assert "no task inside of the gate was measured" in told["reason"]
    assert any("as held" in note or "held" in note for note in told["notes"])


def test_a_failed_task_inside_is_charged_too(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    gate = gate_of()
    pass_gate(site, gate)
    site.meter_milliwatts = 60_000

    def broken() -> None:
        site.clock.advance(timedelta(minutes=10))
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError):
        run_gated(context_of(SimpleNamespace(task_id="work", retries=0)), GateOptions(), broken, resume_method="x")
    (told,) = settle(gate)
    assert told["energy_millijoules"] == 10 * 3_600_000
    assert bodies(site, EntryKind.MEASUREMENT)[-1]["outcome"] == "failed"


def test_a_group_that_nobody_settles_is_charged_as_held_in_the_end(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    pass_gate(site, gate_of())
    holding = held(site)[0]
    site.clock.advance(timedelta(hours=12))
    maintain(site.gate.components, hosts={})
    assert group(site)[0].state is ReservationState.EXPIRED
    assert held(site) == (0, holding)


def test_a_late_settlement_books_the_difference(site: Any) -> None:
    site.budget("acme", "2 kWh/day")
    gate = gate_of()
    pass_gate(site, gate)
    inner_task(site, watts=100, minutes=30)
    site.clock.advance(timedelta(hours=12))
    maintain(site.gate.components, hosts={})
    settle(gate)
    assert held(site) == (0, 50 * 3_600_000)
    assert group(site)[0].state is ReservationState.LATE_SETTLED


def test_a_denied_gate_fails_or_skips_and_its_teardown_has_nothing_to_do(site: Any) -> None:
    site.budget("acme", "100 Wh/day")
    gate = gate_of()
    with pytest.raises(AirflowFailException, match="acme"):
        gate.execute(context_of(gate))
    assert settle(gate) == []
    skipping = gate_of(on_deny="skip")
    with pytest.raises(AirflowSkipException):
        skipping.execute(context_of(skipping))
    assert held(site) == (0, 0)


def test_a_gate_that_waits_is_released_by_its_teardown(site: Any) -> None:
    site.budget("acme", "5 kWh/week")
    gate = gate_of()
    with pytest.raises(TaskDeferred):
        gate.execute(context_of(gate))
    assert held(site)[0] > 0
    assert settle(gate) == []
    assert held(site) == (0, 0)


def test_a_gate_that_is_cleared_settles_what_it_held_before(site: Any) -> None:
    site.budget("acme", "5 kWh/week")
    gate = gate_of()
    pass_gate(site, gate)
    inner_task(site, watts=100, minutes=30)
    gate.execute(context_of(gate))  # cleared while it held: admitted or deferred anew
    first, second = group(site)
    assert first.state is ReservationState.SETTLED
    assert second.state is ReservationState.RUNNING
    settle(gate)
    assert held(site)[0] == 0


def test_the_teardown_belongs_to_the_gate(site: Any) -> None:
    gate = gate_of()
    task = gate.settle_task
    assert gate.settle_task is task
    assert task.is_teardown
    assert gate.is_setup
    assert set(gate.downstream_task_ids) == {"work", "gate_settle"}
    with pytest.raises(InvalidInput, match="settle=True"):
        _ = gate_of(settle=False).settle_task


def test_the_dag_survives_serialisation_and_task_groups(site: Any) -> None:
    from airflow.sdk import TaskGroup
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("d", schedule=None) as dag, TaskGroup("night"):
        gate = CarbonGateOperator(task_id="gate", carbon=GateOptions(**GROUP), settle=True)
        gate >> BaseOperator(task_id="work") >> gate.settle_task
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert again.get_task("night.gate_settle").is_teardown
    assert gate.settle_task.gate_task_id == "night.gate"


def test_it_passes_while_cagg_is_off(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CAGG__ENABLED", "False")
    gate = gate_of()
    assert gate.execute(context_of(gate)) is None
    assert settle(gate) is None
    assert group(site) == []
