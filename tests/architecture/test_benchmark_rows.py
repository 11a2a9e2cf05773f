"""Benchmark rows: targets decide, rows are merged by key, nothing unreadable is stored."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def harness(root: Path) -> Iterator[ModuleType]:
    """The harness as the benchmarks import it."""
    spec = importlib.util.spec_from_file_location("_harness", root / "benchmarks" / "_harness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_harness"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["_harness"]


@pytest.mark.parametrize(
    ("target", "value", "ratio", "met"),
    [
        ("value <= 15", 15.0, None, True),
        ("value <= 15", 15.1, None, False),
        ("value >= 1000", 999.0, 0.1, False),
        ("ratio <= 1.5", 100.0, 1.5, True),
        ("ratio >= 1.5", 100.0, 1.4, False),
    ],
)
def test_the_target_decides(harness: ModuleType, target: str, value: float, ratio: float | None, met: bool) -> None:
    assert harness.is_met(target, value=value, ratio=ratio) is met


@pytest.mark.parametrize("target", ["<= 15", "value < 15", "ratio <= 1", "value <= fast"])
def test_a_target_that_cannot_be_decided_is_refused(harness: ModuleType, target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        harness.is_met(target, value=1.0, ratio=None)


def test_a_figure_is_finite(harness: ModuleType) -> None:
    with pytest.raises(ValueError, match="finite"):
        harness.record(benchmark="b", metric="m", value=float("nan"), unit="s", n=1)


def test_rows_replace_those_with_the_same_key_and_keep_the_others(harness: ModuleType, tmp_path: Path) -> None:
    def row(benchmark: str, value: float) -> object:
        return harness.record(
            benchmark=benchmark, metric="m", value=value, unit="ms", n=3, target="ratio <= 2", peer="p", peer_value=2.0
        )

    path = tmp_path / "results.json"
    harness.merge([row("gate", 1.0), row("ledger", 2.0)], path)
    harness.merge([row("gate", 8.0)], path)
    stored = {item["benchmark"]: item for item in json.loads(path.read_text(encoding="utf-8"))}
    assert {name: (item["value"], item["ratio"], item["met"]) for name, item in stored.items()} == {
        "gate": (8.0, 4.0, False),
        "ledger": (2.0, 1.0, True),
    }
    fields = ["benchmark", "metric", "value", "unit", "n", "target", "met", "peer", "peer_value", "ratio"]
    assert list(stored["gate"]) == fields


def test_pairs_are_measured_in_turn(harness: ModuleType) -> None:
    calls: list[str] = []
    pair = harness.paired(lambda: calls.append("ours"), lambda: calls.append("peer"), rounds=2, warm_up=1)
    assert calls == ["ours", "peer", *["ours", "peer", "ours"] * 2]
    assert len(pair.ours_seconds) == len(pair.peer_seconds) == 2


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 5), (95, 10), (100, 10)])
def test_percentiles_are_values_that_occurred(harness: ModuleType, percent: float, expected: int) -> None:
    assert harness.percentile(list(range(10, 0, -1)), percent) == expected
