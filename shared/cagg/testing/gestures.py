"""What every adapter does with a verdict: contract cases that each adapter's suite runs in its own host.

An adapter translates and decides nothing, so equal cases end equally in every engine. Its test makes the gate answer
``case.verdict`` for a task with ``case.purpose`` and ``case.on_deny``, as attempt ``case.attempt``, alone or mapped,
and compares what the host did with ``case.expected``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cagg.request import OnDeny, Purpose

__all__ = ["Answer", "Gesture", "GestureCase", "gesture_table"]


class Answer(StrEnum):
    """The verdict's class."""

    ADMIT = "admit"
    DEFER = "defer"
    REVIEW = "review"
    DENY = "deny"


class Gesture(StrEnum):
    """What the host does."""

    RUN = "run"
    """the body runs, once, under the meter"""
    GIVE_BACK = "give_back"
    """no worker slot is held; the gate is asked again later, and then the body runs"""
    FAIL = "fail"
    """the body does not run; the task fails for good: the engine's own retries are not used"""
    SKIP = "skip"
    """the body does not run; the task ends skipped"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GestureCase:
    """One case of the contract."""

    verdict: Answer
    purpose: Purpose
    attempt: int
    on_deny: OnDeny
    mapped: bool
    expected: Gesture

    def __str__(self) -> str:
        return f"{self.verdict}-{self.purpose}-attempt{self.attempt}-{self.on_deny}{'-mapped' if self.mapped else ''}"


def _expected(verdict: Answer, purpose: Purpose, on_deny: OnDeny) -> Gesture:
    match verdict:
        case Answer.ADMIT:
            return Gesture.RUN
        case Answer.DEFER:
            return Gesture.GIVE_BACK
        case Answer.REVIEW | Answer.DENY:
            # a skipped check must not look like a passed one, so a release fails closed whatever on_deny says
            skips = on_deny is OnDeny.SKIP and purpose is not Purpose.RELEASE
            return Gesture.SKIP if skips else Gesture.FAIL


gesture_table: tuple[GestureCase, ...] = tuple(
    GestureCase(
        verdict=verdict,
        purpose=purpose,
        attempt=attempt,
        on_deny=on_deny,
        mapped=mapped,
        expected=_expected(verdict, purpose, on_deny),
    )
    for verdict in Answer
    for purpose in Purpose
    for attempt in (1, 2)
    for on_deny in OnDeny
    for mapped in (False, True)
    if not (verdict is Answer.DEFER and attempt > 1)
)
"""Every case; later attempts are never deferred, so there is none of those."""
