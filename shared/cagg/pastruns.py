"""What an engine remembers of runs that are over: the values that ``cagg assess`` reads, of whatever engine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cagg.errors import InvalidInput
from cagg.windows import require_utc

__all__ = ["HistoryOptions", "PastPipeline", "PastRun", "RunOutcome", "RunTrigger"]


class RunOutcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    """failed, and was tried once more"""
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    RUNNING = "running"
    """not over yet"""


class RunTrigger(StrEnum):
    """What made the pipeline run."""

    SCHEDULED = "scheduled"
    """a schedule: nobody sat there and waited"""
    BACKFILL = "backfill"
    EVENT = "event"
    """an asset, another pipeline, an automation"""
    MANUAL = "manual"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastPipeline:
    """A pipeline as the engine knows it: a DAG, a deployment, a flow.

    Attributes:
        name: as people know it there.
        schedule: its cron text or interval as the engine shows it; empty without a schedule.
        tags: labels that people gave it.
        active: False for one that is paused.
    """

    name: str
    schedule: str = ""
    tags: tuple[str, ...] = ()
    active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """One attempt of one task, or of a pipeline that the engine runs in one piece; no work is in two of them.

    Hosts, users and arguments are left out on purpose.

    Attributes:
        pipeline: name of the pipeline.
        task: name of the task in it; empty for the pipeline in one piece.
        run_id: the pipeline's run, which its tasks share.
        outcome: how the attempt ended.
        attempt: 1 for the first.
        trigger: what made the pipeline run.
        scheduled_at: when the schedule, or whoever triggered it, wanted the pipeline's run; None when unknown.
        queued_at: when it began to wait for a worker; None when unknown.
        started_at, ended_at: when it held a worker; None when it never did, or has not ended.
        operator: the engine's word for what kind of task it is; empty when it has none.
        waits: it mostly waited for something (a sensor), so that it used little.
        pool: what it shared with others; empty when unknown.
        cpu_thousandths: processors that it asked for, in thousandths; None when unknown.
        memory_bytes: memory that it asked for; None when unknown.
    """

    pipeline: str
    run_id: str
    outcome: RunOutcome
    task: str = ""
    attempt: int = 1
    trigger: RunTrigger = RunTrigger.UNKNOWN
    scheduled_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    operator: str = ""
    waits: bool = False
    pool: str = ""
    cpu_thousandths: int | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.pipeline or not self.run_id:
            raise InvalidInput("a past run needs the names of its pipeline and of its run.")
        if self.attempt < 1:
            raise InvalidInput(f"the attempts of {self.pipeline} are counted from 1, got {self.attempt}.")
        for what in ("scheduled_at", "queued_at", "started_at", "ended_at"):
            instant = getattr(self, what)
            if instant is not None:
                object.__setattr__(self, what, require_utc(instant, f"{what} of {self.pipeline}"))
        for what in ("cpu_thousandths", "memory_bytes"):
            amount = getattr(self, what)
            if amount is not None and amount <= 0:
                raise InvalidInput(f"{what} of {self.pipeline} must be more than zero or None, got {amount}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOptions:
    """How to reach an engine. Secrets are not among them: adapters take those from the environment.

    Attributes:
        url: address of its API; None = as the adapter finds it (settings, environment, the engine's own configuration).
        timeout_seconds: longest wait for one answer.
    """

    url: str | None = None
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.timeout_seconds < float("inf"):
            raise InvalidInput("the timeout of an engine's API must be longer than zero and finite.")
