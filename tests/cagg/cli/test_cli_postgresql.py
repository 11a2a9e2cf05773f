"""The command line over a store that machines share: entries wait for ``cagg maintain``, the rest is the same."""

from __future__ import annotations

from typing import Any

import pytest

JOB = ("--energy", "2 kWh", "--duration", "1h", "--finish-by", "06:00", "--budget", "a/b", "--name", "nightly")


@pytest.fixture
def shared(cli: Any, night: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A deferred run with its end, on PostgreSQL; nothing is sequenced yet."""
    monkeypatch.setenv("CAGG_STORE", postgres_url)
    assert cli("budget", "set", "a", "9 kg/month").status == 0
    assert cli("budget", "set", "a/b", "5 kg/month", "--mode", "enforce").status == 0
    assert cli("run", *JOB, "--", "true").status == 0
    return cli


def test_maintain_gives_entries_their_places_and_signs(shared: Any) -> None:
    waiting = shared("ledger", "list", "--json").json["entries"]
    assert [row["index"] for row in waiting] == [None] * 6, "what was recorded is seen before it has its place"
    assert shared("maintain").status == 0
    rows = shared("ledger", "list", "--json").json["entries"]
    assert [row["index"] for row in rows] == [5, 4, 3, 2, 1, 0]
    assert [row["kind"] for row in rows] == ["settlement", "measurement", "decision", "decision", "budget", "budget"]
    verified = shared("ledger", "verify", "--json")
    assert verified.status == 0
    assert (verified.json["assurance"], verified.json["size"], verified.json["failures"]) == ("signed", 6, [])


def test_the_story_and_its_recomputation_are_the_same(shared: Any) -> None:
    text = shared("explain", "latest").out
    assert text.index("DEFER") < text.index("ADMIT") < text.index("MEASURED") < text.index("SETTLED")
    assert shared("explain", "latest", "--recompute").status == 0
    assert shared("maintain").status == 0
    assert shared("explain", "latest").out.count("SETTLED") == text.count("SETTLED")


def test_budgets_are_shown_changed_and_enforced(shared: Any) -> None:
    rows = {row["path"]: row for row in shared("budget", "show", "--json").json["budgets"]}
    assert set(rows) == {"a", "a/b"}
    assert rows["a"]["held"] == rows["a/b"]["held"] == 0
    assert rows["a"]["spent"] == rows["a/b"]["spent"]
    assert shared("budget", "set", "a/b", "0 kg/month", "--mode", "enforce").status == 0
    refused = shared("run", *JOB[:2], *JOB[-4:], "--", "true")
    assert refused.status == 125


def test_no_command_shows_the_password(shared: Any, postgres_url: str) -> None:
    password = postgres_url.split(":")[2].split("@")[0]
    for command in (("doctor",), ("store", "status"), ("store", "status", "--json"), ("store", "migrate")):
        result = shared(*command)
        assert password not in result.out + result.err, command


def test_a_store_that_nobody_migrated_says_what_to_do(
    cli: Any, said: Any, night: Any, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.empty_database()
    monkeypatch.setenv("CAGG_STORE", url)
    result = cli("budget", "show")
    assert result.status == 2
    said(result)
    assert "cagg store migrate" in result.err
    assert cli("store", "migrate").status == 0
    assert cli("budget", "show").status in (0, 1)
    postgres.drop_database(url)
