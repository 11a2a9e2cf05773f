"""A whole store of format 1, kept for ever: two logs with every kind of entry, written from kept inputs.

``tests/golden/ledger/log_v1`` holds, as plain files:

- ``steps.jsonl``: what was done, in order: drafts, places given out, signatures, the second log, a redaction;
- ``trusted.vkey``: the one public key that an auditor brought along;
- ``log_0`` and ``log_1``: ``entries.jsonl`` (each line one body's bytes), ``checkpoints/SIZE.txt``, ``private.jsonl``
  and each full tile as ``tile_LEVEL_NUMBER.bin``;
- ``blobs/DIGEST``: attachments.

A test that fails here means that existing ledgers would no longer verify, or that the same facts no longer give the
same bytes. Make a new format, never new golden files for this one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.entries import Entry, EntryDraft, EntryKind, PrivateValue
from cagg.ledger.checkpoint import checkpoint_of_note
from cagg.ledger.encoding import canonical, decode
from cagg.ledger.entry import append, blobs_of, columns_of, read_body, resolve
from cagg.ledger.merkle import TreeReader, leaf_hash, root_of, tile_root
from cagg.ledger.notes import TreeHead, VerifierKey, checkpoint_text, note_of, parse_note, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import Assurance, verify
from cagg.ports import Checkpoint, Store, Transaction
from cagg.testing import ManualClock
from cagg.testing.stores import MemorySigner
from cagg.windows import parse_instant

GOLDEN = Path(__file__).parents[2] / "golden" / "ledger" / "log_v1"
FULL_TILE = 256


def steps() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / "steps.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def fixed_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bytes that are the same each time, for ids (10 bytes) and salts (32) apart."""
    drawn: Counter[int] = Counter()

    def urandom(count: int) -> bytes:
        drawn[count] += 1
        return hashlib.sha256(f"{count} bytes, draw {drawn[count]}".encode()).digest()[:count]

    monkeypatch.setattr("cagg.ledger.identifiers.os.urandom", urandom)


class Player:
    """Does the kept steps in a store."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock

    def play(self, step: dict[str, Any]) -> None:
        self.clock.advance(step.pop("after_seconds", 0))
        getattr(self, f"_{step.pop('do')}")(**step)

    def _open(self, **_: Any) -> None:
        """The store was opened with this step's name and at its instant."""

    def _append(self, *, kind: str, request_key: str, ordinal: int, body: Any, blobs: Any, private: Any) -> None:
        data = {digest: base64.b64decode(text) for digest, text in blobs.items()}
        draft = EntryDraft(
            kind=EntryKind(kind), request_key=request_key, ordinal=ordinal, body=body, blobs=data, private=private
        )
        with self.store.transaction() as tx:
            append(tx, draft)

    def _place(self) -> None:
        with self.store.transaction() as tx:
            while sequence(tx):
                pass

    def _sign(self, *, name: str, seeds: list[str]) -> None:
        with self.store.transaction() as tx:
            log = tx if tx.origin() == name else tx.in_log(name)
            signers = [MemorySigner(name, bytes.fromhex(seed)) for seed in seeds]
            head = TreeHead(origin=name, size=log.tree_size(), root=TreeReader(log, log.tree_size()).root())
            text = checkpoint_text(head)
            note = note_of(text, [(verifier_key(signer), signer.sign(text.encode())) for signer in signers])
            log.put_checkpoint(Checkpoint(size=head.size, root=head.root, note=note, created_at=tx.now()))

    def _drop_private(self, *, entry_id: str, field: str) -> None:
        with self.store.transaction() as tx:
            assert tx.drop_private(entry_id, field)

    def _begin_log(self, *, name: str) -> None:
        with self.store.transaction() as tx:
            tx.begin_log(name)


