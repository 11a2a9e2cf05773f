"""``cagg plan`` and ``cagg forecast``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

JOB = ("--energy", "2 kWh", "--duration", "1h", "--finish-by", "06:00")


def test_a_plan_compares_now_with_the_chosen_window(cli: Any, night: Path) -> None:
    result = cli("plan", *JOB, "--json")
    assert result.status == 0
    plan = result.json
    assert plan["recorded"] is False
    assert plan["verdict"]["verdict"] == "defer"
    assert plan["now"] == {
        "start": "2026-01-05T22:00:00.000000Z",
        "intensity_milligrams_per_kwh": 300_000,
        "carbon_micrograms": 600_000_000,
    }
    assert plan["chosen"] == {
        "start": "2026-01-06T03:00:00.000000Z",
        "intensity_milligrams_per_kwh": 100_000,
        "carbon_micrograms": 200_000_000,
    }
    assert plan["expected_difference_micrograms"] == 400_000_000
    assert plan["deadline"] == "2026-01-06T06:00:00.000000Z"
    assert plan["estimate"]["method"] == "declared"
    text = cli("plan", *JOB).out
    for word in ("2026-01-06 03:00", "300 g/kWh", "100 g/kWh", "400 g less", "67 %", "declared", "trace"):
        assert word in text


def test_a_plan_records_and_creates_nothing(cli: Any, night: Path, home: Path) -> None:
    cli("plan", *JOB)
    assert not home.exists()
    cli("budget", "set", "a", "5 kg/month", "--mode", "enforce")
    assert cli("plan", *JOB, "--budget", "a").status == 0
    assert len(cli("ledger", "list", "--json").json["entries"]) == 1
    assert cli("budget", "show", "a", "--json").json["budgets"][0]["held"] == 0


def test_a_plan_that_would_be_denied_answers_no(cli: Any, night: Path) -> None:
    cli("budget", "set", "a", "10 g/month", "--mode", "enforce")
    result = cli("plan", *JOB, "--budget", "a", "--json")
    assert result.status == 1
    assert result.json["verdict"]["reason"] == "budget_exceeded"
    assert cli("plan", *JOB, "--budget", "b").status == 1


def test_a_plan_says_that_the_mode_is_off(cli: Any, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_MODE", "off")
    result = cli("plan", *JOB)
    assert result.status == 0
    assert "mode is off" in result.out


def test_a_plan_uses_the_history_of_a_task(cli: Any, night: Path) -> None:
    for _ in range(3):
        cli("run", "--name", "job", "--", "true")
    assert cli("plan", "--name", "job", "--json").json["estimate"]["sample_size"] == 3


def test_a_plan_without_a_store_that_works(cli: Any, said: Any, night: Path, home: Path) -> None:
    home.mkdir()
    (home / "cagg.db").write_text("no database", encoding="utf-8")
    result = cli("plan", *JOB)
    assert result.status == 2
    said(result)
    assert not (home / "spool").exists()


# ---- forecast -----------------------------------------------------------------------------------------------------


def test_the_forecast_marks_the_best_window(cli: Any, night: Path) -> None:
    result = cli("forecast", "--duration", "1h", "--hours", "8", "--json")
    assert result.status == 0
    document = result.json
    assert document["zone"] == document["source_zone"] == "trace:test"
    assert document["best"]["start"] == "2026-01-06T03:00:00.000000Z"
    assert document["best"]["intensity_milligrams_per_kwh"] == 100_000
    assert document["best"]["now_intensity_milligrams_per_kwh"] == 300_000
    assert document["convention"] == {"signal": "average", "basis": "direct", "gas": "co2"}
    assert len(document["points"]) == 8
    text = cli("forecast", "--duration", "1h", "--hours", "8").out
    marked = [line for line in text.splitlines() if "best" in line and "g/kWh" not in line]
    assert [line.split()[0] for line in marked] == ["03:00", "03:30"]
    assert "67 % less than a start now" in text


def test_the_forecast_says_where_it_is_from(cli: Any, night: Path) -> None:
    text = cli("forecast", "climatology:DE").out
    for word in ("climatology 2022", "quality climatology", "ODbL-1.0", "Electricity Maps", "vintage", "co2e"):
        assert word in text


@pytest.mark.parametrize("hours", [1, 2, 24, 72])
def test_the_chart_fits_80_columns(cli: Any, night: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = cli("forecast", "climatology:DE", "--hours", str(hours), "--duration", "30m")
    assert result.status == 0
    assert max(len(line) for line in result.out.splitlines()) <= 80
    assert len(result.out.splitlines()) < 40


def test_a_flat_or_yearly_zone_still_draws(cli: Any, night: Path) -> None:
    result = cli("forecast", "yearly:NOR")
    assert result.status == 0
    assert "now is best" in result.out


def test_a_forecast_of_nothing_cannot_be_given(cli: Any, night: Path) -> None:
    night.write_text(night.read_text(encoding="utf-8") + 'anchor = "2020-01-01T00:00:00Z"\n', encoding="utf-8")
    result = cli("forecast", "--json")
    assert result.status == 2
    assert result.json["quality"] == "none"
    assert result.json["steps"]


@pytest.mark.parametrize("arguments", [["--duration", "25h"], ["--duration", "soon"], ["--hours", "0"]])
def test_a_forecast_that_cannot_be_asked_for(cli: Any, said: Any, night: Path, arguments: list[str]) -> None:
    result = cli("forecast", *arguments)
    assert result.status == 2
    said(result)


def test_a_forecast_needs_a_zone(cli: Any, said: Any) -> None:
    result = cli("forecast")
    assert result.status == 2
    assert "cagg init" in result.err
    said(result)


def test_zones_are_found_by_code_and_name(cli: Any, night: Path) -> None:
    found = [row["zone"] for row in cli("zones", "germany", "--json").json["zones"]]
    assert found == ["climatology:DE", "yearly:DEU", "electricity_maps:DE"]
    assert [row["zone"] for row in cli("zones", "--provider", "trace", "--json").json["zones"]] == ["trace:test"]
    assert cli("zones", "atlantis").status == 1
    assert "neso:GB" in cli("zones", "great britain").out
