"""The product's source files, parsed once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Module:
    """One source file of the product."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Path below the checkout, for messages."""
        return str(self.path.relative_to(ROOT))

    @property
    def is_package(self) -> bool:
        """True for an ``__init__`` file."""
        return self.path.name == "__init__.py"

    @property
    def is_private(self) -> bool:
        """True for modules whose name starts with one underscore."""
        return self.path.name.startswith("_") and not self.path.name.startswith("__")

    def at(self, node: ast.AST) -> str:
        """Place of a node, for messages."""
        return f"{self.name}:{getattr(node, 'lineno', 1)}"


def _modules(*tops: str) -> list[Module]:
    files = [file for top in tops for file in sorted((ROOT / top).rglob("*.py"))]
    texts = [(file, file.read_text(encoding="utf-8")) for file in files]
    return [Module(path=file, text=text, tree=ast.parse(text, str(file))) for file, text in texts]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def product() -> list[Module]:
    """Every module of the packages."""
    return _modules("shared/cagg", "cagg_prefect", "cagg_airflow")


@pytest.fixture(scope="session")
def everything() -> list[Module]:
    """Every Python file of the checkout."""
    return _modules("shared", "cagg_prefect", "cagg_airflow", "tests", "examples", "benchmarks", ".ci")
