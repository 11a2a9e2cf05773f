"""Records that could not reach the store wait here as files, one each, and are replayed in order.

A file is written under another name, flushed to the disk and renamed, so a crash leaves either all of it or nothing.
What cannot be replayed is set aside as ``*.bad`` and reported, never deleted.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cagg.errors import CaggError, LedgerDamaged, StoreUnavailable
from cagg.folders import private_folder

__all__ = ["Spool", "SpoolReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolReport:
    """What a replay did: how many records it moved, and which files it set aside and why."""

    replayed: int
    set_aside: tuple[str, ...]


class Spool:
    """A folder of records waiting for the store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, record: Mapping[str, Any], *, order: int) -> Path:
        """Write one record.

        Args:
            record: JSON values.
            order: files are replayed in ascending order; nanoseconds of a clock will do.

        Raises:
            StoreUnavailable: the folder cannot be written either.
        """
        name = f"{order:020d}-{secrets.token_hex(4)}"
        temporary = self._folder / f".{name}"
        try:
            private_folder(self._folder)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(record, file, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            final = self._folder / f"{name}.json"
            temporary.rename(final)
        except OSError as error:
            raise StoreUnavailable(
                f"neither the store nor the spool {self._folder} can be written ({error.strerror}); "
                "make one of them writable, the record is lost otherwise."
            ) from error
        return final

    def waiting(self) -> list[Path]:
        """Return the files that wait, oldest first."""
        try:
            return sorted(self._folder.glob("*.json"))
        except OSError:
            return []

    def bad(self) -> list[Path]:
        """Return the files that were set aside."""
        return sorted(self._folder.glob("*.bad")) if self._folder.is_dir() else []

    def replay(self, apply: Callable[[Mapping[str, Any]], None]) -> SpoolReport:
        """Hand every record to ``apply`` and remove it when that returns.

        ``apply`` must be idempotent: after a crash between both, it sees the record again. A StoreUnavailable stops
        the replay and leaves the rest; any other cagg error sets the file aside.
        """
        replayed, set_aside = 0, list[str]()
        with self._alone() as alone:
            if not alone:
                return SpoolReport(replayed=0, set_aside=())
            for path in self.waiting():
                try:
                    record = json.loads(path.read_text(encoding="utf-8"))
                    if not isinstance(record, dict):
                        raise LedgerDamaged("it is not a JSON object.")
                    apply(record)
                except StoreUnavailable:
                    break
                except OSError as error:
                    set_aside.append(f"{path} stays: it cannot be read ({error.strerror}); make it readable.")
                    continue
                except (CaggError, ValueError, KeyError, TypeError) as error:
                    set_aside.append(f"{path.name}: {error}")
                    with suppress(OSError):
                        path.rename(path.with_suffix(".bad"))
                    continue
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                replayed += 1
        return SpoolReport(replayed=replayed, set_aside=tuple(set_aside))

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Yield True to one process at a time; False where another one replays, or nothing waits."""
        if not self.waiting():
            yield False
            return
        try:
            descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield True  # what cannot be locked cannot be removed either: replaying it again changes nothing
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)
