"""The store answers late, not at all, or with something new: one admission, one charge, and no run that goes unpaid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cagg.budget import reservations
from cagg.errors import ReservationConflict, StoreBusy, StoreOutcomeUnknown, StoreUnavailable
from cagg.gating import Gate
from cagg.maintenance import maintain
from cagg.ports import RunState, Store, Transaction
from cagg.quantities import Unit
from cagg.records import BudgetMode, EntryKind, Reservation, ReservationState
from cagg.request import Request
from cagg.verdict import Admit, Defer, Deny, Reason

Make = Callable[..., Gate]

DONE, BUSY, KEPT, DROPPED, DOWN = "done", "busy", "kept, and not told", "not kept, and not told", "down"


class Dropped(Exception):
    """Rolls a transaction back."""


class FlakyStore:
    """A store whose next writing transactions go as planned; the rest go well."""

    def __init__(self, store: Store, *plan: str) -> None:
        self._store, self.plan, self.url = store, list(plan), store.url

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        fate = self.plan.pop(0) if self.plan else DONE
        if fate == BUSY:
            raise StoreBusy("another program writes")
        if fate == DOWN:
            raise StoreUnavailable("the store is gone")
        try:
            with self._store.transaction() as tx:
                yield tx
                if fate == DROPPED:
                    raise Dropped
        except Dropped:
            pass
        if fate in (KEPT, DROPPED):
            raise StoreOutcomeUnknown("the answer to a COMMIT was lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def flaky(opened: Gate, *plan: str) -> Gate:
    """The gate over the same store, which was used before, so that the first transaction is an ask's sweep."""
    store: Any = FlakyStore(opened.components.store)
    gate = Gate(replace(opened.components, store=store))
    gate._prepare_once()
    store.plan = list(plan)
    return gate


def stored(gate: Gate, request: Request) -> Reservation:
    with gate.components.store.snapshot() as tx:
        found = tx.reservation(request.identity.key)
        assert reservations.audit(tx) == ()
    assert found is not None
    return found


def counters(gate: Gate) -> tuple[int, int]:
    with gate.components.store.snapshot() as tx:
        found = tx.allotments("acme")
    return sum(item.held for item in found), sum(item.spent for item in found)


@pytest.fixture
def opened(bench: Any, make_gate: Make) -> Gate:
    """A gate with a budget, and runs that go on without a store."""
    gate = make_gate(**{"policy.on_store_down": "run"})
    bench.budget(gate, "acme", "5 kWh/month")
    return gate


@pytest.mark.parametrize(
    ("finish_by", "state"), [(None, ReservationState.RUNNING), ("06:00", ReservationState.WAITING)]
)
@pytest.mark.parametrize(
    "plan",
    [
        (DONE, KEPT),
        (DONE, DROPPED),
        (KEPT,),
        (BUSY, BUSY),
        (DONE, BUSY, DONE, BUSY),
        (BUSY, DONE, KEPT),
        (DONE, KEPT, BUSY, BUSY),
    ],
)
def test_a_store_in_trouble_for_a_moment_decides_once(
    bench: Any, opened: Gate, plan: tuple[str, ...], finish_by: str | None, state: ReservationState
) -> None:
    gate = flaky(opened, *plan)
    request = bench.request(budget="acme", finish_by=finish_by)
    decision = gate.ask(request)
    assert isinstance(decision.verdict, Admit if finish_by is None else Defer)
    assert decision.verdict.reason is not Reason.STORE_DOWN
    own = stored(gate, request)
    assert (own.state, own.asks) == (state, 1)
    assert decision.lease_epoch == (own.lease_epoch or None)
    assert len(bench.bodies(gate, EntryKind.DECISION)) == 1
    assert not gate.components.spool.waiting()


def test_a_refusal_whose_answer_was_lost_is_recorded_once(bench: Any, opened: Gate) -> None:
    gate = flaky(opened, DONE, KEPT)
    decision = gate.ask(bench.request(budget="acme", finish_by=None, energy="6 kWh"))
    assert isinstance(decision.verdict, Deny)
    assert decision.verdict.reason is not Reason.STORE_DOWN
    assert len(bench.bodies(gate, EntryKind.DECISION)) == 1


