"""Starts the command that was asked for, hands signals on to it, and returns its status as shells count it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from cagg.cli._voice import flush_all
from cagg.errors import InvalidInput

__all__ = ["NOT_EXECUTABLE", "NOT_FOUND", "Child", "Stopped", "command_name", "missing_command", "not_started"]

NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""What env, nice and shells return (POSIX.1-2024, XCU 2.8.2 Exit Status for Commands)."""

_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
_INTERPRETERS = ("python", "pypy", "bash", "sh", "zsh", "Rscript", "julia", "node", "ruby", "perl", "uv", "poetry")


class Stopped(BaseException):
    """A signal came while no command was running yet.

    Attributes:
        number: which signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


class Child:
    """One command and the signals around it; a context manager that puts the handlers back.

    Until the command starts a signal raises :class:`Stopped`. While it starts, the signal is kept; while it runs,
    signals go to it. After it has ended they are dropped, so that the settlement is not torn apart.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = False
        self._ended = False
        self._kept: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _FORWARDED:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    @property
    def ended(self) -> bool:
        """True when a command has been started and has ended."""
        return self._ended

    def run(
        self, command: Sequence[str], *, output_to_stderr: bool, environment: Mapping[str, str] | None = None
    ) -> int:
        """Run the command to its end and return its status: its own, or 128 + the signal that ended it.

        Args:
            command: program and arguments; no shell.
            output_to_stderr: send its standard output to stderr, because ours is taken.
            environment: variables that it gets beside ours; None = none.

        Raises:
            OSError: it cannot be started.
        """
        flush_all()
        told = None if environment is None else {**os.environ, **environment}
        self._starting = True  # a signal that comes before we know the process must not leave it behind
        try:
            self._process = subprocess.Popen(list(command), stdout=2 if output_to_stderr else None, env=told)
        finally:
            self._starting = False
        for number in self._kept:
            self._process.send_signal(number)
        status = self._process.wait()
        self._ended = True
        return status if status >= 0 else 128 - status

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._ended:
            return
        process = self._process
        if process is None:
            if not self._starting:
                raise Stopped(number)
            self._kept.append(number)
            return
        if number in (signal.SIGINT, signal.SIGQUIT) and _has_terminal():
            return  # the terminal sent it to the command as well; a second one would kill what cleans up on the first
        process.send_signal(number)


def _has_terminal() -> bool:
    """True when we are in the foreground of a terminal, whose keys reach the command without us."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def missing_command(program: str) -> tuple[int, str] | None:
    """Return (status, sentence) when the program cannot be started; None when it can."""
    found = shutil.which(program)
    if found is not None:
        interpreter = _interpreter(found)
        if interpreter is None or Path(interpreter).exists():
            return None
        return NOT_EXECUTABLE, _no_interpreter(program, interpreter)
    path = Path(program)
    if "/" in program and path.exists():
        return NOT_EXECUTABLE, f"{program!r} is not an executable file; make it executable or name its interpreter."
    return NOT_FOUND, f"{program!r} was not found; give a program on the PATH, a shell line as: sh -c '…'."


def not_started(program: str, error: OSError) -> tuple[int, str]:
    """Return (status, sentence) for a program that the system refused to start after all."""
    found = shutil.which(program) or program
    interpreter = _interpreter(found)
    if isinstance(error, FileNotFoundError) and interpreter is not None:
        return NOT_EXECUTABLE, _no_interpreter(program, interpreter)
    if error.errno == errno.ENOEXEC:
        return NOT_EXECUTABLE, (
            f"{program!r} is no program that this machine can start; begin it with '#!' and its interpreter, "
            f"or name that: sh {program}"
        )
    reason = (error.strerror or str(error)).rstrip(".")
    return NOT_EXECUTABLE, f"{program!r} could not be started ({reason}); check that it runs without `cagg run`."


def _interpreter(path: str) -> str | None:
    """Return what a script's first line names to run it; None for anything else, and when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            first = file.read(256).split(b"\n", 1)[0]
    except OSError:
        return None
    words = first[2:].split(None, 1) if first.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else None


def _no_interpreter(program: str, interpreter: str) -> str:
    return (
        f"{program!r} is to be run by {interpreter!r}, as its first line says, and that does not exist; install it "
        "or correct the line."
    )


def command_name(command: Sequence[str]) -> str:
    """Return a name that is the same every night and holds no argument: the program, or the script it interprets.

    Raises:
        InvalidInput: there is no command.
    """
    if not command or not command[0]:
        raise InvalidInput("give a command after --, for example `cagg run -- python train.py`.")
    program = _readable(Path(command[0]).name)
    if program.startswith(_INTERPRETERS):
        for position, word in enumerate(command[1:], start=1):
            if word == "-m" and position + 1 < len(command):
                return f"{program} -m {_readable(command[position + 1])}"
            if word == "-c":
                break
            if not word.startswith("-") and Path(word).is_file():
                return _readable(Path(word).name)
    return program


def _readable(name: str) -> str:
    """Replace bytes that are no UTF-8: the program may be called so, a name in the ledger may not."""
    return os.fsencode(name).decode(errors="replace")
