"""What a roll refuses before it leaves anything behind, and what a restored store says of the logs it has forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cagg.errors import InvalidInput
from cagg.gating import Gate
from cagg.ledger.anchors import collect
from cagg.ledger.lineage import log_facts, succession
from cagg.ledger.report import FailureKind, VerifyReport
from cagg.ledger.succession import RollReason
from cagg.ledger.verify import verify
from cagg.maintenance import maintain
from cagg.steps.rolling import LogRolled, roll_log

Make = Callable[..., Gate]


def rolled(gate: Gate, reason: RollReason = RollReason.REQUESTED, **more: Any) -> LogRolled:
    return roll_log(gate.components, **{"name": None, "reason": reason, **more})


def folders(gate: Gate) -> list[str]:
    return sorted(path.name for path in (gate.components.settings.home / "keys").iterdir() if path.is_dir())


def keys(gate: Gate) -> list[str]:
    found = (gate.components.settings.home / "keys").rglob("log.vkey")
    return [path.read_text(encoding="utf-8").strip() for path in found]


def judged(gate: Gate, place: Path, trusted: list[str] | None = None) -> VerifyReport:
    with gate.components.store.snapshot() as tx:
        outside = collect([str(place)]).checkpoints
        return verify(tx, keys(gate) if trusted is None else trusted, outside)


@pytest.mark.parametrize("reason", [RollReason.REQUESTED, RollReason.RESTORED, RollReason.KEY_LOST])
def test_a_refused_roll_leaves_no_key(bench: Any, make_gate: Make, reason: RollReason) -> None:
    opened = make_gate()
    opened.ask(bench.request())
    maintain(opened.components, hosts={})
    rolled(opened)
    before = folders(opened)
    for _ in range(2):
        with pytest.raises(InvalidInput):
            rolled(opened, reason)
        assert folders(opened) == before


def test_a_key_that_is_there_is_not_lost(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    opened.ask(bench.request())
    maintain(opened.components, hosts={})
    with pytest.raises(InvalidInput, match=r"--reason requested.*rotate-key"):
        rolled(opened, RollReason.KEY_LOST)
    assert folders(opened) == []


def test_the_final_checkpoint_gets_to_a_place_that_comes_back(bench: Any, make_gate: Make, tmp_path: Path) -> None:
    opened = make_gate()
    place = tmp_path / "away"
    settings = replace(opened.components.settings, anchors=(f"dir:{place}",))
    opened = Gate(replace(opened.components, settings=settings))
    opened.ask(bench.request())
    done = rolled(opened)
    assert any("away" in text for text in done.problems)
    place.mkdir()
    for _ in range(2):
        maintain(opened.components, hosts={})
        sizes = [item.size for item in collect([str(place)]).checkpoints]
        assert sizes == [1, done.rolled.predecessor.size]


@pytest.mark.parametrize("known", ["keys", "anchors"])
def test_a_backup_from_before_a_roll(bench: Any, make_gate: Make, tmp_path: Path, known: str) -> None:
    opened = make_gate()
    notes, backup = tmp_path / "notes", tmp_path / "backup"
    settings = replace(opened.components.settings, anchors=(f"file:{notes}",))
    parts = replace(opened.components, settings=settings)
    opened = Gate(parts)
    home = settings.home
    if not (home / "cagg.db").exists():
        pytest.skip("a backup of a server is no copy of a file; the corpus of attacks has this one for both")
    opened.ask(bench.request())
    maintain(parts, hosts={})
    shutil.copytree(home, backup)
    lost = rolled(opened).rolled.origin
    if known == "anchors":  # the whole machine came from the backup
        shutil.rmtree(home / "keys")
        shutil.copytree(backup / "keys", home / "keys")
    else:
        notes.rename(tmp_path / "kept")
        notes = tmp_path / "kept"
    parts.store.close()
    for path in home.glob("cagg.db*"):
        path.unlink()
    for path in backup.glob("cagg.db*"):
        shutil.copy(path, home / path.name)
    opened = make_gate()
    opened = Gate(replace(opened.components, settings=settings))
    report = judged(opened, notes)
    assert {item.kind for item in report.failures} == {FailureKind.TRUNCATED}
    assert any(f"is of the log {lost}, which this store does not hold" in item.message for item in report.failures)
    done = rolled(opened, RollReason.RESTORED)
    assert done.rolled.origin not in (lost, done.rolled.predecessor.origin)
    with opened.components.store.snapshot() as tx:
        assert [one.lost_logs for one in log_facts(tx, [])] == [(), (lost,)]
        assert lost in succession(tx).breaks[0]
    report = judged(opened, notes)
    assert report.failures == ()
    assert any("states it as lost" in note for note in report.notes)
    strangers = judged(opened, notes, [])
    assert {item.kind for item in strangers.failures} == {FailureKind.TRUNCATED}
