"""Slices that overlap become one sequence, and no millijoule is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cagg.energy.merging import merge_slices
from cagg.quantities import Energy
from cagg.records import ReadingSlice
from cagg.windows import Window

START = datetime(2026, 11, 23, tzinfo=UTC)


def piece(start: int, length: int, millijoules: int) -> ReadingSlice:
    begin = START + timedelta(seconds=start)
    return ReadingSlice(
        window=Window(start=begin, end=begin + timedelta(seconds=length)), energy=Energy(millijoules=millijoules)
    )


def test_overlapping_runs_are_cut_where_one_begins_or_ends() -> None:
    assert merge_slices([piece(0, 20, 200), piece(10, 20, 400)]) == (
        piece(0, 10, 100),
        piece(10, 10, 300),
        piece(20, 10, 200),
    )


def test_time_that_nobody_used_stays_out() -> None:
    assert merge_slices([piece(50, 5, 7), piece(0, 5, 3)]) == (piece(0, 5, 3), piece(50, 5, 7))
    assert merge_slices([]) == ()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50), st.integers(0, 10**6)), max_size=12))
def test_the_energy_stays_and_nothing_overlaps(pieces: list[tuple[int, int, int]]) -> None:
    merged = merge_slices(piece(*one) for one in pieces)
    assert sum(item.energy.millijoules for item in merged) == sum(energy for _, _, energy in pieces)
    assert all(before.window.end <= after.window.start for before, after in pairwise(merged))
