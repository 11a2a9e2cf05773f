"""``cagg explain``."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

JOB = ("--energy", "2 kWh", "--duration", "1h", "--finish-by", "06:00", "--budget", "a/b", "--name", "nightly")


def _forge(home: Path, statement: str) -> None:
    """Change the file as somebody with write access could: triggers dropped first."""
    with sqlite3.connect(home / "cagg.db") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(statement)
    connection.close()


@pytest.fixture
def told(cli: Any, night: Path) -> Any:
    """A deferred run with its end."""
    cli("budget", "set", "a", "9 kg/month")
    cli("budget", "set", "a/b", "5 kg/month", "--mode", "enforce")
    cli("run", *JOB, "--", "true")
    return cli


def test_the_story_from_the_request_to_the_charge(told: Any) -> None:
    text = told("explain", "latest").out
    for words in (
        "nightly on shell, attempt 1",
        "DEFER",
        "300 g/kWh",
        "100 g/kWh",
        "2026-01-06 03:00",
        "400 g less by the forecast (67 %)",
        "declared",
        "300 g/kWh (declared)",
        "trace test",
        "budget a/b: asks at most",
        "ADMIT",
        "MEASURED (completed)",
        "SETTLED (settled)",
        "charged to a/b",
    ):
        assert words in text, words
    assert text.index("DEFER") < text.index("ADMIT") < text.index("MEASURED") < text.index("SETTLED")


def test_any_entry_of_the_request_tells_it(told: Any) -> None:
    rows = told("ledger", "list", "--json").json["entries"]
    stories = set()
    for row in rows:
        if row["kind"] != "budget":
            stories.add(told("explain", row["entry_id"]).out)
            stories.add(told("explain", str(row["index"])).out)
            stories.add(told("explain", row["entry_id"].upper()[:30]).out)
    assert len(stories) == 1


def test_a_beginning_must_be_unique(told: Any, said: Any) -> None:
    rows = told("ledger", "list", "--json").json["entries"]
    result = told("explain", rows[0]["entry_id"][:2])
    assert result.status == 2
    assert "several" in result.err
    said(result)


def test_other_entries_are_shown_as_they_are(told: Any) -> None:
    text = told("explain", "0").out
    assert "9000000000" in text
    assert "observe" in text


def test_the_verdict_is_recomputed(told: Any) -> None:
    result = told("explain", "latest", "--recompute", "--json")
    assert result.status == 0
    (again,) = result.json["recomputed"]
    assert again["same"] is True
    assert again["stored"] == again["again"]
    rows = told("ledger", "list", "--kind", "measurement", "--json").json["entries"]
    both = told("explain", rows[0]["entry_id"], "--recompute", "--json").json["recomputed"]
    assert [item["stored"]["verdict"] for item in both] == ["defer", "admit"]
    assert "same verdict" in told("explain", "latest", "--recompute").out


def test_a_changed_input_gives_another_verdict(told: Any, home: Path) -> None:
    edited = "replace(CAST(body AS TEXT), '\"deferrals\":0', '\"deferrals\":6')"
    _forge(home, f"UPDATE cagg_entry SET body = CAST({edited} AS BLOB)")
    first = next(
        row for row in told("ledger", "list", "--json").json["entries"] if row["outcome"] == "defer (cleaner_window)"
    )
    result = told("explain", first["entry_id"], "--recompute")
    assert result.status == 1
    assert "ANOTHER verdict" in result.out


def test_a_changed_forecast_is_refused(told: Any, said: Any, home: Path) -> None:
    _forge(home, "UPDATE cagg_blob SET data = CAST('{}' AS BLOB)")
    result = told("explain", "latest", "--recompute")
    assert result.status == 2
    said(result)


@pytest.mark.parametrize("name", ["latest", "019", "0", "nonsense", "", "%"])
def test_what_is_not_there(cli: Any, said: Any, name: str) -> None:
    cli("store", "migrate")
    result = cli("explain", name)
    assert result.status == 2
    said(result)


def test_only_decisions_are_recomputed(told: Any, said: Any) -> None:
    result = told("explain", "0", "--recompute")
    assert result.status == 2
    said(result)
