"""A hold for several tasks: it lasts without beats, what is inside draws on it, and it is settled once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cagg.gating import Gate
from cagg.maintenance import maintain
from cagg.quantities import Energy, Unit
from cagg.records import EntryKind, ReservationState
from cagg.request import Request
from cagg.steps.groups import end_check, extend_group, settle_admitted, settle_group
from cagg.verdict import Admit


def group_request(bench: Any, *, attempt: int = 1) -> Request:
    request: Request = replace(
        bench.request(budget="acme", finish_by=None, energy="1 kWh", attempt=attempt), encloses_run=True
    )
    return request


def inner_request(bench: Any, task: str) -> Request:
    request: Request = bench.request(budget="acme", finish_by=None, energy="1 kWh")
    return replace(request, identity=replace(request.identity, task_key=task))


def admit(bench: Any, gate: Gate) -> Request:
    bench.budget(gate, "acme", "5 kWh/day")
    request = group_request(bench)
    decision = gate.ask(request)
    until = extend_group(gate.components, decision)
    assert until is not None
    assert until > bench.clock.now() + timedelta(hours=1)
    return request


def state(gate: Gate, request: Request) -> ReservationState:
    with gate.components.store.snapshot() as tx:
        found = tx.reservation(request.identity.key)
    assert found is not None
    return found.state


def counters(gate: Gate) -> tuple[int, int]:
    with gate.components.store.snapshot() as tx:
        found = tx.allotments("acme")
    return sum(item.held for item in found), sum(item.spent for item in found)


def test_concurrent_readings_inside_are_summed_and_charged_once(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    request = admit(bench, gate)
    before = counters(gate)
    for task in ("one", "two"):
        with gate.run(gate.ask(inner_request(bench, task))):
            bench.clock.advance(timedelta(minutes=30))
    assert counters(gate) == before
    (summary,) = settle_group(gate.components, request)
    assert summary.reading.energy is not None
    assert summary.charged[Unit.ENERGY] == summary.reading.energy.millijoules == 100_000 * 3_600
    assert counters(gate) == (0, 100_000 * 3_600)
    assert state(gate, request) is ReservationState.SETTLED
    assert settle_group(gate.components, request) == ()
    bodies = bench.bodies(gate, EntryKind.MEASUREMENT)
    assert [body["part_of"] is None for body in bodies] == [False, False, True]
    with gate.components.store.snapshot() as tx:
        newest = tx.history("nightly", 1)[0]  # the next night's estimate learns from the group
    assert newest.completed
    assert newest.energy_millijoules == 100_000 * 3_600


def test_without_any_reading_the_hold_is_charged(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    request = admit(bench, gate)
    holding = counters(gate)[0]
    (summary,) = settle_group(gate.components, request)
    assert summary.reading.energy is None
    assert counters(gate) == (0, holding)
    assert any("held" in note for note in summary.notes)


def test_what_waits_is_released_but_not_by_settling_what_was_admitted(
    bench: Any, make_gate: Callable[..., Gate]
) -> None:
    gate = make_gate()
    bench.budget(gate, "acme", "5 kWh/week")
    request = replace(bench.request(budget="acme"), encloses_run=True)
    gate.ask(request)
    assert state(gate, request) is ReservationState.WAITING
    assert settle_admitted(gate.components, request) == ()
    assert state(gate, request) is ReservationState.WAITING
    assert settle_group(gate.components, request) == ()
    assert state(gate, request) is ReservationState.RELEASED


def test_a_later_attempt_settles_an_earlier_one(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    first = admit(bench, gate)
    assert len(settle_admitted(gate.components, group_request(bench, attempt=2))) == 1
    assert state(gate, first) is ReservationState.SETTLED


def test_an_ask_that_only_looked_charges_nothing_and_teaches_nothing(
    bench: Any, make_gate: Callable[..., Gate]
) -> None:
    gate = make_gate()
    bench.budget(gate, "acme", "5 kWh/day")
    request = bench.request(budget="acme", finish_by=None, energy="1 kWh")
    decision = gate.ask(request)
    end_check(gate.components, decision)
    end_check(gate.components, decision)
    assert counters(gate) == (0, 0)
    assert bench.bodies(gate, EntryKind.MEASUREMENT) == []


def die_inside(bench: Any, gate: Gate, task: str, **options: Any) -> Request:
    """A task is admitted inside and leaves no measurement."""
    request = inner_request(bench, task)
    request = replace(request, options=replace(request.options, **options))
    assert isinstance(gate.ask(request).verdict, Admit)
    return request


def test_a_task_inside_that_died_is_charged_at_least_as_held(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    request = admit(bench, gate)
    holding = counters(gate)[0]
    die_inside(bench, gate, "killed", energy=Energy.parse("0.1 kWh"))
    with gate.run(gate.ask(inner_request(bench, "one"))):
        bench.clock.advance(timedelta(minutes=30))
    (summary,) = settle_group(gate.components, request)
    assert summary.reading.energy is not None
    assert summary.reading.energy.millijoules == 100_000 * 1_800
    assert counters(gate) == (0, holding)
    assert any("not fully measured: 1 runs" in note for note in summary.notes)
    with gate.components.store.snapshot() as tx:
        assert not tx.history("nightly", 1)[0].completed


def test_tasks_inside_that_died_are_charged_their_bounds_beyond_the_hold(
    bench: Any, make_gate: Callable[..., Gate]
) -> None:
    gate = make_gate()
    request = admit(bench, gate)
    bounds = 0
    for task in ("killed", "killed too"):
        die_inside(bench, gate, task)
    for body in bench.bodies(gate, EntryKind.DECISION):
        if body["outer_key"] is not None:
            bounds += int(body["estimate"]["upper_energy_millijoules"])
    assert bounds > counters(gate)[0]
    settle_group(gate.components, request)
    assert counters(gate) == (0, bounds)


def test_the_carbon_of_what_died_is_charged_as_well(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    bench.budget(gate, "acme", "50 kg/day")
    request = group_request(bench)
    extend_group(gate.components, gate.ask(request))
    holding = counters(gate)[0]
    for task in ("killed", "killed too"):
        die_inside(bench, gate, task)
    with gate.run(gate.ask(inner_request(bench, "one"))):
        bench.clock.advance(timedelta(minutes=30))
    (summary,) = settle_group(gate.components, request)
    assert summary.carbon is not None
    assert summary.charged[Unit.CARBON] > holding + summary.carbon.micrograms
    assert counters(gate) == (0, summary.charged[Unit.CARBON])


def test_an_attempt_that_is_measured_and_a_check_lack_nothing(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    request = admit(bench, gate)
    looked = gate.ask(inner_request(bench, "looked"))
    end_check(gate.components, looked)
    gate.forget(looked.request.identity)
    inner = die_inside(bench, gate, "one")
    gate.forget(inner.identity)
    with gate.run(gate.ask(inner)):  # the same attempt, woken after all
        bench.clock.advance(timedelta(minutes=30))
    (summary,) = settle_group(gate.components, request)
    assert counters(gate) == (0, 100_000 * 1_800)
    assert not any("not fully" in note for note in summary.notes)


def test_a_lost_run_inside_belongs_to_the_group(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    request = admit(bench, gate)
    bench.budget(gate, "acme/own", "5 kWh/day")
    die_inside(bench, gate, "killed", budget="acme/own")
    bench.clock.advance(timedelta(minutes=10))
    maintain(gate.components, hosts={})
    (lost,) = bench.bodies(gate, EntryKind.MEASUREMENT)
    assert (lost["outcome"], lost["part_of"]) == ("lost", request.identity.key)
    (summary,) = settle_group(gate.components, request)
    assert summary.reading.energy is not None
    assert str(summary.reading.energy.millijoules) == lost["energy_millijoules"]
    assert counters(gate) == (0, summary.reading.energy.millijoules)


def test_an_admission_that_was_ended_is_not_given_out_again(bench: Any, make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    bench.budget(gate, "acme", "5 kWh/day")
    request = bench.request(budget="acme", finish_by=None, energy="1 kWh")
    first = gate.ask(request)
    assert gate.ask(request) is first
    end_check(gate.components, first)
    gate.forget(first.request.identity)
    again = gate.ask(request)
    assert again.decision_id != first.decision_id
    assert again.lease_epoch is not None