@pytest.mark.parametrize("plan", [(BUSY, BUSY, BUSY), (DONE, DROPPED, DONE, DONE, DROPPED, DONE)])
def test_a_store_that_stays_in_trouble_is_an_outage(bench: Any, opened: Gate, plan: tuple[str, ...]) -> None:
    gate = flaky(opened, *plan)
    decision = gate.ask(bench.request(budget="acme", finish_by=None))
    assert decision.verdict.reason is Reason.STORE_DOWN
    assert counters(gate) == (0, 0)


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("spooled", [False, True])
def test_a_run_whose_admission_nobody_heard_settles_that_admission(
    bench: Any, opened: Gate, expired: bool, spooled: bool
) -> None:
    gate = flaky(opened, DONE, KEPT, DOWN)
    request = bench.request(budget="acme", finish_by=None)
    decision = gate.ask(request)
    assert decision.verdict.reason is Reason.STORE_DOWN
    assert stored(gate, request).state is ReservationState.RUNNING
    run = gate.run(decision)
    run.__enter__()
    bench.clock.advance(timedelta(minutes=30 if expired else 3))
    if expired:
        assert maintain(opened.components, hosts={}).expired == 1
    used = 100_000 * (1_800 if expired else 180)
    if spooled:
        flaky_store: Any = gate.components.store
        flaky_store.plan = [DOWN]
    run.__exit__(None, None, None)
    assert run.summary is not None
    if spooled:
        assert run.summary.settlement_id is None
        maintain(opened.components, hosts={})
    else:
        assert run.summary.charged[Unit.ENERGY] == used
    assert stored(gate, request).state is (ReservationState.LATE_SETTLED if expired else ReservationState.SETTLED)
    assert counters(gate) == (0, used)
    settlements = bench.bodies(gate, EntryKind.SETTLEMENT)
    assert settlements[-1]["measurement_id"] is not None
    assert settlements[-1]["held"] != []
    assert len(bench.bodies(gate, EntryKind.CORRECTION)) == (1 if expired else 0)


def test_an_admission_under_which_somebody_reported_is_left_to_them(bench: Any, opened: Gate) -> None:
    gate = flaky(opened, DONE, KEPT, DOWN)
    request = bench.request(budget="acme", finish_by=None)
    decision = gate.ask(request)
    bench.clock.advance(timedelta(minutes=1))
    own = stored(gate, request)
    with opened.components.store.transaction() as tx:
        reservations.beat(tx, own.request_key, own.lease_epoch, own.used_energy, 1)
    with gate.run(decision) as run:
        bench.clock.advance(timedelta(minutes=1))
    assert run.summary is not None
    assert any("settle that reservation" in note for note in run.summary.notes)
    assert stored(gate, request).state is ReservationState.RUNNING


@pytest.mark.parametrize("times", [1, 2])
def test_a_budget_that_is_tightened_meanwhile_is_looked_at_once_more(
    bench: Any, opened: Gate, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    left, hold = [times], reservations.hold

    def refused(tx: Transaction, *args: Any, **named: Any) -> Reservation:
        if left[0]:
            left[0] -= 1
            raise ReservationConflict("the limit is another one now")
        return hold(tx, *args, **named)

    monkeypatch.setattr(reservations, "hold", refused)
    request = bench.request(budget="acme", finish_by=None)
    if times == 2:
        with pytest.raises(ReservationConflict, match="another one"):
            opened.ask(request)
        return
    assert isinstance(opened.ask(request).verdict, Admit)
    assert len(bench.bodies(opened, EntryKind.DECISION)) == 1


def test_what_was_tightened_meanwhile_decides(
    bench: Any, opened: Gate, make_gate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tightened(tx: Transaction, *args: Any, **named: Any) -> Reservation:
        wanted.append(args)
        raise ReservationConflict("the limit is another one now")

    wanted: list[Any] = []
    request = bench.request(budget="acme", finish_by=None)
    sweep = opened._recorder._sweep

    def between() -> None:
        if wanted:
            bench.budget(make_gate(), "acme", "1 kWh/month", BudgetMode.ENFORCE)
        sweep()

    monkeypatch.setattr(reservations, "hold", tightened)
    monkeypatch.setattr(opened._recorder, "_sweep", between)
    decision = opened.ask(request)
    assert isinstance(decision.verdict, Deny)
    assert decision.verdict.reason is not Reason.STORE_DOWN
    assert len(wanted) == 1


class AskedMeanwhile:
    """An engine in which the run is started anew while it is asked about the old one."""

    name = "local"

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile

    def run_state(self, root_run_id: str, reference: str = "") -> RunState:
        self._meanwhile()
        return RunState.ENDED

    def describe(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize("reference", ["try-1", "try-2"])
def test_maintain_releases_only_what_the_host_was_asked_about(bench: Any, opened: Gate, reference: str) -> None:
    request = replace(bench.request(budget="acme"), run_reference="try-1")
    assert isinstance(opened.ask(request).verdict, Defer)
    anew = replace(request, run_reference=reference)
    report = maintain(opened.components, hosts={"local": AskedMeanwhile(lambda: opened.ask(anew))})
    assert report.reconciled == 0
    assert stored(opened, request).state is ReservationState.WAITING
    assert counters(opened)[0] > 0
    assert maintain(opened.components, hosts={"local": AskedMeanwhile(lambda: None)}).reconciled == 1


class Mute:
    """An engine that cannot be asked."""

    name = "local"

    def run_state(self, root_run_id: str, reference: str = "") -> RunState:
        return RunState.UNKNOWN

    def describe(self) -> dict[str, str]:
        return {}


def test_maintain_says_when_an_engine_cannot_be_asked(bench: Any, opened: Gate) -> None:
    for run in ("run-1", "run-2"):
        opened.ask(bench.request(run, budget="acme", energy="1 kWh"))
    notes = maintain(opened.components, hosts={"local": Mute()}).notes
    (note,) = [note for note in notes if "could not ask" in note]
    assert "local about 2 waiting runs" in note
    assert not any("could not ask" in note for note in maintain(opened.components, hosts={}).notes)
