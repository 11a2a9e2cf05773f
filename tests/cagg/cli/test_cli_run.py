"""``cagg run -- CMD`` and ``cagg meter -- CMD``."""

from __future__ import annotations

import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

JOB = ("--energy", "2 kWh", "--duration", "1h", "--finish-by", "06:00")


@pytest.mark.parametrize("status", [0, 1, 2, 7, 125, 255])
@pytest.mark.parametrize("command", ["run", "meter"])
def test_the_commands_own_status_is_passed_through(cli: Any, command: str, status: int) -> None:
    assert cli(command, "--", "sh", "-c", f"exit {status}").status == status


@pytest.mark.parametrize("command", ["run", "meter"])
def test_a_command_that_a_signal_ended(cli: Any, command: str) -> None:
    assert cli(command, "--", "sh", "-c", "kill -9 $$").status == 128 + 9


@pytest.mark.parametrize("command", ["run", "meter"])
def test_a_command_that_cannot_be_started(cli: Any, said: Any, command: str, tmp_path: Path) -> None:
    missing = cli(command, "--", "no-such-program")
    assert missing.status == 127
    said(missing)
    plain = tmp_path / "notes.txt"
    plain.write_text("hello", encoding="utf-8")
    refused = cli(command, "--json", "--", str(plain))
    assert refused.status == 126
    said(refused)
    assert set(refused.json) == {"error"}
    assert cli("ledger", "list", "--json").json["entries"] == []


def test_what_follows_the_command_belongs_to_it(cli: Any) -> None:
    assert cli("run", "--", sys.executable, "-c", "import sys; print(sys.argv[1:])", "--json", "--zone").out == (
        "['--json', '--zone']\n"
    )
    assert cli("run", "echo", "--zone", "x").out == "--zone x\n"


