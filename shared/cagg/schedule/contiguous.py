"""The cleanest uninterrupted stretch before a deadline, exactly.

The carbon of a run of fixed length and even power is proportional to the integral of the intensity over the run.
The intensity is piecewise constant, so the integral is a piecewise linear function of the start: its minimum lies
where the start or the end of the run meets an edge of the data, at the earliest start, or at the latest one. Those
O(n) candidates are compared through prefix sums in 64-bit integers; there is no rounding and no search grid, so the
answer is the optimum over fractional starts, and the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cagg.errors import InvalidInput

__all__ = ["Plan", "plan_contiguous"]

_Integers: TypeAlias = NDArray[np.int64]
_Mask: TypeAlias = NDArray[np.bool_]

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The best start by the data, beside now and the worst start, for the record.

    A cost is the integral of the intensity over the run in mg/kWh x ms; divided by the duration it is the mean
    intensity. Instants are milliseconds since 1970-01-01T00:00Z.

    Attributes:
        start_ms: the earliest of the cheapest starts.
        end_ms: ``start_ms`` plus the duration; never past the latest finish.
        cost: cost of that start.
        now_cost: cost of starting now; None when the data do not cover that run.
        worst_start_ms: the earliest of the dearest starts.
        worst_cost: cost of that start.
        searched_until_ms: no run could end later than this: the latest finish, or the end of the data.
        candidates: how many starts were compared.
    """

    start_ms: int
    end_ms: int
    cost: int
    now_cost: int | None
    worst_start_ms: int
    worst_cost: int
    searched_until_ms: int
    candidates: int

    @property
    def difference(self) -> int:
        """Cost of starting now minus the cost of the plan, never negative; 0 when now is not covered."""
        return 0 if self.now_cost is None else self.now_cost - self.cost


@dataclass(frozen=True, slots=True)
class _Integral:
    """Prefix sums over one series: integral of the intensity, and time without data, up to each edge."""

    edges: _Integers
    rates: _Integers
    missing: _Integers
    carbon: _Integers
    unknown: _Integers
    step: int
    """length of every interval, so that the interval of an instant is a division; 0 when they differ"""

    def costs(self, starts: _Integers, duration_ms: int) -> tuple[_Integers, _Mask]:
        """Costs of runs at these starts, and which of the runs lie wholly in known data."""
        return self._between(starts, starts + duration_ms, self._until(starts), self._until(starts + duration_ms))

    def costs_at_edges(self, first_start: int, last_start: int, duration_ms: int) -> tuple[_Integers, _Integers]:
        """Feasible starts in the range whose start or end lies on an edge, and their costs."""
        low, high = np.searchsorted(self.edges, (first_start, last_start + 1))
        starts = self.edges[low:high]
        at_start = (self.carbon[low:high], self.unknown[low:high])
        forward = self._between(starts, starts + duration_ms, at_start, self._until(starts + duration_ms))
        low, high = np.searchsorted(self.edges, (first_start + duration_ms, last_start + duration_ms + 1))
        ends = self.edges[low:high]
        at_end = (self.carbon[low:high], self.unknown[low:high])
        backward = self._between(ends - duration_ms, ends, self._until(ends - duration_ms), at_end)
        return (
            np.concatenate((starts[forward[1]], ends[backward[1]] - duration_ms)),
            np.concatenate((forward[0][forward[1]], backward[0][backward[1]])),
        )

    def _between(
        self,
        starts: _Integers,
        ends: _Integers,
        at_start: tuple[_Integers, _Integers],
        at_end: tuple[_Integers, _Integers],
    ) -> tuple[_Integers, _Mask]:
        feasible = (starts >= self.edges[0]) & (ends <= self.edges[-1]) & (at_end[1] == at_start[1])
        return np.where(feasible, at_end[0] - at_start[0], 0), feasible

    def _until(self, instants: _Integers) -> tuple[_Integers, _Integers]:
        """Integral and time without data from the first edge to each instant; flat outside the data."""
        clamped = np.clip(instants, self.edges[0], self.edges[-1])
        if self.step:
            cell = (clamped - self.edges[0]) // self.step
        else:
            cell = np.searchsorted(self.edges, clamped, side="right") - 1
        np.minimum(cell, self.rates.size - 1, out=cell)
        within = clamped - self.edges[cell]
        return self.carbon[cell] + self.rates[cell] * within, self.unknown[cell] + self.missing[cell] * within


