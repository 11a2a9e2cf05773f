"""Registers, runs and records benchmarks: ``make bench`` or ``make bench ONLY=gate``.

A file ``bench_<word>.py`` holds functions marked with :func:`benchmark`; each measures and calls :func:`record`, once
per figure. Rows are merged into ``results.json`` by (benchmark, metric), so a partial run keeps the other rows.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"

_TARGET = re.compile(r"^(?P<what>value|ratio) (?P<comparison><=|>=) (?P<bound>\d+(?:\.\d+)?)$")
_T = TypeVar("_T")
_registered: dict[str, Callable[[], None]] = {}
_recorded: list[Row] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        benchmark: name of the benchmark.
        metric: what was measured, unique within the benchmark.
        value: the figure, in ``unit``.
        unit: unit of ``value``, for example ``ms`` or ``1/s``.
        n: how many measurements the figure summarises.
        target: what decides ``met``, for example ``ratio <= 1.5`` or ``value <= 15``; None = reported only.
        met: whether the target was met; None without a target.
        peer: what ran interleaved in the same process for comparison; None without one.
        peer_value: the peer's figure in the same unit.
        ratio: value / peer_value.
    """

    benchmark: str
    metric: str
    value: float
    unit: str
    n: int
    target: str | None
    met: bool | None
    peer: str | None
    peer_value: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Two things measured in turn, so that what slows the machine slows both.

    Attributes:
        ours_seconds, peer_seconds: one time per round, in order.
        ratio: median of the rounds' own ratios, ours over peer.
    """

    ours_seconds: tuple[float, ...]
    peer_seconds: tuple[float, ...]
    ratio: float

    @property
    def ours(self) -> float:
        """Median of ours, seconds."""
        return statistics.median(self.ours_seconds)

    @property
    def peer(self) -> float:
        """Median of the peer's, seconds."""
        return statistics.median(self.peer_seconds)


def benchmark(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a benchmark; the words of its name are what ``ONLY=`` selects by."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        if name in _registered:
            raise ValueError(f"two benchmarks are named {name!r}")
        _registered[name] = function
        return function

    return register


def record(
    *,
    benchmark: str,
    metric: str,
    value: float,
    unit: str,
    n: int,
    target: str | None = None,
    peer: str | None = None,
    peer_value: float | None = None,
    ratio: float | None = None,
) -> Row:
    """Add a figure; ``met`` follows from the target, ``ratio`` from the two values unless the pairs gave a better one.

    Raises:
        ValueError: a figure is not finite, the target cannot be read, or it speaks of a ratio that does not exist.
    """
    if peer_value is not None and ratio is None and peer_value > 0:
        ratio = value / peer_value
    if not all(math.isfinite(figure) for figure in (value, peer_value or 0.0, ratio or 0.0)):
        raise ValueError(f"{benchmark}, {metric}: a figure must be finite")
    row = Row(
        benchmark=benchmark,
        metric=metric,
        value=value,
        unit=unit,
        n=n,
        target=target,
        met=None if target is None else is_met(target, value=value, ratio=ratio),
        peer=peer,
        peer_value=peer_value,
        ratio=ratio,
    )
    _recorded.append(row)
    return row


def is_met(target: str, *, value: float, ratio: float | None) -> bool:
    """Compare a figure with its target."""
    match = _TARGET.match(target)
    if match is None:
        raise ValueError(f"target {target!r} must read like 'ratio <= 1.5' or 'value >= 1000'")
    figure = value if match["what"] == "value" else ratio
    if figure is None:
        raise ValueError(f"target {target!r} needs a peer")
    bound = float(match["bound"])
    return figure <= bound if match["comparison"] == "<=" else figure >= bound


def times(function: Callable[[], object], *, rounds: int, warm_up: int = 3) -> tuple[float, ...]:
    """Return the seconds of each of ``rounds`` calls, after some that don't count; the collector rests meanwhile."""
    for _ in range(warm_up):
        function()
    return _without_collector(lambda: tuple(_once(function) for _ in range(rounds)))


def paired(ours: Callable[[], object], peer: Callable[[], object], *, rounds: int, warm_up: int = 3) -> Paired:
    """Measure ours, peer, ours in each round; a round's time of ours is the mean of its two, which cancels drift."""
    for _ in range(warm_up):
        ours()
        peer()

    def measure() -> tuple[tuple[float, float], ...]:
        pairs = []
        for _ in range(rounds):
            first, between, last = _once(ours), _once(peer), _once(ours)
            pairs.append(((first + last) / 2, between))
        return tuple(pairs)

    pairs = _without_collector(measure)
    return Paired(
        ours_seconds=tuple(mine for mine, _ in pairs),
        peer_seconds=tuple(other for _, other in pairs),
        ratio=statistics.median(mine / other for mine, other in pairs),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: the least value that at least ``percent`` of all values don't exceed."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def _once(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _without_collector(measure: Callable[[], _T]) -> _T:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        return measure()
    finally:
        if was_on:
            gc.enable()


def merge(rows: Sequence[Row], path: Path = RESULTS) -> list[dict[str, object]]:
    """Put rows in place of those with the same (benchmark, metric); return and store all, sorted."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    by_key = {(row["benchmark"], row["metric"]): row for row in stored}
    by_key.update({(row.benchmark, row.metric): asdict(row) for row in rows})
    merged = [by_key[key] for key in sorted(by_key)]
    path.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return merged


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text in columns."""
    head = ("benchmark", "metric", "value", "n", "peer", "peer value", "ratio", "target", "met")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.benchmark,
        row.metric,
        f"{row.value:.4g} {row.unit}",
        str(row.n),
        row.peer or "",
        "" if row.peer_value is None else f"{row.peer_value:.4g} {row.unit}",
        "" if row.ratio is None else f"{row.ratio:.3g}",
        row.target or "",
        {True: "yes", False: "NO", None: ""}[row.met],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected benchmarks; 1 when one broke or none was selected. A missed target is reported, not an error."""
    parser = argparse.ArgumentParser(prog="make bench", description="Run benchmarks and merge results.json.")
    parser.add_argument("only", nargs="?", default="", help="run benchmarks whose name contains this word")
    only = parser.parse_args(arguments).only
    for file in sorted(FOLDER.glob("bench_*.py")):
        importlib.import_module(file.stem)
    selected = {name: function for name, function in _registered.items() if only in name}
    if not selected:
        print(f"no benchmark's name contains {only!r}; there are: {', '.join(sorted(_registered)) or 'none yet'}")
        return 1
    broken = []
    for name, function in selected.items():
        print(f"{name} ...", flush=True)
        try:
            function()
        except Exception:  # noqa: BLE001 - one broken benchmark must not hide the figures of the others
            traceback.print_exc()
            broken.append(name)
    merge(_recorded)
    decided = [row for row in _recorded if row.met is not None]
    print(table(_recorded))
    met = sum(row.met is True for row in decided)
    print(f"\n{met} of {len(decided)} targets met; {len(_recorded)} rows in {RESULTS}")
    if broken:
        print(f"broken: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    # The benchmarks import this file by its name: run that copy, so that there is one registry.
    sys.exit(importlib.import_module("_harness").main())
