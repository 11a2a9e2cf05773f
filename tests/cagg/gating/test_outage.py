"""The store is down: the stated policy applies, is written down, and reaches the ledger later."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.budget.reservations import audit
from cagg.gating import Gate
from cagg.maintenance import maintain
from cagg.records import EntryKind
from cagg.verdict import Admit, Deny, Reason

Make = Callable[..., Gate]


def break_store(bench: Any) -> Path:
    """Put something that is no database where the store should be; returns what to rename back."""
    home = bench.folder / "home"
    home.mkdir(exist_ok=True)
    store = home / "cagg.db"
    kept: Path = home / "kept.db"
    for suffix in ("-wal", "-shm"):
        side = Path(f"{store}{suffix}")
        if side.exists():
            side.rename(f"{kept}{suffix}")
    if store.exists():
        store.rename(kept)
    store.write_text("this is no database " * 100, encoding="utf-8")
    return kept


def mend_store(bench: Any, kept: Path) -> None:
    store = bench.folder / "home" / "cagg.db"
    store.unlink()
    for suffix in ("-wal", "-shm", ""):
        side = Path(f"{kept}{suffix}")
        if side.exists():
            side.rename(f"{store}{suffix}")


@pytest.mark.parametrize(
    ("options", "settings", "runs"),
    [
        ({"kind": "validation"}, {}, False),
        ({"kind": "validation", "budget": "acme"}, {"policy.on_store_down": "run"}, False),
        ({"budget": "acme"}, {}, False),
        ({"budget": "acme"}, {"policy.on_store_down": "run"}, True),
        ({"budget": "acme", "purpose": "monitor"}, {}, True),
        ({}, {}, True),
        ({"budget": "acme"}, {"mode": "observe"}, True),
    ],
)
def test_each_purpose_has_its_policy(
    bench: Any, make_gate: Make, options: dict[str, str], settings: dict[str, str], runs: bool
) -> None:
    break_store(bench)
    decision = make_gate(**settings).ask(bench.request(**options))
    assert isinstance(decision.verdict, Admit if runs else Deny)
    assert decision.verdict.reason is Reason.STORE_DOWN
    assert "\n" not in decision.verdict.message
    assert len(list((bench.folder / "home" / "spool").glob("*.json"))) == 1


def test_a_run_without_a_store_is_metered_spooled_and_replayed(bench: Any, make_gate: Make) -> None:
    kept = break_store(bench)
    opened = make_gate()
    decision = opened.ask(bench.request(finish_by=None))
    with opened.run(decision) as run:
        bench.clock.advance(timedelta(minutes=30))
    assert run.summary is not None
    assert run.summary.measurement_id is None
    assert run.reading is not None
    mend_store(bench, kept)

    again = make_gate()
    report = maintain(again.components, hosts={})
    assert (report.replayed, report.problems) == (2, ())
    bodies = bench.bodies(again)
    assert [body["kind"] for body in bodies] == ["decision", "measurement"]
    assert bodies[1]["energy_millijoules"] == str(100 * 1_800 * 1_000)
    assert "spooled_at" in bodies[1]
    assert maintain(again.components, hosts={}).replayed == 0


def test_a_store_that_fails_during_the_run_is_settled_by_the_replay(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kWh/day")
    decision = opened.ask(bench.request(budget="acme", finish_by=None))
    run = opened.run(decision)
    run.__enter__()
    bench.clock.advance(timedelta(minutes=3))
    opened.components.store.close()
    kept = break_store(bench)
    run.__exit__(None, None, None)
    assert run.summary is not None
    assert "spool" in run.summary.notes[-1]
    mend_store(bench, kept)

    again = make_gate()
    maintain(again.components, hosts={})
    with again.components.store.snapshot() as tx:
        assert audit(tx) == ()
        allotment = tx.allotments("acme")[0]
    assert (allotment.held, allotment.spent) == (0, 100 * 180 * 1_000)
    assert bench.bodies(again, EntryKind.SETTLEMENT)[0]["outcome"] == "settled"


def test_a_read_only_store_is_one_clear_sentence(bench: Any, make_gate: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = make_gate()
    opened.ask(bench.request(finish_by=None))
    with sqlite3.connect(bench.folder / "home" / "cagg.db") as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON cagg_entry BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    decision = opened.ask(bench.request("run-2", budget="acme", finish_by=None))
    assert isinstance(decision.verdict, Deny)
    assert len(list((bench.folder / "home" / "spool").glob("*.json"))) == 1


def test_when_even_the_spool_is_gone_it_says_what_is_lost(
    bench: Any, make_gate: Make, caplog: pytest.LogCaptureFixture
) -> None:
    break_store(bench)
    (bench.folder / "home" / "spool").write_text("a file in the way", encoding="utf-8")
    opened = make_gate()
    with caplog.at_level(logging.WARNING, logger="cagg"):
        decision = opened.ask(bench.request(finish_by=None))
        with opened.run(decision):
            bench.clock.advance(timedelta(minutes=1))
    assert isinstance(decision.verdict, Admit)
    assert "make one of them writable" in caplog.text
