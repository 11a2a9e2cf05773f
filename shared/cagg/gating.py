"""The one use case: ask before work runs, wake it later, run it under the meter, settle.

``Gate.ask`` is synchronous; asynchronous hosts call it by ``asyncio.to_thread``. The network is asked outside of
any transaction, the verdict, its hold and its ledger entry are one transaction.
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from cagg.composition import Components, compose
from cagg.errors import NotAdmitted, StoreUnavailable
from cagg.process import PROCESS_RUN_ID
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.settings import Mode, Settings
from cagg.steps.outage import Outage
from cagg.steps.recording import Recorder
from cagg.steps.running import GatedRun, current_run
from cagg.steps.situation import complete, survey
from cagg.steps.spooling import replay_spool
from cagg.verdict import Admit, Decision, Defer
from cagg.windows import format_duration

__all__ = ["Gate", "current_run", "gate", "wait_until"]

logger = logging.getLogger("cagg")

Tick = Callable[[Defer, timedelta], None]
"""Called while a local run waits, with the deferral and the time that is left."""


class Gate:
    """Asks, records and meters; one per process is enough, threads may share it."""

    def __init__(self, components: Components) -> None:
        self.components = components
        self._recorder = Recorder(components)
        self._prepared = False
        self._pending: dict[str, Decision] = {}

    @classmethod
    def open(
        cls,
        host_settings: Mapping[str, Any] | None = None,
        *,
        settings: Settings | None = None,
        host_name: str = "host",
        arguments: Mapping[str, Any] | None = None,
    ) -> Gate:
        """Open a gate from the settings.

        Args:
            host_settings: values of the engine by settings key.
            settings: complete settings instead of collecting them.
            host_name: how the engine is called in the settings' origins.
            arguments: strongest values by settings key.

        Raises:
            ConfigurationError: the settings cannot be read.
        """
        if settings is not None:
            return cls(compose(settings))
        return cls(compose(host=host_settings, host_name=host_name, arguments=arguments))

    def ask(self, request: Request) -> Decision:
        """Decide on one request, hold what it may use, record the decision; then return it.

        Raises:
            InvalidInput: the request contradicts itself, for example a deadline that is past at the first ask.
            ConfigurationError: the settings miss something the request needs.
        """
        settings = self.components.settings
        request = complete(request, settings)
        if settings.mode is Mode.OFF:
            return Outage(self.components).bypass(request)
        self._prepare_once()
        asked_twice = self._pending.get(request.identity.key)
        if asked_twice is not None and self.components.clock.now() - asked_twice.asked_at < settings.lease:
            return asked_twice  # admitted already and not begun yet: one admission
        decision = self._recorder.decide(survey(self.components, request))
        if isinstance(decision.verdict, Admit) and decision.lease_epoch is not None:
            self._pending[request.identity.key] = decision
        return decision

    def run(self, decision: Decision) -> GatedRun:
        """Return the context manager that meters an admitted run, keeps its lease alive and settles it.

        Raises:
            NotAdmitted: the decision is no admission.
        """
        if not isinstance(decision.verdict, Admit):
            raise NotAdmitted(decision)
        self.forget(decision.request.identity)
        return GatedRun(self.components, decision)

    def forget(self, identity: RequestIdentity) -> None:
        """Let the next ask of a request be a new one, although this gate admitted it and nothing ran under it: its
        admission was ended, or is held for others."""
        self._pending.pop(replace(identity, incarnation=0).key, None)

    def release(self, identity: RequestIdentity, *, reference: str = "") -> bool:
        """Give back a waiting reservation; False when there is none.

        Args:
            identity: who asked.
            reference: the very task run that waited (Request.run_reference), so that one that was started anew under
                the same identity keeps its hold; empty = whichever waits.
        """
        return self._recorder.release(identity, reference=reference)

    def _prepare_once(self) -> None:
        """Create the store where there is none, and bring in what the spool holds."""
        if self._prepared:
            return
        try:
            with self.components.store.transaction():
                pass
        except StoreUnavailable:
            return  # each ask finds that out itself and applies its own policy
        self._prepared = True
        if self.components.spool.waiting():
            for problem in replay_spool(self.components).set_aside:
                logger.warning("cagg set a spooled record aside: %s", problem)


def wait_until(gate: Gate, verdict: Defer, on_tick: Tick | None, *, tick_seconds: float = 1.0) -> None:
    """Block until the deferral is over, calling ``on_tick`` about every ``tick_seconds``."""
    clock = gate.components.clock
    while (left := verdict.until - clock.now()) > timedelta(0):
        if on_tick is not None:
            on_tick(verdict, left)
        clock.sleep(min(tick_seconds, left.total_seconds()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Local:
    """What a gate without an engine needs to know."""

    request: Request
    wait: bool
    on_tick: Tick | None


class _LocalGate(AbstractContextManager["GatedRun"]):
    """``with cagg.gate(...) as run:``: waits in process, then meters."""

    def __init__(self, local: _Local, opened: Gate | None) -> None:
        self._local = local
        self._gate = opened
        self._run: GatedRun | None = None

    @property
    def gate(self) -> Gate:
        """The gate behind it, opened at the first use."""
        if self._gate is None:
            self._gate = Gate.open()
        return self._gate

    def ask(self) -> Decision:
        """Ask once and return the decision without waiting or running."""
        return self.gate.ask(self._local.request)

    def __enter__(self) -> GatedRun:
        decision = self.ask()
        begun = False
        try:
            while isinstance(decision.verdict, Defer) and self._local.wait:
                wait_until(self.gate, decision.verdict, self._local.on_tick)
                decision = self.ask()
            self._run = self.gate.run(decision)
            begun = True
        finally:
            if not begun:  # refused, interrupted, or not to wait: nothing will continue this request
                with suppress(StoreUnavailable):
                    self.gate.release(decision.request.identity)
        return self._run.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is None:
            return
        self._run.__exit__(kind, error, trace)
        if self._run.summary is not None and self._run.summary.checkpoint:
            logger.info("%s", self._run.summary.checkpoint)


def gate(
    name: str | None = None,
    *,
    wait: bool = True,
    run_id: str | None = None,
    on_tick: Tick | None = None,
    opened: Gate | None = None,
    **options: Any,
) -> _LocalGate:
    """Gate a block of code anywhere: ``with cagg.gate(zone="GB", finish_by="06:00") as run: ...``.

    Args:
        name: what runs, stable from night to night: its history is kept by it; None = the calling function.
        wait: wait in this process when deferred; False raises NotAdmitted instead.
        run_id: identity of the run when a restart should continue the same request; None = a new one each time.
        on_tick: called about every second while waiting; None = one log line at the start.
        opened: an open gate; None = from the settings.
        options: fields of :class:`cagg.request.GateOptions`.

    Raises:
        NotAdmitted: on entering, when the verdict is Deny or Review, or Defer without ``wait``.
        InvalidInput: an option cannot be used.
    """
    identity = RequestIdentity(
        host="local", root_run_id=run_id or f"{PROCESS_RUN_ID}-{uuid.uuid4()}", task_key=name or _caller()
    )
    request = Request(
        identity=identity,
        options=GateOptions.from_mapping(options, where="cagg.gate"),
        host=HostProfile(name="local"),
        encloses_run=run_id is not None,
    )
    return _LocalGate(_Local(request=request, wait=wait, on_tick=on_tick or _Announcement()), opened)


def _caller() -> str:
    """Name the function that opened the gate: ``module.function``, or the script's name at its top level."""
    frame = sys._getframe(2)
    module = str(frame.f_globals.get("__name__", "python"))
    if module == "__main__":
        module = Path(str(frame.f_globals.get("__file__", "python"))).stem
    function = frame.f_code.co_name
    return module if function.startswith("<") else f"{module}.{function}"


class _Announcement:
    """One log line per deferral."""

    def __init__(self) -> None:
        self._said: Defer | None = None

    def __call__(self, verdict: Defer, left: timedelta) -> None:
        if verdict is not self._said:
            self._said = verdict
            logger.warning("cagg: %s (%s left)", verdict.message, format_duration(left))
