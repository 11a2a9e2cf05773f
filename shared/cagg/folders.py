"""Makes folders and files for their owner alone: what cagg keeps may hold personal values."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["private_file", "private_folder"]


def private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for the owner alone; what is there keeps its rights.

    Raises:
        OSError: it cannot be made, or something else than a folder is there.
    """
    if not path.is_dir():
        if path.parent != path:
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def private_file(path: Path) -> None:
    """Make an empty file for the owner alone, unless there is one already; raises OSError.

    It gets its name when it is closed again: closing a database's file would drop the locks that SQLite has on it.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass  # somebody was quicker
    except OSError:  # a file system without hard links
        if not os.path.lexists(path):
            fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
