"""``cagg meter -- CMD``: measure a command's processes without asking the gate; nothing is recorded."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cagg.cli._child import Child, Stopped, command_name, missing_command, not_started
from cagg.cli._output import Json, try_json
from cagg.cli._voice import say

__all__ = ["meter"]


def meter(
    *,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD", help="The command and its arguments.")],
    json: Json = False,
) -> int:
    """Run a command under the meter and show its reading; nothing is asked, charged or recorded.

    Exit status: the command's own. With --json the command's output goes to stderr.
    """
    from cagg.cli._context import components

    task = command_name(command)
    problem = missing_command(command[0])
    if problem is not None:
        say(problem[1])
        if json:
            try_json({"error": {"kind": "CommandNotStarted", "message": problem[1]}})
        return problem[0]
    parts = components()
    with Child() as child:
        window = parts.meter().open(task)
        try:
            status = child.run(command, output_to_stderr=json)
        except OSError as error:
            status, sentence = not_started(command[0], error)
            say(sentence)
        except Stopped as stopped:
            status = 128 + stopped.number
        finally:
            reading = window.close()
    document: dict[str, Any] = {
        "exit": status,
        "start": reading.window.start,
        "end": reading.window.end,
        "energy_millijoules": None if reading.energy is None else reading.energy.millijoules,
        "low_millijoules": None if reading.low is None else reading.low.millijoules,
        "high_millijoules": None if reading.high is None else reading.high.millijoules,
        "grade": None if reading.grade is None else str(reading.grade),
        "cpu_milliseconds": reading.cpu_milliseconds,
        "reason": reading.reason,
        "notes": list(reading.notes),
        "components": [
            {
                "domain": item.domain,
                "source": item.source,
                "method": item.method,
                "grade": str(item.grade),
                "energy_millijoules": None if item.energy is None else item.energy.millijoules,
                "reason": item.reason,
            }
            for item in reading.components
        ],
    }
    if json:
        try_json(document)
        return status
    if reading.energy is None:
        say(f"energy unknown: {reading.reason}")
    else:
        say(f"{reading.energy} ({reading.low} to {reading.high}, grade {reading.grade})")
    for item in reading.components:
        text = (
            item.reason if item.energy is None else f"{item.energy}, grade {item.grade}, {item.source}: {item.method}"
        )
        say(f"  {item.domain}: {text}")
    return status
