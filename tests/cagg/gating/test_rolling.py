"""A log ends while runs are under way: what was asked for in one log is settled in the next, once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.budget.reservations import audit
from cagg.cli._side_tables import side_table_problems
from cagg.entries import EntryDraft, EntryKind, LogState
from cagg.errors import InvalidInput, SigningRefused
from cagg.gating import Gate
from cagg.ledger.encoding import decode
from cagg.ledger.lineage import entries_of_all_logs, succession
from cagg.ledger.private import check_private
from cagg.ledger.report import VerifyReport
from cagg.ledger.succession import RollReason
from cagg.ledger.verify import verify
from cagg.maintenance import maintain
from cagg.steps import rolling
from cagg.steps.rolling import LogRolled, roll_log
from cagg.steps.spooling import spool_record
from cagg.verdict import Admit, Defer

Make = Callable[..., Gate]


def rolled(gate: Gate, reason: RollReason = RollReason.YEARLY, **more: Any) -> LogRolled:
    done = roll_log(gate.components, **{"name": None, "reason": reason, **more})
    assert done.problems == ()
    return done


def checked(gate: Gate) -> VerifyReport:
    """Maintain, then verify with the first log's key alone."""
    assert maintain(gate.components, hosts={}).problems == ()
    key = (gate.components.settings.home / "keys" / "log.vkey").read_text(encoding="utf-8").strip()
    with gate.components.store.snapshot() as tx:
        assert side_table_problems(tx) == []
        assert audit(tx) == ()
        return verify(tx, [key])


def story(gate: Gate) -> list[tuple[int, str]]:
    """Number of the log and kind of every entry, in order, those about keys and logs left out."""
    with gate.components.store.snapshot() as tx:
        names = [log.origin for log in tx.logs()]
        bodies = [decode(entry.body) for entry in entries_of_all_logs(tx)]
    return [(names.index(body["log"]), body["kind"]) for body in bodies if body["kind"] not in ("log", "key")]