def test_its_output_and_its_failure_are_recorded(cli: Any, night: Path) -> None:
    result = cli("run", "--name", "job", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert result.out == "out\n"
    assert "err\n" in result.err
    assert "grade" in result.err
    rows = cli("ledger", "list", "--kind", "measurement", "--json").json["entries"]
    assert [(row["task"], row["outcome"]) for row in rows] == [("job", "failed")]


def test_with_json_stdout_holds_one_document(cli: Any, night: Path) -> None:
    result = cli("run", "--json", "--energy", "1 kWh", "--", "sh", "-c", "echo out; exit 3")
    assert result.status == 3
    assert "out\n" in result.err
    document = result.json
    assert document["exit"] == 3
    assert document["decision"]["verdict"]["verdict"] == "admit"
    run = document["run"]
    assert run["low_millijoules"] <= run["energy_millijoules"] <= run["high_millijoules"]
    assert run["grade"] in "ABCD"
    assert cli("explain", run["measurement_id"], "--json").status == 0


def test_the_processes_of_the_command_are_metered(cli: Any, night: Path) -> None:
    work = "x = 0\nfor i in range(6_000_000): x += i"
    idle = cli("meter", "--json", "--", "true").json
    busy = cli("meter", "--json", "--", "sh", "-c", f"{sys.executable} -c '{work}'; true").json
    assert busy["cpu_milliseconds"] is None or busy["cpu_milliseconds"] > 50 + (idle["cpu_milliseconds"] or 0)
    assert {item["domain"] for item in busy["components"]} >= {"cpu"}


def test_a_refusal_runs_nothing(cli: Any, said: Any, night: Path) -> None:
    cli("budget", "set", "a", "1 g/month", "--mode", "enforce")
    result = cli("run", "--budget", "a", "--energy", "1 kWh", "--", "touch", "ran")
    assert result.status == 125
    assert "Budget a" in result.err
    assert not Path("ran").exists()
    as_json = cli("run", "--budget", "a", "--energy", "1 kWh", "--json", "--", "touch", "ran")
    assert (as_json.status, as_json.json["exit"]) == (125, 125)
    assert as_json.json["decision"]["verdict"]["reason"] == "budget_exceeded"
    said(result)


def test_it_waits_for_its_window(cli: Any, night: Path, clock: Any) -> None:
    cli("budget", "set", "a", "5 kg/month", "--mode", "enforce")
    result = cli("run", *JOB, "--budget", "a", "--name", "nightly", "--", "echo", "done")
    assert result.status == 0
    assert result.out == "done\n"
    assert clock.now() >= datetime(2026, 1, 6, 3, 0, tzinfo=UTC)
    assert "2026-01-06 03:00" in result.err
    assert "400 g less by the forecast" in result.err
    assert "waiting, starts in 5 h 00 min" in result.err
    story = cli("explain", "latest", "--json").json
    kinds = [item["kind"] for item in story["entries"]]
    assert kinds == ["decision", "decision", "measurement", "settlement"]
    assert cli("budget", "show", "a", "--json").json["budgets"][0]["held"] == 0


def test_names_hold_no_arguments(cli: Any, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("pass", encoding="utf-8")
    cli("run", "--", sys.executable, str(script), "--token", "hunter2")
    cli("run", "--", sys.executable, "-c", "pass", "hunter2")
    cli("run", "--", "true", "hunter2")
    entries = cli("ledger", "list", "--kind", "decision", "--json").json["entries"]
    assert [row["task"] for row in entries] == ["true", Path(sys.executable).name, "train.py"]
    for row in entries:
        assert "hunter2" not in cli("explain", row["entry_id"], "--json").out


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_reach_the_command(start: Any, name: str) -> None:
    script = "trap 'echo cleaned; exit 9' TERM INT HUP; echo up; while :; do sleep 0.02; done"
    process = start("run", "--", "sh", "-c", script)
    assert process.stdout.readline() == "up\n"
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("cleaned\n", 9)
    assert "recorded as" in err
    assert "Traceback" not in err


def test_a_signal_while_it_waits_gives_the_place_back(start: Any, night: Path) -> None:
    now = datetime.now(UTC)
    rows = ["start,g_per_kwh"] + [
        f"{(now + timedelta(hours=hour - 1)).isoformat()},{100 if hour == 4 else 300}" for hour in range(12)
    ]
    Path("trace.csv").write_text("# name: test\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert start("budget", "set", "a", "5 kg/month", "--mode", "enforce").wait() == 0
    process = start(
        "run", "--energy", "2 kWh", "--duration", "1h", "--max-wait", "8h", "--budget", "a", "--", "touch", "ran"
    )
    for line in process.stderr:
        if "waiting" in line:
            break
    assert '"held": 0' not in start("budget", "show", "a", "--json").communicate()[0]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "nothing was charged" in err
    assert "Traceback" not in err
    assert not Path("ran").exists()
    assert '"held": 0' in start("budget", "show", "a", "--json").communicate()[0]


def test_mode_off_asks_and_meters_nothing_but_is_journalled(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_MODE", "off")
    assert cli("run", "--", "sh", "-c", "exit 4").status == 4
    rows = cli("ledger", "list", "--json").json["entries"]
    assert [row["kind"] for row in rows] == ["override"]


def test_a_store_that_is_down(cli: Any, home: Path, night: Path) -> None:
    home.mkdir()
    (home / "cagg.db").write_text("no database", encoding="utf-8")
    result = cli("run", "--", "sh", "-c", "exit 6")
    assert result.status == 6
    assert "Traceback" not in result.err
    assert list((home / "spool").glob("*.json"))
    assert cli("run", "--budget", "a", "--", "true").status == 125
    (home / "cagg.db").unlink()
    assert cli("maintain").status in (0, 1)
    assert not list((home / "spool").glob("*.json"))


def test_there_must_be_a_command(cli: Any, said: Any) -> None:
    for arguments in (["run"], ["run", "--"], ["meter"], ["run", "--", ""]):
        result = cli(*arguments)
        assert result.status == (2 if arguments[0] == "meter" else 125)
        said(result)
