"""Adapters translate: they hold no arithmetic, no SQL and no HTTP of their own."""

from __future__ import annotations

import ast
from typing import Any

import httpx

SPEAK_HTTP = {"api.py", "testing.py", "testing_api.py"}
"""The hosts' own API clients, and the test tools that ask a host what became of a run."""


def _adapter(product: list[Any]) -> list[Any]:
    return [module for module in product if module.name.startswith(("cagg_prefect/", "cagg_airflow/"))]


def test_an_adapter_uses_the_http_library_only_to_catch_its_hosts_errors(product: list[Any]) -> None:
    found = []
    for module in (module for module in _adapter(product) if module.path.name not in SPEAK_HTTP):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module == "httpx":
                found += [f"{module.at(node)} {alias.name}" for alias in node.names if not _is_error(alias.name)]
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "httpx" and not _is_error(node.attr):
                found.append(f"{module.at(node)} httpx.{node.attr}")
    assert found == []


def _is_error(name: str) -> bool:
    kind = getattr(httpx, name, None)
    # URL reads an address, it asks nobody
    return name == "URL" or (isinstance(kind, type) and issubclass(kind, Exception))


def test_an_adapter_prices_and_plans_nothing(product: list[Any]) -> None:
    """Rooms that decide are reached through the gate, never directly."""
    rooms = ("cagg.budget", "cagg.deciding", "cagg.energy", "cagg.schedule", "cagg.policy", "cagg.store.tables")
    found = []
    for module in _adapter(product):
        for node in ast.walk(module.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{module.at(node)} {name}" for name in names if name.startswith(rooms)]
    assert found == []


def test_the_core_speaks_of_no_engines_variables(product: list[Any]) -> None:
    """Import contracts cannot see a name in a string."""
    found = [
        f"{module.at(node)} {node.value[:40]!r}"
        for module in product
        if not module.name.startswith("cagg_")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith(("PREFECT_", "AIRFLOW_"))
    ]
    assert found == []
