"""``cagg budget``."""

from __future__ import annotations

from typing import Any

import pytest


def test_a_new_budget_starts_in_observe_and_is_ledgered(cli: Any) -> None:
    result = cli("budget", "set", "acme/ml", "2 kg/month", "--json")
    assert result.status == 0
    assert result.json["created"] is True
    assert result.json["budget"] == {
        "path": "acme/ml",
        "unit": "carbon",
        "period": "month",
        "time_zone": "UTC",
        "limit": 2_000_000_000,
        "mode": "observe",
        "unknown_intensity_milligrams_per_kwh": None,
        "version": 1,
    }
    (entry,) = cli("ledger", "list", "--json").json["entries"]
    assert (entry["kind"], entry["budget_path"]) == ("budget", "acme/ml")


def test_what_is_not_said_stays(cli: Any) -> None:
    cli("budget", "set", "a", "2 kg/month", "--mode", "enforce", "--time-zone", "Europe/London")
    cli("budget", "set", "a", "2 kg/month", "--unknown-intensity", "500 g/kWh")
    budget = cli("budget", "set", "a", "3 kg/month", "--json").json["budget"]
    assert (budget["mode"], budget["time_zone"], budget["limit"]) == ("enforce", "Europe/London", 3_000_000_000)
    assert budget["unknown_intensity_milligrams_per_kwh"] == 500_000
    assert budget["version"] == 3
    assert (
        cli("budget", "set", "a", "3 kg/month", "--unknown-intensity", "deny", "--json").json["budget"][
            "unknown_intensity_milligrams_per_kwh"
        ]
        is None
    )


def test_setting_the_same_again_leaves_no_entry(cli: Any) -> None:
    cli("budget", "set", "a", "2 kg/month")
    assert cli("budget", "set", "a", "2 kg/month", "--json").json["changed"] is False
    assert len(cli("ledger", "list", "--json").json["entries"]) == 1


def test_budgets_of_several_units_and_periods_on_one_path(cli: Any) -> None:
    for limit in ("2 kg/month", "100 g/day", "30 kWh/month", "0 g/week"):
        assert cli("budget", "set", "a", limit).status == 0
    rows = cli("budget", "show", "a", "--json").json["budgets"]
    assert sorted((row["unit"], row["period"], row["limit"]) for row in rows) == [
        ("carbon", "day", 100_000_000),
        ("carbon", "month", 2_000_000_000),
        ("carbon", "week", 0),
        ("energy", "month", 108_000_000_000),
    ]
    assert len(cli("ledger", "list", "--json").json["entries"]) == 4


def test_the_period_may_be_an_option(cli: Any, said: Any) -> None:
    assert cli("budget", "set", "a", "2 kg", "--period", "week", "--json").json["budget"]["period"] == "week"
    twice = cli("budget", "set", "a", "2 kg/month", "--period", "week")
    assert twice.status == 2
    said(twice)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a", "2 kg"], "period"),
        (["a", "2/month"], "unit"),
        (["--", "a", "-2 kg/month"], "negative"),
        (["a", "2 stone/month"], "stone"),
        (["a", "2 kg/fortnight"], "fortnight"),
        (["a//b", "2 kg/month"], "a//b"),
        (["a", "2 kg/month", "--mode", "strict"], "strict"),
        (["a", "2 kg/month", "--time-zone", "Mars/Base"], "Mars/Base"),
        (["a", "2 kg/month", "--unknown-intensity", "500"], "500"),
        (["a", "nan kg/month"], "nan"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(cli: Any, said: Any, arguments: list[str], named: str) -> None:
    result = cli("budget", "set", *arguments)
    assert result.status == 2
    assert named in result.err
    said(result)
    assert cli("budget", "show", "--json").json["budgets"] == []


def test_the_tree_shows_what_was_held_and_spent(cli: Any, night: Any) -> None:
    cli("budget", "set", "acme", "5 kg/month")
    cli("budget", "set", "acme/ml", "1 kg/month", "--mode", "enforce")
    assert cli("run", "--budget", "acme/ml", "--energy", "1 kWh", "--", "true").status == 0
    parent, child = cli("budget", "show", "--json").json["budgets"]
    assert (parent["path"], child["path"]) == ("acme", "acme/ml")
    assert parent["spent"] == child["spent"] > 0
    assert parent["held"] == child["held"] == 0
    assert child["available"] == child["limit"] - child["spent"]
    text = cli("budget", "show").out
    for word in ("acme/ml", "enforce", "observe", "spent", "held", "left"):
        assert word in text
    assert [row["path"] for row in cli("budget", "show", "acme/ml", "--json").json["budgets"]] == ["acme/ml"]


def test_an_overrun_shows_and_answers_no(cli: Any, night: Any) -> None:
    cli("budget", "set", "a", "0 g/month", "--mode", "enforce")
    assert cli("run", "--budget", "a", "--", "true").status == 125
    assert cli("run", "--budget", "a", "--purpose", "monitor", "--energy", "1 kWh", "--", "true").status == 0
    result = cli("budget", "show", "--json")
    assert result.status == 1
    assert result.json["overrun"] is True
    assert "overrun" in cli("budget", "show").out


def test_a_path_that_nobody_created(cli: Any, said: Any) -> None:
    result = cli("budget", "show", "acme")
    assert result.status == 2
    assert "budget set acme" in result.err
    said(result)


@pytest.mark.parametrize(
    ("limit", "unit"), [("100 gpu-h/month", "gpu_time"), ("2M tokens/month", "tokens"), ("50 EUR/month", "money")]
)
@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_a_unit_that_no_meter_feeds_is_refused(cli: Any, said: Any, limit: str, unit: str, mode: str) -> None:
    result = cli("budget", "set", "a", limit, "--mode", mode)
    assert result.status == 2
    assert unit in result.err
    assert "this version counts carbon and energy" in result.err
    said(result)
    assert cli("budget", "show", "--json").json["budgets"] == []


def test_a_limit_below_what_is_committed_says_so(cli: Any, night: Any) -> None:
    assert cli("budget", "set", "a", "5 kg/month", "--mode", "enforce", "--json").json["above_limit"] == []
    assert cli("run", "--budget", "a", "--energy", "1 kWh", "--", "true").status == 0
    (spent,) = {row["spent"] for row in cli("budget", "show", "a", "--json").json["budgets"]}
    assert spent > 0
    text = cli("budget", "set", "a", "0 kg/month").out
    assert "above the limit already; nothing more is admitted" in " ".join(text.split())
    (above,) = cli("budget", "set", "a", "0 kg/month", "--json").json["above_limit"]
    assert (above["spent"], above["held"], above["above"], above["limit"]) == (spent, 0, spent, 0)
    watched = cli("budget", "set", "a", "0 kg/month", "--mode", "observe").out
    assert "what runs from here on is overrun" in " ".join(watched.split())
    assert "above the limit" not in cli("budget", "set", "a", "5 kg/month").out
