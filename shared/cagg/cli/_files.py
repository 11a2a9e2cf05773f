"""Files that a command writes whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cagg.errors import InvalidInput

__all__ = ["new_folder", "whole_file"]

_PRECIOUS = (b"SQLite format 3\x00", b"PRIVATE+KEY+")
"""How stores and signing keys begin: no answer ever takes the place of one."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under a passing name; when the block ends it takes the place of what was there.

    When the block fails, or the process dies, the file is what it was before. What was written is on the disk when
    the new name stands.

    Raises:
        InvalidInput: there is something else than a file, a store or a signing key, or the folder is missing.
        OSError: the file cannot be written.
    """
    final = Path(os.path.realpath(path))  # a link stays, and leads to the new content
    if final.exists() and not final.is_file():
        raise InvalidInput(f"{path} is no file that could be replaced; name another one, or leave -o out for stdout.")
    _check_folder(path, final.parent)
    if final.exists() and _is_precious(final):
        raise InvalidInput(f"{path} is a store or a signing key, and nothing takes its place; name another file.")
    passing = _passing(final)
    try:
        with os.fdopen(os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        passing.replace(final)
    except BaseException:
        passing.unlink(missing_ok=True)
        raise
    _flush_folder(final.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a passing folder to write into; when the block ends it gets its name, when it fails it is removed.

    Raises:
        InvalidInput: there is something already, other than an empty folder.
        OSError: the folder cannot be written.
    """
    final = Path(os.path.realpath(path))
    if final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise InvalidInput(f"{path} exists and is no empty folder; name a new one.")
    _check_folder(path, final.parent)
    passing = _passing(final)
    passing.mkdir()
    try:
        yield passing
        passing.replace(final)
    except BaseException:
        shutil.rmtree(passing, ignore_errors=True)
        raise
    _flush_folder(final.parent)


def _check_folder(path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise InvalidInput(f"the folder of {path} does not exist; make it first, or name another place.")


def _is_precious(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(max(len(word) for word in _PRECIOUS)).startswith(_PRECIOUS)


def _passing(final: Path) -> Path:
    return final.with_name(f".{final.name}.{secrets.token_hex(6)}.part")


def _flush_folder(folder: Path) -> None:
    """Put the new name on the disk, where the file system lets a folder be flushed."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
