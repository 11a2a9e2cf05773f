"""The log as static files that foreign tools read and check: C2SP tlog-tiles (2026).

``checkpoint`` is the newest signed checkpoint; ``tile/<L>/<N>`` holds 256 hashes of level L, ``tile/entries/<N>`` the
256 entries below ``tile/0/<N>``, each after its length in two bytes, big-endian; ``.p/<W>`` marks one that holds only
W. The number N is cut into groups of three digits, all but the last behind an ``x``: 1234067 is ``x001/x234/067``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged, NotProven
from cagg.ledger.export.files import flush_folder, unwritable, write_whole
from cagg.ledger.merkle import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, TreeReader, leaf_hash, split_hashes, tile_root
from cagg.ledger.notes import TreeHead, parse_note
from cagg.ledger.proving import TileSource
from cagg.ports import LedgerRows

__all__ = ["CHECKPOINT", "TilesExport", "entries_of", "export_tiles", "tile_path"]

CHECKPOINT = "checkpoint"
"""Name of the file with the newest signed checkpoint."""

_LONGEST_ENTRY = 2**16 - 1
"""Bytes: an entry's length has 16 bits."""

_LONGEST_NOTE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TilesExport:
    """What an export did.

    Attributes:
        origin: the log's name.
        old_size: entries that the folder held before.
        size: entries that it holds now, all under the checkpoint.
        root: root over them.
        files: how many files were written.
        left_out: newer entries of the tree that no checkpoint covers yet.
    """

    origin: str
    old_size: int
    size: int
    root: bytes
    files: int
    left_out: int


def tile_path(level: int | None, number: int, width: int = TILE_WIDTH) -> str:
    """Return where a tile lies below the log's address; a level of None = the entries; below 256 wide it is partial."""
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.insert(0, f"x{number % 1000:03d}")
    kind = "entries" if level is None else str(level)
    return f"tile/{kind}/{'/'.join(groups)}{'' if width == TILE_WIDTH else f'.p/{width}'}"