def files_of(tx: Transaction) -> dict[str, bytes]:
    """What a store holds, as the kept files hold it."""
    found: dict[str, bytes] = {}
    for number, item in enumerate(tx.logs()):
        log, at = tx.in_log(item.origin), f"log_{number}"
        entries = list(log.entries())
        assert [entry.index for entry in entries] == list(range(log.tree_size()))
        found[f"{at}/entries.jsonl"] = b"".join(entry.body + b"\n" for entry in entries)
        for head in log.checkpoints():
            found[f"{at}/checkpoints/{head.size}.txt"] = head.note.encode()
        values = [
            {"entry_id": one.entry_id, "field": one.field, "salt": one.salt.hex(), "value": one.value}
            for one in log.private_values()
        ]
        found[f"{at}/private.jsonl"] = b"".join(canonical(value) + b"\n" for value in values)
        for tile in range(len(entries) // FULL_TILE):
            found[f"{at}/tile_0_{tile}.bin"] = log.tile(0, tile) or b""
        for entry in entries:
            for digest in {*blobs_of(decode(entry.body)), *blobs_of(read_body(log, entry))}:
                found[f"blobs/{digest}"] = log.blob(digest) or b""
    return found


def kept_files() -> dict[str, bytes]:
    """The kept files by name, without the inputs."""
    given = {"steps.jsonl", "trusted.vkey"}
    names = [str(path.relative_to(GOLDEN)) for path in sorted(GOLDEN.rglob("*")) if path.is_file()]
    return {name: (GOLDEN / name).read_bytes() for name in names if name not in given}


@pytest.fixture(params=["sqlite", "postgresql"])
def played(
    request: pytest.FixtureRequest,
    named_store: Callable[..., AbstractContextManager[Store]],
    fixed_random: None,
) -> Iterator[Store]:
    """The kept steps, done anew on each backend."""
    first, *rest = steps()
    clock = ManualClock(parse_instant(first["at"]))
    with named_store(request.param, origin=first["name"], clock=clock) as store:
        player = Player(store, clock)
        for step in rest:
            player.play(step)
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
def loaded(
    request: pytest.FixtureRequest, named_store: Callable[..., AbstractContextManager[Store]]
) -> Iterator[Store]:
    """A store that is filled from the kept bytes alone, without anything that writes entries."""
    first, *_ = steps()
    clock = ManualClock(parse_instant(first["at"]))
    with named_store(request.param, origin=first["name"], clock=clock) as store:
        with store.transaction() as tx:
            for path in sorted((GOLDEN / "blobs").iterdir()):
                tx.put_blob(path.name, path.read_bytes())
            load(tx, GOLDEN / "log_0")
        begun = decode(bodies_of(GOLDEN / "log_1")[0])
        clock.advance_to(parse_instant(begun["recorded_at"]))
        with store.transaction() as tx:
            load(tx.begin_log(begun["log"]), GOLDEN / "log_1")
        clock.advance(timedelta(days=400))
        yield store


def checkpoints_of(folder: Path) -> list[Checkpoint]:
    files = sorted((folder / "checkpoints").iterdir(), key=lambda path: int(path.stem))
    return [
        checkpoint_of_note(path.read_text(encoding="utf-8"), datetime.fromisoformat("2026-01-01T00:00Z"))
        for path in files
    ]


def bodies_of(folder: Path) -> list[bytes]:
    return (folder / "entries.jsonl").read_bytes().removesuffix(b"\n").split(b"\n")


def load(tx: Transaction, folder: Path) -> None:
    rows = []
    for index, data in enumerate(bodies_of(folder)):
        body = decode(data)
        entry = Entry(
            entry_id=body["entry_id"],
            kind=EntryKind(body["kind"]),
            idempotency_key=bytes.fromhex(body["idempotency_key"]),
            body=data,
            leaf_hash=leaf_hash(data),
            index=index if tx.sequences_inline else None,
            recorded_at=parse_instant(body["recorded_at"]),
        )
        rows.append((entry, columns_of(resolve(tx, body))))
    assert not tx.insert_entries(rows)
    while taken := tx.take_queued(len(rows)):
        tx.insert_leaves(tx.tree_size(), taken)
    for path in folder.glob("tile_0_*.bin"):
        tx.put_tile(0, int(path.stem.rpartition("_")[2]), path.read_bytes(), tile_root(path.read_bytes()))
    for head in checkpoints_of(folder):
        tx.put_checkpoint(head)
    for line in (folder / "private.jsonl").read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        tx.put_private([PrivateValue(**{**value, "salt": bytes.fromhex(value["salt"])})])


def test_the_kept_log_has_every_kind_and_a_full_tile() -> None:
    bodies = [decode(body) for number in (0, 1) for body in bodies_of(GOLDEN / f"log_{number}")]
    assert {body["kind"] for body in bodies} == set(EntryKind)
    assert {body["v"] for body in bodies} == {1}
    assert any("spilled" in body for body in bodies)
    assert (GOLDEN / "log_0" / "tile_0_0.bin").stat().st_size == 32 * FULL_TILE


def test_the_kept_roots_follow_from_the_kept_bytes_by_hashing_alone() -> None:
    for number in (0, 1):
        leaves = [hashlib.sha256(b"\x00" + body).digest() for body in bodies_of(GOLDEN / f"log_{number}")]
        for head in checkpoints_of(GOLDEN / f"log_{number}"):
            assert head.root == root_of(leaves[: head.size])


def test_the_kept_steps_give_the_kept_bytes(played: Store) -> None:
    with played.snapshot() as tx:
        found = files_of(tx)
    kept = kept_files()
    assert sorted(found) == sorted(kept)
    assert [name for name in kept if found[name] != kept[name]] == []


@pytest.mark.parametrize("outside", [False, True])
def test_the_kept_log_is_verified_by_the_first_key_alone(loaded: Store, outside: bool) -> None:
    heads = [head for number in (0, 1) for head in checkpoints_of(GOLDEN / f"log_{number}")]
    with loaded.snapshot() as tx:
        report = verify(tx, [(GOLDEN / "trusted.vkey").read_text(encoding="utf-8")], heads if outside else None)
        assert files_of(tx) == kept_files()
    assert (report.failures, report.notes) == ((), ())
    assert report.assurance is (Assurance.ANCHORED if outside else Assurance.SIGNED)
    assert [item.signed_size for item in report.logs] == [item.size for item in report.logs]
    assert report.size == sum(len(bodies_of(GOLDEN / f"log_{number}")) for number in (0, 1))


def test_the_kept_commitments_are_opened_by_the_kept_salts_by_hand() -> None:
    committed = {
        (body["entry_id"], item["field"]): item["commitment"]
        for body in map(decode, bodies_of(GOLDEN / "log_0"))
        for item in body.get("private", ())
    }
    opened = [json.loads(line) for line in (GOLDEN / "log_0/private.jsonl").read_text(encoding="utf-8").splitlines()]
    assert 0 < len(opened) < len(committed)  # one was redacted
    for value in opened:
        field = value["field"].encode()
        data = bytes.fromhex(value["salt"]) + len(field).to_bytes(8, "big") + field + value["value"].encode()
        assert hashlib.sha256(data).hexdigest() == committed[value["entry_id"], value["field"]]


def test_the_trusted_key_is_the_one_of_the_first_signature() -> None:
    first, *_ = checkpoints_of(GOLDEN / "log_0")
    key = VerifierKey.parse((GOLDEN / "trusted.vkey").read_text(encoding="utf-8"))
    assert parse_note(first.note, [key])[1] == [key]
