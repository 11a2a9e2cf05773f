"""Proofs as text: made for every entry and every pair of checkpoints, refused after any change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cagg.errors import InvalidInput, LedgerDamaged, NotProven
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.merkle import TILE_WIDTH, TreeReader, inclusion_proof, leaf_hash, node_hash, root_of, tile_root
from cagg.ledger.notes import TreeHead, VerifierKey, checkpoint_text, signed_note, verifier_key
from cagg.ledger.proofs import ConsistencyProof, InclusionProof, ProofReport, check_proof, parse_proof
from cagg.ledger.proving import TileSource, prove_consistency, prove_entry
from cagg.ledger.sequencer import sequence
from cagg.ports import Checkpoint, Store
from cagg.records import Entry, EntryDraft, EntryKind
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner

NAME = "example.org/test"
SIGNER = MemorySigner(NAME)
KEY = verifier_key(SIGNER)
SIGNED = (1, 3, 255, 256, 300, 512, 530)
SIZE = 540


def _draft(number: int) -> EntryDraft:
    return EntryDraft(
        kind=EntryKind.DECISION, request_key=f"k{number}", ordinal=0, body={"request": {}, "verdict": "admit"}
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, named_store: Callable[..., AbstractContextManager[Store]]) -> Iterator[Store]:
    """540 entries under seven checkpoints, the last ten under none; on each backend."""
    with named_store(request.param, origin=NAME, clock=ManualClock()) as store:
        with store.transaction() as tx:
            for number in range(SIZE):
                append(tx, _draft(number))
                if number + 1 in SIGNED:
                    while sequence(tx):
                        pass
                    sign_checkpoint(tx, SIGNER)
            while sequence(tx):
                pass
        yield store


def checked(proof: InclusionProof | ConsistencyProof, *keys: VerifierKey) -> ProofReport:
    """Check a proof after it has gone through its text."""
    again = parse_proof(proof.text())
    assert again == proof
    return check_proof(again, keys or (KEY,))


def refused(data: bytes) -> bool:
    """True when these bytes prove nothing; anything but an expected error is a defect."""
    try:
        return not check_proof(parse_proof(data.decode()), [KEY]).proven
    except (InvalidInput, UnicodeDecodeError):
        return True


# ---- proofs that hold -----------------------------------------------------------------------------------------------


def test_every_covered_entry_is_proven_with_its_bytes(log: Store) -> None:
    with log.snapshot() as tx:
        entries = list(tx.entries())
        leaves = [entry.leaf_hash for entry in entries]
        for entry in entries[: SIGNED[-1]]:
            proof = prove_entry(tx, entry)
            report = checked(proof)
            assert report.proven
            assert report.body is not None
            assert report.body["entry_id"] == entry.entry_id
            assert proof.path == tuple(inclusion_proof(_Memory(leaves), entry.index or 0, SIGNED[-1]))
    assert report.sentence == "proven: entry 529 is under the signed checkpoint of 530 entries."
    assert report.signers == (KEY,)


def test_an_entry_is_proven_under_any_checkpoint_that_covers_it(log: Store) -> None:
    with log.snapshot() as tx:
        for checkpoint in tx.checkpoints():
            for index in {0, checkpoint.size // 2, checkpoint.size - 1}:
                report = checked(prove_entry(tx, _at(tx, index), checkpoint))
                assert report.proven
                assert report.head is not None
                assert report.head.size == checkpoint.size


def test_every_checkpoint_continues_every_earlier_one(log: Store) -> None:
    with log.snapshot() as tx:
        stored = tx.checkpoints()
        for older in stored:
            for newer in stored:
                if older.size > newer.size:
                    with pytest.raises(InvalidInput, match="older one first"):
                        prove_consistency(tx, older, newer)
                    continue
                report = checked(prove_consistency(tx, older, newer))
                assert report.proven
                assert report.sentence.startswith(f"proven: the checkpoint of {newer.size} entries continues")


def test_the_text_is_the_one_of_the_specification(log: Store) -> None:
    with log.snapshot() as tx:
        entry, note = _at(tx, 2), tx.checkpoints()[1].note
        lines = prove_entry(tx, entry, tx.checkpoints()[1]).text().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert lines[2] == "index 2"
    assert lines[4] == ""
    assert "\n".join(lines[5:]) == note


def test_without_its_frame_a_consistency_proof_is_what_witnesses_are_sent(log: Store) -> None:
    with log.snapshot() as tx:
        older, newer = tx.checkpoints()[1], tx.checkpoints()[4]
        text = prove_consistency(tx, older, newer).text()
    request = text.removeprefix("cagg/consistency-proof@v1\n").removesuffix(f"\n{older.note}")
    head, _, note = request.partition("\n\n")
    assert head.split("\n")[0] == "old 3"
    assert all(len(line) == 44 for line in head.split("\n")[1:])
    assert note == newer.note


def test_the_entry_may_be_carried_beside_the_proof(log: Store) -> None:
    with log.snapshot() as tx:
        entry = _at(tx, 7)
        proof = prove_entry(tx, entry).without_entry()
    assert "extra" not in proof.text()
    assert check_proof(parse_proof(proof.text()), [KEY], entry.body).proven
    assert not check_proof(proof, [KEY], entry.body + b" ").proven
    with pytest.raises(InvalidInput, match="--entry"):
        check_proof(proof, [KEY])
    with pytest.raises(InvalidInput, match="another entry"):
        check_proof(replace(proof, entry=b"{}"), [KEY], entry.body)


def test_a_log_of_one_entry(store: Store) -> None:
    with store.transaction() as tx:
        append(tx, _draft(0))
        sequence(tx)
        sign_checkpoint(tx, SIGNER)
    with store.snapshot() as tx:
        proof = prove_entry(tx, _at(tx, 0))
        assert proof.path == ()
        assert checked(proof).proven
        checkpoint = tx.checkpoints()[0]
        assert checked(prove_consistency(tx, checkpoint, checkpoint)).proven


def test_signatures_of_unknown_keys_are_passed_over(log: Store) -> None:
    with log.snapshot() as tx:
        proof = prove_entry(tx, _at(tx, 0))
    witness = verifier_key(MemorySigner("witness.example", b"\x08" * 32))
    line = signed_note("x\n", b"\x00" * 64, witness).split("\n")[2]
    more = replace(proof, checkpoint=f"{proof.checkpoint}{line}\n")
    assert checked(more).proven
    assert not checked(more, KEY, witness).proven


def test_entries_are_found_by_the_range_of_their_ids(log: Store) -> None:
    with log.snapshot() as tx:
        ids = sorted(entry.entry_id for entry in tx.entries())
        for first, last, limit in ((10, 10, 2), (3, 8, 2), (3, 8, 9), (0, SIZE - 1, SIZE)):
            found = [entry.entry_id for entry in tx.entries_between(ids[first], ids[last], limit)]
            assert found == ids[first : last + 1][:limit]
        assert tx.entries_between("ffffffff-0000-0000-0000-000000000000", "f" * 36, 5) == []
        with_index = tx.entries_between(ids[10], ids[10], 1)[0]
        assert with_index == tx.entry(ids[10])


# ---- few reads ------------------------------------------------------------------------------------------------------


class _Memory(TreeReader):
    """A tree over leaf hashes in memory."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.size, self.leaves = len(leaves), leaves

    def span(self, start: int, stop: int) -> bytes:
        return root_of(self.leaves[start:stop])


