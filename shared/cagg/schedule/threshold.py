"""The first start at which a run's mean intensity stays within a threshold, exactly.

The mean over a run of fixed length is a piecewise linear function of its start (see ``cagg.schedule.contiguous``);
between two neighbouring candidates it is a straight line, so the first instant at which it falls to the threshold is
one division, rounded up to a whole millisecond.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cagg.errors import InvalidInput
from cagg.schedule.contiguous import _integral

__all__ = ["first_start_within"]

_Integers: TypeAlias = NDArray[np.int64]


def first_start_within(
    *,
    edges_ms: _Integers,
    milligrams_per_kwh: _Integers,
    known: NDArray[np.bool_],
    first_start_ms: int,
    last_start_ms: int,
    duration_ms: int,
    most_milligrams_per_kwh: int,
) -> int | None:
    """Return the earliest start in ``[first, last]`` whose run has a mean intensity of at most the threshold.

    Args:
        edges_ms, milligrams_per_kwh, known: as for :func:`cagg.schedule.contiguous.plan_contiguous`.
        first_start_ms, last_start_ms: earliest and latest start, both included.
        duration_ms: length of the run, above zero; 1 asks for the intensity of the moment.
        most_milligrams_per_kwh: the threshold, zero or more.

    Returns:
        The start in milliseconds since 1970-01-01T00:00Z; None when no run that known data cover stays within it.

    Raises:
        InvalidInput: the arrays do not fit together, the duration is not positive, or the threshold is negative.

    Source: first crossing of a piecewise linear function; checked against brute force.
    """
    if most_milligrams_per_kwh < 0:
        raise InvalidInput(f"a threshold must be zero or more, got {most_milligrams_per_kwh} mg/kWh.")
    if duration_ms <= 0:
        raise InvalidInput(f"a run must last longer than zero, got {duration_ms} ms.")
    if last_start_ms < first_start_ms:
        return None
    # one more on both sides: a run may start where the data begin and end where they end
    window = (first_start_ms - 1, last_start_ms + duration_ms + 1)
    integral = _integral(edges_ms, milligrams_per_kwh, known, window=window)
    if integral is None:
        return None
    edges = integral.edges.tolist()
    bends = {*edges, *(edge - duration_ms for edge in edges)}
    starts = sorted({first_start_ms, last_start_ms, *(at for at in bends if first_start_ms < at < last_start_ms)})
    costs, feasible = integral.costs(np.array(starts, dtype=np.int64), duration_ms)
    most = most_milligrams_per_kwh * duration_ms
    before: tuple[int, int] | None = None
    for start, cost, covered in zip(starts, costs.tolist(), feasible.tolist(), strict=True):
        if not covered:
            before = None
            continue
        if cost <= most:
            # time without data is linear between candidates too: zero at both ends is zero between them
            return start if before is None else _crossing(before, (start, cost), most)
        before = (start, cost)
    return None


def _crossing(above: tuple[int, int], within: tuple[int, int], most: int) -> int:
    """Return the first whole millisecond between two candidates at which the line has come down to ``most``."""
    (start, cost), (end, low) = above, within
    return start - (-(cost - most) * (end - start) // (cost - low))
