"""Each example is short and runs as it stands."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
LONGEST = 80
ENGINE = "airflow" if importlib.util.find_spec("airflow") else "prefect"
FOLDERS = sorted(folder for folder in EXAMPLES.iterdir() if folder.is_dir() and folder.name.endswith(f"_{ENGINE}"))
SCRIPTS = sorted(script for folder in FOLDERS for script in folder.rglob("*.py"))
PAGES = sorted(page for folder in FOLDERS for page in folder.rglob("*.md"))
SERVES = "Runs until it is stopped"
"""A script whose docstring says so is a service: its folder's README starts it, or its tests do."""


def _name(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))


def _can_be_run(script: Path) -> bool:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    serves = SERVES in (ast.get_docstring(tree) or "")
    return not serves and any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" for node in tree.body
    )


def test_there_are_examples() -> None:
    assert FOLDERS
    assert SCRIPTS


def test_every_example_names_its_engine() -> None:
    """Otherwise no environment runs it."""
    folders = [folder.name for folder in EXAMPLES.iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    assert [name for name in folders if not name.endswith(("_prefect", "_airflow"))] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_files_are_short(script: Path) -> None:
    assert script.read_text(encoding="utf-8").count("\n") < LONGEST


@pytest.mark.parametrize("folder", FOLDERS, ids=_name)
def test_each_situation_has_something_that_runs(folder: Path) -> None:
    assert (folder / "README.md").exists() or any(_can_be_run(script) for script in folder.rglob("*.py"))


@pytest.mark.parametrize("script", [script for script in SCRIPTS if _can_be_run(script)], ids=_name)
def test_scripts_run(script: Path, tmp_path: Path, newcomer: dict[str, str]) -> None:
    folder = tmp_path / script.parent.name
    shutil.copytree(script.parent, folder)
    # gated, but neither held back for hours nor refused a budget
    environment = {**newcomer, "CAGG_MODE": "observe", "AIRFLOW__CAGG__ENABLED": "True"}
    environment["AIRFLOW__CORE__DAGS_FOLDER"] = str(folder)
    if ENGINE == "airflow":  # as its README says
        subprocess.run(["airflow", "db", "migrate"], env=environment, capture_output=True, check=True)
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{_name(script)}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    assert list(Path(newcomer["CAGG_HOME"]).glob("cagg.db*")), "the example ran without a gate"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_pages_run(page: Path, tmp_path: Path, run_page: Callable[..., int]) -> None:
    folder = tmp_path / page.parent.name
    shutil.copytree(page.parent, folder)
    run_page(page, folder, engine="prefect")  # unmarked blocks: the whole folder belongs to one engine
