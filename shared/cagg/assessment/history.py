"""Folds past runs, as they stream in, into energy by half hour for each pipeline run. Memory grows with pipeline runs,
not with tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cagg.assessment.power import PowerAssumption
from cagg.errors import InvalidInput
from cagg.pastruns import PastRun, RunOutcome, RunTrigger
from cagg.windows import Window, to_epoch_ms

__all__ = ["SLOT_MS", "FoldedHistory", "FoldedRun"]

SLOT_MS = 30 * 60 * 1_000
"""Half an hour: the finest step of the built-in grid sources (NESO); slot n is [n, n + 1) half hours since 1970."""

_WASTED = frozenset({RunOutcome.FAILED, RunOutcome.RETRIED, RunOutcome.CANCELLED})


@dataclass(slots=True, kw_only=True)
class FoldedRun:
    """One pipeline run: the sum of its tasks' attempts. Energy is exact in microjoules (milliwatts x milliseconds).

    Attributes:
        first_ms, last_ms: from the first start to the last end.
        scheduled_ms: for when it was scheduled; None when unknown.
        low, high: microjoules by slot, at the least and at the most power.
    """

    trigger: RunTrigger
    scheduled_ms: int | None
    first_ms: int
    last_ms: int
    low: dict[int, int] = field(default_factory=dict)
    high: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Pipeline:
    runs: dict[str, FoldedRun] = field(default_factory=dict)
    attempts: int = 0
    failed_attempts: int = 0
    busy_ms: int = 0
    wasted_low: int = 0
    wasted_high: int = 0
    waiting_ms: int = 0


class FoldedHistory:
    """What is kept of a history.

    Args:
        window: attempts are counted as far as they lie in it.
        power: what they are taken to draw.
    """

    def __init__(self, *, window: Window, power: PowerAssumption) -> None:
        self.window = window
        self.power = power
        self.unfinished = 0
        self.outside = 0
        self.hinted = 0
        self.total = 0
        self._start_ms, self._end_ms = to_epoch_ms(window.start), to_epoch_ms(window.end)
        self._pipelines: dict[str, _Pipeline] = {}

    def add(self, run: PastRun) -> None:
        """Count one attempt. One that has not ended, or never began, uses nothing; the first kind is counted apart."""
        self.total += 1
        if run.outcome is RunOutcome.RUNNING or (run.started_at is not None and run.ended_at is None):
            self.unfinished += 1
            return
        if run.started_at is None or run.ended_at is None:
            return  # skipped, cancelled before it began, failed because of another task
        start_ms, end_ms = to_epoch_ms(run.started_at), to_epoch_ms(run.ended_at)
        start_ms, end_ms = max(start_ms, self._start_ms), min(max(start_ms, end_ms), self._end_ms)
        if start_ms > end_ms:
            self.outside += 1
            return
        self.hinted += run.cpu_thousandths is not None
        pipeline = self._pipelines.setdefault(run.pipeline, _Pipeline())
        low, high = self.power.of(run)
        self._place(pipeline, run, start_ms, end_ms, (low, high))
        length_ms = end_ms - start_ms
        pipeline.attempts += 1
        pipeline.busy_ms += length_ms
        pipeline.waiting_ms += length_ms if run.waits else 0
        if run.outcome in _WASTED:
            pipeline.failed_attempts += 1
            pipeline.wasted_low += low * length_ms
            pipeline.wasted_high += high * length_ms

    def _place(self, pipeline: _Pipeline, run: PastRun, start_ms: int, end_ms: int, power: tuple[int, int]) -> None:
        whole = pipeline.runs.get(run.run_id)
        if whole is None:
            scheduled = None if run.scheduled_at is None else to_epoch_ms(run.scheduled_at)
            whole = pipeline.runs[run.run_id] = FoldedRun(
                trigger=run.trigger, scheduled_ms=scheduled, first_ms=start_ms, last_ms=end_ms
            )
        whole.first_ms, whole.last_ms = min(whole.first_ms, start_ms), max(whole.last_ms, end_ms)
        low, high = power
        slot = start_ms // SLOT_MS
        while start_ms < end_ms:
            until_ms = min(end_ms, (slot + 1) * SLOT_MS)
            whole.low[slot] = whole.low.get(slot, 0) + low * (until_ms - start_ms)
            whole.high[slot] = whole.high.get(slot, 0) + high * (until_ms - start_ms)
            start_ms, slot = until_ms, slot + 1

    # ---- reading --------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Pipelines that ran, by name."""
        return tuple(sorted(self._pipelines))

    def runs(self, pipeline: str) -> tuple[FoldedRun, ...]:
        """The runs of a pipeline by start."""
        return tuple(sorted(self._of(pipeline).runs.values(), key=lambda run: (run.first_ms, run.last_ms)))

    def counts(self, pipeline: str) -> Counter[str]:
        """``attempts``, ``failed_attempts``, ``busy_ms``, ``waiting_ms``, ``wasted_low`` and ``wasted_high`` (µJ)."""
        item = self._of(pipeline)
        names = ("attempts", "failed_attempts", "busy_ms", "waiting_ms", "wasted_low", "wasted_high")
        return Counter({name: getattr(item, name) for name in names})

    def _of(self, pipeline: str) -> _Pipeline:
        if pipeline not in self._pipelines:
            raise InvalidInput(f"nothing was read of a pipeline {pipeline!r}; names has those that ran.")
        return self._pipelines[pipeline]
