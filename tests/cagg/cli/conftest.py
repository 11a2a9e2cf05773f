"""The command line as a person meets it: an empty home, a folder to stand in, a clock that stands still."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.testing import ManualClock

START = datetime(2026, 1, 5, 22, 0, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The clock of everything that a command puts together: 22:00 on a Monday."""
    standing = ManualClock(START)
    monkeypatch.setattr("cagg.composition.SystemClock", lambda: standing)
    return standing


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in an empty working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path, clock: ManualClock, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process and return status, stdout and stderr (the command's own children included)."""
    from cagg.cli.__main__ import main

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        status = main(arguments)
        out, err = capfd.readouterr()
        return Result(status=status, out=out, err=err)

    return run


@pytest.fixture
def night(home: Path) -> Path:
    """Settings with an hourly forecast that is clean at 03:00 UTC, and dirty in the evening."""
    rows = ["# name: test", "# basis: direct", "# gas: co2", "# kind: forecast", "start,g_per_kwh"]
    for hour in range(48):
        at = START.replace(hour=0) + timedelta(hours=hour)
        value = 100 if at.hour == 3 else 300 if at.hour >= 18 else 200
        rows.append(f"{at.isoformat()},{value}")
    Path("trace.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    config = Path("cagg.toml")
    config.write_text(
        'zone = "trace:test"\ntimezone = "UTC"\n[grid]\nplanning_intensity = "300 g/kWh"\n'
        '[grid.trace]\nfile = "trace.csv"\n',
        encoding="utf-8",
    )
    return config


def one_sentence(result: Result) -> None:
    """Assert that an error is one line on stderr without a traceback."""
    lines: Sequence[str] = [line for line in result.err.splitlines() if line.strip()]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("cagg: ")
    assert "Traceback" not in result.err


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(home: Path) -> Start:
    """Start ``cagg`` as a process of its own, with the packages under test."""
    import cagg

    environment = {**os.environ, "PYTHONPATH": str(Path(cagg.__file__).parents[1])}

    def begin(*arguments: str, code: str | None = None, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *(("-c", code) if code else ("-m", "cagg")), *arguments],
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_as_in_a_terminal,  # noqa: PLW1509 - it only sets signal dispositions
        )

    return begin


def _as_in_a_terminal() -> None:
    """A test run that was started in the background hands ignored signals on; the command must not inherit them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def said() -> Callable[[Result], None]:
    """The check that an error is one sentence."""
    return one_sentence