class _Counting:
    """The stored hashes of a tree of a million leaves, which counts what is read of it."""

    def __init__(self, size: int) -> None:
        rows: list[list[bytes]] = [[number.to_bytes(32, "big") for number in range(size)]]
        while len(rows[-1]) >= TILE_WIDTH:
            row = rows[-1]
            full = len(row) // TILE_WIDTH
            rows.append([tile_root(b"".join(row[n * 256 : n * 256 + 256])) for n in range(full)])
        self.rows = rows
        self.questions = self.read = 0

    def leaf_hashes(self, start: int, stop: int) -> Sequence[bytes]:
        return self._counted(self.rows[0][start:stop])

    def tile_roots(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        return self._counted(self.rows[level + 1][start:stop])

    def tile(self, level: int, number: int) -> bytes | None:
        row = self.rows[level][number * TILE_WIDTH : (number + 1) * TILE_WIDTH]
        self.questions += 1
        self.read += 1
        return b"".join(row) if len(row) == TILE_WIDTH else None

    def _counted(self, hashes: Sequence[bytes]) -> Sequence[bytes]:
        self.questions += 1
        self.read += len(hashes)
        return hashes


@pytest.mark.parametrize("size", [1_000_000, 2**20 - 1])
def test_a_proof_in_a_million_entries_reads_a_few_rows(size: int) -> None:
    rows = _Counting(size)
    root = TreeReader(rows, size).root()
    for index in (0, 255, 65_535, 65_536, 524_288, 999_423, size - 1):
        rows.questions = rows.read = 0
        source: Any = TileSource(rows)  # type: ignore[arg-type]
        path = inclusion_proof(TreeReader(source, size), index, size)
        leaf = index.to_bytes(32, "big")
        assert _folds_to(leaf, index, size, path) == root
        assert rows.questions <= 8
        assert rows.read <= 3 * 255 + 8


def _folds_to(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Climb a path as RFC 6962 section 2.1.1 describes it: from the top down, then back."""

    def climb(start: int, stop: int, left: Sequence[bytes]) -> bytes:
        if stop - start == 1:
            return leaf
        middle = start + (1 << ((stop - start - 1).bit_length() - 1))
        if index < middle:
            return node_hash(climb(start, middle, left[:-1]), left[-1])
        return node_hash(left[-1], climb(middle, stop, left[:-1]))

    return climb(0, size, path)


# ---- what cannot be proven ------------------------------------------------------------------------------------------


def test_an_entry_that_no_checkpoint_covers_names_the_remedy(log: Store, store: Store) -> None:
    with log.snapshot() as tx, pytest.raises(NotProven, match="cagg maintain"):
        prove_entry(tx, _at(tx, SIZE - 1))
    with store.transaction() as tx:
        entry = append(tx, _draft(0))
        with pytest.raises(NotProven, match="cagg maintain"):
            prove_entry(tx, entry)
        while sequence(tx):
            pass
        sign_checkpoint(tx, SIGNER)
        waiting = replace(entry, index=None)
        with pytest.raises(NotProven, match=r"waits for its place.*cagg maintain"):
            prove_entry(tx, waiting)


class _TakeBack(Exception):
    pass


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE cagg_entry SET body = CAST('{}' AS blob) WHERE request_key = 'k270'",
        "UPDATE cagg_tile SET hashes = substr(hashes, 1, 8191) WHERE number = 1",
        "UPDATE cagg_leaf SET leaf_hash = leaf_hash || leaf_hash WHERE leaf_index = 520",
        "DELETE FROM cagg_leaf WHERE leaf_index > 500",
    ],
)
def test_nothing_is_proven_from_a_changed_store(log: Store, change: str) -> None:
    statement = change.replace("blob", "bytea") if "postgresql" in log.url else change
    with contextlib.suppress(_TakeBack), log.transaction() as tx:
        entry = _at(tx, 270)
        assert unlock(tx).exec_driver_sql(statement).rowcount
        changed = tx.entry(entry.entry_id)
        assert changed is not None
        with pytest.raises((NotProven, LedgerDamaged)):
            prove_entry(tx, changed)
        raise _TakeBack


def test_a_checkpoint_of_another_history_is_refused(log: Store) -> None:
    def outside(origin: str, size: int, root: bytes) -> Checkpoint:
        note = signed_note(checkpoint_text(TreeHead(origin=origin, size=size, root=root)), b"\x00" * 64, KEY)
        return Checkpoint(size=size, root=root, note=note, created_at=ManualClock().now())

    with log.snapshot() as tx:
        newest, entry = tx.checkpoints()[-1], _at(tx, 5)
        for older, why in (
            (outside(NAME, 300, b"\x01" * 32), "does not continue"),
            (outside("example.org/other", 300, tx.checkpoints()[4].root), "is of the log"),
            (outside(NAME, SIZE + 1, b"\x01" * 32), "entries are gone"),
        ):
            if older.size <= newest.size:
                with pytest.raises(NotProven, match=why):
                    prove_consistency(tx, older, newest)
            with pytest.raises(NotProven, match=r"is not what|is of the log|entries are gone"):
                prove_entry(tx, entry, older)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_proofs_do_not_prove_anything_else(log: Store) -> None:
    with log.snapshot() as tx:
        proof, other = prove_entry(tx, _at(tx, 100)), prove_entry(tx, _at(tx, 101))
        older = prove_entry(tx, _at(tx, 100), tx.checkpoints()[4])
        chain = prove_consistency(tx, tx.checkpoints()[1], tx.checkpoints()[4])
        leaf = leaf_hash(_at(tx, 100).body)
    forged = [
        replace(proof, index=101),
        replace(proof, index=SIGNED[-1]),
        replace(proof, index=2**62),
        replace(proof, path=other.path),
        replace(proof, path=proof.path[:-1]),
        replace(proof, path=(*proof.path, proof.path[0])),
        replace(proof, path=()),
        replace(proof, entry=other.entry),
        replace(proof, entry=b""),
        replace(proof, entry=leaf + proof.path[0], path=proof.path[1:], index=50),  # a node's bytes as an entry
        replace(proof, checkpoint=older.checkpoint),
        replace(chain, path=()),
        replace(chain, path=chain.path[1:]),
        replace(chain, older=older.checkpoint),
        replace(chain, older=chain.newer, newer=chain.older),
    ]
    for item in forged:
        report = check_proof(item, [KEY])
        assert not report.proven
        assert report.sentence.startswith("NOT proven")
        assert refused(item.text().encode())


def test_keys_that_do_not_count(log: Store) -> None:
    with log.snapshot() as tx:
        proof = prove_entry(tx, _at(tx, 0))
    for stranger in (
        verifier_key(MemorySigner(NAME, b"\x01" * 32)),
        VerifierKey(name="example.org/other", public_key=KEY.public_key),
    ):
        report = checked(proof, stranger)
        assert not report.proven
        assert "none of the trusted keys but by example.org" in report.sentence
        assert f"{NAME}+" in report.sentence, "the key that signed it is named"
    with pytest.raises(InvalidInput, match="--key"):
        check_proof(proof, [])


def test_an_entry_that_contradicts_itself_is_told_although_it_is_in_the_log() -> None:
    body = (
        b'{"idempotency_key":"x","kind":"decision","log":"example.org/elsewhere","ordinal":0,"request_key":"k","v":1}'
    )
    for data, why in (
        (body, "belongs to the log"),
        (body.replace(b'"v":1', b'"v": 1'), "not in the ledger's form"),
        (body.replace(b'"v":1', b'"v":2'), "format 1"),
        (b"[]", "format 1"),
        (b"\xff", "not in the ledger's form"),
    ):
        text = checkpoint_text(TreeHead(origin=NAME, size=1, root=leaf_hash(data)))
        note = signed_note(text, SIGNER.sign(text.encode()), KEY)
        report = check_proof(InclusionProof(index=0, path=(), checkpoint=note, entry=data), [KEY])
        assert not report.proven
        assert any(why in problem for problem in report.problems)


@pytest.fixture(scope="module")
def texts(named_store: Callable[..., AbstractContextManager[Store]]) -> tuple[bytes, ...]:
    """One proof of each kind, in bytes."""
    with named_store("sqlite", origin=NAME, clock=ManualClock()) as store:
        with store.transaction() as tx:
            for number in range(6):
                append(tx, _draft(number))
                if number in (2, 5):
                    sign_checkpoint(tx, SIGNER)
        with store.snapshot() as tx:
            first, last = tx.checkpoints()
            return (prove_entry(tx, _at(tx, 4)).text().encode(), prove_consistency(tx, first, last).text().encode())


def test_every_flipped_bit_is_refused(texts: tuple[bytes, ...]) -> None:
    for data in texts:
        assert not refused(data)
        for place in range(len(data)):
            for bit in range(8):
                changed = bytearray(data)
                changed[place] ^= 1 << bit
                assert refused(bytes(changed)), (
                    f"bit {bit} of byte {place}: {bytes(changed[place - 20 : place + 20])!r}"
                )


@settings(max_examples=300, deadline=None)
@given(which=st.integers(0, 1), place=st.integers(0, 5_000), cut=st.integers(0, 60), put=st.binary(max_size=60))
def test_every_other_change_is_refused(texts: tuple[bytes, ...], which: int, place: int, cut: int, put: bytes) -> None:
    data = texts[which]
    place %= len(data) + 1
    changed = data[:place] + put + data[place + cut :]
    if changed != data:
        assert refused(changed)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.from_regex(r"c2sp\.org/tlog-proof@v1\n(extra [A-Za-z=]*\n)?index [0-9]+\n.*\n\n.*")))
def test_text_that_is_no_proof_is_refused_in_one_sentence(text: str) -> None:
    assert refused(text.encode())
    try:
        proof = parse_proof(text)
    except InvalidInput as error:
        assert "\n" not in str(error)  # noqa: PT017 - it need not be raised here
    else:
        assert parse_proof(proof.text()) == proof


def _at(tx: Any, index: int) -> Entry:
    found: Entry = next(tx.entries(start=index, limit=1))
    assert found.index == index
    return found
