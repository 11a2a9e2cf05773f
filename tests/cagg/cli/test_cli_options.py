"""The gate's options on the command line are GateOptions."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from cagg.cli._options import GATE_HELP
from cagg.request import GateOptions


def test_every_field_has_an_option_and_nothing_else_does() -> None:
    assert list(GATE_HELP) == [item.name for item in fields(GateOptions)]


@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_help_names_all_of_them(cli: Any, command: str) -> None:
    text = cli(command, "--help").out
    assert [name for name in GATE_HELP if f"--{name.replace('_', '-')[:12]}" not in text] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--energy", "5"], "energy '5'"),
        (["--energy", "-5 kWh"], "negative"),
        (["--energy", "nan kWh"], "energy"),
        (["--duration", "30"], "duration '30'"),
        (["--energy", "1 kWh", "--power", "1 kW"], "energy and power"),
        (["--finish-by", "2026-01-06T06:00"], "offset"),
        (["--finish-by", "2020-01-06T06:00Z"], "ago"),
        (["--finish-by", "06:00", "--max-wait", "2h"], "finish_by and max_wait"),
        (["--finish-by", "06:00"], "timezone"),
        (["--zone", "nowhere"], "nowhere"),
        (["--budget", "/a"], "'/a'"),
        (["--kind", "walk"], "walk"),
        (["--min-difference", "120%"], "120%"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_sentence(cli: Any, said: Any, arguments: list[str], named: str) -> None:
    for command, status in ((["plan", *arguments], 2), (["run", *arguments, "--", "true"], 125)):
        result = cli(*command)
        assert result.status == status, result
        assert named in result.err
        said(result)


def test_they_reach_the_ledger(cli: Any, night: Any) -> None:
    cli(
        *(
            "run",
            "--energy",
            "1 kWh",
            "--duration",
            "1h",
            "--kind",
            "training",
            "--purpose",
            "monitor",
            "--risk",
            "high",
        ),
        *("--work-item", "issue 7", "--min-difference", "10%", "--interruptible", "--name", "named", "--", "true"),
    )
    entries = cli("explain", "latest", "--json").json["entries"]
    options = entries[0]["body"]["options"]
    assert options["energy_millijoules"] == "3600000000"
    assert options["duration_ms"] == 3_600_000
    assert options["interruptible"] is True
    assert options["min_difference_ppm"] == 100_000
    request = entries[0]["body"]["request"]
    assert (request["kind"], request["purpose"], request["risk"]) == ("training", "monitor", "high")
    assert (request["work_item"], request["task_key"], request["host"]) == ("issue 7", "named", "shell")
