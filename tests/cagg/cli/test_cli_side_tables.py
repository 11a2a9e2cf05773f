"""``cagg ledger verify`` beside the tree: exchanged forecasts, edited limits and balances; and whose key signs."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def signed(cli: Any, night: Path) -> Any:
    """A ledger with a budget that was changed once, a run that rests on a forecast, and a checkpoint."""
    cli("budget", "set", "a", "5 kg/month", "--mode", "enforce")
    cli("budget", "set", "a", "6 kg/month")
    job = ("--energy", "2 kWh", "--duration", "1h", "--finish-by", "06:00", "--budget", "a", "--name", "job")
    assert cli("run", *job, "--", "true").status == 0
    assert cli("maintain").status == 0
    assert cli("ledger", "verify").status == 0
    return cli


def _forge(home: Path, *statements: str) -> None:
    """Change the file as somebody with write access could: triggers dropped first."""
    with sqlite3.connect(home / "cagg.db") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, f"the attack did nothing: {statement}"
    connection.close()


@pytest.mark.parametrize(
    "attack",
    [
        "DELETE FROM cagg_blob",
        "UPDATE cagg_blob SET data = CAST('{}' AS BLOB)",
        "UPDATE cagg_blob SET data = CAST(replace(CAST(data AS TEXT), '100', '900') AS BLOB)",
        "UPDATE cagg_blob SET data = NULL",
    ],
)
def test_a_forecast_that_was_exchanged_is_found(signed: Any, home: Path, attack: str) -> None:
    try:
        _forge(home, attack)
    except sqlite3.IntegrityError:
        return  # the schema refuses that one already
    result = signed("ledger", "verify", "--json")
    assert result.status == 1
    assert result.json["verified"] is False
    assert {item["kind"] for item in result.json["failures"]} == {"blob"}


def test_the_forecast_of_a_decision_is_named_where_verification_looks(signed: Any, home: Path) -> None:
    import json

    from cagg.ledger.entry import blobs_of

    with sqlite3.connect(home / "cagg.db") as connection:
        bodies = [json.loads(row[0]) for row in connection.execute("SELECT body FROM cagg_entry WHERE kind='decision'")]
        stored = {row[0] for row in connection.execute("SELECT digest FROM cagg_blob")}
    connection.close()
    assert stored
    assert {digest for body in bodies for digest in blobs_of(body)} == stored


def test_what_the_signature_does_not_cover_is_said(signed: Any) -> None:
    assert "no signature covers" in signed("ledger", "verify").out
    assert signed("ledger", "verify", "--json").json["side_tables"] == {
        "covered_by_signature": False,
        "agree": True,
        "problems": [],
    }


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        ("UPDATE cagg_budget SET limit_amount = limit_amount * 10", "limit"),
        ("UPDATE cagg_budget SET mode = 'observe'", "mode"),
        ("UPDATE cagg_budget SET time_zone = 'Asia/Tokyo'", "time_zone"),
        ("UPDATE cagg_budget SET unit = 'energy'", "no entry of the ledger"),
        ("UPDATE cagg_budget SET unit = 'sugar'", "sugar"),
        ("UPDATE cagg_allotment SET limit_amount = limit_amount * 10", "grants 60000000000"),
        ("UPDATE cagg_allotment SET limit_amount = 5000000000", "grants 5000000000"),
        ("UPDATE cagg_allotment SET extra = 7", "on top"),
        ("UPDATE cagg_allotment SET spent = 0", "spent"),
        ("UPDATE cagg_allotment SET held = 5", "held"),
    ],
)
def test_an_edited_limit_or_balance_is_found(signed: Any, home: Path, attack: str, named: str) -> None:
    _forge(home, attack)
    result = signed("ledger", "verify", "--json")
    assert result.status == 1
    assert result.json["verified"] is True, "the ledger itself is whole"
    assert result.json["side_tables"]["agree"] is False
    assert named in " ".join(result.json["side_tables"]["problems"])
    shown = signed("ledger", "verify")
    assert shown.status == 1
    assert "NOT in agreement" in shown.out


def test_a_limit_may_change_and_old_periods_keep_theirs(signed: Any, clock: Any) -> None:
    from datetime import timedelta

    clock.advance(timedelta(days=40))
    assert signed("budget", "set", "a", "9 kg/month").status == 0
    assert signed("run", "--energy", "1 kWh", "--budget", "a", "--", "true").status == 0
    signed("maintain")
    result = signed("ledger", "verify", "--json")
    assert result.json["side_tables"]["problems"] == []
    assert result.status == 0


# ---- keys ---------------------------------------------------------------------------------------------------------


def test_a_lost_key_is_not_replaced(signed: Any, home: Path, night: Path) -> None:
    (home / "keys" / "log.key").unlink()
    signed("run", "--", "true")
    result = signed("maintain")
    assert result.status == 1
    assert "restore log.key from a backup" in result.out
    assert "othing to sign" not in result.out
    assert not (home / "keys" / "log.key").exists()
    shutil.rmtree(home / "keys")
    assert signed("maintain").status == 1
    assert not (home / "keys").exists()


def test_doctor_checks_who_signed(signed: Any, home: Path) -> None:
    def ledger() -> Any:
        return next(item for item in signed("doctor", "--json").json["findings"] if item["topic"] == "ledger")

    assert ledger()["level"] == "ok"
    assert "trusted key" in ledger()["text"]
    other = "cagg.local/other+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    for content in (other, "garbage", ""):
        (home / "keys" / "log.vkey").write_text(content, encoding="utf-8")
        assert ledger()["level"] == "problem", content
    (home / "keys" / "log.vkey").unlink()
    assert ledger()["level"] == "problem"


def test_a_forged_signature_is_seen_by_doctor(signed: Any, home: Path) -> None:
    _forge(home, "UPDATE cagg_checkpoint SET note = replace(note, '— ', '— x')")
    findings = signed("doctor", "--json").json["findings"]
    assert [item["level"] for item in findings if item["topic"] == "ledger"] == ["problem"]


@pytest.mark.parametrize("command", [["ledger", "verify"], ["ledger", "key"]])
def test_a_garbage_key_is_one_sentence(signed: Any, said: Any, home: Path, command: list[str]) -> None:
    (home / "keys" / "log.vkey").write_text("garbage\n", encoding="utf-8")
    result = signed(*command)
    assert result.status == 2
    assert "log.vkey" in result.err
    said(result)


def test_a_garbage_checkpoint_is_one_sentence(signed: Any, said: Any, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("garbage", encoding="utf-8")
    result = signed("ledger", "verify", "--since", str(tmp_path / "kept"))
    assert result.status == 2
    assert "cagg ledger checkpoint" in result.err
    said(result)
