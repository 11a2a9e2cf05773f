"""Checkpoints in a git repository: one file per log, whose history holds every checkpoint that was published.

Only the ``git`` command is used, never on a network, with no hook, no signature of git's own and no prompt. A commit
takes in the one file and nothing that a person has staged.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cagg.errors import ConfigurationError

__all__ = ["FOLDER", "commit", "committed", "versions"]

FOLDER = "cagg-checkpoints"
"""Folder in the work tree that holds the files."""

_TIMEOUT_SECONDS = 60
_UNFINISHED = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")
"""What stands in git's folder while a person has not finished something."""
_CALM = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
)
"""Settings that keep a repository's own ones from running programs, changing the bytes, or asking."""


def _git(folder: Path, *arguments: str, given: bytes | None = None) -> bytes:
    """Run git in a work tree and return what it printed.

    Raises:
        ConfigurationError: there is no git, no repository, or git refused.
    """
    options = [part for setting in _CALM for part in ("-c", setting)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "cagg",
        "GIT_AUTHOR_EMAIL": "cagg@localhost",
        "GIT_COMMITTER_NAME": "cagg",
        "GIT_COMMITTER_EMAIL": "cagg@localhost",
    }
    try:
        done = subprocess.run(
            ["git", *options, "-C", str(folder), *arguments],
            input=given if given is not None else b"",
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise ConfigurationError("the command git is not there; install it, or use another kind of anchor") from None
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"git did not answer within {_TIMEOUT_SECONDS} s; look for a lock in it") from None
    except OSError as error:
        raise ConfigurationError(f"git cannot be run ({error.strerror}); repair it") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[0] if said else f"status {done.returncode}"
        raise ConfigurationError(f"git refused ({reason[:200]}); repair the repository, the next pass tries again")
    return done.stdout


def committed(folder: Path, name: str) -> bytes | None:
    """Return the file as the newest commit has it; None when it has none, or when there is no commit yet.

    Raises:
        ConfigurationError: there is no git or no repository, or git refuses.
    """
    root = _root(folder)
    if not _git(root, "rev-list", "--all", "--max-count=1"):
        return None
    listed = _git(root, "ls-tree", "-z", "HEAD", "--", f"{FOLDER}/{name}").decode().rstrip("\0")
    return _git(root, "cat-file", "blob", listed.split()[2]) if listed else None


def commit(folder: Path, name: str, note: str, message: str) -> None:
    """Commit a note as the newest version of a file. Other files, and what is staged of them, stay as they are.

    Raises:
        ConfigurationError: git refuses, for example in the middle of a merge; the file may be there uncommitted.
        OSError: the file cannot be written.
    """
    root = _root(folder)
    busy = [what for what in _UNFINISHED if _inside_git(root, what).exists()]
    if busy:  # a commit would get into the middle of it
        raise ConfigurationError(
            f"git has something unfinished there ({busy[0]}); finish it, the next pass tries again"
        )
    path = root / FOLDER / name
    inside = f"{FOLDER}/{name}"
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_name(f".{name}.{os.getpid()}")
    try:
        fresh.write_text(note, encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    _git(root, "add", "--force", "--", inside)
    _git(root, "commit", "--quiet", "--no-verify", "--only", "--message", message, "--", inside)


def _inside_git(root: Path, what: str) -> Path:
    return root / _git(root, "rev-parse", "--git-path", what).decode().rstrip("\n")


def _root(folder: Path) -> Path:
    return Path(_git(folder, "rev-parse", "--show-toplevel").decode().rstrip("\n"))


def versions(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every version of every checkpoint file, in any branch: path and bytes, oldest commit first.

    Raises:
        ConfigurationError: there is no git or no repository, or git refuses.
    """
    root = _root(folder)
    shape = ("--format=", "--raw", "--no-abbrev", "--no-renames", "--root", "-m", "-z")
    listed = _git(root, "log", "--all", "--reverse", *shape, "--", FOLDER)
    fields = listed.decode("utf-8", "replace").split("\0")
    names: dict[str, str] = {}
    for entry, path in zip(fields[::2], fields[1::2], strict=False):
        blob = entry.split()[3] if entry.count(" ") >= 4 else ""
        if blob.strip("0"):
            names.setdefault(blob, path)
    if not names:
        return
    told = _git(root, "cat-file", "--batch", given="".join(f"{blob}\n" for blob in names).encode())
    at = 0
    for path in names.values():  # each as: name type size LF bytes LF
        end = told.index(b"\n", at)
        size = int(told[at:end].split()[2])
        yield path, told[end + 1 : end + 1 + size]
        at = end + size + 2
