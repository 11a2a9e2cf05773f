"""Test tools that ship with cagg: fakes of every port, contract suites and a clock that tests move by hand."""

from __future__ import annotations

from cagg.testing.clock import ManualClock

__all__ = ["ManualClock"]