def test_a_deferred_run_wakes_and_is_settled_in_the_next_log(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml/nightly", "10 kg/month")
    request = bench.request(budget="acme/ml/nightly")
    assert isinstance(opened.ask(request).verdict, Defer)
    done = rolled(opened)
    bench.clock.advance(timedelta(hours=3))
    woken = opened.ask(request)
    assert isinstance(woken.verdict, Admit)
    assert woken.first_asked_at == bench.clock.now() - timedelta(hours=3)
    with opened.run(woken) as run:
        bench.clock.advance(timedelta(minutes=30))
    assert run.summary is not None
    assert run.summary.carbon is not None
    report = checked(opened)
    assert (report.failures, report.notes) == ((), ())
    assert report.origin == done.rolled.origin
    assert story(opened) == [(0, "budget"), (0, "decision"), (1, "decision"), (1, "measurement"), (1, "settlement")]
    with opened.components.store.snapshot() as tx:
        (row,) = tx.allotments("acme/ml/nightly")
        assert (row.held, row.spent, row.overrun) == (0, run.summary.carbon.micrograms, 0)


def test_a_run_that_goes_on_while_the_log_is_rolled_is_charged_once(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml", "10 kg/month")
    decision = opened.ask(bench.request(budget="acme/ml", finish_by=None))
    with opened.run(decision) as run:
        bench.clock.advance(timedelta(minutes=20))
        rolled(opened)
        bench.clock.advance(timedelta(minutes=10))
    assert run.reading is not None
    assert checked(opened).failures == ()
    assert story(opened) == [(0, "budget"), (0, "decision"), (1, "measurement"), (1, "settlement")]
    with opened.components.store.snapshot() as tx:
        (measured,) = [decode(item.body) for item in tx.entries() if item.kind == "measurement"]
        assert measured["parents"] == [decision.decision_id]
        assert tx.entry(decision.decision_id or "") is not None


def test_the_same_question_after_the_roll_is_the_same_story(bench: Any, make_gate: Make) -> None:
    """A worker that did not hear the answer asks again: the second ask follows the first, whose log is frozen."""
    opened = make_gate()
    bench.budget(opened, "acme/ml", "10 kg/month")
    request = bench.request(budget="acme/ml")
    first = opened.ask(request)
    rolled(opened)
    second = make_gate().ask(request)
    assert isinstance(first.verdict, Defer)
    assert second.verdict == first.verdict
    with opened.components.store.snapshot() as tx:
        (asked,) = [decode(item.body) for item in tx.entries() if item.kind == "decision"]
        assert (asked["ask"], asked["parents"]) == (1, [first.decision_id])
        (row,) = tx.allotments("acme/ml")
        assert row.held == 1_250_000_000
    assert checked(opened).failures == ()


def test_a_run_that_died_before_the_roll_expires_after_it(bench: Any, make_gate: Make) -> None:
    if bench.overrides.get("store"):
        pytest.skip("leases end by the server's clock there")
    opened = make_gate()
    bench.budget(opened, "acme/ml", "10 kg/month")
    decision = opened.ask(bench.request(budget="acme/ml", finish_by=None))
    run = opened.run(decision)
    run.__enter__()
    rolled(opened)
    bench.clock.advance(timedelta(hours=1))
    other = make_gate()
    assert maintain(other.components, hosts={}).expired == 1
    assert story(other) == [(0, "budget"), (0, "decision"), (1, "measurement"), (1, "settlement")]
    run.__exit__(None, None, None)  # it was not dead after all
    assert [kind for log, kind in story(other) if log == 1][2:] == ["correction", "settlement"]
    assert checked(other).failures == ()


def test_budgets_changed_after_the_roll_agree_with_the_ledger(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    bench.budget(opened, "acme/ml", "10 kg/month")
    bench.budget(opened, "acme/other", "1 kg/month")
    rolled(opened)
    bench.budget(opened, "acme/ml", "20 kg/month")
    assert checked(opened).failures == ()


# ---- crashes and repetitions ----------------------------------------------------------------------------------------


def test_what_a_crash_left_unsigned_is_signed_by_maintain(
    bench: Any, make_gate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = make_gate()
    opened.ask(bench.request())

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rolling, "sign_frozen_logs", die)
        with pytest.raises(KeyboardInterrupt):
            rolled(opened)
    with opened.components.store.snapshot() as tx:
        assert [log.state for log in tx.logs()] == [LogState.FROZEN, LogState.ACTIVE]
        assert len(succession(tx).problems) == 1
    with pytest.raises(InvalidInput, match="just begun"):
        rolled(opened)  # whoever does not know that it was done does no harm
    assert checked(opened).failures == ()


def test_a_crash_before_the_roll_was_committed_leaves_the_log(
    bench: Any, make_gate: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = make_gate()
    opened.ask(bench.request())
    real = rolling.roll

    def die(*arguments: Any, **more: Any) -> None:
        real(*arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rolling, "roll", die)
        with pytest.raises(KeyboardInterrupt):
            rolled(opened)
    assert maintain(opened.components, hosts={}).problems == ()
    with opened.components.store.snapshot() as tx:
        assert len(tx.logs()) == 1
    rolled(opened)
    assert checked(opened).failures == ()


def test_a_log_that_cannot_be_signed_is_not_rolled(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    opened.ask(bench.request())
    maintain(opened.components, hosts={})
    key = opened.components.settings.home / "keys" / "log.key"
    key.unlink()
    with pytest.raises(SigningRefused, match="key_lost"):
        rolled(opened)
    with opened.components.store.snapshot() as tx:
        assert len(tx.logs()) == 1
    opened.ask(bench.request("run-2"))
    done = rolled(opened, RollReason.KEY_LOST)
    report = maintain(opened.components, hosts={})
    assert report.problems == ()
    both = [(key.parent / "log.vkey").read_text(encoding="utf-8").strip(), done.key]
    with opened.components.store.snapshot() as tx:
        assert verify(tx, both).failures == ()
        (stated,) = succession(tx).breaks
        assert "its key is lost" in stated


def test_every_log_keeps_a_key_of_its_own(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    opened.ask(bench.request())
    done = rolled(opened, name="example.org/ml/2027")
    keys: Path = opened.components.settings.home / "keys"
    (folder,) = (path for path in keys.iterdir() if path.is_dir())
    assert folder.name.startswith("example.org_ml_2027-")
    assert (folder / "log.vkey").read_text(encoding="utf-8").strip() == done.key
    assert (folder / "log.key").stat().st_mode & 0o777 == 0o600
    assert (keys / "log.key").exists()
    opened.ask(bench.request("run-2"))
    with pytest.raises(InvalidInput, match="never used twice"):
        rolled(opened, name="example.org/ml/2027")


# ---- every year -----------------------------------------------------------------------------------------------------


def test_maintain_mentions_a_log_of_more_than_a_year_and_begins_none(bench: Any, make_gate: Make) -> None:
    if bench.overrides.get("store"):
        pytest.skip("the server's clock stands in this year")
    opened = make_gate()
    opened.ask(bench.request())
    opened.ask(bench.request("run-2"))
    assert not [note for note in maintain(opened.components, hosts={}).notes if "roll" in note]
    bench.clock.advance(timedelta(days=367))
    (note,) = (note for note in maintain(opened.components, hosts={}).notes if "roll" in note)
    assert "grows since 2026-11-23; `cagg ledger roll --reason yearly`" in note
    with opened.components.store.snapshot() as tx:
        assert len(tx.logs()) == 1


def test_with_yearly_logs_maintain_begins_the_next_one_in_the_new_year(bench: Any, make_gate: Make) -> None:
    if bench.overrides.get("store"):
        pytest.skip("the server's clock stands in this year")
    opened = make_gate(**{"ledger.yearly_logs": True})
    opened.ask(bench.request())
    opened.ask(bench.request("run-2"))
    maintain(opened.components, hosts={})
    with opened.components.store.snapshot() as tx:
        assert len(tx.logs()) == 1
    bench.clock.advance(timedelta(days=39))  # 2027-01-01
    (note,) = (note for note in maintain(opened.components, hosts={}).notes if "goes on" in note)
    with opened.components.store.snapshot() as tx:
        assert [log.origin.rpartition("/")[2] for log in tx.logs()][1:] == ["2027"]
        assert f"{tx.origin()}+" in note
    again = maintain(opened.components, hosts={})
    assert (again.problems, [note for note in again.notes if "goes on" in note]) == ((), [])
    bench.clock.advance(timedelta(days=366))
    maintain(opened.components, hosts={})  # nothing was recorded in 2027, so there is nothing to end
    with opened.components.store.snapshot() as tx:
        assert len(tx.logs()) == 2
    assert checked(opened).failures == ()


# ---- personal values that had to wait -------------------------------------------------------------------------------


def test_personal_values_wait_in_the_spool_and_are_committed_to_on_replay(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    opened.ask(bench.request())
    wanted = EntryDraft(
        kind=EntryKind.OVERRIDE,
        request_key="break-glass",
        ordinal=0,
        body={"what": "break-glass", "reason": "r"},
        private={"person": "Ada Example"},
    )
    spool_record(opened.components, wanted, None)
    for path in opened.components.settings.home.rglob("*spool*/*"):
        assert path.stat().st_mode & 0o077 == 0
    assert maintain(opened.components, hosts={}).replayed == 1
    with opened.components.store.snapshot() as tx:
        (entry,) = tx.entries(kind=EntryKind.OVERRIDE)
        assert b"Ada" not in entry.body
        assert [item.value for item in tx.private_values(entry.entry_id)] == ["Ada Example"]
        found = check_private(tx, decode(entry.body))
        assert (found.rows, found.problems) == (1, ())
    for path in opened.components.settings.home.rglob("*spool*/**/*"):
        assert not path.is_file() or b"Ada" not in path.read_bytes()
