"""Runs the code blocks of a Markdown page as a reader would: in order, in one folder, in the installed environment.

A block is run by its language: ``python`` by the interpreter, ``sh``, ``bash``, ``shell`` and ``console`` by bash
with ``-eu``; ``toml`` and ``json`` are parsed; other languages are for reading. A first line that names a file
(``# nightly.py``, ``# cagg.toml``) also saves the block under that name. A comment right above a block changes this:

    <!-- not run: reason -->     the block is only shown
    <!-- exit 1 -->              the block must end with this status
    <!-- airflow -->             the block is run in the Airflow environment, and no other block is run there
    <!-- airflow, saved -->      as above, but the block is only saved: a later one runs it

Everything else belongs to the Prefect environment. An example folder belongs to the engine at the end of its name.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = "airflow" if importlib.util.find_spec("airflow") else "prefect"
"""Which engine this environment has."""
SHELLS = {"sh", "bash", "shell", "console"}
_FENCE = re.compile(
    r"^(?P<indent>\s*)```(?P<language>[\w-]*)[^\n`]*\n(?P<code>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)
_NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>(?:(?!-->).){10,}?)\s*-->\s*$", re.DOTALL)
_AIRFLOW = re.compile(r"<!--\s*airflow(?P<saved>, saved)?\s*-->\s*$")
_STATUS = re.compile(r"<!--\s*exit (?P<status>\d+)\s*-->\s*$")
_FILE = re.compile(r"^(?:#|//)\s*(?P<name>[\w./-]+\.(?:py|toml|json|sh))\s*$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block."""

    language: str
    code: str
    line: int
    status: int
    shown_only: str
    engine: str
    saved_only: bool

    @property
    def file(self) -> str | None:
        """Name under which the block is saved; None for a block without one."""
        match = _FILE.match(self.code.split("\n", 1)[0])
        return match["name"] if match else None


def blocks_of(text: str) -> list[Block]:
    """Return a page's fenced blocks in order."""
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip(" ")
        reason, status, airflow = _NOT_RUN.search(before), _STATUS.search(before), _AIRFLOW.search(before)
        indent = len(match["indent"])
        found.append(
            Block(
                language=match["language"].lower(),
                code="".join(line[indent:] or "\n" for line in match["code"].splitlines(keepends=True)),
                line=text.count("\n", 0, match.start()) + 1,
                status=int(status["status"]) if status else 0,
                shown_only=reason["reason"] if reason else "",
                engine="airflow" if airflow else "prefect",
                saved_only=bool(airflow and airflow["saved"]),
            )
        )
    return found


def environment(home: Path) -> dict[str, str]:
    """Return a newcomer's environment: an empty home, the environment's commands, no way out to the network."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    nowhere = "http://127.0.0.1:9"  # the discard port: refused at once, so grid sources fall back without waiting
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "HOME": str(home),
        "CAGG_HOME": str(home / ".cagg"),
        "PREFECT_HOME": str(home / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "DO_NOT_TRACK": "1",
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "ALL_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONUTF8": "1",
        "COLUMNS": "120",
    }


def run_blocks(page: Path, folder: Path, home: Path, *, engine: str = ENGINE) -> int:
    """Run an engine's blocks of a page in ``folder``; return how many ran.

    A failure names the page, the line and the output.
    """
    ran = 0
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.shown_only or block.engine != engine:
            continue
        if block.file is not None:
            target = folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.code, encoding="utf-8")
        if block.saved_only:
            continue
        if block.language == "toml":
            tomllib.loads(block.code)
        elif block.language == "json":
            json.loads(block.code)
        elif block.language == "python":
            script = folder / (block.file or f".block_{block.line}.py")
            script.write_text(block.code, encoding="utf-8")
            _expect(block, page, [sys.executable, str(script)], folder, home)
        elif block.language in SHELLS:
            code = re.sub(r"^\$ ", "", block.code, flags=re.MULTILINE)
            _expect(block, page, ["bash", "-euo", "pipefail", "-c", code], folder, home)
        else:
            continue
        ran += 1
    return ran


def _expect(block: Block, page: Path, command: list[str], folder: Path, home: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment(home), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == block.status, (
        f"{page.relative_to(ROOT)}:{block.line} ended with {done.returncode}, not {block.status}\n"
        f"{block.code}\n--- stdout\n{done.stdout[-4000:]}\n--- stderr\n{done.stderr[-4000:]}"
    )


@pytest.fixture
def run_page(tmp_path: Path) -> Callable[..., int]:
    """Run a page's blocks in a folder, with a home of their own."""
    home = tmp_path / "home"
    home.mkdir()

    def run(page: Path, folder: Path, *, engine: str = ENGINE) -> int:
        return run_blocks(page, folder, home, engine=engine)

    return run


@pytest.fixture
def parse_page() -> Callable[[str], list[Block]]:
    """The parser, for its own tests."""
    return blocks_of


@pytest.fixture
def newcomer(tmp_path: Path) -> dict[str, str]:
    """A newcomer's environment with an empty home."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return environment(home)
