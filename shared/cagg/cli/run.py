"""``cagg run -- CMD``: a gate around any command. Waits here for its window, meters the command, settles."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._child import Child, Stopped, command_name, missing_command, not_started
from cagg.cli._options import stated, takes_gate_options
from cagg.cli._output import Json, in_words, try_json, when
from cagg.cli._story import signed_carbon
from cagg.cli._voice import LastResort, say, was_said, write_error
from cagg.errors import CaggError, StoreUnavailable
from cagg.quantities import CarbonMass
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.verdict import Admit, Decision, Defer, Deny, Review
from cagg.windows import format_duration

if TYPE_CHECKING:
    from cagg.gating import Gate
    from cagg.steps.running import GatedRun, RunSummary

__all__ = ["REFUSED", "run"]

REFUSED = 125
"""Exit status when the command was not started: the gate refused, or cagg failed; as env and nice do."""

_SIGNALLED = 128
_SAY_AGAIN = timedelta(minutes=10)


class _CommandFailed(Exception):
    """Tells the meter that the command failed; never seen outside."""


@takes_gate_options
def run(
    *,
    options: GateOptions,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD", help="The command and its arguments.")],
    name: Annotated[str | None, typer.Option(help="Name of the task in the ledger; default: the program's.")] = None,
    run_id: Annotated[
        str | None, typer.Option(help="Identity of this run, when a restart should continue the same request.")
    ] = None,
    json: Json = False,
) -> int:
    """Run a command behind the gate: waits for its window, meters its processes, settles its budget.

    Exit status: the command's own; 125 when the command was not started: the gate refuses, an option is wrong, or
    cagg fails before. What cagg says goes to stderr; with --json the command's output does too, and stdout holds one
    document.
    """
    from cagg.gating import Gate

    task = command_name(command) if name is None else stated(name, "--name")
    run_id = str(uuid.uuid4()) if run_id is None else stated(run_id, "--run-id")
    problem = missing_command(command[0])
    if problem is not None:
        say(problem[1])
        if json:
            try_json({"error": {"kind": "CommandNotStarted", "message": problem[1]}})
        return problem[0]
    gate = Gate.open()
    identity = RequestIdentity(host="shell", root_run_id=run_id, task_key=task)
    request = Request(identity=identity, options=options, host=HostProfile(name="shell"), encloses_run=True)
    with Child() as child:
        try:
            decision = _admitted(gate, request)
        except Stopped as stopped:
            return _given_up(gate, request, stopped)
        match decision.verdict:
            case Deny() | Review():
                return _refused(decision, json=json)
            case Admit() | Defer():
                return _metered(gate, decision, child, command, json=json)


def _admitted(gate: Gate, request: Request) -> Decision:
    """Ask until the answer is no deferral, waiting in this process meanwhile."""
    from cagg.gating import wait_until

    decision = gate.ask(request)
    while isinstance(decision.verdict, Defer):
        countdown = _Countdown(decision.verdict, gate.components.settings.timezone)
        try:
            wait_until(gate, decision.verdict, countdown.tick)
        finally:
            countdown.end()
        decision = gate.ask(request)
    say(decision.verdict.message)
    return decision


class _Countdown:
    """Shows how long the wait still lasts: one line that counts on a terminal, a line now and then elsewhere."""

    def __init__(self, verdict: Defer, zone_name: str | None) -> None:
        self._terminal = sys.stderr.isatty()
        self._said: timedelta | None = None
        until = when(verdict.until, zone_name, seconds=verdict.window.duration < timedelta(minutes=1))
        say(verdict.message)
        difference = signed_carbon(verdict.expected_difference_micrograms)
        say(f"starts at {until}, {difference} by the forecast; Ctrl-C gives the place back.")

    def tick(self, _: Defer, left: timedelta) -> None:
        """Called about every second."""
        if self._terminal:
            write_error(f"\r\x1b[Kcagg: waiting, {format_duration(left)} left")
        elif self._said is None or self._said - left >= _SAY_AGAIN:
            self._said = left
            say(f"waiting, starts {in_words(left)}.")

    def end(self) -> None:
        """Take the counting line away."""
        if self._terminal:
            write_error("\r\x1b[K")


def _given_up(gate: Gate, request: Request, stopped: Stopped) -> int:
    """A signal ended the wait: the hold is given back now instead of by the next ``cagg maintain``."""
    try:
        gate.release(request.identity)
    except StoreUnavailable as error:
        say(f"the hold could not be given back, `cagg maintain` will: {error}")
    say("stopped before the command started; nothing was charged.")
    return _SIGNALLED + stopped.number


def _refused(decision: Decision, *, json: bool) -> int:
    if json:
        try_json({"decision": _decision_json(decision), "exit": REFUSED})
    return REFUSED


def _metered(gate: Gate, decision: Decision, child: Child, command: list[str], *, json: bool) -> int:
    """Run the command under the meter. Its status is the answer from its end on, whatever becomes of the record."""
    gated = gate.run(decision)
    attempt = _Attempt()
    with LastResort("cagg run") as last:
        attempt.make(gated, child, command, json=json)
    if last.error is not None:
        attempt.problem, attempt.kind = last.sentence, type(last.error).__name__
    problem = attempt.problem
    if problem is not None:
        if attempt.status == REFUSED and not child.ended:
            problem = f"{command[0]!r} was not started: {problem}"
        if not child.ended and gated.summary is None and decision.lease_epoch is not None:
            problem = f"{problem.rstrip('.')}; `cagg maintain` ends what it held once its lease is over."
        say(problem)
    summary = gated.summary
    if summary is not None:
        _tell(summary)
    if json:
        document = {
            "decision": _decision_json(decision),
            "exit": attempt.status,
            "run": None if summary is None else _summary_json(summary),
        }
        if problem is not None:
            document["error"] = {"kind": attempt.kind, "message": problem}
        try_json(document)
    return attempt.status


class _Attempt:
    """One try to run the command: it is refused until the command says otherwise by its end.

    Attributes:
        status: what to exit with.
        problem: what went wrong on cagg's side, and which kind of error that is; None and "" for nothing.
    """

    def __init__(self) -> None:
        self.status = REFUSED
        self.problem: str | None = None
        self.kind = ""

    def make(self, gated: GatedRun, child: Child, command: list[str], *, json: bool) -> None:
        """Meter, run, settle."""
        try:
            with gated:
                self._run(gated, child, command, json=json)
        except _CommandFailed:
            pass
        except Stopped as stopped:
            self.status = _SIGNALLED + stopped.number
        except CaggError as error:
            self.problem, self.kind = str(error), type(error).__name__

    def _run(self, gated: GatedRun, child: Child, command: list[str], *, json: bool) -> None:
        from cagg.steps.running import ENCLOSING_VARIABLE

        inside = {ENCLOSING_VARIABLE: gated.key} if gated.decision.metered else None
        try:
            self.status = child.run(command, output_to_stderr=json, environment=inside)
        except OSError as error:
            self.status, self.problem = not_started(command[0], error)
            self.kind = "CommandNotStarted"
            raise _CommandFailed from None
        if self.status != 0:
            raise _CommandFailed


def _tell(summary: RunSummary) -> None:
    reading = summary.reading
    if reading.energy is None:
        used = f"energy unknown ({reading.reason})"
    else:
        used = f"used {reading.energy} ({reading.low} to {reading.high}, grade {reading.grade})"
    carbon = f"carbon unknown ({summary.carbon_reason})" if summary.carbon is None else str(summary.carbon)
    parts = [used, carbon]
    if summary.difference_micrograms is not None:
        parts.append(f"{signed_carbon(summary.difference_micrograms)} than at the first ask")
    say("; ".join(parts) + ".")
    if summary.measurement_id is not None:
        say(f"recorded as {summary.measurement_id}; `cagg explain {summary.measurement_id}` tells the story.")
    for note in (note for note in summary.notes if not was_said(note)):
        say(f"note: {note}")


# ---- for machines -------------------------------------------------------------------------------------------------


def _decision_json(decision: Decision) -> Mapping[str, Any]:
    from cagg.evidence import verdict_body

    return {
        "entry_id": decision.decision_id,
        "request_key": decision.request.identity.key,
        "asked_at": decision.asked_at,
        "first_asked_at": decision.first_asked_at,
        "verdict": verdict_body(decision.verdict),
    }


def _summary_json(summary: RunSummary) -> Mapping[str, Any]:
    reading = summary.reading

    def amount(value: CarbonMass | None) -> int | None:
        return None if value is None else value.micrograms

    return {
        "start": reading.window.start,
        "end": reading.window.end,
        "energy_millijoules": None if reading.energy is None else reading.energy.millijoules,
        "low_millijoules": None if reading.low is None else reading.low.millijoules,
        "high_millijoules": None if reading.high is None else reading.high.millijoules,
        "grade": None if reading.grade is None else str(reading.grade),
        "energy_reason": reading.reason,
        "carbon_micrograms": amount(summary.carbon),
        "carbon_reason": summary.carbon_reason,
        "difference_micrograms": summary.difference_micrograms,
        "charged": {str(unit): charged for unit, charged in summary.charged.items()},
        "measurement_id": summary.measurement_id,
        "settlement_id": summary.settlement_id,
        "notes": list(summary.notes),
    }
