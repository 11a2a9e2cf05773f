"""``cagg ledger``."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def signed(cli: Any, night: Path) -> Any:
    """A ledger with a budget, a run and a checkpoint."""
    cli("budget", "set", "a", "1 kg/month", "--mode", "enforce")
    cli("run", "--budget", "a", "--energy", "1 kWh", "--name", "job", "--", "true")
    assert cli("maintain").status == 0
    return cli


def _forge(home: Path, statement: str, *values: object) -> None:
    """Change the file as somebody with write access could: triggers dropped first."""
    with sqlite3.connect(home / "cagg.db") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(statement, values)
    connection.close()


def test_the_list_is_newest_first_and_filtered(signed: Any) -> None:
    rows = signed("ledger", "list", "--json").json["entries"]
    assert [row["kind"] for row in rows] == ["settlement", "measurement", "decision", "budget"]
    assert [row["index"] for row in rows] == [3, 2, 1, 0]
    assert [row["kind"] for row in signed("ledger", "list", "--limit", "2", "--json").json["entries"]] == [
        "settlement",
        "measurement",
    ]
    assert [row["task"] for row in signed("ledger", "list", "--kind", "decision", "--json").json["entries"]] == ["job"]
    assert signed("ledger", "list", "--task", "other", "--json").json["entries"] == []
    text = signed("ledger", "list").out
    assert "admit (no_deadline)" in text
    assert "grade" in text


def test_a_list_that_is_cut_says_so(signed: Any) -> None:
    cut = signed("ledger", "list", "--limit", "3")
    assert "3 of 4, --limit N shows more." in cut.out
    assert signed("ledger", "list", "--limit", "3", "--json").json["more"] is True
    assert "--limit" not in signed("ledger", "list", "--limit", "4").out
    chosen = signed("ledger", "list", "--task", "job", "--limit", "1").out
    assert "1 the newest of more, --limit N shows more." in chosen


def test_a_list_of_nothing_says_whether_there_is_something_else(signed: Any) -> None:
    none = signed("ledger", "list", "--task", "nope").out
    assert "None of the 4 entries is of the task 'nope'" in none
    assert (
        "None of the 4 entries is a waiver and is of the task 'job'"
        in signed("ledger", "list", "--task", "job", "--kind", "waiver").out
    )


def test_numbers_of_a_frozen_log_are_found_with_its_name(signed: Any, said: Any) -> None:
    assert "log" not in signed("ledger", "list").out.splitlines()[0].split()
    assert signed("ledger", "roll", "--name", "example.org/next").status == 0
    assert signed("maintain").status == 0
    old = signed("ledger", "logs", "--json").json["logs"][0]["origin"]
    text = signed("ledger", "list").out
    assert text.splitlines()[0].split() == ["#", "when", "id", "log", "what"]
    assert old in text
    assert {row["log"] for row in signed("ledger", "list", "--log", old, "--json").json["entries"]} == {old}
    for command in (["explain", "3"], ["ledger", "prove", "3"], ["ledger", "private", "3"]):
        refused = signed(*command)
        assert (refused.status, "--log" in refused.err, old in refused.err) == (2, True, True), command
        said(refused)
        assert signed(*command, "--log", old).status == 0, command
    refused = signed("ledger", "consistency", "4")
    assert (refused.status, "--log" in refused.err) == (2, True)
    assert signed("ledger", "consistency", "4", "--log", old).status == 0
    wrong = signed("ledger", "list", "--log", "nowhere")
    assert wrong.status == 2
    assert "cagg ledger logs" in wrong.err


@pytest.mark.parametrize("command", ["prove", "private"])
def test_a_negative_number_is_no_amount(signed: Any, said: Any, command: str) -> None:
    refused = signed("ledger", command, "-1")
    assert "numbers in a log begin at 0" in refused.err
    said(refused)


def test_an_empty_ledger_lists_nothing_and_cannot_be_verified(cli: Any, said: Any, home: Path) -> None:
    assert cli("ledger", "list", "--json").json == {"entries": [], "more": False}
    result = cli("ledger", "verify")
    assert result.status == 2
    said(result)
    assert not home.exists()


def test_it_verifies_with_the_key_in_the_home(signed: Any) -> None:
    result = signed("ledger", "verify", "--json")
    assert result.status == 0
    assert result.json["verified"] is True
    assert result.json["assurance"] == "signed"
    assert result.json["size"] == result.json["signed_size"] == 4
    assert result.json["failures"] == []
    assert "verified (signed)" in signed("ledger", "verify").out.lower()


def test_an_unsigned_ledger_is_not_verified(cli: Any, night: Path) -> None:
    cli("budget", "set", "a", "1 kg/month")
    result = cli("ledger", "verify", "--json")
    assert result.status == 1
    assert result.json["assurance"] == "consistent"
    assert "maintain" in cli("ledger", "verify").out


def test_an_edited_byte_is_found(signed: Any, home: Path) -> None:
    _forge(home, "UPDATE cagg_entry SET body = replace(CAST(body AS TEXT), 'job', 'jab') WHERE kind = 'decision'")
    result = signed("ledger", "verify", "--json")
    assert result.status == 1
    assert result.json["verified"] is False
    assert result.json["failures"]
    assert "NOT intact" in signed("ledger", "verify").out


def test_a_deleted_entry_is_found(signed: Any, home: Path) -> None:
    _forge(home, "DELETE FROM cagg_entry WHERE kind = 'settlement'")
    assert signed("ledger", "verify").status == 1


def test_keys_from_outside(signed: Any, said: Any, tmp_path: Path) -> None:
    key = signed("ledger", "key", "--json").json["keys"][0]
    file = tmp_path / "kept.vkey"
    file.write_text(f"# kept elsewhere\n{key}\n", encoding="utf-8")
    assert signed("ledger", "verify", "--key", key).status == 0
    assert signed("ledger", "verify", "--key", str(file)).status == 0
    other = "cagg.local/other+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    for wrong in (other, "nonsense", str(tmp_path / "missing"), str(tmp_path)):
        result = signed("ledger", "verify", "--key", wrong)
        assert result.status in (1, 2), wrong
        assert "Traceback" not in result.err
    said(signed("ledger", "verify", "--key", "nonsense"))


def test_an_outside_checkpoint_anchors_and_shows_what_was_cut_off(signed: Any, home: Path, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoint"
    kept.write_text(signed("ledger", "checkpoint").out, encoding="utf-8")
    assert signed("ledger", "verify", "--since", str(kept), "--json").json["assurance"] == "anchored"
    for table in ("cagg_leaf WHERE leaf_index = 3", "cagg_entry WHERE kind = 'settlement'", "cagg_checkpoint"):
        _forge(home, f"DELETE FROM {table}")
    assert signed("ledger", "verify", "--since", str(kept)).status == 1


def test_there_is_no_key_before_the_first_pass(cli: Any, said: Any) -> None:
    for command in ("key", "checkpoint"):
        result = cli("ledger", command)
        assert result.status == 2
        assert "maintain" in result.err
        said(result)


def test_an_unknown_kind(cli: Any, said: Any) -> None:
    result = cli("ledger", "list", "--kind", "gossip")
    assert result.status == 2
    assert "gossip" in result.err
    said(result)
