"""The gate's options on the command line: one ``--option`` for each field of GateOptions, under the same name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from cagg.errors import InvalidInput
from cagg.request import GateOptions

__all__ = ["GATE_HELP", "LATEST_ENTRY", "EntryName", "InLog", "stated", "takes_gate_options"]

LATEST_ENTRY = (
    "Id of the entry, a unique beginning of it, its number in the log, or latest: the newest entry of any kind."
)
"""What the commands about one entry take."""

EntryName = Annotated[str, typer.Argument(metavar="ENTRY", help=LATEST_ENTRY)]

InLog = Annotated[
    str | None,
    typer.Option("--log", help="Log of the store that numbers and latest are of; default: the one that grows."),
]
"""``cagg ledger logs`` lists the names."""

GATE_HELP = {
    "zone": "Grid zone, for example neso:GB; `cagg zones` lists them.",
    "duration": "How long the work runs, for example 30m; unknown = learned.",
    "energy": "How much energy it uses, for example '1.5 kWh'; unknown = learned.",
    "power": "Mean power instead of energy, for example '250 W'.",
    "finish_by": "Finish by a time of day (06:00) or an instant with an offset.",
    "max_wait": "Longest wait for the start, for example 4h, instead of --finish-by.",
    "interruptible": "The work may be paused and resumed.",
    "resume_cost": "What one resume costs, energy or minutes at the run's power.",
    "capacity": "elastic, or reserved: the machine idles while the work waits.",
    "budget": "Path of the budget that pays, for example acme/ml/nightly.",
    "kind": "training, validation, inference, regeneration or other.",
    "purpose": "release, work or monitor.",
    "risk": "minimal, limited, high or critical.",
    "work_item": "What the change is for: an issue, a pull request, a model version.",
    "min_difference": "Least worthwhile difference as a share of the run's carbon, for example 5%.",
    "on_deny": "fail or skip.",
}
"""One sentence per option."""


def takes_gate_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the gate's options; it receives them as one argument ``options``.

    The parameters are made from GateOptions, so the command line can't fall behind the decorators.
    """

    @wraps(command)
    def with_options(**values: Any) -> int:
        stated = {name: values.pop(name) for name in GATE_HELP}
        stated = {name: value for name, value in stated.items() if value is not None and value is not False}
        return command(options=GateOptions.from_mapping(stated, where="the command line"), **values)

    hints = get_type_hints(command, include_extras=True)
    own = [
        item.replace(annotation=hints[item.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for item in inspect.signature(command).parameters.values()
        if item.name != "options"
    ]
    given = [_parameter(name, text) for name, text in GATE_HELP.items()]
    parameters = [*own, *given]
    with_options.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    with_options.__annotations__ = {item.name: item.annotation for item in parameters} | {"return": int}
    del with_options.__wrapped__  # Typer would read the inner signature through it
    return with_options


def stated(text: str, option: str) -> str:
    """Return a name that was given with an option; raises InvalidInput for an empty one."""
    if not text.strip():
        raise InvalidInput(f"{option} is empty; give a name, or leave the option out.")
    return text


def _parameter(name: str, text: str) -> inspect.Parameter:
    option = f"--{name.replace('_', '-')}"
    panel = "What the gate is asked"
    if name == "interruptible":
        kind: Any = Annotated[bool, typer.Option(option, help=text, rich_help_panel=panel)]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
    kind = Annotated[str | None, typer.Option(option, help=text, rich_help_panel=panel, show_default=False)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
