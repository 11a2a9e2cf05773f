"""``cagg maintain``: one pass, or one every so often until it is told to stop."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._output import Json, answer, console, line, when, write_json
from cagg.cli._voice import drain, say, write_error
from cagg.errors import CaggError, InvalidInput
from cagg.windows import parse_duration

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.composition import Components
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

    With --every, entries in a shared store get their places in the log all the time, also between the passes. Exit
    status 1 when the (last) pass met a problem. With --every and --json each pass prints one JSON line.
    """
    from cagg.cli._context import components
    from cagg.maintenance import between_passes
    from cagg.maintenance import maintain as one_pass
    from cagg.steps.sequencing import Sequencer

    pause = None if every is None else _pause(every)
    parts = components()
    known = _known(parts)
    if pause is None:
        with _checkpoints_told(lambda text: write_error(f"{text}\n") if json else _print_line(text), known):
            report = one_pass(parts)
        status = 1 if report.problems else 0
        return answer(report_json(report), lambda to: _print(to, report), json=json, status=status)
    status = 0
    told = _checkpoints_told(lambda text: write_line({"checkpoint": text}) if json else _print_line(text), known)
    with stop_requested() as stop, told:
        sequencer = Sequencer(parts, stop=stop)

        def stamp() -> str:
            return when(parts.clock.now(), None, seconds=True)

        while not stop.is_set():
            with _disk_may_be_full(stamp):
                status = _repeated(lambda: one_pass(parts, sequencer=sequencer), json=json, stamp=stamp())
            with _disk_may_be_full(stamp):
                between_passes(
                    parts,
                    sequencer,
                    seconds=pause.total_seconds(),
                    say=lambda sentence: _note(sentence, json=json, stamp=stamp()),
                )
        return status


def _known(parts: Components) -> set[str]:
    """Return the newest checkpoint of every log, as lines: what is signed already was told by who signed it."""
    from cagg.cli._context import store_is_new
    from cagg.ledger.anchors import line_of

    if "log" not in parts.settings.anchors or store_is_new(parts):
        return set()
    try:
        with parts.store.snapshot() as tx:
            found = [tx.in_log(one.origin).last_checkpoint() for one in tx.logs()]
    except CaggError:
        return set()  # the pass tells it
    return {line_of(item) for item in found if item is not None}


class _CheckpointVoice(logging.Handler):
    """Hands on what is published to the log: one line per checkpoint, once, and none that was signed before."""

    def __init__(self, write: Callable[[str], None], known: set[str]) -> None:
        super().__init__(logging.INFO)
        self._write = write
        self._known = known

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._known:
            self._write(text)
            self._known.add(text)


@contextmanager
def _checkpoints_told(write: Callable[[str], None], known: set[str]) -> Iterator[None]:
    """Print what the anchor ``log`` publishes while the block runs."""
    logger, voice = logging.getLogger("cagg.checkpoint"), _CheckpointVoice(write, known)
    before = logger.level
    logger.addHandler(voice)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(voice)


def _print_line(text: str) -> None:
    console().print(text, soft_wrap=True)


@contextmanager
def _disk_may_be_full(stamp: Callable[[], str]) -> Iterator[None]:
    """Let a full disk under the log not end the maintenance; a reader who has gone ends it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        drain(sys.stdout)
        say(f"{stamp()}: the system refused: {error.strerror or error}.")


def _note(sentence: str, *, json: bool, stamp: str) -> None:
    if json:
        write_line({"at": stamp, "note": sentence})
    else:
        say(f"{stamp}: {sentence}")


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
        "lag_seconds": report.lag_seconds,
        "waiting": report.waiting,
        "expired": report.expired,
        "reconciled": report.reconciled,
        "forecasts": report.forecasts,
        "signed_size": report.signed_size,
        "newly_signed": report.newly_signed,
        "problems": list(report.problems),
        "notes": list(report.notes),
    }


def _sentence(report: MaintenanceReport) -> str:
    done = [
        f"{count} {what}"
        for count, what in (
            (report.replayed, "replayed from the spool"),
            (report.sequenced, "given their place in the log"),
            (report.expired, "expired and charged or released"),
            (report.reconciled, "released because their run is gone"),
            (report.forecasts, "forecasts fetched"),
        )
        if count
    ]
    if report.newly_signed:
        signed = f"checkpoint of {report.signed_size} entries"
    elif report.signed_size is not None:
        signed = f"nothing new to sign after {report.signed_size} entries"
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