def plan_contiguous(
    *,
    edges_ms: _Integers,
    milligrams_per_kwh: _Integers,
    known: _Mask,
    now_ms: int,
    latest_finish_ms: int,
    duration_ms: int,
) -> Plan | None:
    """Return the cheapest start in ``[now, latest finish - duration]``; the earliest one when several are equal.

    A run is considered only if known data cover all of it: never across a gap, never past the end of the data, never
    past the latest finish, which callers set earlier than the deadline by what the host needs to wake.

    Args:
        edges_ms: n + 1 ascending instants that bound n intervals, milliseconds since 1970-01-01T00:00Z.
        milligrams_per_kwh: n intensities; the values of unknown intervals are not looked at.
        known: n flags; False marks a gap.
        now_ms: earliest start.
        latest_finish_ms: the run has ended by then.
        duration_ms: length of the run, above zero.

    Returns:
        The plan, never dearer than starting now; None when no start is feasible (no room before the latest finish,
        or no stretch of known data that is long enough).

    Raises:
        InvalidInput: the arrays do not fit together, are not integers or not ascending, the duration is not
            positive, or the integral could pass 64 bits.

    Source: minimum of a piecewise linear function; checked against brute force and an analytic integral.
    """
    if duration_ms <= 0:
        raise InvalidInput(f"a run must last longer than zero, got {duration_ms} ms.")
    integral = _integral(edges_ms, milligrams_per_kwh, known, window=(now_ms, latest_finish_ms))
    if integral is None:
        return None
    # nothing outside the data is feasible, so the search is bounded by them before any array arithmetic
    first_start = max(now_ms, int(integral.edges[0]))
    last_start = min(latest_finish_ms, int(integral.edges[-1])) - duration_ms
    if last_start < first_start:
        return None
    bounds = np.array([first_start, last_start], dtype=np.int64)
    bound_costs, feasible = integral.costs(bounds, duration_ms)
    now_cost = int(bound_costs[0]) if feasible[0] and first_start == now_ms else None
    starts, costs = integral.costs_at_edges(first_start, last_start, duration_ms)
    starts = np.concatenate((bounds[feasible], starts))
    costs = np.concatenate((bound_costs[feasible], costs))
    if starts.size == 0:
        return None
    best, worst = costs.min(), costs.max()
    start = int(starts[costs == best].min())
    return Plan(
        start_ms=start,
        end_ms=start + duration_ms,
        cost=int(best),
        now_cost=now_cost,
        worst_start_ms=int(starts[costs == worst].min()),
        worst_cost=int(worst),
        searched_until_ms=min(latest_finish_ms, int(integral.edges[-1])),
        candidates=int(starts.size),
    )


def _integral(
    edges_ms: _Integers, milligrams_per_kwh: _Integers, known: _Mask, *, window: tuple[int, int]
) -> _Integral | None:
    """Check the arrays, keep the intervals that touch the window, and sum; None when none is left."""
    edges, rates, mask = np.asarray(edges_ms), np.asarray(milligrams_per_kwh), np.asarray(known)
    if edges.ndim != 1 or rates.ndim != 1 or rates.shape != mask.shape:
        raise InvalidInput("edges, intensities and the known mask must be one-dimensional and of matching length.")
    if rates.size == 0:
        return None
    if edges.size != rates.size + 1:
        raise InvalidInput(f"{rates.size} intervals need {rates.size + 1} edges, got {edges.size}.")
    if not (np.issubdtype(edges.dtype, np.integer) and np.issubdtype(rates.dtype, np.integer)):
        raise InvalidInput("edges and intensities must be whole numbers (ms and mg/kWh), got floating point.")
    edges, rates = edges.astype(np.int64, copy=False), rates.astype(np.int64, copy=False)
    if mask.dtype != np.bool_:
        raise InvalidInput(f"the known mask must hold booleans, got {mask.dtype}.")
    if not bool(np.all(edges[1:] > edges[:-1])):
        raise InvalidInput("edges must ascend without repeating.")
    start, end = max(window[0], int(edges[0])), min(window[1], int(edges[-1]))
    if end <= start:
        return None
    first = int(np.searchsorted(edges, start, side="right")) - 1
    last = int(np.searchsorted(edges, end, side="left"))
    edges, rates, mask = edges[first : last + 1], rates[first:last], mask[first:last]
    rates = np.where(mask, rates, 0)
    if rates.min() < 0:
        raise InvalidInput("an intensity must not be negative.")
    span = int(edges[-1]) - int(edges[0])
    if int(rates.max()) * span > _INT64_MAX:
        raise InvalidInput(
            f"an intensity of {int(rates.max())} mg/kWh over {span} ms is too large to add up exactly; "
            "check the unit of the data."
        )
    missing = (~mask).astype(np.int64)
    lengths = np.diff(edges)
    step = int(lengths[0]) if bool(np.all(lengths == lengths[0])) else 0
    return _Integral(edges, rates, missing, _summed(rates * lengths), _summed(missing * lengths), step)


def _summed(values: _Integers) -> _Integers:
    sums = np.zeros(values.size + 1, dtype=np.int64)
    np.cumsum(values, out=sums[1:])
    return sums
