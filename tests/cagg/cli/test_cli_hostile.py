"""Closed and full streams, bytes that are no text, failures before a command starts: nothing breaks or hides."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(home: Path) -> Shell:
    """Run a shell line in which ``$C`` is the command line under test."""
    import cagg

    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(cagg.__file__).parents[1]),
        "C": f"{sys.executable} -m cagg",
        "CAGG_ZONE": "climatology:GB",
        "CAGG_GRID_STEERING": "climatology",
        "CAGG_GRID_ACCOUNTING": "climatology",
    }

    def run(line: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], env={**environment, **more}, capture_output=True, text=True, check=False, timeout=60
        )

    return run


# ---- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "streams"), [("", ">/dev/full 2>/dev/full"), ("--json", ">/dev/full 2>/dev/full"), ("", "<&- >&- 2>&-")]
)
def test_a_run_goes_on_when_nothing_can_be_said(shell: Shell, streams: str, option: str) -> None:
    result = shell(f"$C run {option} --name job -- sh -c 'touch ran; exit 7' {streams}")
    assert (result.returncode, result.stdout, result.stderr) == (7, "", "")
    assert Path("ran").exists()
    rows = json.loads(shell("$C ledger list --kind measurement --json").stdout)["entries"]
    assert [row["outcome"] for row in rows] == ["failed"]


def test_the_command_keeps_the_stream_that_refuses_us(shell: Shell) -> None:
    assert shell("$C run -- sh -c 'echo out || exit 4' >/dev/full").returncode == 4


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "status"), [("zones", 0), ("budget show --json", 0), ("--help", 0), ("nonsense", 2)]
)
def test_a_closed_stream_is_no_traceback(shell: Shell, command: str, status: int, streams: str) -> None:
    cut = shell(f"$C {command} {streams}")
    assert cut.returncode == status
    assert "Traceback" not in cut.stderr


@pytest.mark.parametrize("command", ["zones", "zones --json"])
def test_an_answer_that_cannot_be_written_is_none(shell: Shell, command: str) -> None:
    result = shell(f"$C {command} >/dev/full")
    assert result.returncode == 2
    assert (
        result.stderr == "cagg: the answer could not be written (No space left on device); send the output elsewhere.\n"
    )


@pytest.mark.parametrize("command", ["zones", "zones --json", "--help", "budget"])
def test_a_reader_that_leaves_at_once_changes_no_status(shell: Shell, command: str) -> None:
    result = shell(f"$C {command} | true; exit ${{PIPESTATUS[0]}}")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_missing_stream_is_not_taken_by_a_file(shell: Shell, home: Path) -> None:
    result = shell("$C run -- sh -c 'echo noise; echo noise >&2' >&- 2>&-")
    assert result.returncode == 0
    assert b"noise\n" not in (home / "cagg.db").read_bytes()


# ---- 125 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "options"),
    [
        ({"CAGG_METER_SOURCES": "bogus"}, []),
        ({"CAGG_ZONE": "nowhere:X"}, []),
        ({"CAGG_CONFIG": "/no/such/cagg.toml"}, []),
        ({}, ["--nonsense"]),
        ({}, ["--energy", "5"]),
        ({}, ["--name", ""]),
        ({}, ["--run-id", ""]),
    ],
)
def test_every_failure_before_the_command_refuses(
    cli: Any, said: Any, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], options: Sequence[str]
) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    result = cli("run", *options, "--json", "--", "touch", "ran")
    assert result.status == 125
    assert set(result.json) == {"error"}
    assert not Path("ran").exists()
    said(result)


def test_an_error_that_nobody_foresaw_refuses(cli: Any, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("cagg.gating.Gate.ask", fail)
    result = cli("run", "--", "touch", "ran")
    assert result.status == 125
    assert "surprise" in result.err
    assert "please report" in result.err
    assert not Path("ran").exists()
    said(result)


@pytest.mark.parametrize("kind", ["MeterUnavailable", "ZeroDivisionError"])
def test_a_meter_that_fails_to_open_refuses(cli: Any, night: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    import builtins

    import cagg.errors

    error = getattr(cagg.errors, kind, None) or getattr(builtins, kind)

    def fail(_: object) -> None:
        raise error("no meter here")

    monkeypatch.setattr("cagg.steps.running.GatedRun.__enter__", fail)
    result = cli("run", "--json", "--", "touch", "ran")
    assert result.status == 125
    assert result.json["exit"] == 125
    assert result.json["error"]["kind"] == kind
    assert "was not started" in result.err
    assert "no meter here" in result.err
    assert not Path("ran").exists()


@pytest.mark.parametrize("status", [0, 3])
def test_a_record_that_fails_leaves_the_commands_status(
    cli: Any, night: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the record broke")

    monkeypatch.setattr("cagg.steps.running.Settler.settle", fail)
    result = cli("run", "--", "sh", "-c", f"touch ran; exit {status}")
    assert result.status == status
    assert Path("ran").exists()
    assert "the record broke" in result.err
    assert "was not started" not in result.err


def test_a_script_without_its_interpreter(cli: Any, said: Any, tmp_path: Path) -> None:
    script = tmp_path / "job"
    script.write_text("#!/no/such/interpreter -x\n", encoding="utf-8")
    script.chmod(0o755)
    result = cli("run", "--", str(script))
    assert result.status == 126
    assert "'/no/such/interpreter'" in result.err
    said(result)
    script.write_text("echo hello\n", encoding="utf-8")
    result = cli("run", "--json", "--", str(script))
    assert result.status == 126
    assert result.json["error"]["kind"] == "CommandNotStarted"
    assert "'#!'" in result.err


def test_gates_inside_the_command_learn_whose_reservation_they_are_in(cli: Any, night: Path) -> None:
    assert "CAGG_ENCLOSING_REQUEST" not in os.environ
    told = cli("run", "--", "sh", "-c", "echo $CAGG_ENCLOSING_REQUEST").out.strip()
    assert "CAGG_ENCLOSING_REQUEST" not in os.environ
    (row,) = cli("ledger", "list", "--kind", "decision", "--json").json["entries"]
    story = cli("explain", row["entry_id"], "--json").json
    assert told == story["request"]["key"]
    assert story["request"]["encloses_run"] is True


def test_nothing_is_said_twice(cli: Any, home: Path, night: Path) -> None:
    home.mkdir()
    (home / "cagg.db").write_text("no database", encoding="utf-8")
    lines = cli("run", "--", "true").err.splitlines()
    plain = [line.removeprefix("cagg: ").removeprefix("note: ") for line in lines]
    assert len(plain) == len(set(plain))


# ---- bytes and amounts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (r"$C run --name $'\xff' -- true", 125),
        (r"$C run --budget $'a\xff' -- true", 125),
        (r"$C explain $'\xff'", 2),
        (r"$C explain --json $'\xff'", 2),
        (r"$C budget set $'\xff' '1 kg/month'", 2),
    ],
)
def test_bytes_that_are_no_text_are_refused(shell: Shell, line: str, status: int) -> None:
    result = shell(line, LC_ALL="C")
    assert result.returncode == status
    assert result.stderr.count("\n") == 1
    assert "UTF-8" in result.stderr


def test_a_command_may_hold_any_bytes(shell: Shell) -> None:
    result = shell(r"""cp "$(type -P true)" $'./t\xff' && $C run -- $'./t\xff' $'\xfe'""")
    assert result.returncode == 0, result.stderr
    rows = json.loads(shell("$C ledger list --kind decision --json").stdout)["entries"]
    assert [row["task"] for row in rows] == ["t\ufffd"]


def test_a_negative_amount_is_named(cli: Any, said: Any) -> None:
    result = cli("budget", "set", "a", "-5kg/month")
    assert result.status == 2
    assert "'-5kg/month' is negative" in result.err
    said(result)


@pytest.mark.parametrize("every", ["1ms", "0s", "999ms"])
def test_passes_keep_a_distance(cli: Any, said: Any, every: str) -> None:
    result = cli("maintain", "--every", every)
    assert result.status == 2
    assert "1s" in result.err or "longer than zero" in result.err
    said(result)


def test_a_plan_on_a_store_that_cannot_be_written(cli: Any, said: Any, night: Path, monkeypatch: Any) -> None:
    from contextlib import contextmanager

    from cagg.errors import StoreUnavailable

    cli("store", "migrate")

    @contextmanager
    def refuse(_: object) -> Any:
        raise StoreUnavailable("the store is read-only; make it writable.")
        yield

    monkeypatch.setattr("cagg.store.sqlite.SqliteStore.transaction", refuse)
    result = cli("plan", "--json")
    assert result.status == 2
    assert result.json["error"]["kind"] == "StoreUnavailable"
    said(result)


# ---- what others wrote ----------------------------------------------------------------------------------------------

STEERING = "job\x1b[2J\x1b]0;title\x07\x9b31m\u202e\x7f"


def test_no_terminal_obeys_a_name(cli: Any, night: Path) -> None:
    result = cli("run", "--energy", "1 kWh", "--name", STEERING, "--", "true")
    assert result.status == 0
    told = [
        result,
        cli("ledger", "list"),
        cli("explain", "latest"),
        cli("ledger", "export", "-f", "csv", "--kind", STEERING),
    ]
    assert "job\ufffd[2J" in told[1].out
    for one in told:
        assert not set(one.out + one.err) & set("\x1b\x07\x9b\u202e\x7f")
    row = cli("ledger", "list", "--json").json["entries"][0]
    assert row["task"] == STEERING, "machines get what was recorded"


def _rewritten(home: Path, kind: str, **changed: Any) -> None:
    """Change the bodies of a kind, as somebody can who writes to the store."""
    with sqlite3.connect(home / "cagg.db") as raw:
        for (trigger,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {trigger}")
        for row, body in raw.execute("SELECT rowid, body FROM cagg_entry WHERE kind = ?", (kind,)).fetchall():
            text = json.dumps({**json.loads(body), **changed}, sort_keys=True, separators=(",", ":"))
            raw.execute("UPDATE cagg_entry SET body = ? WHERE rowid = ?", (text.encode(), row))
    raw.close()


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("decision", {"request": "x"}),
        ("decision", {"request": {"zone": [3], "task_key": {"a": 1}}}),
        ("decision", {"verdict": 5}),
        ("measurement", {"energy_millijoules": "abc"}),
        ("measurement", {"start": 5, "components": 5}),
        ("measurement", {"software": {"versions": [5]}, "inputs": 3}),
    ],
)
def test_an_entry_in_no_known_form_stops_nothing_and_is_no_traceback(
    cli: Any, said: Any, home: Path, night: Path, kind: str, changed: dict[str, Any]
) -> None:
    assert cli("run", "--energy", "1 kWh", "--name", "job", "--", "true").status == 0
    _rewritten(home, kind, **changed)
    listed = cli("ledger", "list", "--json")
    assert (listed.status, len(listed.json["entries"])) == (0, 3)
    assert cli("ledger", "list").out.count("CHANGED AFTER IT WAS RECORDED") == 1
    told = cli("explain", "latest")
    assert told.status in (0, 2)
    if told.status:
        said(told)
        assert "cagg ledger verify" in told.err
    again = cli("explain", "latest", "--recompute")
    assert again.status in (0, 1, 2)
    assert "Traceback" not in again.err
    assert cli("maintain").status in (0, 1), "one hostile entry must not keep the others from being signed"
    with sqlite3.connect(home / "cagg.db") as raw:
        assert raw.execute("SELECT count(*) FROM cagg_checkpoint").fetchone() == (1,)
    raw.close()


def test_no_answer_takes_the_place_of_a_store_a_key_or_its_own_evidence(
    cli: Any, said: Any, home: Path, night: Path
) -> None:
    assert cli("run", "--energy", "1 kWh", "--name", "job", "--", "true").status == 0
    assert cli("maintain").status == 0
    kept, store, key = Path("kept.checkpoint"), home / "cagg.db", home / "keys" / "log.key"
    kept.write_text(cli("ledger", "checkpoint").out, encoding="utf-8")
    Path("link").symlink_to(store)
    before = [path.read_bytes() for path in (kept, store, key)]
    for command in (
        ["export", "-f", "csv", "-o", str(store)],
        ["export", "-f", "jsonl", "-o", "link"],
        ["prove", "0", "-o", str(key)],
        ["prove", "0", "--entry", str(key)],
        ["consistency", str(kept), "-o", str(kept)],
        ["prove", "0", "--entry", "same", "-o", "./same"],
    ):
        result = cli("ledger", *command)
        assert result.status == 2, command
        said(result)
    assert [path.read_bytes() for path in (kept, store, key)] == before
    assert not Path("same").exists()


def test_what_carries_a_signature_is_printed_byte_for_byte(shell: Shell) -> None:
    """An em dash that a terminal's encoding cannot say would spoil a checkpoint that somebody keeps for years."""
    shell("$C run --name job -- true && $C maintain")
    for command in ("checkpoint", "prove 0", "key"):
        plain = shell(f"$C ledger {command} | sha256sum")
        assert plain.stdout == shell(f"$C ledger {command} | sha256sum", PYTHONIOENCODING="ascii").stdout, command
