"""Which code runs here: the git commit of the checkout around it, and whether the files differ from it.

Git is asked once per process, without a shell, a pager, a prompt, a hook or an external diff, and for at most two
seconds; what it could not say is unknown, with the reason. Nothing here fails a task.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

__all__ = ["COMMIT_VARIABLE", "CodeVersion", "Dirty", "code_version", "look_up"]

COMMIT_VARIABLE = "CAGG_COMMIT"
"""Environment variable with the commit, for images that hold the code without its checkout."""

_LONGEST_SECONDS = 2.0
"""How long git may take in all, once per process. Own choice: nobody should wait longer for a record's sake."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CHUNK = 1 << 16

_GIT = (
    "git",
    "--no-pager",
    "-c", "core.fsmonitor=false",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.quotePath=true",
    "-c", "submodule.recurse=false",
)  # fmt: skip
_STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--no-renames", "--no-ahead-behind")
_DIFF = (
    "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--binary", "--full-index", "--unified=3",
    "--diff-algorithm=myers", "--no-indent-heuristic", "--src-prefix=a/", "--dst-prefix=b/", "--submodule=short",
    "HEAD", "--",
)  # fmt: skip

_Reader = Callable[[IO[bytes]], None]


class Dirty(StrEnum):
    """Whether tracked files differ from the commit. Files that git does not track are not looked at."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVersion:
    """The version of the code.

    Attributes:
        commit: hex id; None = unknown, ``reason`` says why.
        dirty: whether tracked files differ from it.
        diff_sha256: hex SHA-256 of what ``git diff HEAD`` prints (--binary --full-index --no-renames, three lines of
            context, prefixes a/ and b/, algorithm myers); None unless dirty, or when it is unknown.
        reason: why something is unknown; empty when all is known. It names no path.
    """

    commit: str | None = None
    dirty: Dirty = Dirty.UNKNOWN
    diff_sha256: str | None = None
    reason: str = ""

    def facts(self) -> Mapping[str, str]:
        """Return what is known as text by name, as :class:`cagg.request.Request` carries it."""
        said = {"commit": self.commit, "dirty": str(self.dirty), "diff_sha256": self.diff_sha256, "reason": self.reason}
        return {name: value for name, value in said.items() if value}


_lock = threading.Lock()
_found: list[CodeVersion] = []


def code_version() -> CodeVersion:
    """Return the version of the code around the working directory, or around the script; looked up once per process."""
    with _lock:
        if not _found:
            _found.append(look_up(_start(), os.environ))
        return _found[0]


def _start() -> Path:
    """Return where the code is: the working directory, else the script's folder when only that is in a checkout."""
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        here = Path("/")
    if _root(here) is None:
        import __main__

        script = getattr(__main__, "__file__", None)
        if isinstance(script, str) and _root(Path(script).parent) is not None:
            return Path(script).parent
    return here


def look_up(start: Path, environ: Mapping[str, str], *, limit_seconds: float = _LONGEST_SECONDS) -> CodeVersion:
    """Return the version of the checkout around a folder.

    Args:
        start: the folder.
        environ: where ``CAGG_COMMIT`` and PATH stand; the commit that it names stands in where there is no checkout.
        limit_seconds: after this git is ended and the rest is unknown.
    """
    root = _root(start)
    if root is None:
        stated = environ.get(COMMIT_VARIABLE, "").strip().lower()
        if _COMMIT.fullmatch(stated):
            return CodeVersion(commit=stated, reason=f"the commit is what {COMMIT_VARIABLE} says, there is no checkout")
        return CodeVersion(reason="there is no git checkout around the working directory")
    asked = _Question(root, environ)
    thread = threading.Thread(target=asked.run, name="cagg-git", daemon=True)
    thread.start()
    thread.join(limit_seconds)
    if thread.is_alive():
        asked.end()
        known = asked.answer
        return CodeVersion(
            commit=known.commit, dirty=known.dirty, reason=f"git took longer than {limit_seconds:g} s and was ended"
        )
    return asked.answer


def _root(start: Path) -> Path | None:
    """Return the folder that holds ``.git``: a folder, or a file in a linked work tree."""
    with contextlib.suppress(OSError):
        for folder in (start, *start.parents):
            if (folder / ".git").exists():
                return folder
    return None


@dataclass(slots=True)
class _Question:
    """One look at a checkout, on a thread of its own, so that whoever waits for it can go on without it."""

    root: Path
    environ: Mapping[str, str]
    answer: CodeVersion = field(default_factory=CodeVersion)
    _process: subprocess.Popen[bytes] | None = None
    _ended: bool = False

    def run(self) -> None:
        """Ask git twice at most: which commit and whether anything differs, then what."""
        try:
            self._ask()
        except OSError as problem:
            reason = "git is not installed" if isinstance(problem, FileNotFoundError) else "git could not be started"
            self.answer = CodeVersion(commit=self.answer.commit, dirty=self.answer.dirty, reason=reason)

    def _ask(self) -> None:
        lines: list[bytes] = []
        if self._git(_STATUS, lines.extend) != 0:
            self.answer = CodeVersion(reason="git could not read the checkout; try 'git status' as the same user")
            return
        head = next((line.split()[-1].decode("ascii", "replace") for line in lines if line.startswith(b"# b")), "")
        changed = any(not line.startswith((b"#", b"?", b"!")) for line in lines)
        if not _COMMIT.fullmatch(head):
            self.answer = CodeVersion(reason="the checkout has no commit yet")
            return
        if not changed:
            self.answer = CodeVersion(commit=head, dirty=Dirty.FALSE)
            return
        self.answer = CodeVersion(commit=head, dirty=Dirty.TRUE, reason="git could not print what differs")
        digest = hashlib.sha256()
        if self._git(_DIFF, lambda pipe: _feed(digest.update, pipe)) == 0:
            self.answer = CodeVersion(commit=head, dirty=Dirty.TRUE, diff_sha256=digest.hexdigest())

    def _git(self, arguments: tuple[str, ...], read: _Reader) -> int:
        import subprocess

        quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        kept = {name: value for name, value in self.environ.items() if not name.startswith("GIT_")}
        with subprocess.Popen(
            [*_GIT, *arguments],
            cwd=self.root,
            env={**kept, **quiet},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            self._process = process
            if self._ended:
                self.end()
            assert process.stdout is not None  # noqa: S101 - narrows the type
            read(process.stdout)
        return process.returncode

    def end(self) -> None:
        """End git and what it started."""
        self._ended = True
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _feed(take: Callable[[bytes], None], pipe: IO[bytes]) -> None:
    while chunk := pipe.read(_CHUNK):
        take(chunk)
