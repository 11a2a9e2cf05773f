"""What entries say about where they come from: code, software, engine, inputs and outputs, and the entries before."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import cagg
from cagg.engine_run import EngineRun
from cagg.errors import InvalidInput
from cagg.gating import Gate, gate
from cagg.ledger.kinds import check_kind
from cagg.maintenance import maintain
from cagg.records import EntryKind
from cagg.verdict import Admit, Defer, Deny

MakeGate = Callable[..., Gate]
RUN = EngineRun(
    engine="airflow",
    engine_version="3.3.2",
    workflow="nightly",
    run_id="scheduled__2026-11-23",
    task_id="validate",
    map_index=3,
    try_number=2,
)
NOW_ONLY = {"finish_by": None}


def newest(bench: Any, opened: Gate, kind: EntryKind) -> dict[str, Any]:
    body: dict[str, Any] = bench.bodies(opened, kind)[-1]
    return body


def facts(items: list[dict[str, str]]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in items}


# ---- every measurement and decision ---------------------------------------------------------------------------------


def test_decision_and_measurement_say_what_they_were_made_with(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    decision = opened.ask(replace(bench.request(**NOW_ONLY), engine_run=RUN))
    with opened.run(decision):
        bench.clock.advance(60)
    for kind in (EntryKind.DECISION, EntryKind.MEASUREMENT):
        body = newest(bench, opened, kind)
        assert facts(body["software"]["versions"])["cagg"] == cagg.__version__
        assert body["software"]["image_digest"] is None
        assert body["software"]["image_source"]
        assert facts(body["request"]["code"])["dirty"] in ("true", "false", "unknown")
        assert body["request"]["engine_run"] == {
            "engine": "airflow",
            "engine_version": "3.3.2",
            "deployment": None,
            "workflow": "nightly",
            "run_id": "scheduled__2026-11-23",
            "task_id": "validate",
            "map_index": 3,
            "try_number": 2,
        }


def test_nothing_of_this_machine_or_person_stands_in_it(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(**NOW_ONLY))) as run:
        run.add_input("data", Path(__file__))
        run.add_input("absent", bench.folder / "absent")
    text = str(bench.bodies(opened))
    for private in (os.uname().nodename, str(bench.folder), str(Path(__file__).parent), str(Path.cwd())):
        assert private not in text


def test_entries_point_to_those_before_them(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    request = bench.request(budget="acme")
    first = opened.ask(request)
    assert isinstance(first.verdict, Defer)
    bench.clock.advance((first.verdict.until - bench.clock.now()).total_seconds())
    second = opened.ask(request)
    assert isinstance(second.verdict, Admit)
    with opened.run(second):
        bench.clock.advance(3600)
    decisions = bench.bodies(opened, EntryKind.DECISION)
    assert [body["parents"] for body in decisions] == [[], [first.decision_id]]
    measurement = newest(bench, opened, EntryKind.MEASUREMENT)
    assert measurement["parents"] == [second.decision_id]
    assert newest(bench, opened, EntryKind.SETTLEMENT)["parents"] == [measurement["entry_id"]]


def test_an_inner_run_points_to_the_outer_request(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    outer = opened.ask(bench.request(**NOW_ONLY))
    with opened.run(outer):
        inner = opened.ask(bench.request("run-2", **NOW_ONLY))
        with opened.run(inner):
            assert isinstance(opened.ask(bench.request("run-3", **NOW_ONLY)).verdict, Admit)
    assert [body["parents"] for body in bench.bodies(opened, EntryKind.DECISION)] == [
        [],
        [outer.decision_id],
        [inner.decision_id],
    ]


def test_an_outer_run_in_another_process_is_found(
    bench: Any, make_gate: MakeGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = make_gate()
    outer = opened.ask(bench.request(**NOW_ONLY))
    opened.run(outer)  # admitted; it runs elsewhere
    monkeypatch.setenv("CAGG_ENCLOSING_REQUEST", outer.request.identity.key)
    opened.ask(bench.request("run-2", **NOW_ONLY))
    assert newest(bench, opened, EntryKind.DECISION)["parents"] == [outer.decision_id]


def test_a_run_that_died_and_what_came_late(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    decision = opened.ask(bench.request(budget="acme", **NOW_ONLY))
    run = opened.run(decision)
    run.__enter__()
    bench.clock.advance(3600)
    maintain(opened.components, hosts={})
    lost = newest(bench, opened, EntryKind.MEASUREMENT)
    assert (lost["outcome"], lost["parents"]) == ("lost", [decision.decision_id])
    run.__exit__(None, None, None)
    correction = newest(bench, opened, EntryKind.CORRECTION)
    assert correction["parents"] == [decision.decision_id, lost["entry_id"]]


def test_provenance_is_collected_once_per_process(
    bench: Any, make_gate: MakeGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = make_gate()
    opened.ask(bench.request(**NOW_ONLY))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("looked up again")

    monkeypatch.setattr("cagg.checkout.look_up", refuse)
    monkeypatch.setattr("cagg.software.image", refuse)
    with opened.run(opened.ask(bench.request("run-2", **NOW_ONLY))):
        pass


# ---- inputs and outputs ---------------------------------------------------------------------------------------------


def test_inputs_and_outputs_stand_in_the_measurement(bench: Any, make_gate: MakeGate, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    data = f"sha256:{hashlib.sha256(b'a,b').hexdigest()}"
    file = f"sha256:{hashlib.sha256(b'a,b' + bytes([10])).hexdigest()}"
    opened = make_gate()
    with opened.run(opened.ask(bench.request(**NOW_ONLY))) as run:
        assert run.add_input("holdout", tmp_path / "data.csv", role="dataset") == file
        run.add_input("base", data, role="model")
        assert run.add_output("report", b"a,b") == data
    body = newest(bench, opened, EntryKind.MEASUREMENT)
    assert body["inputs"] == [
        {"name": "base", "digest": data, "role": "model"},
        {"name": "holdout", "digest": file, "role": "dataset"},
    ]
    assert body["outputs"] == [{"name": "report", "digest": data, "role": None}]


def test_without_a_word_the_lists_are_empty(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(**NOW_ONLY))):
        pass
    body = newest(bench, opened, EntryKind.MEASUREMENT)
    assert (body["inputs"], body["outputs"]) == ([], [])


def test_what_cannot_be_read_is_noted_and_does_not_fail_the_work(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(**NOW_ONLY))) as run:
        assert run.add_input("holdout", bench.folder / "absent") is None
    body = newest(bench, opened, EntryKind.MEASUREMENT)
    assert body["inputs"] == [{"name": "holdout", "digest": None, "role": None}]
    assert any("'holdout' could not be read" in note for note in body["notes"])
    assert run.summary is not None
    assert any("'holdout' could not be read" in note for note in run.summary.notes)


def test_wrong_arguments_are_the_caller_s(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(**NOW_ONLY))) as run:
        run.add_input("model", b"1")
        with pytest.raises(InvalidInput, match="another name"):
            run.add_input("model", b"2")
        with pytest.raises(InvalidInput, match="path, bytes"):
            run.add_output("model", 5)  # type: ignore[arg-type]
    for late in (lambda: run.add_input("x", b"1"), lambda: run.add_output("x", b"1")):
        with pytest.raises(InvalidInput, match="has ended"):
            late()
    assert len(newest(bench, opened, EntryKind.MEASUREMENT)["inputs"]) == 1


def test_threads_may_add_at_the_same_time(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(**NOW_ONLY))) as run:

        def add(number: int) -> None:
            for item in range(50):
                run.add_input(f"{number}-{item}", b"x")

        threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(newest(bench, opened, EntryKind.MEASUREMENT)["inputs"]) == 200


def test_many_inputs_spill_and_are_read_back(bench: Any, make_gate: MakeGate) -> None:
    from cagg.ledger.entry import read_body
    from cagg.ledger.verify import verify

    opened = make_gate()
    with opened.run(opened.ask(bench.request(**NOW_ONLY))) as run:
        for number in range(900):
            run.add_input(f"shard-{number:04}", str(number).encode())
    bench.bodies(opened)  # gives every entry its place
    with opened.components.store.snapshot() as tx:
        (entry,) = tx.entries(kind=EntryKind.MEASUREMENT)
        assert len(read_body(tx, entry)["inputs"]) == 900
        assert verify(tx, []).failures == ()


# ---- the run that code is inside of ---------------------------------------------------------------------------------


def test_code_finds_the_run_that_it_is_inside_of(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    assert cagg.current_run() is None
    with gate("outer", opened=opened, duration="1m", energy="1 Wh") as outer:
        assert cagg.current_run() is outer
        with gate("inner", opened=opened, duration="1m", energy="1 Wh") as inner:
            assert cagg.current_run() is inner
        assert cagg.current_run() is outer
    assert cagg.current_run() is None


def test_coroutines_and_threads_with_the_context_are_inside(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    found: list[object] = []

    async def work() -> None:
        found.append(cagg.current_run())
        found.append(await asyncio.to_thread(cagg.current_run))

    with gate("work", opened=opened, duration="1m", energy="1 Wh") as run:
        asyncio.run(work())
        context = contextvars.copy_context()
        for thread in (
            threading.Thread(target=lambda: found.append(context.run(cagg.current_run))),
            threading.Thread(target=lambda: found.append(cagg.current_run())),
        ):
            thread.start()
            thread.join()
    assert found == [run, run, run, None]


def test_a_child_process_is_not_inside(bench: Any, make_gate: MakeGate) -> None:
    with gate("work", opened=make_gate(), duration="1m", energy="1 Wh"):
        child = os.fork()
        if child == 0:
            os._exit(0 if cagg.current_run() is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- validation, inference, regeneration ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["validation", "inference", "regeneration"])
def test_a_kind_that_says_what_happened_points_to_its_measurement(bench: Any, make_gate: MakeGate, kind: str) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(kind=kind, work_item="PR-17", **NOW_ONLY))) as run:
        run.add_input("candidate", b"weights", role="model")
        run.add_output("report", b"fine")
    measurement, body = newest(bench, opened, EntryKind.MEASUREMENT), newest(bench, opened, EntryKind(kind))
    check_kind(body)
    assert body["measurements"] == body["parents"] == [measurement["entry_id"]]
    assert (body["inputs"], body["outputs"]) == (measurement["inputs"], measurement["outputs"])
    assert (body["work_item"], body["request"]) == ("PR-17", measurement["request"])
    assert body["outcome"] == ("passed" if kind == "validation" else "completed")
    assert run.summary is not None
    assert run.summary.occurrence_id == body["entry_id"]
    if kind == "validation":
        assert (body["validator"], body["tier"], body["ended"]) == ("nightly", None, "completed")
        assert body["subject"] == {"name": "candidate", "digest": body["inputs"][0]["digest"]}


@pytest.mark.parametrize("kind", [None, "training", "other"])
def test_other_kinds_leave_nothing_more(bench: Any, make_gate: MakeGate, kind: str | None) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(kind=kind, **NOW_ONLY))) as run:
        pass
    assert {body["kind"] for body in bench.bodies(opened)} == {"decision", "measurement", "settlement"}
    assert run.summary is not None
    assert run.summary.occurrence_id is None


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [(ValueError, "failed"), (AssertionError, "failed"), (KeyboardInterrupt, "inconclusive")],
)
def test_a_validation_that_raises_did_not_pass(
    bench: Any, make_gate: MakeGate, raised: type[BaseException], outcome: str
) -> None:
    opened = make_gate()
    with pytest.raises(raised), opened.run(opened.ask(bench.request(kind="validation", **NOW_ONLY))):
        raise raised
    assert newest(bench, opened, EntryKind.VALIDATION)["outcome"] == outcome


def test_a_validation_may_say_what_it_came_to(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(kind="validation", **NOW_ONLY))) as run:
        run.conclude("passed")
        run.conclude("inconclusive", validator="leakage", tier="quick")
        with pytest.raises(InvalidInput, match="use one of passed"):
            run.conclude("good")
        with pytest.raises(InvalidInput, match="validator"):
            run.conclude("passed", validator=5)  # type: ignore[arg-type]
    body = newest(bench, opened, EntryKind.VALIDATION)
    assert (body["outcome"], body["validator"], body["tier"]) == ("inconclusive", "leakage", "quick")
    assert body["ended"] == "completed"
    with pytest.raises(InvalidInput, match="has ended"):
        run.conclude("passed")


@pytest.mark.parametrize(("kind", "left"), [("validation", 1), ("training", 0)])
def test_a_validation_that_is_refused_did_not_happen(bench: Any, make_gate: MakeGate, kind: str, left: int) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "1 g/month")
    decision = opened.ask(bench.request(kind=kind, budget="acme", work_item="PR-17", **NOW_ONLY))
    assert isinstance(decision.verdict, Deny)
    bodies = bench.bodies(opened, EntryKind.VALIDATION)
    assert len(bodies) == left
    for body in bodies:
        check_kind(body)
        assert (body["outcome"], body["measurements"], body["ended"]) == ("not_validated", [], None)
        assert (body["parents"], body["work_item"]) == ([decision.decision_id], "PR-17")


def test_only_validations_are_concluded(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    with (
        opened.run(opened.ask(bench.request(kind="training", **NOW_ONLY))) as run,
        pytest.raises(InvalidInput, match="kind='validation'"),
    ):
        run.conclude("passed")


def test_two_models_leave_the_subject_open(bench: Any, make_gate: MakeGate) -> None:
    opened = make_gate()
    with opened.run(opened.ask(bench.request(kind="validation", **NOW_ONLY))) as run:
        run.add_input("champion", b"1", role="model")
        run.add_input("challenger", b"2", role="model")
    assert newest(bench, opened, EntryKind.VALIDATION)["subject"] is None
    with opened.run(opened.ask(bench.request("run-2", kind="validation", **NOW_ONLY))) as run:
        run.add_input("champion", b"1", role="model")
        run.add_input("challenger", b"2", role="subject")
    assert newest(bench, opened, EntryKind.VALIDATION)["subject"]["name"] == "challenger"


def test_a_record_from_the_spool_says_the_same(
    bench: Any, make_gate: MakeGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation waits with its measurement, and comes in behind it."""
    from cagg.errors import StoreUnavailable
    from cagg.steps import settling

    opened = make_gate()
    bench.budget(opened, "acme", "10 kg/month")
    decision = opened.ask(bench.request(kind="validation", budget="acme", **NOW_ONLY))

    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("the store is down; wait.")

    with monkeypatch.context() as patched:
        patched.setattr(settling.Settler, "_record", down)
        with opened.run(decision) as run:
            run.add_input("candidate", b"weights", role="model")
            run.conclude("failed")
            bench.clock.advance(timedelta(minutes=1).total_seconds())
    assert bench.bodies(opened, EntryKind.VALIDATION) == []
    assert maintain(opened.components, hosts={}).replayed == 1
    measurement, body = newest(bench, opened, EntryKind.MEASUREMENT), newest(bench, opened, EntryKind.VALIDATION)
    assert body["parents"] == [measurement["entry_id"]]
    assert (body["outcome"], body["subject"]["name"]) == ("failed", "candidate")
    assert measurement["parents"] == [decision.decision_id]
    assert maintain(opened.components, hosts={}).replayed == 0
    assert len(bench.bodies(opened, EntryKind.VALIDATION)) == 1
