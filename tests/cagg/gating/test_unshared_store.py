"""Workers on several machines and a store in one file: nothing is enforced, and the decision says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cagg.evidence import forecast_digest, recompute
from cagg.gating import Gate
from cagg.records import BudgetMode, EntryKind
from cagg.request import HostProfile, Request
from cagg.verdict import Admit, Defer, Deny, Reason

Make = Callable[..., Gate]
REMOTE = HostProfile(name="airflow", remote_workers=True)


@pytest.fixture
def shared(store_address: str | None) -> bool:
    return store_address is not None and not store_address.startswith("sqlite")


def remote(bench: Any, **options: Any) -> Request:
    request: Request = bench.request(**options)
    return replace(request, host=REMOTE, identity=replace(request.identity, host="airflow"))


def test_a_full_budget_denies_only_where_all_workers_share_the_store(bench: Any, make_gate: Make, shared: bool) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml", "1 g/month")
    decision = opened.ask(remote(bench, budget="acme/ml", max_wait=None, finish_by=None))
    if shared:
        assert isinstance(decision.verdict, Deny)
        assert decision.notes == tuple(note for note in decision.notes if "not enforced" not in note)
        return
    assert isinstance(decision.verdict, Admit)
    assert decision.verdict.over_limit == ("acme/ml",)
    assert any("acme/ml is not enforced" in note and "postgresql://" in note for note in decision.notes)
    with opened.run(decision) as run:
        bench.clock.advance(timedelta(minutes=30))
    assert run.summary is not None
    assert run.summary.settlement_id is not None  # what passes the limit is booked all the same


def test_a_release_under_a_budget_fails_closed_with_the_remedy(bench: Any, make_gate: Make, shared: bool) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml", "10 kg/month")
    decision = opened.ask(remote(bench, budget="acme/ml", purpose="release"))
    if shared:
        assert not isinstance(decision.verdict, Deny)
        return
    assert isinstance(decision.verdict, Deny)
    assert decision.verdict.reason is Reason.STORE_NOT_SHARED
    assert "postgresql://" in decision.verdict.message


def test_a_release_without_a_budget_is_not_held_up(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    assert isinstance(opened.ask(remote(bench, purpose="release")).verdict, Defer)


def test_a_budget_that_this_machine_has_never_heard_of_does_not_deny(bench: Any, make_gate: Make, shared: bool) -> None:
    opened = make_gate()
    decision = opened.ask(remote(bench, budget="acme/elsewhere", finish_by=None, max_wait=None))
    assert isinstance(decision.verdict, Deny if shared else Admit)


def test_one_machine_keeps_enforcing_with_a_file(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml", "1 g/month")
    verdict = opened.ask(bench.request(budget="acme/ml", finish_by=None, max_wait=None)).verdict
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.BUDGET_EXCEEDED


@pytest.mark.parametrize("purpose", ["work", "release"])
def test_the_decision_is_recomputable_and_says_why_only_where_it_matters(
    bench: Any, make_gate: Make, shared: bool, purpose: str
) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml", "1 g/month", BudgetMode.ENFORCE)
    opened.ask(remote(bench, budget="acme/ml", purpose=purpose, finish_by=None, max_wait=None))
    [body] = bench.bodies(opened, EntryKind.DECISION)
    assert body["question"].get("store_unshared", False) is not shared
    digest = forecast_digest(body)
    with opened.components.store.snapshot() as tx:
        assert recompute(body, None if digest is None else tx.blob(digest)).same
