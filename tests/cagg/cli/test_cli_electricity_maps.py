"""Electricity Maps on the command line: zones, doctor, forecast, maintain; the token is never printed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.composition import compose
from cagg.testing import ManualClock
from cagg.testing.electricity_maps import ElectricityMapsDouble, electricity_maps_server

TOKEN = "cl1-token-0123456789"


@pytest.fixture
def service(clock: ManualClock, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ElectricityMapsDouble]:
    """The service on loopback, and settings that lead to it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with electricity_maps_server(clock, token=TOKEN, zones=("DE",)) as double:
        monkeypatch.setenv("CAGG_GRID_ELECTRICITY_MAPS_URL", double.url)
        monkeypatch.setenv("CAGG_GRID_ELECTRICITY_MAPS_TOKEN", TOKEN)
        monkeypatch.setenv("CAGG_ZONE", "DE")
        yield double


def test_zones_are_found_by_code_name_and_cloud_region(cli: Any) -> None:
    assert [row["zone"] for row in cli("zones", "bonneville", "--json").json["zones"]] == [
        "electricity_maps:US-NW-BPAT"
    ]
    found = cli("zones", "aws:eu-west-2", "--json").json["zones"]
    assert {row["zone"] for row in found} == {"neso:GB", "climatology:GB", "yearly:GBR", "electricity_maps:GB"}
    assert all("aws:eu-west-2" in row["regions"] for row in found)
    assert cli("zones", "US-", "--provider", "electricity_maps").out.count("electricity_maps:US-") > 50


def test_doctor_never_shows_the_token_and_asks_with_it(cli: Any, service: ElectricityMapsDouble) -> None:
    for arguments in (("doctor",), ("doctor", "--json"), ("doctor", "--online", "--json")):
        result = cli(*arguments)
        assert result.status == 0, result.out
        assert TOKEN not in result.out + result.err
    assert "answered: live, electricity_maps" in result.out
    assert service.count("forecast") == 1
    row = next(item for item in result.json["settings"] if item["key"] == "grid.electricity_maps.token")
    assert row == {
        "key": "grid.electricity_maps.token",
        "value": "***",
        "origin": "environment (CAGG_GRID_ELECTRICITY_MAPS_TOKEN)",
    }


def test_doctor_says_what_to_set_where_a_token_would_help(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_ZONE", "DE")
    assert "set grid.electricity_maps.token" in " ".join(cli("doctor").out.split())
    monkeypatch.setenv("CAGG_ZONE", "electricity_maps:DE")
    assert "electricity_maps needs a token" in " ".join(cli("doctor").out.split())


def test_doctor_names_a_bad_token_without_showing_it(
    cli: Any, service: ElectricityMapsDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAGG_GRID_ELECTRICITY_MAPS_TOKEN", "another-token-42")
    result = cli("doctor", "--online")
    assert result.status == 1
    assert "does not accept the token" in " ".join(result.out.split())
    assert "another-token-42" not in result.out + result.err


def test_a_run_is_planned_and_priced_by_the_forecast(cli: Any, service: ElectricityMapsDouble, home: Path) -> None:
    result = cli("run", "--duration", "10m", "--energy", "1 Wh", "--json", "--", "true")
    assert result.status == 0, result.err
    explained = cli("explain", "latest").out
    assert "electricity_maps" in explained
    assert service.count("forecast") == 1
    assert TOKEN.encode() not in (home / "cagg.db").read_bytes()


def test_maintain_fetches_the_past_where_the_plan_has_no_forecast(
    cli: Any, service: ElectricityMapsDouble, clock: ManualClock
) -> None:
    service.plan = frozenset({"latest", "history"})
    assert cli("run", "--duration", "10m", "--energy", "1 Wh", "--", "true").status == 0
    report = cli("maintain", "--json")
    assert report.status == 0
    assert report.json["forecasts"] == 1
    assert any("not in the plan" in note for note in report.json["notes"])
    parts = compose(clock=clock)
    now = clock.now()
    with parts.store.snapshot() as tx:
        (row,) = tx.forecasts("electricity_maps", "electricity_maps:DE", now - timedelta(hours=1))
    assert row.start == now - timedelta(hours=23)
    assert row.end == now + timedelta(hours=1)
    parts.store.close()
    asked = service.count("history")
    cli("maintain")
    assert service.count("history") == asked
