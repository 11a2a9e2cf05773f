"""How much energy and time a run will take: the expected value and an upper bound, always with the method.

Order of methods: the ledger's history of the task, else what the user declared, else the settings' default. The upper
bound from history is split conformal prediction with the value itself as the score: of n exchangeable runs and the
next one, the next is at most the k-th smallest with probability at least the coverage when
k = ceil((n + 1) x coverage), which needs k <= n, that is n >= 19 for 95 %.

Source: J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman, "Distribution-Free Predictive Inference for
Regression", Journal of the American Statistical Association 113 (2018), theorem 2.2.

Runs that failed or died used less than a whole run does, so what is known of them is a lower bound. They are never
dropped, because dropping them would favour short runs: in the order each stands as the larger of its own value and the
largest whole run. The upper bound errs on the high side by that. They do not count for the expected value unless no
run was ever whole. Runs are taken as exchangeable: a task that grows is noticed only as new runs replace old ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction

from cagg.errors import InvalidInput
from cagg.ports import HistoryPoint
from cagg.quantities import Energy, Power, ceil_div
from cagg.windows import to_milliseconds

__all__ = [
    "DECLARED_PERCENT",
    "DEFAULT_PERCENT",
    "LEAST_HISTORY",
    "WIDENING_PERCENT",
    "Estimate",
    "EstimateMethod",
    "estimate",
]

_INT64_MAX = 2**63 - 1
_LONGEST_MS = 10 * 366 * 86_400_000
_CUT = f"cut to {_LONGEST_MS // 3_600_000} h, the longest that is planned with"

LEAST_HISTORY = 3
"""Fewer runs than this are no history; they only keep a bound from lying below what was seen. Own choice."""

WIDENING_PERCENT = 150
"""Upper bound in percent of the largest run while there are too few runs for the coverage. Own choice."""

DECLARED_PERCENT = 125
"""Upper bound in percent of what was declared. Own choice."""

DEFAULT_PERCENT = 200
"""Upper bound in percent of the default for a task that nobody knows anything of. Own choice."""


class EstimateMethod(StrEnum):
    """Where an estimate comes from."""

    HISTORY = "history"
    """conformal: enough runs for the coverage"""
    SHORT_HISTORY = "short_history"
    """the largest of few runs, widened, and never below what was declared"""
    DECLARED = "declared"
    DEFAULT = "default"
    """cold start: nothing is known of this task"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run is expected to take, and what it will hardly exceed. Never zero; expected <= upper.

    Attributes:
        expected_energy, upper_energy: at the IT equipment.
        expected_duration, upper_duration: wall time, whole milliseconds.
        method: where the energy comes from.
        sample_size: how many past runs the energy comes from; 0 when declared or default.
        note: the estimate in one line for people: methods, factors, what was left out and what was cut.
        duration_method: where the duration comes from.
    """

    expected_energy: Energy
    upper_energy: Energy
    expected_duration: timedelta
    upper_duration: timedelta
    method: EstimateMethod
    sample_size: int
    note: str
    duration_method: EstimateMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """Expected and upper value of one quantity as integers, in its smallest unit; cut if a ceiling lowered either."""

    expected: int
    upper: int
    method: EstimateMethod
    sample_size: int
    note: str
    cut: bool


def estimate(
    history: Sequence[HistoryPoint],
    *,
    declared_energy: Energy | None = None,
    declared_power: Power | None = None,
    declared_duration: timedelta | None = None,
    default_energy: Energy | None = None,
    default_duration: timedelta,
    default_power: Power,
    coverage: float = 0.95,
) -> Estimate:
    """Return the estimate of a run.

    Args:
        history: past runs of the task, in any order.
        declared_energy: what the user said; None = nothing.
        declared_power: mean power instead, multiplied by the duration's estimate; None = nothing.
        declared_duration: what the user said; None = nothing.
        default_energy: for a task of which nothing is known; None = default power over the duration's estimate.
        default_duration: for a task whose duration nobody knows.
        default_power: mean power for the default energy.
        coverage: share of runs that stay within the upper bound, above 0 and below 1.

    Raises:
        InvalidInput: a negative number, a coverage out of range, a duration of zero or less.
    """
    share = _coverage(coverage)
    _check_history(history)
    duration = _bounds(
        [(point.duration_ms, point.completed) for point in history],
        declared=None if declared_duration is None else _ms(declared_duration, "the declared duration"),
        default=_ms(default_duration, "the default duration"),
        share=share,
        ceiling=_LONGEST_MS,
    )
    measured = [
        (point.energy_millijoules, point.completed) for point in history if point.energy_millijoules is not None
    ]
    energy = _energy(measured, duration, declared_energy, declared_power, default_energy, default_power, share)
    notes = [f"energy: {energy.note}", f"duration: {duration.note}"]
    if duration.cut:
        notes.append(f"duration {_CUT}")
    if energy.cut:
        notes.append("energy cut to the largest number that can be stored")
    if len(measured) < len(history):
        notes.append(f"{len(history) - len(measured)} runs have no measured energy")
    return Estimate(
        expected_energy=Energy(millijoules=energy.expected),
        upper_energy=Energy(millijoules=energy.upper),
        expected_duration=timedelta(milliseconds=duration.expected),
        upper_duration=timedelta(milliseconds=duration.upper),
        method=energy.method,
        sample_size=energy.sample_size,
        note="; ".join(notes),
        duration_method=duration.method,
    )


def _energy(
    measured: Sequence[tuple[int, bool]],
    duration: _Bounds,
    declared: Energy | None,
    declared_power: Power | None,
    default: Energy | None,
    default_power: Power,
    share: Fraction,
) -> _Bounds:
    # Power comes with the duration's own bounds, so its upper bound is not widened a second time.
    if declared is None and declared_power is not None:
        return _bounds(
            measured,
            declared=_over(declared_power, duration.expected),
            declared_upper=_over(declared_power, duration.upper),
            default=1,
            share=share,
            ceiling=_INT64_MAX,
            declared_note=f"declared power {declared_power} over the duration",
        )
    return _bounds(
        measured,
        declared=None if declared is None else declared.millijoules,
        default=_over(default_power, duration.expected) if default is None else default.millijoules,
        default_upper=_over(default_power, duration.upper) if default is None else 0,
        share=share,
        ceiling=_INT64_MAX,
    )


def _bounds(
    values: Sequence[tuple[int, bool]],
    *,
    declared: int | None,
    default: int,
    share: Fraction,
    ceiling: int,
    declared_upper: int | None = None,
    default_upper: int = 0,
    declared_note: str = "declared",
) -> _Bounds:
    """Return the bounds of one quantity from (value, whole run) pairs, a declared value or a default."""
    whole = [value for value, completed in values if completed]
    broken = [value for value, completed in values if not completed]
    ranked = sorted(whole + [max(value, max(whole, default=0)) for value in broken])
    count = len(ranked)
    rank = ceil_div((count + 1) * share.numerator, share.denominator)
    left_out = f", {len(broken)} of them broken off and taken as at least the largest whole one" if broken else ""
    if declared is not None and declared_upper is None:
        declared_upper = _percent(declared, DECLARED_PERCENT)
        declared_note = f"{declared_note}, upper bound {DECLARED_PERCENT} %"
    if rank <= count and whole:
        expected, upper = _mean(whole), ranked[rank - 1]
        method, note = EstimateMethod.HISTORY, f"rank {rank} of {count} runs{left_out}"
    elif count >= LEAST_HISTORY:
        expected, upper = _mean(whole or broken), max(_percent(ranked[-1], WIDENING_PERCENT), declared_upper or 0)
        method, note = EstimateMethod.SHORT_HISTORY, f"largest of {count} runs, {WIDENING_PERCENT} %{left_out}"
    elif declared is not None and declared_upper is not None:
        expected, upper, count = declared, max([declared_upper, *ranked]), 0
        method, note = EstimateMethod.DECLARED, declared_note
    else:
        expected, upper, count = default, max([_percent(default, DEFAULT_PERCENT), default_upper, *ranked]), 0
        method, note = EstimateMethod.DEFAULT, f"cold start, default with upper bound {DEFAULT_PERCENT} %"
    expected = max(expected, 1)
    upper = max(upper, expected)
    return _Bounds(
        expected=min(expected, ceiling),
        upper=min(upper, ceiling),
        method=method,
        sample_size=count,
        note=note,
        cut=upper > ceiling,
    )


def _mean(values: Sequence[int]) -> int:
    return ceil_div(sum(values), len(values))


def _percent(value: int, percent: int) -> int:
    return ceil_div(value * percent, 100)


def _over(power: Power, milliseconds: int) -> int:
    return ceil_div(power.milliwatts * milliseconds, 1_000)


def _ms(duration: timedelta, what: str) -> int:
    if not isinstance(duration, timedelta) or duration <= timedelta(0):
        raise InvalidInput(f"{what} must be longer than zero, got {duration!r}; give for example '30m'.")
    return to_milliseconds(duration)


def _coverage(coverage: float) -> Fraction:
    if isinstance(coverage, bool) or not isinstance(coverage, int | float) or not 0 < coverage < 1:
        raise InvalidInput(f"the coverage must lie between 0 and 1, got {coverage!r}; 0.95 is usual.")
    # Through its text: 0.95 means 95/100, not the nearest binary fraction.
    return Fraction(str(coverage))


def _check_history(history: Sequence[HistoryPoint]) -> None:
    for point in history:
        for value in (point.energy_millijoules, point.duration_ms):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise InvalidInput(
                    f"a past run must have whole, non-negative energy and duration, got {value!r} at "
                    f"{point.started_at.isoformat()}."
                )
