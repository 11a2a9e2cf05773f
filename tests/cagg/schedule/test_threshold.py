"""The first start within a threshold, against brute force over every millisecond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import InvalidInput
from cagg.schedule.threshold import first_start_within


def arrays(rates: list[int | None], step: int) -> dict[str, np.ndarray]:
    return {
        "edges_ms": np.arange(len(rates) + 1, dtype=np.int64) * step,
        "milligrams_per_kwh": np.array([rate or 0 for rate in rates], dtype=np.int64),
        "known": np.array([rate is not None for rate in rates], dtype=np.bool_),
    }


def test_the_line_is_crossed_between_two_edges() -> None:
    found = first_start_within(
        **arrays([300, 100], 100), first_start_ms=0, last_start_ms=100, duration_ms=100, most_milligrams_per_kwh=150
    )
    assert found == 75  # a quarter at 300 and three quarters at 100


def test_a_duration_of_a_moment_asks_for_the_interval_it_lies_in() -> None:
    series = arrays([300, 100, 300], 60)
    assert (
        first_start_within(**series, first_start_ms=10, last_start_ms=170, duration_ms=1, most_milligrams_per_kwh=100)
        == 60
    )
    assert (
        first_start_within(**series, first_start_ms=10, last_start_ms=59, duration_ms=1, most_milligrams_per_kwh=100)
        is None
    )


def test_a_gap_is_never_within_a_threshold() -> None:
    series = arrays([300, None, 90], 50)
    found = first_start_within(
        **series, first_start_ms=0, last_start_ms=500, duration_ms=20, most_milligrams_per_kwh=100
    )
    assert found == 100


def test_nothing_is_found_where_the_last_start_lies_before_the_first() -> None:
    assert (
        first_start_within(
            **arrays([1], 10), first_start_ms=5, last_start_ms=4, duration_ms=1, most_milligrams_per_kwh=9
        )
        is None
    )


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(InvalidInput, match="zero or more"):
        first_start_within(
            **arrays([1], 10), first_start_ms=0, last_start_ms=4, duration_ms=1, most_milligrams_per_kwh=-1
        )


@given(
    rates=st.lists(st.one_of(st.none(), st.integers(0, 500)), min_size=1, max_size=6),
    step=st.integers(1, 12),
    first=st.integers(-10, 60),
    room=st.integers(0, 60),
    duration=st.integers(1, 30),
    most=st.integers(0, 500),
)
def test_it_is_the_first_millisecond_of_brute_force(
    rates: list[int | None], step: int, first: int, room: int, duration: int, most: int
) -> None:
    series = arrays(rates, step)

    def within(start: int) -> bool:
        cells = [at // step if 0 <= at < step * len(rates) else None for at in range(start, start + duration)]
        values = [None if cell is None else rates[cell] for cell in cells]
        return all(value is not None for value in values) and sum(v for v in values if v) <= most * duration

    good = [start for start in range(first, first + room + 1) if within(start)]
    found = first_start_within(
        **series,
        first_start_ms=first,
        last_start_ms=first + room,
        duration_ms=duration,
        most_milligrams_per_kwh=most,
    )
    assert found == (good[0] if good else None)
