"""Readings of runs that overlap in time, put into one sequence of slices with the same energy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise

from cagg.quantities import Energy
from cagg.records import ReadingSlice
from cagg.windows import Window

__all__ = ["merge_slices"]

_MICROSECOND = timedelta(microseconds=1)


def merge_slices(slices: Iterable[ReadingSlice]) -> tuple[ReadingSlice, ...]:
    """Return slices in order, without overlaps, whose energies add up to exactly what was given.

    A slice is cut where any other begins or ends, and its energy is spread evenly over its time, as a reading says
    nothing finer; rounding moves less than a millijoule from one piece to the next, and none gets lost.

    Args:
        slices: of any number of readings, in any order, overlapping or not.
    """
    given = list(slices)
    edges = sorted({edge for item in given for edge in (item.window.start, item.window.end)})
    energy: dict[tuple[datetime, datetime], int] = defaultdict(int)
    for item in given:
        cuts = [edge for edge in edges if item.window.start <= edge <= item.window.end]
        whole = item.window.duration // _MICROSECOND
        done = 0
        for start, end in pairwise(cuts):
            until = item.energy.millijoules * ((end - item.window.start) // _MICROSECOND) // whole
            energy[start, end] += until - done
            done = until
    return tuple(
        ReadingSlice(window=Window(start=start, end=end), energy=Energy(millijoules=energy[start, end]))
        for start, end in sorted(energy)
    )
