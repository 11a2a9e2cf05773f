"""What cagg says beside its answer: sentences on stderr that can never stop, fail or disturb what it is said about.

Streams may be closed, full, or read by somebody who has left; a sentence that cannot be said is dropped.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

__all__ = [
    "LastResort",
    "drain",
    "flush_all",
    "harmless",
    "open_streams",
    "say",
    "speaking",
    "was_said",
    "write_error",
]

_MODES = ("r", "w", "w")
_NAMES = ("stdin", "stdout", "stderr")

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that steer a terminal instead of being shown (C0 and C1 controls, ECMA-48, 1991), and those that turn the
direction of writing (Unicode Standard Annex 9, Bidi_Control). Line feeds and tabs are none of them."""

_said: set[str] = set()


def harmless(text: str) -> str:
    """Return a text that no terminal obeys: names in a ledger, a proof or a message are written by others."""
    return _STEERING.sub("\ufffd", text)


def open_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr are closed, and let none of them fail at a character.

    Without it the next file that is opened, a database for example, would take the number of the missing stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # noqa: FBT003 - named so by the standard library
        if getattr(sys, _NAMES[number]) is None:
            stream = open(number, _MODES[number], closefd=False, encoding="utf-8")  # noqa: SIM115 - stays open
            setattr(sys, _NAMES[number], stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows '?', it does not stop the command


def write_error(text: str) -> None:
    """Write a text to stderr as it is; what cannot be written is dropped."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        drain(sys.stderr)


def say(sentence: str) -> None:
    """Say one sentence on stderr; a sentence that cannot be written is dropped."""
    _said.add(sentence)
    write_error(f"cagg: {harmless(sentence)}\n")


def was_said(sentence: str) -> bool:
    """True when this command has said exactly that already."""
    return sentence in _said


def drain(stream: TextIO) -> None:
    """Throw away what a stream still holds and cannot write; otherwise the interpreter fails over it at its end."""
    try:
        number = stream.fileno()
        kept = os.dup(number)
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, number)
        with suppress(OSError, ValueError):
            stream.flush()
        os.dup2(kept, number)
    finally:
        os.close(null)
        os.close(kept)


def flush_all() -> None:
    """Write what stdout and stderr still hold, or drop it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            drain(stream)


class _LogVoice(logging.Handler):
    """Says what the packages log as warnings, each once."""

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage().removeprefix("cagg:").removeprefix("cagg ").strip()
        if not was_said(sentence):
            say(sentence)


@contextmanager
def speaking() -> Iterator[None]:
    """Say what is logged while a command runs; each command begins with nothing said."""
    _said.clear()
    logger, voice = logging.getLogger("cagg"), _LogVoice(logging.WARNING)
    logger.addHandler(voice)
    try:
        yield
    finally:
        logger.removeHandler(voice)


class LastResort:
    """A block whose unforeseen errors become one sentence, where no error may stop what has to follow.

    Attributes:
        error: what went wrong; None when nothing did.
    """

    def __init__(self, where: str) -> None:
        self.error: Exception | None = None
        self._where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.error = error
        return True

    @property
    def sentence(self) -> str:
        """What is told of the error, with its place in the code."""
        frames = traceback.extract_tb(None if self.error is None else self.error.__traceback__)
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        what = f"{type(self.error).__name__}: {self.error}"
        return f"{self._where} met an error that nobody foresaw ({what}{place}); please report it."
