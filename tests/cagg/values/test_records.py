"""Budgets, allotments, headroom, verdicts and errors as values."""

from __future__ import annotations

import dataclasses
import inspect
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg import errors, intensity, ports, provenance, quantities, records, request, verdict, windows
from cagg.errors import CaggError, InvalidInput, NotAdmitted, ZoneUnknown
from cagg.quantities import Unit
from cagg.records import Allotment, Budget, BudgetMode, Headroom, Period
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.verdict import Admit, Decision, Defer, Deny, Reason, Review
from cagg.windows import Window

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AMOUNTS = st.integers(min_value=0, max_value=2**62)


def budget(limit: object = 10) -> Budget:
    return Budget(
        path="acme/ml",
        unit=Unit.CARBON,
        period=Period.DAY,
        time_zone="UTC",
        limit=limit,  # type: ignore[arg-type]
    )


def allotment(*, limit: int, extra: int = 0, held: int = 0, spent: int = 0) -> Allotment:
    window = Window(start=NOW, end=NOW + timedelta(days=1))
    return Allotment(
        allotment_id=1, budget=budget(), window=window, limit=limit, extra=extra, held=held, spent=spent, overrun=0
    )


def test_a_new_budget_only_observes() -> None:
    assert budget().mode is BudgetMode.OBSERVE


def test_zero_is_a_real_limit() -> None:
    assert budget(0).limit == 0


@pytest.mark.parametrize("limit", [-1, 2**63, 1.5, True, "10", None, float("nan")])
def test_a_limit_is_a_whole_amount(limit: object) -> None:
    with pytest.raises(InvalidInput, match=r"the limit of acme/ml must be a whole amount"):
        budget(limit)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_an_amount_fits_when_nothing_passes_the_limit(limit: int, extra: int, held: int, spent: int, ask: int) -> None:
    counters = allotment(limit=limit, extra=extra, held=held, spent=spent)
    assert Headroom(allotment=counters, amount=ask).fits == (held + spent + ask <= limit + extra)


def test_an_amount_without_a_price_never_fits() -> None:
    assert not Headroom(allotment=allotment(limit=10), amount=None).fits


def test_after_an_overrun_less_than_nothing_is_available() -> None:
    assert allotment(limit=10, spent=15).available == -5


def _decision(said: verdict.Verdict) -> Decision:
    asked = Request(
        identity=RequestIdentity(host="local", root_run_id="r", task_key="t"),
        options=GateOptions(),
        host=HostProfile(name="local"),
    )
    return Decision(verdict=said, request=asked, decision_id="x", asked_at=NOW, first_asked_at=NOW)


def test_not_admitted_says_what_the_verdict_says_and_carries_it() -> None:
    decision = _decision(Deny(reason=Reason.BUDGET_EXCEEDED, message="acme/ml has 3 g left and this needs 5 g."))
    with pytest.raises(CaggError, match="acme/ml has 3 g left") as caught:
        raise NotAdmitted(decision)
    assert isinstance(caught.value, NotAdmitted)
    assert caught.value.decision is decision


def test_the_four_verdicts_are_told_apart_by_type() -> None:
    window = Window(start=NOW, end=NOW + timedelta(hours=1))
    admit = Admit(reason=Reason.NOW_IS_BEST, message="now")
    assert admit.over_limit == ()
    assert not admit.unshifted
    defer = Defer(
        reason=Reason.CLEANER_WINDOW,
        message="later",
        until=NOW,
        deadline=window.end,
        window=window,
        expected_difference_micrograms=1,
    )
    review = Review(reason=Reason.NO_REVIEWER, message="ask")
    deny = Deny(reason=Reason.BUDGET_EXCEEDED, message="no")
    assert len({type(item) for item in (admit, defer, review, deny)}) == 4
    assert set(verdict.Verdict.__args__) == {Admit, Defer, Review, Deny}


@pytest.mark.parametrize("module", [intensity, ports, provenance, quantities, records, request, verdict, windows])
def test_every_value_is_frozen_slotted_and_built_by_name(module: ModuleType) -> None:
    values = [item for item in vars(module).values() if inspect.isclass(item) and dataclasses.is_dataclass(item)]
    assert values
    for value in values:
        parameters = value.__dataclass_params__  # type: ignore[attr-defined]
        assert parameters.frozen, value
        assert "__slots__" in vars(value), value
        assert all(field.kw_only for field in dataclasses.fields(value)), value


def test_there_is_one_root_error_and_every_error_explains_itself() -> None:
    classes = [getattr(errors, name) for name in errors.__all__]
    for error in classes:
        assert issubclass(error, CaggError)
        assert error.__doc__
    assert issubclass(InvalidInput, ValueError)
    assert issubclass(ZoneUnknown, InvalidInput)
    assert issubclass(errors.MissingExtra, ImportError)
