"""The tree: dense leaves, the stored tiles against the hashes below them, the roots against the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from cagg.errors import LedgerDamaged
from cagg.ledger._verify_failures import Failures
from cagg.ledger._verify_heads import Head
from cagg.ledger.merkle import EMPTY_ROOT, HASH_BYTES, TILE_WIDTH, TiledFrontier, tile_root
from cagg.ledger.report import FailureKind
from cagg.ports import LedgerRows

__all__ = ["TreeCheck", "is_hash"]

_MISSING = b"\x00" * HASH_BYTES
"""Stands for a leaf hash that cannot be read, so that the tree goes on and every later failure is still found."""

_LISTED_GAP = 256
"""Missing leaves in a row that are listed one by one; more are one failure, as one edited index can make many."""
_WIDEST_GAP = 65_536
"""Missing leaves in a row beyond which the rest of the log is not looked at."""


class TreeCheck:
    """Is fed the leaves of a log in their order.

    Attributes:
        leaves: how many rows were fed.
        tiles: how many full tiles the log should have.
        over: True after a gap so wide that nothing behind it is looked at.
    """

    def __init__(self, tx: LedgerRows, expected: Sequence[Head], failures: Failures) -> None:
        self.leaves = self.tiles = 0
        self.over = False
        self._tx = tx
        self._failures = failures
        self._frontier = TiledFrontier()
        self._levels: list[list[bytes]] = []
        self._numbers: list[int] = []
        self._expected = list(reversed(expected))  # the next one last
        if self._expected and self._expected[-1].size == 0:
            self._compare(EMPTY_ROOT)

    @property
    def size(self) -> int:
        """How many leaves the tree has so far, missing ones included."""
        return self._frontier.size

    def root(self) -> bytes:
        """Return the root over all leaves that were fed."""
        return self._frontier.root()

    def feed(self, indexes: Sequence[object], hashes: Sequence[object]) -> None:
        """Add the next rows, ascending by index, as they are stored."""
        self.leaves += len(indexes)
        at = self.size
        if list(indexes) == list(range(at, at + len(indexes))) and all(map(is_hash, hashes)):
            self._grow(hashes)  # type: ignore[arg-type]
            return
        for index, leaf in zip(indexes, hashes, strict=True):
            if self.over:
                return
            self._feed_one(index, leaf)

    def finish(self) -> None:
        """Name the checkpoints that cover more than the log has."""
        for head in reversed(self._expected):
            message = f"{head.name} covers {head.size} entries and the log has {self.size}: entries are gone."
            if self.over:
                message = f"{head.name} was not compared: behind the first {self.size} leaves there is a gap."
            self._failures.add(FailureKind.TRUNCATED, head.size, message)
        self._expected.clear()

    def _feed_one(self, index: object, leaf: object) -> None:
        if not isinstance(index, int) or isinstance(index, bool) or index < self.size:
            self._failures.add(FailureKind.LEAF, None, f"a leaf has the index {index!r}, which is none or there twice.")
            return
        if index - self.size > _WIDEST_GAP:
            message = (
                f"behind the first {self.size} leaves stands one with the index {index}: this index was changed, or "
                "leaves are missing; nothing behind it was looked at."
            )
            self._failures.add(FailureKind.LEAF, self.size, message)
            self.over = True
            return
        if index - self.size > _LISTED_GAP:
            self._failures.add(FailureKind.LEAF, self.size, f"the leaves {self.size} to {index - 1} are missing.")
        else:
            for missing in range(self.size, index):
                self._failures.add(FailureKind.LEAF, missing, f"leaf {missing} is missing.")
        self._grow([_MISSING] * (index - self.size))
        if not is_hash(leaf):
            self._failures.add(FailureKind.LEAF, index, f"leaf {index} holds no hash.")
        self._grow([leaf if is_hash(leaf) else _MISSING])  # type: ignore[list-item]

    # ---- roots and tiles ----------------------------------------------------------------------------------------

    def _grow(self, leaves: Sequence[bytes]) -> None:
        taken = 0
        while taken < len(leaves):
            part = leaves[taken : taken + self._frontier.room]
            taken += len(part)
            start = self.size
            while self._expected and self._expected[-1].size <= start + len(part):
                self._compare(self._frontier.root(part[: self._expected[-1].size - start]))
            full = self._frontier.add(part)
            if full is not None:
                self._close(0, *full)

    def _compare(self, root: bytes) -> None:
        size = self._expected[-1].size
        while self._expected and self._expected[-1].size == size:
            head = self._expected.pop()
            if head.root != root:
                message = f"{head.name} has another root than the first {size} entries."
                self._failures.add(FailureKind.CHECKPOINT, size, message)

    def _close(self, level: int, hashes: bytes, root: bytes) -> None:
        """Compare a tile that became full with the stored one, and pass its root to the level above."""
        if len(self._levels) == level:
            self._levels.append([])
            self._numbers.append(0)
        number = self._numbers[level]
        self._numbers[level] += 1
        self.tiles += 1
        self._compare_tile(level, number, hashes, root)
        row = self._levels[level]
        row.append(root)
        if len(row) == TILE_WIDTH:
            above = b"".join(row)
            row.clear()
            self._close(level + 1, above, tile_root(above))

    def _compare_tile(self, level: int, number: int, hashes: bytes, root: bytes) -> None:
        first = number << (8 * (level + 1))
        name = f"tile {number} of level {level}"
        try:
            stored = self._tx.tile(level, number)
        except LedgerDamaged:
            stored = b""
        if stored is None:
            self._failures.add(FailureKind.TILE, first, f"{name} is missing.")
            return
        if stored != hashes:
            self._failures.add(FailureKind.TILE, first, f"{name} differs from the hashes below it.")
            return
        try:
            kept = self._tx.tile_roots(level, number, number + 1)[0]
        except LedgerDamaged:
            kept = b""
        if kept != root:
            self._failures.add(FailureKind.TILE, first, f"{name} has a wrong root.")


def is_hash(value: object) -> bool:
    """True for bytes of the length of a SHA-256 hash."""
    return type(value) is bytes and len(value) == HASH_BYTES
