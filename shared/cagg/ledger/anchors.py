"""Checkpoints outside the store: published where the store's owner cannot change them, and read back for ``verify``.

A cut tail and a log that was rewritten as a whole can be seen only against a checkpoint that was kept elsewhere. The
places are texts:

- ``file:/path``: signed notes one after the other; only ever appended to.
- ``dir:/path``: one new file per checkpoint, for storage that is written once; a file that is there is never touched.
- ``git:/path``: a work tree; the note is committed as the newest version of one file per log. Nothing is pushed.
- ``log``: one line through the logger ``cagg.checkpoint``, level INFO; ``cagg maintain`` prints it.

The folder of each must be there: a mount that is gone must be told, and not be made anew on the store's own disk.

For reading, a bare path will do as well: a text or a log of any kind, a folder, a work tree. Signatures are not
checked here: ``verify`` does, with the keys that count.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged
from cagg.ledger import _anchor_git
from cagg.ledger._anchor_text import MARK, Found, found_in, lines_of
from cagg.ledger.notes import TreeHead, parse_note
from cagg.ports import Checkpoint

__all__ = ["Collected", "collect", "holds", "line_of", "newest", "of_log", "publish"]

logger = logging.getLogger("cagg.checkpoint")

_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)
"""When an outside checkpoint was made is not known: the note does not say."""

_TAIL_BYTES = 65_536


class _Kind(StrEnum):
    FILE = "file"
    DIR = "dir"
    GIT = "git"
    LOG = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One place; ``path`` is meaningless for the log."""

    text: str
    kind: _Kind
    path: Path

    @classmethod
    def parse(cls, text: str) -> _Place:
        if text == _Kind.LOG:
            return cls(text=text, kind=_Kind.LOG, path=Path())
        kind, colon, path = text.partition(":")
        if colon and path and kind in (_Kind.FILE, _Kind.DIR, _Kind.GIT):
            return cls(text=text, kind=_Kind(kind), path=Path(path).expanduser())
        raise InvalidInput(f"the anchor {text!r} must be 'log' or 'file:', 'dir:' or 'git:' with a path; correct it.")

    @classmethod
    def to_read(cls, text: str) -> _Place:
        """As :meth:`parse`; a bare path is taken for what is there."""
        if text == _Kind.LOG or text.partition(":")[0] in (_Kind.FILE, _Kind.DIR, _Kind.GIT):
            return cls.parse(text)
        path = Path(text).expanduser()
        if not path.is_dir():
            return cls(text=text, kind=_Kind.FILE, path=path)
        return cls(text=text, kind=_Kind.GIT if (path / ".git").exists() else _Kind.DIR, path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What places outside the store hold.

    Attributes:
        checkpoints: each once, ascending by size; of any log, by any signer.
        problems: places that cannot be read, and what is in them and is no checkpoint; one sentence each.
    """

    checkpoints: tuple[Checkpoint, ...]
    problems: tuple[str, ...]


def line_of(checkpoint: Checkpoint) -> str:
    """Return a checkpoint as one line for a log: ``cagg-checkpoint`` and the note in base64."""
    return f"{MARK} {base64.b64encode(checkpoint.note.encode()).decode()}"


def of_log(checkpoints: Iterable[Checkpoint], origin: str) -> tuple[Checkpoint, ...]:
    """Return those checkpoints that say that they are of this log."""
    return tuple(item for item in checkpoints if item.note.startswith(f"{origin}\n"))


# ---- reading --------------------------------------------------------------------------------------------------------


def collect(places: Sequence[str]) -> Collected:
    """Read every checkpoint of some places; ``log`` is passed over, name the file that the log was written to.

    Raises:
        InvalidInput: a place is of no known kind.
    """
    notes: dict[str, TreeHead] = {}
    problems: list[str] = []
    for place in [_Place.to_read(text) for text in places]:
        count = 0
        try:
            for where, found in _read(place):
                if found.head is None:
                    problems.append(f"{where} holds something that is no checkpoint ({found.problem}); look at it.")
                    continue
                count += 1
                notes[found.note] = found.head
        except (OSError, ConfigurationError) as error:
            reason = error.strerror or error if isinstance(error, OSError) else error
            problems.append(f"the anchor {place.text!r} cannot be read: {reason}.")
            continue
        if not count and place.kind is not _Kind.LOG:
            problems.append(f"the anchor {place.text!r} holds no checkpoint; name another place, or publish to it.")
    checkpoints = [_checkpoint(head, note) for note, head in notes.items()]
    return Collected(
        checkpoints=tuple(sorted(checkpoints, key=lambda item: (item.size, item.note))), problems=tuple(problems)
    )


def _checkpoint(head: TreeHead, note: str) -> Checkpoint:
    return Checkpoint(size=head.size, root=head.root, note=note, created_at=_UNKNOWN)


def _read(place: _Place) -> Iterator[tuple[str, Found]]:
    match place.kind:
        case _Kind.LOG:
            return
        case _Kind.FILE:
            with place.path.open("rb") as file:
                for found in found_in(lines_of(iter(lambda: file.readline(_TAIL_BYTES), b""))):
                    yield f"the file {place.path}", found
        case _Kind.DIR:
            for path in sorted(place.path.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    yield from _read_whole(f"the file {path}", path.read_bytes())
        case _Kind.GIT:
            for name, data in _anchor_git.versions(place.path):
                yield from _read_whole(f"a version of {name} in {place.path}", data)


def _read_whole(where: str, data: bytes) -> Iterator[tuple[str, Found]]:
    """Yield the checkpoints of a file that should hold nothing else."""
    found = list(found_in(lines_of(data.split(b"\n"))))
    yield from ((where, item) for item in found)
    if not found:
        yield where, Found(head=None, note="", problem="no signed note")


def newest(places: Sequence[str], origin: str) -> tuple[Checkpoint, ...]:
    """Return the newest checkpoint of a log in each place that it is published to, as far as that can be read cheaply.

    What cannot be read is left out: :func:`publish` tells.
    """
    found = []
    for place in [_Place.parse(text) for text in places]:
        try:
            heads = [item for item in _latest(place, origin) if item.head is not None and item.head.origin == origin]
        except (OSError, ConfigurationError):
            continue
        best = max(heads, key=lambda item: item.head.size if item.head is not None else 0, default=None)
        if best is not None and best.head is not None:
            found.append(_checkpoint(best.head, best.note))
    return tuple(found)


def holds(text: str, checkpoint: Checkpoint) -> bool:
    """True when a place, which is not the log, holds a checkpoint of this size and root anywhere in it.

    Raises:
        OSError, ConfigurationError: it cannot be read.
    """
    head, _ = parse_note(checkpoint.note, ())
    place = _Place.parse(text)
    if place.kind is _Kind.FILE and place.path.parent.is_dir() and not place.path.exists():
        return False
    return any(found.head == head for _, found in _read(place))


def _latest(place: _Place, origin: str) -> Iterable[Found]:
    match place.kind:
        case _Kind.LOG:
            return ()
        case _Kind.FILE:
            if not place.path.is_file():
                return ()  # a pipe would be waited for
            with place.path.open("rb") as file:
                return list(found_in(lines_of(_tail(file).split(b"\n"))))
        case _Kind.DIR:
            for path in sorted(place.path.glob(f"{_name_of(origin)}-*"), reverse=True):
                found = [item for _, item in _read_whole("", path.read_bytes())]
                if any(item.head is not None for item in found):
                    return found  # what a crash cut short is passed over
            return ()
        case _Kind.GIT:
            kept = _anchor_git.committed(place.path, f"{_name_of(origin)}.txt")
            return () if kept is None else list(found_in(lines_of(kept.split(b"\n"))))


def _tail(file: BinaryIO) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    return file.read()


# ---- publishing -----------------------------------------------------------------------------------------------------


def publish(places: Sequence[str], checkpoint: Checkpoint) -> tuple[str, ...]:
    """Publish a checkpoint to every place that does not hold it yet; returns what went wrong, one sentence each.

    Safe to repeat: a place that was out of reach gets the newest checkpoint, which covers those before it, at the next
    call. Another checkpoint of the same log and size with another root beside ours is told: two logs were signed under
    one name.

    Raises:
        InvalidInput: a place is of no known kind.
    """
    head, _ = parse_note(checkpoint.note, ())
    problems = []
    for place in [_Place.parse(text) for text in places]:
        try:
            _publish(place, head, checkpoint)
        except LedgerDamaged as error:
            problems.append(f"the anchor {place.text!r} contradicts the log: {error}.")
        except (OSError, ConfigurationError) as error:
            reason = f"{error.strerror or error}; make it writable" if isinstance(error, OSError) else str(error)
            problems.append(
                f"the checkpoint of {head.size} entries did not get to the anchor {place.text!r}: {reason}."
            )
    return tuple(problems)


def _publish(place: _Place, head: TreeHead, checkpoint: Checkpoint) -> None:
    match place.kind:
        case _Kind.LOG:
            logger.info("%s", line_of(checkpoint))
        case _Kind.FILE:
            _append(place.path, head, checkpoint.note)
        case _Kind.DIR:
            _add(place.path, head, checkpoint.note)
        case _Kind.GIT:
            _commit(place.path, head, checkpoint.note)


def _append(path: Path, head: TreeHead, note: str) -> None:
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two maintainers publish the same checkpoint once
        tail = _tail(file)
        seen = _seen(head, found_in(lines_of(tail.split(b"\n"))))
        if head.root not in seen:
            gap = b"" if not tail or tail.endswith(b"\n\n") else b"\n" if tail.endswith(b"\n") else b"\n\n"
            file.write(gap + note.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    _check_alone(head, seen)


def _add(folder: Path, head: TreeHead, note: str) -> None:
    name = f"{_name_of(head.origin)}-{head.size:012d}-"
    with _alone_in(folder):
        there = [path for path in folder.iterdir() if path.name.startswith(name)]
        seen = _seen(head, (found for path in there for _, found in _read_whole("", path.read_bytes())))
        if head.root not in seen:
            for number in range(len(there) + 2):  # what a crash cut short stays as it is
                path = folder / f"{name}{head.root.hex()[:16]}{f'-{number}' if number else ''}.txt"
                if _written_new(path, note):
                    break
    _check_alone(head, seen)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let the maintainers of one machine write one after the other, so that none takes a file for cut short."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # storage that cannot lock: a checkpoint may stand there twice then
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _written_new(path: Path, note: str) -> bool:
    """Write a file that is not there yet; False, and nothing is touched, when it is."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(note)
        file.flush()
        os.fsync(file.fileno())
    return True


def _commit(folder: Path, head: TreeHead, note: str) -> None:
    name = f"{_name_of(head.origin)}.txt"
    kept = _anchor_git.committed(folder, name)
    seen = set() if kept is None else _seen(head, found_in(lines_of(kept.split(b"\n"))))
    if head.root not in seen:
        _anchor_git.commit(folder, name, note, f"Checkpoint of {head.origin}: {head.size} entries")
    _check_alone(head, seen)


def _seen(head: TreeHead, found: Iterable[Found]) -> set[bytes]:
    """Return the roots that checkpoints of the same log and size have."""
    heads = (item.head for item in found if item.head is not None)
    return {item.root for item in heads if (item.origin, item.size) == (head.origin, head.size)}


def _check_alone(head: TreeHead, seen: set[bytes]) -> None:
    if seen - {head.root}:
        raise LedgerDamaged(
            f"it has ours, and another checkpoint of {head.size} entries as well: two logs were signed under the name "
            f"{head.origin!r}; keep both and run 'cagg ledger verify --anchors'"
        )


def _name_of(origin: str) -> str:
    """Return a file name for a log: readable, and another one for every log."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", origin).strip("._")[:80]
    return f"{readable}-{hashlib.sha256(origin.encode()).hexdigest()[:8]}"
