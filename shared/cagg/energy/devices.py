"""What the meter asks of a source whose device is held by processes, not scheduled by the kernel: accelerators."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cagg.provenance import Grade

__all__ = ["Device", "Holding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Our part of one device at one moment.

    Attributes:
        dynamic_ppm: our part of its dynamic energy, in parts per million.
        idle_ppm: our part of its idle energy.
        grade: best grade this way of sharing allows.
        method: how it was found, in a few words.
        reason: what makes it coarse; empty otherwise.
    """

    dynamic_ppm: int
    idle_ppm: int
    grade: Grade
    method: str
    reason: str = ""


@runtime_checkable
class Device(Protocol):
    """An energy source that knows which processes hold it."""

    def holding(self, own_pids: Collection[int]) -> Holding:
        """Our part since the last call; never raises for the device's sake, but answers with a reason."""
        ...
