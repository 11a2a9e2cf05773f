"""Types survive the decorator, for mypy and for pyright."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cagg
import cagg_prefect

_FILE = Path(__file__).with_name("typing_api.py")


def _paths() -> list[str]:
    return list(dict.fromkeys(str(Path(package.__file__ or "").parents[1]) for package in (cagg, cagg_prefect)))


def test_mypy_accepts_the_right_and_rejects_the_wrong(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed here; `make test` installs it")
    config = tmp_path / "mypy.ini"
    # warn_unused_ignores makes every line of `wrong()` an error if it were accepted
    config.write_text(
        f"[mypy]\nwarn_unused_ignores = True\nfollow_imports = silent\nmypy_path = {':'.join(_paths())}\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            str(config),
            "--cache-dir",
            str(tmp_path / "cache"),
            str(_FILE),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_accepts_the_right_and_rejects_the_wrong(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="pyright is not installed here; `make test` installs it")
    if shutil.which("node") is None:
        pytest.skip("pyright needs node, which is not installed here")
    config = tmp_path / "pyrightconfig.json"
    paths = ", ".join(f'"{path}"' for path in _paths())
    config.write_text(
        f'{{"include": ["{_FILE}"], "extraPaths": [{paths}], "reportUnnecessaryTypeIgnoreComment": "error"}}'
    )
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "-p", str(config), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
