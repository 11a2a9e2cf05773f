"""``cagg plan``: what the gate would say now, and what the wait would bring; nothing is recorded."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._options import stated, takes_gate_options
from cagg.cli._output import Json, answer, line
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.settings import Mode
from cagg.verdict import Admit, Defer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["plan"]


@takes_gate_options
def plan(
    *,
    options: GateOptions,
    name: Annotated[str, typer.Option(help="Task whose history is used; the name that `cagg run` gives it.")] = "plan",
    json: Json = False,
) -> int:
    """Show what the gate would decide now: now against the chosen window. Nothing is recorded or held.

    Exit status 0 when the run would be let in, now or later; 1 when it would not.
    """
    from cagg.cli._context import components
    from cagg.cli._story import decision_json, tell_decision
    from cagg.cli._trial import try_request

    parts = components()
    identity = RequestIdentity(host="shell", root_run_id=f"plan-{uuid.uuid4()}", task_key=stated(name, "--name"))
    trial = try_request(parts, Request(identity=identity, options=options, host=HostProfile(name="shell")))
    document: Mapping[str, Any] = {"recorded": False, **decision_json(trial.body)}

    def people(to: Console) -> None:
        tell_decision(to, trial.body, parts.settings.timezone)
        if parts.settings.mode is Mode.OFF:
            line(
                to,
                "The mode is off, so in earnest nothing is asked: the command runs at once, unmetered.",
                style="yellow",
            )
        line(to, "Nothing was recorded; `cagg run -- CMD` with the same options asks in earnest.", style="dim")

    status = 0 if isinstance(trial.verdict, Admit | Defer) else 1
    return answer(document, people, json=json, status=status)
