"""How far a scheduled run could have moved, and what the best move would have changed by given intensities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low

from cagg.assessment.history import SLOT_MS, FoldedRun
from cagg.pastruns import RunTrigger

__all__ = ["Slack", "best_difference", "slacks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """By how much a run could have started later.

    Attributes:
        milliseconds: up to the next scheduled run of the pipeline, and at most the assumed longest wait.
        by_schedule: the next scheduled run is known, or its usual distance; False = only the longest wait bounds it.
    """

    run: FoldedRun
    milliseconds: int
    by_schedule: bool

    @property
    def moves(self) -> bool:
        """True when it could have moved by a half hour at least: shorter moves are beyond what the grid data tell."""
        return self.milliseconds >= SLOT_MS


def slacks(runs: Sequence[FoldedRun], max_wait_ms: int) -> list[Slack]:
    """Return the slack of each scheduled run, in order: min(longest wait, next scheduled start - its end), not below 0.

    The last run's next start is its own plus the usual (median) distance; of a single run only the longest wait is
    known.
    """
    scheduled = sorted(
        (run for run in runs if run.trigger is RunTrigger.SCHEDULED),
        key=lambda run: run.first_ms if run.scheduled_ms is None else run.scheduled_ms,
    )
    planned = [run.first_ms if run.scheduled_ms is None else run.scheduled_ms for run in scheduled]
    instants = sorted(set(planned))
    following = dict(pairwise(instants))
    distances = [after - before for before, after in following.items()]
    found = []
    for run, at in zip(scheduled, planned, strict=True):
        after = following.get(at)
        if after is None and distances:
            after = at + median_low(distances)
        free = max_wait_ms if after is None else min(max_wait_ms, after - run.last_ms)
        found.append(Slack(run=run, milliseconds=max(0, free), by_schedule=after is not None))
    return found


def best_difference(energy: Mapping[int, int], intensities: Mapping[int, int], slack_ms: int) -> int | None:
    """Return how much less the run would have emitted at the best whole half hour within its slack, in µJ x mg/kWh.

    difference = max over k of sum(energy[s] x (intensity[s] - intensity[s + k])), 0 <= k <= slack in half hours; k = 0
    is among them, so it is never negative. Moves into half hours of which nothing is known are left out; None when the
    run's own half hours are not all known.
    """
    if any(slot not in intensities for slot in energy):
        return None
    own = sum(amount * intensities[slot] for slot, amount in energy.items())
    least = own
    for move in range(1, slack_ms // SLOT_MS + 1):
        moved = 0
        for slot, amount in energy.items():
            intensity = intensities.get(slot + move)
            if intensity is None:
                break
            moved += amount * intensity
        else:
            least = min(least, moved)
    return own - least
