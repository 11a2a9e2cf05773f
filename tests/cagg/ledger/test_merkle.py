"""The tree against the definition of RFC 6962, written down again as naively as it stands there."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from cagg.errors import InvalidInput
from cagg.ledger.merkle import (
    EMPTY_ROOT,
    TILE_WIDTH,
    Frontier,
    TiledFrontier,
    TreeReader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    split_hashes,
    tile_root,
    verify_consistency,
    verify_inclusion,
)

SIZES = sorted({*range(601), *(2**k + d for k in range(9, 12) for d in (-1, 0, 1))})
LEAVES = [leaf_hash(str(number).encode()) for number in range(SIZES[-1])]


# ---- RFC 6962 section 2.1, word by word -----------------------------------------------------------------------------


def mth(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _k(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = _k(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: Sequence[bytes], *, known: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if known else [mth(leaves)]
    k = _k(len(leaves))
    if m <= k:
        return [*proof(m, leaves[:k], known=known), mth(leaves[k:])]
    return [*proof(m - k, leaves[k:], known=False), mth(leaves[:k])]


def _k(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


class Stored:
    """Leaves with full tiles, as the store keeps them."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self.roots: dict[int, list[bytes]] = {}
        row, level = list(leaves), 0
        while len(row) >= TILE_WIDTH:
            full = len(row) // TILE_WIDTH
            row = [tile_root(b"".join(row[i * TILE_WIDTH : (i + 1) * TILE_WIDTH])) for i in range(full)]
            self.roots[level] = row
            level += 1

    def leaf_hashes(self, start: int, stop: int) -> Sequence[bytes]:
        return self.leaves[start:stop]

    def tile_roots(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        return self.roots[level][start:stop]


# ---- roots ----------------------------------------------------------------------------------------------------------


def test_the_hashes_are_those_of_the_standard() -> None:
    # Known values of Certificate Transparency implementations.
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"\x01" + b"\x00" * 64) != node_hash(b"\x00" * 32, b"\x00" * 32)


def test_roots_of_every_size_agree_with_the_definition() -> None:
    tree = TreeReader(Stored(LEAVES), len(LEAVES))
    frontier = Frontier()
    for size in range(len(LEAVES) + 1):
        if size in SIZES:
            expected = mth(LEAVES[:size])
            assert frontier.root() == expected
            assert tree.root(size) == expected
        if size < len(LEAVES):
            frontier.append(LEAVES[size])
    assert root_of(LEAVES) == mth(LEAVES)


def test_a_tree_with_three_levels_of_tiles_has_the_right_root() -> None:
    size = TILE_WIDTH**2 + TILE_WIDTH + 5
    leaves = [number.to_bytes(32, "big") for number in range(size)]
    tree = TreeReader(Stored(leaves), size)
    assert tree.root() == root_of(leaves)
    old = TILE_WIDTH**2 - 3
    steps = consistency_proof(tree, old, size)
    assert verify_consistency(
        old_size=old, old_root=root_of(leaves[:old]), size=size, root=root_of(leaves), proof=steps
    )


POWERS = sorted({2**k + d for k in range(1, 12) for d in (-1, 0, 1)})


@pytest.fixture(scope="module")
def oracle() -> Any:
    """The same leaves in an independent implementation."""
    tree = InmemoryTree(algorithm="sha256")
    for number in range(len(LEAVES)):
        tree.append_entry(str(number).encode())
    return tree


def test_roots_of_every_size_agree_with_another_implementation(oracle: Any) -> None:
    frontier = Frontier()
    root_at = getattr(oracle, "get_root", None) or oracle.get_state
    for size in SIZES:
        frontier.extend(LEAVES[frontier.size : size])
        if size:
            assert frontier.root() == root_at(size)


