"""The gate's four verdicts and the decision that carries one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from cagg.windows import Window

if TYPE_CHECKING:
    from cagg.request import Request

__all__ = ["Admit", "Decision", "Defer", "Deny", "Reason", "Review", "Verdict"]


class Reason(StrEnum):
    """Why the gate decided as it did; one word per cause, the same in every engine and in the ledger."""

    NOW_IS_BEST = "now_is_best"
    CLEANER_WINDOW = "cleaner_window"
    DIFFERENCE_TOO_SMALL = "difference_too_small"
    IMMATERIAL = "immaterial"
    NO_DEADLINE = "no_deadline"
    NO_ZONE = "no_zone"
    NO_INTENSITY = "no_intensity"
    FLAT_INTENSITY = "flat_intensity"
    """only a yearly average is known: it cannot support shifting in time"""
    NO_ROOM = "no_room"
    """now is the last moment, or past it, for a start that meets the deadline"""
    DEADLINE_PASSED = "deadline_passed"
    WAIT_TOO_SHORT = "wait_too_short"
    LATER_ATTEMPT = "later_attempt"
    DEFERRALS_USED_UP = "deferrals_used_up"
    HOST_CANNOT_DEFER = "host_cannot_defer"
    INSIDE_OUTER_GATE = "inside_outer_gate"
    MODE_OFF = "mode_off"
    MODE_OBSERVE = "mode_observe"
    BUDGET_EXCEEDED = "budget_exceeded"
    BUDGET_UNKNOWN = "budget_unknown"
    INTENSITY_UNKNOWN_TO_BUDGET = "intensity_unknown_to_budget"
    NO_REVIEWER = "no_reviewer"
    STORE_DOWN = "store_down"
    STORE_NOT_SHARED = "store_not_shared"
    """runs may land on several machines and the store is one file: a budget per machine"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Run now.

    Attributes:
        reason: why now.
        message: one sentence for people.
        over_limit: paths of budgets that this run passes although it is let in; booked as overrun.
        unshifted: True when the grid was unknown, so the run could not be moved.
    """

    reason: Reason
    message: str
    over_limit: tuple[str, ...] = ()
    unshifted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """Give the slot back and ask again at ``until``.

    Attributes:
        reason: why later.
        message: one sentence for people.
        until: when to ask again, UTC.
        deadline: when the work must be finished, UTC.
        window: where the work is planned to run.
        expected_difference_micrograms: carbon now minus carbon then, by the forecast; positive = less carbon then.
    """

    reason: Reason
    message: str
    until: datetime
    deadline: datetime
    window: Window
    expected_difference_micrograms: int
    over_limit: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A person must decide."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """Do not run; ``message`` says which limit and what to do."""

    reason: Reason
    message: str


Verdict = Admit | Defer | Review | Deny
"""What the gate can say; match it exhaustively."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A recorded verdict.

    Attributes:
        verdict: what to do.
        request: what was asked.
        decision_id: id of the ledger entry; None when the store was down and the record waits in the spool.
        asked_at: when, UTC.
        first_asked_at: when this request was first asked, UTC.
        lease_epoch: fencing token of the running reservation; None unless admitted with one.
        outer_key: request key of the enclosing gate whose reservation pays; None for an outermost gate.
        metered: False only under mode off.
        notes: what a person should know beside the verdict, for example which source stood in for which.
    """

    verdict: Verdict
    request: Request
    decision_id: str | None
    asked_at: datetime
    first_asked_at: datetime
    lease_epoch: int | None = None
    outer_key: str | None = None
    metered: bool = True
    notes: tuple[str, ...] = ()