def entries_of(data: bytes) -> Iterator[bytes]:
    """Yield the entries of a bundle's file; raises LedgerDamaged when the lengths do not fit."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        entry = data[at + 2 : at + 2 + length]
        if len(data) < at + 2 or len(entry) != length:
            raise LedgerDamaged("an entry of the bundle is cut off.")
        yield entry
        at += 2 + length


def export_tiles(tx: LedgerRows, folder: Path) -> TilesExport:
    """Write the log up to its newest checkpoint into a folder, or bring an earlier export there up to date.

    Only what is new is written; the checkpoint comes last, so that the folder is a whole log at any moment. What was
    written is read again, and its root compared with the checkpoint.

    Raises:
        NotProven: there is no checkpoint yet, or the folder holds another log, a fork, or a newer state.
        InvalidInput: the folder holds something else.
        LedgerDamaged: the store's entries, tree and checkpoint do not fit each other; the folder's checkpoint stays.
        ConfigurationError: the folder cannot be read or written.
    """
    checkpoint = tx.last_checkpoint()
    if checkpoint is None:
        raise NotProven("there is nothing to export: no checkpoint is signed yet; run `cagg maintain`.")
    head, _ = parse_note(checkpoint.note, ())
    size = tx.tree_size()
    if head.size > size or head.origin != tx.origin():
        raise LedgerDamaged("the newest checkpoint does not fit the log; run 'cagg ledger verify'.")
    old = _earlier(folder, head, tx)
    writer = _Writer(tx, folder)
    writer.write(old, head)
    found = TreeReader(_FolderSource(folder, head.size), head.size).root()
    if found != head.root:
        raise LedgerDamaged(
            f"the {head.size} entries have another root than their checkpoint: the store or {str(folder)!r} was "
            "changed; run 'cagg ledger verify', then export into a new folder."
        )
    flush_folder(sorted(writer.folders))
    write_whole(folder / CHECKPOINT, checkpoint.note.encode())
    flush_folder([folder])
    return TilesExport(
        origin=head.origin,
        old_size=old,
        size=head.size,
        root=head.root,
        files=writer.files,
        left_out=size - head.size,
    )


def _earlier(folder: Path, head: TreeHead, tx: LedgerRows) -> int:
    """Return how many entries an earlier export left in the folder, once it is clear that this log continues it."""
    name = str(folder)
    try:
        names = sorted(item.name for item in folder.iterdir()) if folder.exists() else []
        note = None
        if CHECKPOINT in names:
            with (folder / CHECKPOINT).open("rb") as file:
                note = file.read(_LONGEST_NOTE).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its checkpoint is no text"
        raise ConfigurationError(f"the folder {name!r} cannot be read ({reason}); name another one.") from None
    if note is None:
        others = [item for item in names if item != "tile" and not item.startswith(f".{CHECKPOINT}.")]
        if others:
            raise InvalidInput(
                f"the folder {name!r} holds other files, such as {others[0]!r}; name an empty folder, or one that "
                "an earlier export made."
            )
        return 0
    try:
        old, _ = parse_note(note, ())
    except LedgerDamaged as error:
        raise InvalidInput(f"the checkpoint in {name!r} cannot be read: {error} Name a new or empty folder.") from None
    if old.origin != head.origin:
        raise NotProven(f"the folder {name!r} holds the log {old.origin!r}, and this one is {head.origin!r}.")
    if old.size > head.size:
        raise NotProven(
            f"the folder {name!r} holds {old.size} entries under a checkpoint, and this log's newest covers "
            f"{head.size}: entries are gone, or the store is an old copy; run 'cagg ledger verify --since' with it."
        )
    if TreeReader(TileSource(tx), head.size).root(old.size) != old.root:
        raise NotProven(
            f"the folder {name!r} holds another log of the same name: its {old.size} entries are not the first ones "
            "here; run 'cagg ledger verify --since' with its checkpoint."
        )
    return old.size


class _Writer:
    """Writes the tiles of a log from some entry on, lowest first; each hash above comes from the tile below it."""

    def __init__(self, tx: LedgerRows, folder: Path) -> None:
        self._tx = tx
        self._folder = folder
        self._rows: list[list[bytes]] = []
        self._numbers: list[int] = []
        self.folders: set[Path] = set()
        self.files = 0

    def write(self, old_size: int, head: TreeHead) -> None:
        """Write every tile that a tree of ``head.size`` has and one of ``old_size`` had not, and what is missing."""
        first = min(self._first_missing(old_size), old_size // TILE_WIDTH)
        self._begin(first, head.size)
        for number in range(first, -(-head.size // TILE_WIDTH)):
            start = number * TILE_WIDTH
            bodies = list(self._bodies(start, min(start + TILE_WIDTH, head.size)))
            bundle = b"".join(struct.pack(">H", len(body)) + body for body in bodies)
            self._put(tile_path(None, number, len(bodies)), bundle)
            for body in bodies:
                self._grow(0, leaf_hash(body))
        for level, row in enumerate(self._rows):
            if row:
                self._put(tile_path(level, self._numbers[level], len(row)), b"".join(row))

    def _first_missing(self, old_size: int) -> int:
        """Return the first full tile of the earlier export that is gone, so that it is written again."""
        count = old_size // TILE_WIDTH
        for number in range(count):
            if not all((self._folder / tile_path(level, number)).is_file() for level in (0, None)):
                return number
        for level in range(1, 8):
            for number in range(old_size >> (TILE_HEIGHT * (level + 1))):
                if not (self._folder / tile_path(level, number)).is_file():
                    return number << (TILE_HEIGHT * level)
        return count

    def _begin(self, first: int, size: int) -> None:
        """Take up each level where the tile ``first`` of level 0 begins, with the store's hashes of what is before."""
        source = TileSource(self._tx)
        level = 0
        while size >> (TILE_HEIGHT * level):
            place = first >> (TILE_HEIGHT * (level - 1)) if level else first * TILE_WIDTH
            number = place // TILE_WIDTH
            start = number * TILE_WIDTH
            self._rows.append(list(source.tile_roots(level - 1, start, place)) if place > start else [])
            self._numbers.append(number)
            level += 1

    def _bodies(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the entries' bytes, compared with their leaves."""
        expected = start
        for row in self._tx.audit_rows(start, stop):
            if row.index != expected or not isinstance(row.body, bytes) or leaf_hash(row.body) != row.leaf_hash:
                break
            if len(row.body) > _LONGEST_ENTRY:
                raise LedgerDamaged(f"entry {row.index} has more than {_LONGEST_ENTRY} bytes, no export can hold it.")
            yield row.body
            expected += 1
        if expected != stop:
            raise LedgerDamaged(
                f"entry {expected} is missing or was changed after it was recorded; nothing more was exported; run "
                "'cagg ledger verify'."
            )

    def _grow(self, level: int, item: bytes) -> None:
        if len(self._rows) == level:
            self._rows.append([])
            self._numbers.append(0)
        row = self._rows[level]
        row.append(item)
        if len(row) < TILE_WIDTH:
            return
        data = b"".join(row)
        self._put(tile_path(level, self._numbers[level]), data)
        row.clear()
        self._numbers[level] += 1
        self._grow(level + 1, tile_root(data))

    def _put(self, name: str, data: bytes) -> None:
        """Write a file that never changes; one that is there must be the same."""
        path = self._folder / name
        try:
            there = path.read_bytes() if path.is_file() else None
        except OSError as error:
            raise unwritable(path, error) from None
        if there == data:
            return
        if there is not None:
            raise NotProven(
                f"the file {str(path)!r} holds something else than this log: it was changed, or belongs to another log "
                "or a fork; export into a new folder and compare."
            )
        write_whole(path, data)
        self.files += 1
        folder = path.parent
        while folder != self._folder.parent and folder not in self.folders:
            self.folders.add(folder)
            folder = folder.parent


class _FolderSource:
    """The hashes of an export's tiles, as they lie in the folder."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size

    def leaf_hashes(self, start: int, stop: int) -> Sequence[bytes]:
        return self._tile(0, start, stop)

    def tile_roots(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        return self._tile(level + 1, start, stop)

    def _tile(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        number = start // TILE_WIDTH
        width = min(TILE_WIDTH, (self._size >> (TILE_HEIGHT * level)) - number * TILE_WIDTH)
        path = self._folder / tile_path(level, number, width)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{str(path)!r} cannot be read again ({error.strerror}).") from None
        if len(data) != width * HASH_BYTES:
            raise LedgerDamaged(f"the tile {str(path)!r} does not have {width} hashes; export into a new folder.")
        return split_hashes(data)[: stop - start]