@pytest.mark.parametrize("size", [*POWERS, 100, 599, 600])
def test_proofs_agree_with_another_implementation(oracle: Any, size: int) -> None:
    from pymerkle import verify_consistency as foreign_consistency
    from pymerkle import verify_inclusion as foreign_inclusion

    if size > len(LEAVES):
        return
    tree, root = TreeReader(Stored(LEAVES), len(LEAVES)), mth(LEAVES[:size])
    for index in sorted({0, 1, size // 3, size // 2, size - 2, size - 1} & set(range(size))):
        theirs = oracle.prove_inclusion(index + 1, size)
        foreign_inclusion(LEAVES[index], root, theirs)
        assert inclusion_proof(tree, index, size) == list(theirs.path[1:])
    for old in sorted({1, size // 3, size // 2, size - 1, size} & set(range(1, size + 1))):
        old_root = mth(LEAVES[:old])
        foreign_consistency(old_root, root, oracle.prove_consistency(old, size))
        steps = consistency_proof(tree, old, size)
        assert verify_consistency(old_size=old, old_root=old_root, size=size, root=root, proof=steps)


@pytest.mark.prove
def test_proofs_of_all_sizes_up_to_600_agree_with_another_implementation(oracle: Any) -> None:
    tree = TreeReader(Stored(LEAVES), len(LEAVES))
    for size in range(1, 601):
        root = tree.root(size)
        assert root == mth(LEAVES[:size])
        for index in range(size % 7, size, max(1, size // 12)):
            steps = inclusion_proof(tree, index, size)
            assert steps == list(oracle.prove_inclusion(index + 1, size).path[1:])
            assert verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=steps, root=root)
        for old in range(1 + size % 5, size + 1, max(1, size // 12)):
            steps = consistency_proof(tree, old, size)
            assert verify_consistency(old_size=old, old_root=tree.root(old), size=size, root=root, proof=steps)


@given(st.lists(st.integers(1, 300), max_size=12), st.data())
def test_a_frontier_that_is_fed_tiles_has_the_same_roots(parts: list[int], data: st.DataObject) -> None:
    tiled, fed, tiles = TiledFrontier(), 0, []
    for part in parts:
        leaves = LEAVES[fed : fed + part]
        while leaves:
            now = leaves[: tiled.room]
            further = data.draw(st.integers(0, len(now)))
            assert tiled.root(now[:further]) == root_of(LEAVES[: fed + further])
            full = tiled.add(now)
            fed, leaves = fed + len(now), leaves[len(now) :]
            if full is not None:
                tiles.append(full)
    assert (tiled.size, tiled.root()) == (fed, root_of(LEAVES[:fed]))
    for number, (hashes, root) in enumerate(tiles):
        part = LEAVES[number * TILE_WIDTH : (number + 1) * TILE_WIDTH]
        assert (hashes, root) == (b"".join(part), root_of(part))
    with pytest.raises(InvalidInput, match="more leaves"):
        tiled.add(LEAVES[: tiled.room + 1])


def test_the_bytes_of_a_node_as_a_leaf_are_another_tree() -> None:
    """The second preimage that the prefixes of RFC 6962 exclude: a leaf that reads like two hashes under a node."""
    pair = b"".join(LEAVES[:2])
    for body in (pair, b"\x01" + pair):
        assert root_of([leaf_hash(body)]) != root_of(LEAVES[:2])
    forged = [leaf_hash(pair), LEAVES[2]]
    assert root_of(forged) != root_of(LEAVES[:3])
    steps = inclusion_proof(TreeReader(Stored(LEAVES), 3), 2, 3)
    assert not verify_inclusion(leaf=LEAVES[2], index=1, size=2, proof=steps, root=root_of(forged))


def test_the_tree_of_nothing_proves_nothing() -> None:
    assert TiledFrontier().root() == TreeReader(Stored([]), 0).root() == root_of([]) == EMPTY_ROOT
    with pytest.raises(InvalidInput):
        inclusion_proof(TreeReader(Stored([]), 0), 0, 0)
    assert not verify_inclusion(leaf=LEAVES[0], index=0, size=0, proof=[], root=EMPTY_ROOT)
    assert not verify_consistency(old_size=0, old_root=EMPTY_ROOT, size=3, root=mth(LEAVES[:3]), proof=[LEAVES[0]])


# ---- proofs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 33, 100, 255, 256, 257, 511, 512, 513, 600, 1023, 1024, 1025])
def test_inclusion_proofs_agree_with_the_definition(size: int) -> None:
    leaves = LEAVES[:size]
    tree, root = TreeReader(Stored(LEAVES), len(LEAVES)), mth(leaves)
    for index in {*range(min(size, 40)), *range(max(0, size - 20), size), size // 2}:
        steps = inclusion_proof(tree, index, size)
        assert steps == path(index, leaves)
        assert verify_inclusion(leaf=leaves[index], index=index, size=size, proof=steps, root=root)


def test_consistency_proofs_of_all_small_sizes_agree_with_the_definition() -> None:
    tree = TreeReader(Stored(LEAVES), len(LEAVES))
    roots = [mth(LEAVES[:size]) for size in range(66)]
    for size in range(66):
        for old in range(size + 1):
            steps = consistency_proof(tree, old, size)
            if old > 0:
                assert steps == proof(old, LEAVES[:size], known=True)
            assert verify_consistency(old_size=old, old_root=roots[old], size=size, root=roots[size], proof=steps)


@given(st.integers(1, len(LEAVES)), st.data())
def test_consistency_proofs_of_larger_sizes_verify(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    tree = TreeReader(Stored(LEAVES), size)
    steps = consistency_proof(tree, old, size)
    assert steps == proof(old, LEAVES[:size], known=True)
    assert verify_consistency(old_size=old, old_root=mth(LEAVES[:old]), size=size, root=mth(LEAVES[:size]), proof=steps)


@given(st.integers(1, 200), st.data())
def test_a_changed_inclusion_proof_fails(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    tree, root = TreeReader(Stored(LEAVES), size), mth(LEAVES[:size])
    steps = inclusion_proof(tree, index, size)

    def verifies(**changed: object) -> bool:
        asked = {"leaf": LEAVES[index], "index": index, "size": size, "proof": steps, "root": root, **changed}
        return verify_inclusion(**asked)  # type: ignore[arg-type]

    assert verifies()
    assert not verifies(leaf=LEAVES[index + 1])
    assert not verifies(root=LEAVES[0][::-1])
    assert not verifies(index=-1)
    assert not verifies(index=size)
    assert not verifies(proof=[*steps, b"\x00" * 32])
    assert not verifies(leaf=LEAVES[index][:-1])
    for other in {(index + 1) % size, index // 2} - {index}:
        assert not verifies(index=other)
    if steps:
        at = data.draw(st.integers(0, len(steps) - 1))
        flipped = bytes([steps[at][0] ^ 1]) + steps[at][1:]
        assert not verifies(proof=[*steps[:at], flipped, *steps[at + 1 :]])
        assert not verifies(proof=steps[:-1])


@given(st.integers(2, 200), st.data())
def test_a_changed_consistency_proof_fails(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size - 1))
    tree = TreeReader(Stored(LEAVES), size)
    steps = consistency_proof(tree, old, size)
    good = {"old_size": old, "old_root": mth(LEAVES[:old]), "size": size, "root": mth(LEAVES[:size]), "proof": steps}

    def verifies(**changed: object) -> bool:
        return verify_consistency(**{**good, **changed})  # type: ignore[arg-type]

    assert verifies()
    forked = mth([*LEAVES[: old - 1], leaf_hash(b"other")])
    assert not verifies(old_root=forked)
    assert not verifies(root=mth([leaf_hash(b"other"), *LEAVES[1:size]]))
    assert not verifies(proof=[*steps, b"\x00" * 32])
    assert not verifies(proof=steps[:-1])
    assert not verifies(old_size=size + 1)
    at = data.draw(st.integers(0, len(steps) - 1))
    flipped = bytes([steps[at][0] ^ 1]) + steps[at][1:]
    assert not verifies(proof=[*steps[:at], flipped, *steps[at + 1 :]])


def test_trees_of_the_same_size_are_consistent_only_when_equal() -> None:
    root, other = mth(LEAVES[:5]), mth(LEAVES[1:6])
    assert verify_consistency(old_size=5, old_root=root, size=5, root=root, proof=[])
    assert not verify_consistency(old_size=5, old_root=root, size=5, root=other, proof=[])
    assert not verify_consistency(old_size=5, old_root=root, size=5, root=root, proof=[root])
    assert verify_consistency(old_size=0, old_root=EMPTY_ROOT, size=5, root=root, proof=[])
    assert not verify_consistency(old_size=0, old_root=other, size=5, root=root, proof=[])


def test_questions_outside_the_tree_are_refused() -> None:
    tree = TreeReader(Stored(LEAVES[:10]), 10)
    for ask in (
        lambda: inclusion_proof(tree, 10, 10),
        lambda: inclusion_proof(tree, 0, 11),
        lambda: consistency_proof(tree, 5, 11),
        lambda: consistency_proof(tree, 6, 5),
        lambda: tree.root(11),
        lambda: tile_root(b"\x00" * 32 * 255),
        lambda: split_hashes(b"\x00" * 33),
    ):
        with pytest.raises(InvalidInput):
            ask()
