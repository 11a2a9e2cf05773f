"""The tests run against the built wheel, and the wheel holds what users need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["cagg", "cagg_prefect", "cagg_airflow"])
def test_the_packages_come_from_site_packages(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parent.parent.name == "site-packages"
    assert Path(spec.origin).is_relative_to(sys.prefix)


def _files() -> set[str]:
    return {str(file) for file in importlib.metadata.files("cagg") or ()}


def test_the_wheel_holds_types_data_migrations_and_licences() -> None:
    files = _files()
    assert {"cagg/py.typed", "cagg_prefect/py.typed", "cagg_airflow/py.typed"} <= files
    assert {Path(name).name for name in files if ".dist-info/licenses" in name} >= {"LICENSE", "LICENSES.md"}
    assert any(name.startswith("cagg/store/migrations/versions/") and name.endswith(".py") for name in files)
    assert any(name.startswith("cagg/grid/data/") and name.endswith((".gz", ".csv", ".json")) for name in files)


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(root: Path) -> None:
    files = {name for name in _files() if not name.startswith("cagg-") and "__pycache__" not in name}
    sources = {
        str(file.relative_to(top))
        for top, package in ((root / "shared", "cagg"), (root, "cagg_prefect"), (root, "cagg_airflow"))
        for file in (top / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert sources - files == set()
    assert {name for name in files - sources if not name.endswith("bin/cagg")} == set()


def test_bundled_data_names_its_origin(root: Path) -> None:
    text = (root / "shared/cagg/grid/data/LICENSES.md").read_text(encoding="utf-8")
    data = [file for file in (root / "shared/cagg/grid/data").rglob("*") if file.is_file() and file.suffix != ".md"]
    assert [file.name for file in data if file.name not in text and file.suffix != ".py"] == []


def test_the_versions_agree(root: Path) -> None:
    import cagg

    written = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert cagg.__version__ == importlib.metadata.version("cagg") == written


def test_the_prefect_extra_bounds_fastapi() -> None:
    """Without the bound the newest fastapi is installed and Prefect 3.7's and 3.8's servers do not start."""
    wanted = [line.replace("'", '"') for line in importlib.metadata.requires("cagg") or () if "fastapi" in line]
    assert wanted == ['fastapi<0.155; extra == "prefect"']
