"""Only cagg.clock reads the computer's clocks or sleeps, under whatever name they are imported."""

from __future__ import annotations

import ast
from typing import Any

import pytest

BANNED = {
    *(f"time.{name}" for name in ("time", "time_ns", "sleep", "monotonic", "monotonic_ns", "clock_gettime")),
    *(f"time.{name}" for name in ("perf_counter", "perf_counter_ns", "localtime", "ctime")),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    "datetime.date.today",
    "pendulum.now",
    "pendulum.today",
}


def _aliases(tree: ast.Module) -> dict[str, str]:
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module:
            known.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return known


def _dotted(node: ast.AST, known: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, known)}.{node.attr}"
    return known.get(node.id, "") if isinstance(node, ast.Name) else ""


def uses(tree: ast.Module) -> list[tuple[ast.AST, str]]:
    """Every use of a banned function, imported names included."""
    known = _aliases(tree)
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name))
    return [(node, name) for node in nodes if (name := _dotted(node, known)) in BANNED]


def test_only_the_clock_reads_clocks(product: list[Any]) -> None:
    found = [
        f"{module.at(node)} {name}"
        for module in product
        if module.name != "shared/cagg/clock.py"
        for node, name in uses(module.tree)
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.sleep(1)",
        "import time as t\nt.monotonic_ns()",
        "from time import sleep as rest\nrest(1)",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as d\nd.datetime.utcnow()",
        "import pendulum\npendulum.now('UTC')",
    ],
)
def test_the_search_finds_every_spelling(source: str) -> None:
    assert len(uses(ast.parse(source))) == 1


@pytest.mark.parametrize("source", ["clock.sleep(1)", "import time\ntime.thread_time_ns()", "self.clock.now()"])
def test_the_search_leaves_other_names_alone(source: str) -> None:
    assert uses(ast.parse(source)) == []
