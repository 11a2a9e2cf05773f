"""The contiguous plan against brute force, an analytic integral, and the rules it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cagg.errors import InvalidInput
from cagg.schedule.contiguous import Plan, plan_contiguous

HALF_HOUR = 1_800_000


def arrays(edges, values):
    known = np.array([value is not None for value in values], dtype=np.bool_)
    rates = np.array([0 if value is None else value for value in values], dtype=np.int64)
    return {"edges_ms": np.array(edges, dtype=np.int64), "milligrams_per_kwh": rates, "known": known}


def plan(edges, values, *, now_ms, latest_finish_ms, duration_ms) -> Plan | None:
    return plan_contiguous(
        **arrays(edges, values), now_ms=now_ms, latest_finish_ms=latest_finish_ms, duration_ms=duration_ms
    )


def brute(edges, values, now_ms, latest_finish_ms, duration_ms):
    """Every whole millisecond, by summing single milliseconds."""
    by_ms = {}
    for left, right, value in zip(edges, edges[1:], values, strict=False):
        for instant in range(left, right):
            by_ms[instant] = value
    found = {}
    for start in range(now_ms, latest_finish_ms - duration_ms + 1):
        cells = [by_ms.get(instant) for instant in range(start, start + duration_ms)]
        if all(cell is not None for cell in cells):
            found[start] = sum(cells)
    return found


@st.composite
def problems(draw):
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=9))
    start = draw(st.integers(-5, 5))
    edges = [start]
    for length in lengths:
        edges.append(edges[-1] + length)
    values = draw(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=len(lengths), max_size=len(lengths)))
    now = draw(st.integers(start - 4, edges[-1] + 2))
    finish = draw(st.integers(now - 2, edges[-1] + 6))
    return edges, values, now, finish, draw(st.integers(1, 15))


@settings(max_examples=600, deadline=None)
@given(problems())
def test_equals_brute_force_over_every_millisecond(problem) -> None:
    edges, values, now, finish, duration = problem
    found = brute(edges, values, now, finish, duration)
    answer = plan(edges, values, now_ms=now, latest_finish_ms=finish, duration_ms=duration)
    if not found:
        assert answer is None
        return
    best = min(found.values())
    assert answer is not None
    assert answer.cost == best
    assert answer.start_ms == min(start for start, cost in found.items() if cost == best)
    assert answer.end_ms == answer.start_ms + duration <= finish
    assert answer.now_cost == found.get(now)
    assert answer.worst_cost == max(found.values())
    assert answer.worst_start_ms == min(start for start, cost in found.items() if cost == answer.worst_cost)
    assert answer.now_cost is None or answer.cost <= answer.now_cost
    assert answer.difference >= 0


@settings(max_examples=200, deadline=None)
@given(problems(), st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_shift_and_scale_change_nothing_but_the_numbers(problem, shift, scale) -> None:
    edges, values, now, finish, duration = problem
    plain = plan(edges, values, now_ms=now, latest_finish_ms=finish, duration_ms=duration)
    moved = plan(
        [edge + shift for edge in edges],
        [None if value is None else value * scale for value in values],
        now_ms=now + shift,
        latest_finish_ms=finish + shift,
        duration_ms=duration,
    )
    if plain is None:
        assert moved is None
        return
    assert moved is not None
    assert moved.start_ms == plain.start_ms + shift
    assert moved.cost == plain.cost * scale


def test_minimum_of_a_sine_is_found_where_calculus_puts_it() -> None:
    period, step = 24 * 3_600_000, 60_000
    edges = np.arange(0, 2 * period + 1, step, dtype=np.int64)
    turn = 2 * math.pi / period
    # exact mean of 1e6 (1 + sin) over each cell
    means = 1e6 * (1 + (np.cos(turn * edges[:-1]) - np.cos(turn * edges[1:])) / (turn * step))
    duration = 3 * 3_600_000 + 1_234
    answer = plan_contiguous(
        edges_ms=edges,
        milligrams_per_kwh=np.rint(means).astype(np.int64),
        known=np.ones(means.size, dtype=np.bool_),
        now_ms=0,
        latest_finish_ms=period,
        duration_ms=duration,
    )
    assert answer is not None
    assert abs(answer.start_ms - (0.75 * period - duration / 2)) <= step
    analytic = 1e6 * (duration - 2 / turn * math.sin(turn * duration / 2))
    assert answer.cost == pytest.approx(analytic, rel=1e-5)


def test_the_run_may_start_and_end_inside_an_interval() -> None:
    answer = plan([0, 10, 20, 30], [5, 1, 3], now_ms=2, latest_finish_ms=30, duration_ms=14)
    assert answer is not None
    assert (answer.start_ms, answer.end_ms, answer.cost) == (10, 24, 22)
    shorter = plan([0, 10, 20, 30], [5, 1, 3], now_ms=2, latest_finish_ms=23, duration_ms=14)
    assert shorter is not None
    assert (shorter.start_ms, shorter.end_ms, shorter.cost) == (9, 23, 5 + 10 + 9)


def test_a_deadline_one_millisecond_too_early_is_no_deadline_to_meet() -> None:
    edges, values = [0, HALF_HOUR, 2 * HALF_HOUR], [9_000, 1_000]
    exact = plan(edges, values, now_ms=0, latest_finish_ms=2 * HALF_HOUR, duration_ms=HALF_HOUR)
    assert exact is not None
    assert exact.end_ms == 2 * HALF_HOUR
    strict = plan(edges, values, now_ms=0, latest_finish_ms=2 * HALF_HOUR - 1, duration_ms=HALF_HOUR)
    assert strict is not None
    assert strict.end_ms == 2 * HALF_HOUR - 1
    assert plan(edges, values, now_ms=1, latest_finish_ms=HALF_HOUR, duration_ms=HALF_HOUR) is None


def test_only_now_is_left_when_the_window_is_as_long_as_the_run() -> None:
    answer = plan([0, 50, 100], [3, 1], now_ms=10, latest_finish_ms=60, duration_ms=50)
    assert answer is not None
    assert answer.start_ms == 10
    assert answer.cost == answer.now_cost == answer.worst_cost


def test_equal_costs_go_to_the_earliest_start() -> None:
    answer = plan([0, 10, 20, 30, 40], [7, 2, 7, 2], now_ms=0, latest_finish_ms=40, duration_ms=10)
    assert answer is not None
    assert answer.start_ms == 10
    flat = plan([0, 40], [4], now_ms=3, latest_finish_ms=40, duration_ms=10)
    assert flat is not None
    assert flat.start_ms == 3


def test_nothing_runs_across_a_gap_or_past_the_data() -> None:
    values = [5, None, 1, 1]
    answer = plan([0, 10, 20, 30, 40], values, now_ms=0, latest_finish_ms=1_000, duration_ms=15)
    assert answer is not None
    assert (answer.start_ms, answer.now_cost, answer.searched_until_ms) == (20, None, 40)
    assert plan([0, 10, 20, 30, 40], values, now_ms=0, latest_finish_ms=1_000, duration_ms=21) is None
    assert plan([0, 10], [None], now_ms=0, latest_finish_ms=10, duration_ms=1) is None
    assert plan([0], [], now_ms=0, latest_finish_ms=10, duration_ms=1) is None


def test_an_instant_far_outside_the_data_is_no_overflow() -> None:
    assert plan([0, 10], [1], now_ms=-(2**80), latest_finish_ms=2**80, duration_ms=2**79) is None
    answer = plan([0, 10], [1], now_ms=-(2**80), latest_finish_ms=2**80, duration_ms=4)
    assert answer is not None
    assert (answer.start_ms, answer.now_cost) == (0, None)


def test_a_year_of_five_minutes_is_exact() -> None:
    generator = np.random.default_rng(7)
    edges = np.arange(0, 105_121, dtype=np.int64) * 300_000 + 1_700_000_000_000
    rates = generator.integers(0, 1_500_000, 105_120)
    duration = 3 * 3_600_000
    answer = plan_contiguous(
        edges_ms=edges,
        milligrams_per_kwh=rates,
        known=np.ones(rates.size, dtype=np.bool_),
        now_ms=int(edges[0]),
        latest_finish_ms=int(edges[-1]),
        duration_ms=duration,
    )
    sums = np.convolve(rates, np.ones(36, dtype=np.int64), mode="valid")
    assert answer is not None
    assert answer.cost == int(sums.min()) * 300_000
    assert answer.start_ms == int(edges[int(sums.argmin())])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"duration_ms": 0}, "longer than zero"),
        ({"duration_ms": -1}, "longer than zero"),
        ({"edges_ms": np.array([0, 10])}, "need 3 edges"),
        ({"edges_ms": np.array([0, 10, 10])}, "ascend"),
        ({"edges_ms": np.array([0.0, 10.0, 20.0])}, "whole numbers"),
        ({"milligrams_per_kwh": np.array([1.0, float("nan")])}, "whole numbers"),
        ({"milligrams_per_kwh": np.array([1, -2])}, "negative"),
        ({"milligrams_per_kwh": np.array([1, 2**62])}, "too large"),
        ({"known": np.array([1, 1])}, "booleans"),
        ({"known": np.array([True])}, "matching length"),
    ],
)
def test_unusable_input_is_refused_with_a_reason(changes, words) -> None:
    given_values = {
        "edges_ms": np.array([0, 10, 20]),
        "milligrams_per_kwh": np.array([1, 2]),
        "known": np.array([True, True]),
        "now_ms": 0,
        "latest_finish_ms": 20,
        "duration_ms": 5,
    }
    with pytest.raises(InvalidInput, match=words):
        plan_contiguous(**(given_values | changes))
