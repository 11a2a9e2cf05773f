"""The Merkle tree of RFC 6962: hashes, roots, proofs, and its storage in tiles. Pure arithmetic over hashes.

Sources: RFC 6962 "Certificate Transparency" (June 2013) section 2.1 for leaf and node hashes; RFC 9162 (December
2021) section 2.1.3 and 2.1.4 for the verification of proofs; C2SP tlog-tiles (2025) for the tile layout: a tile of
level L and number N holds the 256 hashes of the complete subtrees of 256^L leaves from leaf N * 256^(L+1) on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Protocol

from cagg.errors import InvalidInput

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "Frontier",
    "HashReader",
    "TiledFrontier",
    "TreeReader",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_of",
    "split_hashes",
    "tile_root",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32
"""Length of a SHA-256 hash."""

TILE_HEIGHT = 8
"""Levels of the tree that one tile spans (C2SP tlog-tiles, 2025)."""

TILE_WIDTH = 1 << TILE_HEIGHT
"""Hashes in a full tile."""

EMPTY_ROOT = sha256().digest()
"""Root of the tree without leaves (RFC 6962 section 2.1)."""


def leaf_hash(body: bytes) -> bytes:
    """Return SHA-256(0x00 || body)."""
    return sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The complete subtrees that make up a tree of some size: all that is needed to append and to tell the root."""

    __slots__ = ("_nodes", "size")

    def __init__(self) -> None:
        self.size = 0
        self._nodes: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf; one hash on average."""
        carry = self.size
        while carry & 1:
            leaf = node_hash(self._nodes.pop(), leaf)
            carry >>= 1
        self._nodes.append(leaf)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add hashes of further leaves."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """Return the root of the tree."""
        return _fold(self._nodes)


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


class TiledFrontier:
    """A :class:`Frontier` that is fed a tile at a time and tells the root at any size: half the hashes of one that is
    fed leaf by leaf beside its tiles."""

    __slots__ = ("_full", "_rest")

    def __init__(self) -> None:
        self._full = Frontier()
        self._rest: list[bytes] = []

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return self._full.size * TILE_WIDTH + len(self._rest)

    @property
    def room(self) -> int:
        """How many leaves the tile takes that is being filled, 1 to 256."""
        return TILE_WIDTH - len(self._rest)

    def add(self, leaves: Sequence[bytes]) -> tuple[bytes, bytes] | None:
        """Add hashes of further leaves, at most ``room``; returns (hashes, root) of the tile that is full now."""
        if len(leaves) > self.room:
            raise InvalidInput(f"the tile takes {self.room} more leaves, got {len(leaves)}.")
        self._rest.extend(leaves)
        if len(self._rest) < TILE_WIDTH:
            return None
        hashes = b"".join(self._rest)
        root = tile_root(hashes)
        self._full.append(root)
        self._rest.clear()
        return hashes, root

    def root(self, further: Sequence[bytes] = ()) -> bytes:
        """Return the root of the tree, as it would be with further leaves."""
        frontier = Frontier()
        frontier.extend(self._rest)
        frontier.extend(further)
        return _fold([*self._full._nodes, *frontier._nodes])


def tile_root(hashes: bytes) -> bytes:
    """Return the root over the 256 hashes of a full tile: one hash of the level above."""
    if len(hashes) != TILE_WIDTH * HASH_BYTES:
        raise InvalidInput(f"a full tile holds {TILE_WIDTH} hashes of {HASH_BYTES} bytes, got {len(hashes)} bytes.")
    row = hashes
    while len(row) > HASH_BYTES:
        row = b"".join([sha256(b"\x01" + row[at : at + 64]).digest() for at in range(0, len(row), 64)])
    return row


def split_hashes(data: bytes) -> list[bytes]:
    """Return the hashes that lie one after the other in a tile; raises InvalidInput for a partial hash."""
    if len(data) % HASH_BYTES:
        raise InvalidInput(f"a tile must hold whole hashes of {HASH_BYTES} bytes, got {len(data)} bytes.")
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def _fold(nodes: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees of falling size."""
    if not nodes:
        return EMPTY_ROOT
    root = nodes[-1]
    for node in reversed(nodes[:-1]):
        root = node_hash(node, root)
    return root


# ---- trees whose hashes lie elsewhere -------------------------------------------------------------------------------


