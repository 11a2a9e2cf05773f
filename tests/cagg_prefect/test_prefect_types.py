"""Types survive the decorator, for mypy and for pyright."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import cagg
import cagg_prefect

_FILE = Path(__file__).with_name("typing_api.py")


def _paths() -> list[str]:
    """Folders that hold the packages; none when they are installed, where type checkers find them by themselves."""
    folders = [Path(package.__file__ or "").parents[1] for package in (cagg, cagg_prefect)]
    return list(dict.fromkeys(str(folder) for folder in folders if folder.name != "site-packages"))


def _check(folder: Path, *command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_accepts_the_right_and_rejects_the_wrong(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed here; `make test` installs it")
    config = tmp_path / "mypy.ini"
    # warn_unused_ignores makes every line of `wrong()` an error if it were accepted
    lines = ["[mypy]", "warn_unused_ignores = True", "follow_imports = silent"]
    if _paths():
        lines.append(f"mypy_path = {':'.join(_paths())}")
    config.write_text("\n".join(lines) + "\n")
    _check(tmp_path, "mypy", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache"), str(_FILE))


def test_pyright_accepts_the_right_and_rejects_the_wrong(tmp_path: Path) -> None:
    known = [name for name in ("basedpyright", "pyright") if find_spec(name) is not None]
    if not known:
        pytest.skip("no pyright is installed here; `make test` installs it")
    config = tmp_path / "pyrightconfig.json"
    options = {
        "include": [str(_FILE)],
        "extraPaths": _paths(),
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "enableTypeIgnoreComments": True,
    }
    config.write_text(json.dumps(options))
    _check(tmp_path, known[0], "-p", str(config), "--pythonpath", sys.executable)
