"""Exports as C2SP tlog-tiles: whole logs at any moment, only grown, read by independent code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

import pytest
from pymerkle import InmemoryTree
from sqlalchemy import text

from cagg.errors import ConfigurationError, InvalidInput, LedgerDamaged, NotProven
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.export.tiles import entries_of, export_tiles, tile_path
from cagg.ledger.merkle import leaf_hash, root_of, tile_root
from cagg.ledger.notes import TreeHead, checkpoint_text, parse_note, signed_note, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ports import AuditRow, Checkpoint, Store
from cagg.records import EntryDraft, EntryKind
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner

NAME = "example.org/test"
SIGNER = MemorySigner(NAME)


def _grow(store: Store, count: int, *, seal: bool = True, salt: str = "") -> None:
    with store.transaction() as tx:
        start = tx.tree_size()
        for number in range(start, start + count):
            body = {"request": {}, "verdict": "admit"}
            append(tx, EntryDraft(kind=EntryKind.DECISION, request_key=f"{salt}k{number}", ordinal=0, body=body))
        while sequence(tx):
            pass
        if seal:
            sign_checkpoint(tx, SIGNER)


def _export(store: Store, folder: Path) -> tuple[int, int, int, int]:
    with store.snapshot() as tx:
        done = export_tiles(tx, folder)
        assert done.root == tx.checkpoints()[-1].root
    assert not list(folder.rglob(".*"))
    return done.old_size, done.size, done.files, done.left_out


def _files(folder: Path) -> dict[str, bytes]:
    return {item.relative_to(folder).as_posix(): item.read_bytes() for item in folder.rglob("*") if item.is_file()}


def _read_as_the_specification_says(folder: Path) -> tuple[TreeHead, list[bytes]]:
    """Fetch what a client of a log of this size may fetch, and check the tiles against each other."""
    head, signers = parse_note((folder / "checkpoint").read_bytes().decode(), [verifier_key(SIGNER)])
    assert signers
    entries: list[bytes] = []
    for number in range(-(-head.size // 256)):
        width = min(256, head.size - number * 256)
        entries += entries_of((folder / tile_path(None, number, width)).read_bytes())
    row = [sha256(b"\x00" + entry).digest() for entry in entries]
    level = 0
    while head.size >> (8 * level):
        count = head.size >> (8 * level)
        assert len(row) == count
        above = []
        for number in range(-(-count // 256)):
            width = min(256, count - number * 256)
            data = (folder / tile_path(level, number, width)).read_bytes()
            assert data == b"".join(row[number * 256 : number * 256 + width])
            if width == 256:
                above.append(tile_root(data))
        row, level = above, level + 1
    return head, entries


def test_an_export_has_the_root_that_pymerkle_finds(store: Store, tmp_path: Path) -> None:
    _grow(store, 600)
    assert _export(store, tmp_path / "out") == (0, 600, 7, 0)
    head, entries = _read_as_the_specification_says(tmp_path / "out")
    independent = InmemoryTree(algorithm="sha256")
    for entry in entries:
        independent.append_entry(entry)
    assert independent.get_root() == head.root
    with store.snapshot() as tx:
        assert entries == [entry.body for entry in tx.entries()]
    assert sorted(_files(tmp_path / "out")) == [
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    ]


def test_a_later_export_adds_only_what_is_new(store: Store, tmp_path: Path) -> None:
    folder, fresh = tmp_path / "out", tmp_path / "fresh"
    for count in (1, 254, 1, 1, 255, 0, 300):
        before = _files(folder) if folder.exists() else {}
        _grow(store, count)
        old, size, files, _ = _export(store, folder)
        assert size - old == count
        after = _files(folder)
        assert {name: data for name, data in after.items() if name in before and name != "checkpoint"} == {
            name: data for name, data in before.items() if name != "checkpoint"
        }
        assert files == len(after.keys() - before.keys() - {"checkpoint"})
        _read_as_the_specification_says(folder)
    _export(store, fresh)
    whole = _files(folder)
    assert _files(fresh).items() <= whole.items()
    assert all(".p/" in name for name in whole.keys() - _files(fresh).keys())


def test_entries_that_no_checkpoint_covers_stay_out(store: Store, tmp_path: Path) -> None:
    _grow(store, 3)
    _grow(store, 4, seal=False)
    assert _export(store, tmp_path / "out") == (0, 3, 2, 4)
    assert len(_read_as_the_specification_says(tmp_path / "out")[1]) == 3


def test_files_that_were_lost_are_written_again(store: Store, tmp_path: Path) -> None:
    _grow(store, 700)
    folder = tmp_path / "out"
    _export(store, folder)
    whole = _files(folder)
    for lost in ("tile/0/000", "tile/entries/001", "tile/1/000.p/2", "tile/0/002.p/188"):
        (folder / lost).unlink()
        assert _export(store, folder)[2] == 1
        assert _files(folder) == whole


def test_an_export_that_was_broken_off_is_finished(store: Store, tmp_path: Path) -> None:
    _grow(store, 300)
    folder = tmp_path / "out"
    _export(store, folder)
    (folder / "checkpoint").unlink()
    (folder / "tile/0/000").unlink()
    (folder / ".checkpoint.0a1b2c3d").write_bytes(b"half a note")
    with store.snapshot() as tx:
        assert export_tiles(tx, folder).size == 300
    _read_as_the_specification_says(folder)


def test_a_folder_of_something_else_is_refused(store: Store, tmp_path: Path) -> None:
    _grow(store, 3)
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    with store.snapshot() as tx, pytest.raises(InvalidInput, match=r"thesis\.tex"):
        export_tiles(tx, tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "checkpoint").write_bytes(b"no note\n")
    with store.snapshot() as tx, pytest.raises(InvalidInput, match="cannot be read"):
        export_tiles(tx, tmp_path / "other")
    (tmp_path / "other" / "checkpoint").write_bytes(b"\xff\xfe")
    with store.snapshot() as tx, pytest.raises(ConfigurationError, match="no text"):
        export_tiles(tx, tmp_path / "other")
    with store.snapshot() as tx, pytest.raises(ConfigurationError):
        export_tiles(tx, tmp_path / "thesis.tex")
    assert _files(tmp_path)["thesis.tex"] == b"mine"


@pytest.fixture
def second(named_store: Callable[..., AbstractContextManager[Store]]) -> Iterator[Callable[[str], Store]]:
    """Open further stores."""
    with contextlib.ExitStack() as opened:
        yield lambda origin: opened.enter_context(named_store("sqlite", origin=origin, clock=ManualClock()))


def test_another_log_a_fork_and_an_old_copy_are_refused(
    store: Store, second: Callable[[str], Store], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    _grow(store, 300)
    _export(store, folder)
    before = _files(folder)
    other, fork, old = second("example.org/other"), second(NAME), second(NAME)
    _grow_named(other, 400)
    _grow(fork, 400, salt="x")
    _grow(old, 200)
    for wrong, why in ((other, "holds the log"), (fork, "another log of the same name"), (old, "entries are gone")):
        with wrong.snapshot() as tx, pytest.raises(NotProven, match=why):
            export_tiles(tx, folder)
        assert _files(folder) == before


def _grow_named(store: Store, count: int) -> None:
    with store.transaction() as tx:
        signer = MemorySigner(tx.origin())
        for number in range(count):
            body = {"request": {}, "verdict": "admit"}
            append(tx, EntryDraft(kind=EntryKind.DECISION, request_key=f"k{number}", ordinal=0, body=body))
        sign_checkpoint(tx, signer)


def test_a_changed_file_is_not_built_upon(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    _grow(store, 256)
    _export(store, folder)
    _grow(store, 1)
    changed = folder / "tile/1/000.p/1"
    changed.write_bytes(changed.read_bytes()[::-1])
    with store.snapshot() as tx, pytest.raises(NotProven, match="holds something else"):
        export_tiles(tx, folder)
    changed.write_bytes(b"")
    with store.snapshot() as tx, pytest.raises((NotProven, LedgerDamaged)):
        export_tiles(tx, folder)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cagg_entry SET body = CAST('{}' AS blob) WHERE request_key = 'k270'",
        "DELETE FROM cagg_leaf WHERE leaf_index = 200",
        "DELETE FROM cagg_leaf WHERE leaf_index > 280",
    ],
)
def test_a_damaged_ledger_is_not_published(store: Store, tmp_path: Path, statement: str) -> None:
    _grow(store, 300)
    with store.transaction() as tx:
        spoken = statement.replace("blob", "bytea") if "postgresql" in store.url else statement
        assert unlock(tx).execute(text(spoken)).rowcount
    with store.snapshot() as tx, pytest.raises(LedgerDamaged):
        export_tiles(tx, tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_without_a_checkpoint_there_is_nothing_to_export(store: Store, tmp_path: Path) -> None:
    _grow(store, 3, seal=False)
    with store.snapshot() as tx, pytest.raises(NotProven, match="cagg maintain"):
        export_tiles(tx, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_earlier_log(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    _grow(store, 300)
    _export(store, folder)
    _grow(store, 300)
    left = [3]

    def full(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("cagg.ledger.export.files.os.fsync", full)
    with store.snapshot() as tx, pytest.raises(ConfigurationError, match="No space left"):
        export_tiles(tx, folder)
    assert parse_note((folder / "checkpoint").read_text(encoding="utf-8"), ())[0].size == 300
    assert not list(folder.rglob(".*"))
    monkeypatch.undo()
    assert _export(store, folder)[1] == 600
    _read_as_the_specification_says(folder)


def test_bundles_of_entries_that_do_not_fit_are_damaged() -> None:
    assert list(entries_of(b"\x00\x01a\x00\x00\x00\x02bc")) == [b"a", b"", b"bc"]
    for data in (b"\x00", b"\x00\x02a", b"\x00\x01a\x01"):
        with pytest.raises(LedgerDamaged):
            list(entries_of(data))


class _Many:
    """A log of many small entries, as far as an export into a new folder asks."""

    def __init__(self, size: int) -> None:
        self.leaves = [leaf_hash(b"%d" % number) for number in range(size)]

    def origin(self) -> str:
        return NAME

    def tree_size(self) -> int:
        return len(self.leaves)

    def last_checkpoint(self) -> Checkpoint:
        head = TreeHead(origin=NAME, size=len(self.leaves), root=root_of(self.leaves))
        note = signed_note(checkpoint_text(head), b"\x00" * 64, verifier_key(SIGNER))
        return Checkpoint(size=head.size, root=head.root, note=note, created_at=ManualClock().now())

    def audit_rows(self, start: int, stop: int) -> Iterator[AuditRow]:
        for index in range(start, stop):
            yield AuditRow(
                index=index,
                entry_id=str(index),
                leaf_hash=self.leaves[index],
                idempotency_key=None,
                body=b"%d" % index,
                entry_leaf_hash=None,
                columns=None,
            )


def test_a_log_of_seventy_thousand_entries_has_the_tiles_of_the_specification(tmp_path: Path) -> None:
    # C2SP tlog-tiles: "a tree of size 70,000 will be represented by 273 full level 0 tiles, one partial level 0 tile of
    # width 112, one full level 1 tile, one partial level 1 tile of width 17, and one partial level 2 tile of width 1."
    rows = _Many(70_000)
    done = export_tiles(rows, tmp_path / "out")  # type: ignore[arg-type]
    assert (done.size, done.root) == (70_000, root_of(rows.leaves))
    names = _files(tmp_path / "out").keys()
    assert sum(name.startswith("tile/0/") for name in names) == 274
    assert sum(name.startswith("tile/entries/") for name in names) == 274
    assert [name for name in sorted(names) if name.startswith(("tile/1", "tile/2")) or ".p/" in name] == [
        "tile/0/273.p/112",
        "tile/1/000",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
        "tile/entries/273.p/112",
    ]