class HashReader(Protocol):
    """Where stored hashes come from."""

    def leaf_hashes(self, start: int, stop: int) -> Sequence[bytes]:
        """Leaf hashes by index, ``[start, stop)``."""
        ...

    def tile_roots(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        """Roots of the full tiles ``[start, stop)`` of a level."""
        ...


class TreeReader:
    """Roots and subtrees of a stored tree of ``size`` leaves, from a few hundred stored hashes."""

    def __init__(self, source: HashReader, size: int) -> None:
        self.size = size
        self._source = source
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` leaves; None = over all."""
        return self.span(0, self.size if size is None else size)

    def span(self, start: int, stop: int) -> bytes:
        """Return the RFC 6962 hash over the leaves ``[start, stop)``, where start is a multiple of a power of two
        that is at least as large as the span, as it is for every span that a proof needs."""
        if not 0 <= start <= stop <= self.size:
            raise InvalidInput(f"the tree has {self.size} leaves, [{start}, {stop}) lies outside.")
        nodes = []
        while start < stop:
            height = (stop - start).bit_length() - 1
            nodes.append(self._node(height, start >> height))
            start += 1 << height
        return _fold(nodes)

    def _node(self, height: int, number: int) -> bytes:
        """Return the hash of the complete subtree of 2^height leaves with this number."""
        level, rest = divmod(height, TILE_HEIGHT)
        first = number << rest
        tile, offset = divmod(first, TILE_WIDTH)
        row = self._row(level, tile)[offset : offset + (1 << rest)]
        while len(row) > 1:
            row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
        return row[0]

    def _row(self, level: int, tile: int) -> list[bytes]:
        """Return the hashes of a tile, full or not."""
        found = self._tiles.get((level, tile))
        if found is None:
            start = tile * TILE_WIDTH
            stop = min(start + TILE_WIDTH, self.size >> (TILE_HEIGHT * level))
            if level == 0:
                found = list(self._source.leaf_hashes(start, stop))
            else:
                found = list(self._source.tile_roots(level - 1, start, stop))
            self._tiles[level, tile] = found
        return found


def _split(size: int) -> int:
    """Return the largest power of two below size (size > 1)."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(tree: TreeReader, index: int, size: int) -> list[bytes]:
    """Return the audit path of a leaf in the tree over the first ``size`` leaves (RFC 6962 section 2.1.1)."""
    if not 0 <= index < size <= tree.size:
        raise InvalidInput(f"leaf {index} of a tree of {size} leaves does not exist in a log of {tree.size}.")
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(tree.span(middle, stop))
            stop = middle
        else:
            path.append(tree.span(start, middle))
            start = middle
    path.reverse()
    return path


def consistency_proof(tree: TreeReader, old_size: int, size: int) -> list[bytes]:
    """Return the proof that the first ``old_size`` leaves are a prefix of ``size`` (RFC 6962 section 2.1.2)."""
    if not 0 <= old_size <= size <= tree.size:
        raise InvalidInput(f"no consistency can be shown from {old_size} to {size} in a log of {tree.size}.")
    if old_size in (0, size):
        return []
    path: list[bytes] = []
    start, stop = 0, size
    whole = True  # whether [start, old_size) is a complete tree that the verifier already knows
    while stop != old_size:
        middle = start + _split(stop - start)
        if old_size <= middle:
            path.append(tree.span(middle, stop))
            stop = middle
        else:
            path.append(tree.span(start, middle))
            start = middle
            whole = False
    if not whole:
        path.append(tree.span(start, stop))
    path.reverse()
    return path


# ---- checking proofs ------------------------------------------------------------------------------------------------


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """True when the proof shows the leaf hash at this index under the root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size or not _hashes(leaf, root, *proof):
        return False
    number, last = index, size - 1
    found = leaf
    for node in proof:
        if last == 0:
            return False
        if number & 1 or number == last:
            found = node_hash(node, found)
            while number and not number & 1:
                number >>= 1
                last >>= 1
        else:
            found = node_hash(found, node)
        number >>= 1
        last >>= 1
    return last == 0 and found == root


def verify_consistency(*, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """True when the proof shows that the old tree is a prefix of the new one (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old_size <= size or not _hashes(old_root, root, *proof):
        return False
    if old_size == size:
        return not proof and old_root == root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    number, last = old_size - 1, size - 1
    while number & 1:
        number >>= 1
        last >>= 1
    old_found = new_found = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            old_found = node_hash(node, old_found)
            new_found = node_hash(node, new_found)
            while number and not number & 1:
                number >>= 1
                last >>= 1
        else:
            new_found = node_hash(new_found, node)
        number >>= 1
        last >>= 1
    return last == 0 and old_found == old_root and new_found == root


def _hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
