"""Statuses, one-sentence errors, and what loading the command line costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMANDS = [
    ["init"],
    ["doctor"],
    ["zones"],
    ["forecast"],
    ["plan"],
    ["run"],
    ["meter"],
    ["budget", "set"],
    ["budget", "show"],
    ["ledger", "list"],
    ["ledger", "verify"],
    ["ledger", "key"],
    ["ledger", "checkpoint"],
    ["explain"],
    ["maintain"],
    ["store", "status"],
    ["store", "migrate"],
    ["demo"],
]


def test_the_version(cli: Any) -> None:
    import cagg

    assert cli("--version").out == f"cagg {cagg.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_takes_json(cli: Any, command: list[str]) -> None:
    result = cli(*command, "--help")
    assert result.status == 0
    assert "--json" in result.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_wrong_option_is_one_sentence(cli: Any, said: Any, command: list[str]) -> None:
    result = cli(*command, "--nonsense")
    assert result.status == 2
    assert "--nonsense" in result.err
    assert f"cagg {' '.join(command)} --help" in result.err
    said(result)


def test_a_wrong_command_is_one_sentence(cli: Any, said: Any) -> None:
    result = cli("budgets")
    assert result.status == 2
    assert "budgets" in result.err
    said(result)


@pytest.mark.parametrize("arguments", [["budget", "show", "no/such"], ["explain", "latest"], ["forecast", "nowhere"]])
def test_an_error_with_json_is_also_a_document(cli: Any, said: Any, arguments: list[str]) -> None:
    result = cli(*arguments, "--json")
    assert result.status == 2
    said(result)
    assert set(result.json) == {"error"}
    assert result.json["error"]["message"] in result.err


def test_no_arguments_show_the_help(cli: Any) -> None:
    result = cli()
    assert result.status == 2
    assert "Usage" in result.out + result.err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("zone = [1]\n", "zone"),
        ("sone = 'neso:GB'\n", "sone"),
        ("zone = 'neso:GB\n", "TOML"),
        ("[defaults]\nenergy = '5'\n", "energy"),
    ],
)
def test_an_unreadable_config_names_file_and_cause(cli: Any, said: Any, text: str, named: str) -> None:
    Path("cagg.toml").write_text(text, encoding="utf-8")
    result = cli("budget", "show")
    assert result.status == 2
    assert "cagg.toml" in result.err
    assert named in result.err
    said(result)


def test_an_interrupt_ends_with_130(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cagg.composition.compose", interrupt)
    result = cli("budget", "show")
    assert result.status == 130
    assert "Traceback" not in result.err


def test_what_the_system_refuses_is_one_sentence(cli: Any, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr("cagg.composition.compose", refuse)
    result = cli("budget", "show")
    assert result.status == 2
    assert "/secret" in result.err
    said(result)


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_python_dash_m(home: Path) -> None:
    done = _run("-m", "cagg", "budget", "show", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"budgets": [], "overrun": False}


def test_help_loads_nothing_heavy(home: Path) -> None:
    code = (
        "import sys\nfrom cagg.cli.__main__ import main\nmain(['--help'])\nheavy = {'alembic', 'cryptography', 'httpx', "
        "'numpy', 'pendulum', 'prefect', 'sqlalchemy', 'stamina'}\nprint(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    assert _run("-c", code).stderr.strip() == "[]"


def test_a_terminal_without_unicode_and_colour(home: Path) -> None:
    done = _run("-m", "cagg", "forecast", "climatology:GB", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert "# " in done.stdout or "#\n" in done.stdout


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m cagg zones | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""
