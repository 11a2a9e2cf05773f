"""``cagg maintain``: one pass, or one every so often until it is told to stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._output import Json, answer, console, line, when, write_json
from cagg.cli._voice import drain, say
from cagg.errors import CaggError, InvalidInput
from cagg.windows import parse_duration

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.maintenance import MaintenanceReport

__all__ = ["maintain", "report_json", "stop_requested"]

_SHORTEST_PAUSE = timedelta(seconds=1)
"""Own choice: below that the passes of one process would keep the store busy."""


def maintain(
    *,
    every: Annotated[str | None, typer.Option(help="Repeat, for example every 10s; ends cleanly on SIGTERM.")] = None,
    json: Json = False,
) -> int:
    """Replay the spool, end what has expired, ask the engines, fetch forecasts, sign a checkpoint.

    Exit status 1 when the (last) pass met a problem. With --every and --json each pass prints one JSON line.
    """
    from cagg.cli._context import components
    from cagg.maintenance import maintain as one_pass

    pause = None if every is None else _pause(every)
    parts = components()
    if pause is None:
        report = one_pass(parts)
        status = 1 if report.problems else 0
        return answer(report_json(report), lambda to: _print(to, report), json=json, status=status)
    status = 0
    with stop_requested() as stop:
        while True:
            stamp = when(parts.clock.now(), None, seconds=True)
            try:
                status = _repeated(lambda: one_pass(parts), json=json, stamp=stamp)
            except BrokenPipeError:
                raise
            except OSError as error:
                drain(sys.stdout)  # a full disk under the log must not end the maintenance
                say(f"{stamp}: the system refused: {error.strerror or error}.")
            if stop.is_set() or parts.clock.wait(stop, pause.total_seconds()):
                return status


def _pause(text: str) -> timedelta:
    pause = parse_duration(text, "--every")
    if pause < _SHORTEST_PAUSE:
        raise InvalidInput(f"--every {text!r} is too short; wait at least 1s between two passes, for example 60s.")
    return pause


def _repeated(one_pass: Callable[[], MaintenanceReport], *, json: bool, stamp: str) -> int:
    """Do a pass of many: a store that is down now may be up at the next one."""
    try:
        report = one_pass()
    except CaggError as error:
        if json:
            write_line({"at": stamp, "error": {"kind": type(error).__name__, "message": str(error)}})
        else:
            say(f"{stamp}: {error}")
        return 2
    if json:
        write_line({"at": stamp, **report_json(report)})
    else:
        line(console(), f"{stamp}: {_sentence(report)}")
        for problem in report.problems:
            line(console(), f"  problem: {problem}")
    return 1 if report.problems else 0


def write_line(document: dict[str, Any]) -> None:
    """Print one JSON document on one line."""
    write_json(document, indent=None)


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event for the time of the block, so that a pass always ends whole."""
    stop = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report_json(report: MaintenanceReport) -> dict[str, Any]:
    """Return a pass as JSON values."""
    return {
        "replayed": report.replayed,
        "sequenced": report.sequenced,
        "expired": report.expired,
        "reconciled": report.reconciled,
        "forecasts": report.forecasts,
        "signed_size": report.signed_size,
        "problems": list(report.problems),
        "notes": list(report.notes),
    }


def _sentence(report: MaintenanceReport) -> str:
    done = [
        f"{count} {what}"
        for count, what in (
            (report.replayed, "replayed from the spool"),
            (report.expired, "expired and charged or released"),
            (report.reconciled, "released because their run is gone"),
            (report.forecasts, "forecasts fetched"),
        )
        if count
    ]
    if report.signed_size is not None:
        signed = f"checkpoint of {report.signed_size} entries"
    else:
        signed = "nothing was signed" if report.problems else "nothing to sign yet"
    return "; ".join([*done, signed]) + "."


def _print(to: Console, report: MaintenanceReport) -> None:
    sentence = _sentence(report)
    line(to, f"{sentence[:1].upper()}{sentence[1:]}")
    for problem in report.problems:
        line(to, f"Problem: {problem}", style="yellow")
    for note in report.notes:
        line(to, f"Note: {note}", style="dim")
