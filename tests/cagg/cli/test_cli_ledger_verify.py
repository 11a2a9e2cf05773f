"""``cagg ledger verify``: checkpoints from outside, hashes only, one log, several processes; what it exits with."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def signed(cli: Any, night: Path) -> Any:
    """A ledger with a run and a checkpoint."""
    cli("run", "--energy", "1 kWh", "--name", "job", "--", "true")
    assert cli("maintain").status == 0
    return cli


def _forge(home: Path, *statements: str) -> None:
    with sqlite3.connect(home / "cagg.db") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_several_outside_checkpoints_and_anchors_are_compared(signed: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "anchors" / "second"
    first.write_text(signed("ledger", "checkpoint").out, encoding="utf-8")
    signed("run", "--energy", "1 kWh", "--name", "job", "--", "true")
    assert signed("maintain").status == 0
    second.parent.mkdir()
    second.write_text(signed("ledger", "checkpoint").out, encoding="utf-8")
    size = signed("ledger", "checkpoint", "--json").json["size"]
    result = signed("ledger", "verify", "--since", str(first), "--since", str(first), "--json")
    assert (result.status, result.json["assurance"]) == (0, "anchored")
    assert 0 < result.json["unproven"] == size - result.json["anchored_size"]
    result = signed("ledger", "verify", "--since", str(first), "--anchors", str(second.parent), "--json")
    assert (result.status, result.json["anchored_size"], result.json["unproven"]) == (0, size, 0)
    assert result.json["anchor_problems"] == []


def test_a_place_that_holds_nothing_of_this_log_is_no_pass(signed: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (empty, tmp_path / "missing"):
        result = signed("ledger", "verify", "--anchors", str(place), "--json")
        assert result.status == 1
        assert len(result.json["anchor_problems"]) == 1
        assert "NOT compared" in signed("ledger", "verify", "--anchors", str(place)).out


def test_the_end_is_called_unproven_until_a_checkpoint_is_kept_elsewhere(signed: Any) -> None:
    result = signed("ledger", "verify")
    assert "unproven without an outside checkpoint" in " ".join(result.out.split())
    assert "--since" in result.out
    document = signed("ledger", "verify", "--json").json
    assert (document["anchored_size"], document["unproven"], document["unsigned"]) == (0, document["size"], 0)


def test_hashes_only_says_so(signed: Any, home: Path) -> None:
    result = signed("ledger", "verify", "--tree", "--json")
    assert (result.status, result.json["checks"], result.json["side_tables"]) == (0, "tree", None)
    assert "hashes only" in signed("ledger", "verify", "--tree").out
    _forge(home, "UPDATE cagg_entry SET outcome = 'x' WHERE kind = 'measurement'")
    assert signed("ledger", "verify", "--tree").status == 0, "columns are no hashes"
    assert signed("ledger", "verify").status == 1
    _forge(home, "UPDATE cagg_leaf SET leaf_hash = zeroblob(32) WHERE leaf_index = 0")
    assert signed("ledger", "verify", "--tree").status == 1


def test_one_log_is_named(signed: Any, said: Any) -> None:
    origin = signed("ledger", "verify", "--json").json["origin"]
    assert signed("ledger", "verify", "--log", origin).status == 0
    result = signed("ledger", "verify", "--log", "example.org/none")
    assert result.status == 2
    said(result)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_number_of_processes_can_be_chosen(signed: Any, workers: str) -> None:
    assert signed("ledger", "verify", "--workers", workers).status == 0


def test_no_process_at_all_is_refused(signed: Any, said: Any) -> None:
    result = signed("ledger", "verify", "--workers", "0")
    assert result.status == 2
    said(result)


def test_a_log_without_entries_is_not_verified(signed: Any, home: Path) -> None:
    _forge(home, *(f"DELETE FROM cagg_{name}" for name in ("leaf", "entry", "checkpoint", "tile")))
    result = signed("ledger", "verify", "--json")
    assert (result.status, result.json["size"], result.json["failures"]) == (1, 0, [])
    assert "nothing to check" in signed("ledger", "verify").out.lower()


def test_text_that_is_none_is_named_without_a_traceback(signed: Any, home: Path) -> None:
    _forge(
        home,
        "UPDATE cagg_entry SET entry_id = CAST(x'ff41' AS TEXT) WHERE kind = 'measurement'",
        "UPDATE cagg_entry SET outcome = CAST(x'ff' AS TEXT) WHERE kind = 'settlement'",
    )
    for arguments in ((), ("--json",)):
        result = signed("ledger", "verify", *arguments)
        assert result.status == 1
        assert "Traceback" not in result.err
    kinds = {failure["kind"] for failure in result.json["failures"]}
    assert {"body", "column", "leaf"} <= kinds


def test_configured_anchors_are_compared_unless_they_are_left_out(
    signed: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAGG_ANCHORS", f"file:{tmp_path}/notes,dir:{tmp_path}/missing,log")
    signed("maintain")
    result = signed("ledger", "verify", "--json")
    assert (result.status, result.json["assurance"], result.json["good"]) == (0, "anchored", True)
    assert any("configured anchors" in note for note in result.json["notes"])
    assert any("missing" in note for note in result.json["notes"]), "a place that is away is told and no failure"
    assert signed("ledger", "verify", "--anchors", "none", "--json").json["assurance"] == "signed"
    assert signed("ledger", "verify", "--anchors", "none", "--anchors", "log").status == 2


def test_the_headline_agrees_with_the_status(signed: Any, tmp_path: Path) -> None:
    result = signed("ledger", "verify", "--anchors", str(tmp_path / "missing"))
    assert (result.status, result.out.startswith("NOT verified as asked: ")) == (1, True)
    result = signed("ledger", "verify", "--anchors", str(tmp_path / "missing"), "--json")
    assert (result.json["verified"], result.json["good"]) == (True, False)
    assert result.json["sentence"].startswith("NOT verified as asked: ")


def test_each_failure_is_printed_once_with_its_entry_and_task(signed: Any, home: Path) -> None:
    _forge(home, "UPDATE cagg_entry SET task_key = 'another' WHERE kind = 'decision'")
    lines = signed("ledger", "verify").out.splitlines()
    failures = signed("ledger", "verify", "--json").json["failures"]
    assert lines[0] == f"NOT intact: {len(failures)} failure{'s' if len(failures) > 1 else ''}."
    assert all(sum(item["message"] in text for text in lines) == 1 for item in failures)
    (changed,) = [item for item in failures if item["kind"] == "column"]
    assert changed["task"] == "another"
    assert len(changed["entry_id"]) > 16
    assert any(f"entry {changed['entry_id']}, task another" in text for text in lines)
    assert lines[-1].startswith("What to do: ")


def test_no_checkpoint_and_an_index_far_off(signed: Any, home: Path) -> None:
    for index, said in ((2**63 - 1, "covers 3 entries and the log has 2:"), (2**40, "this index was changed")):
        _forge(home, f"UPDATE cagg_leaf SET leaf_index = {index} WHERE leaf_index >= 2")
        out = signed("ledger", "verify").out
        assert said in out
        assert f"the log has {index + 1}" not in out
        assert "run 'cagg ledger verify'" not in out
    _forge(home, "UPDATE cagg_leaf SET leaf_index = 2 WHERE leaf_index > 2", "DELETE FROM cagg_checkpoint")
    result = signed("ledger", "verify")
    assert (result.status, "the store holds no checkpoint" in result.out) == (1, True)
