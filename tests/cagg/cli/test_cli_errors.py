"""Statuses, one-sentence errors, and what loading the command line costs."""

from __future__ import annotations

import json
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
    ["ledger", "export"],
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
    assert result.status == (125 if command == ["run"] else 2)
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


@pytest.mark.parametrize("arguments", [[], ["budget"], ["ledger"], ["store"]])
def test_no_command_shows_what_there_is(cli: Any, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.status == 0
    assert "Usage" in result.out
    assert result.err == ""


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


def test_python_dash_m(start: Any) -> None:
    process = start("budget", "show", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out) == {"budgets": [], "overrun": False}


def test_help_loads_nothing_heavy(start: Any) -> None:
    code = (
        "import sys\nfrom cagg.cli.__main__ import main\nmain(['--help'])\n"
        "heavy = {'alembic', 'cryptography', 'httpx', 'numpy', 'pendulum', 'prefect', 'sqlalchemy', 'stamina'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    assert start(code=code).communicate()[1].strip() == "[]"


def test_a_terminal_without_unicode_and_colour(start: Any) -> None:
    process = start("forecast", "climatology:GB", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.isascii()
    assert "\x1b" not in out
    assert "#####" in out


def test_a_reader_that_leaves_is_no_error(start: Any) -> None:
    process = start("zones")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
