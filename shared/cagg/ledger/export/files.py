"""Writes files that are there whole or not at all, also after a crash: a new file, flushed, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cagg.errors import ConfigurationError

__all__ = ["flush_folder", "unwritable", "write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in place in one step; an earlier file of the name is replaced.

    The name is durable after :func:`flush_folder` of its folder.

    Raises:
        ConfigurationError: it cannot be written; an earlier file is as it was.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


def flush_folder(folders: Iterable[Path]) -> None:
    """Make the names in these folders durable.

    Raises:
        ConfigurationError: the disk refuses.
    """
    for folder in folders:
        try:
            number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
        except OSError as error:
            raise unwritable(folder, error) from None


def unwritable(path: Path, error: OSError) -> ConfigurationError:
    """Return the error that says that a place cannot be written, and why."""
    return ConfigurationError(f"{str(path)!r} cannot be written ({error.strerror or error}); name another place.")
