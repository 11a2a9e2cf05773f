"""Backups of a SQLite store: whole, consistent under load, private, and never over anything."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cagg.clock import SystemClock
from cagg.errors import InvalidInput, StoreUnavailable
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append, append_many
from cagg.ledger.notes import verifier_key
from cagg.ledger.verify import verify
from cagg.store import _backup
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing.stores import MemorySigner, draft


def opened(path: Path) -> SqliteStore:
    store = open_store(str(path), clock=SystemClock())
    assert isinstance(store, SqliteStore)
    return store


def test_a_backup_is_the_whole_store_and_verifies(store: SqliteStore, tmp_path: Path) -> None:
    with store.transaction() as tx:
        append_many(tx, [draft(f"k{number}") for number in range(299)])
        append(tx, replace(draft("private"), private={"owner": "Ada"}))
        signer = MemorySigner(tx.origin())
        sign_checkpoint(tx, signer)
    target = tmp_path / "copy.db"
    taken = store.backup(target)
    assert (taken, stat.S_IMODE(target.stat().st_mode)) == (target.stat().st_size, 0o600)
    copy = opened(target)
    with copy.snapshot() as tx:
        report = verify(tx, [str(verifier_key(signer))])
        assert (report.failures, report.size, report.signed_size) == ((), 300, 300)
        assert [item.value for item in tx.private_values()] == ["Ada"]
    with copy.transaction() as tx:  # what is restored goes on
        append(tx, draft("after"))
    copy.close()
    with store.snapshot() as tx:
        assert tx.tree_size() == 300
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(("store.db", "copy.db"))) == []


def test_a_backup_under_writers_is_one_consistent_state(store: SqliteStore, tmp_path: Path) -> None:
    with store.transaction() as tx:
        append_many(tx, [draft(f"k{number}") for number in range(600)])
    stop, written = threading.Event(), []

    def write() -> None:
        writer = opened(store.path)
        while not stop.is_set():
            with writer.transaction() as tx:
                written.append(append_many(tx, [draft(f"w{len(written)}-{number}") for number in range(7)]))
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    sizes = []
    for number in range(6):
        store.backup(tmp_path / f"copy{number}.db")
    stop.set()
    thread.join()
    for number in range(6):
        copy = opened(tmp_path / f"copy{number}.db")
        with copy.snapshot() as tx:
            assert verify(tx, []).failures == ()
            assert (tx.tree_size() - 600) % 7 == 0, "a transaction is in the copy as a whole, or not at all"
            sizes.append(tx.tree_size())
        copy.close()
        with sqlite3.connect(tmp_path / f"copy{number}.db") as raw:
            assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        raw.close()
    assert sizes == sorted(sizes)
    assert len(written) > 0
    with store.snapshot() as tx:
        assert tx.tree_size() == 600 + 7 * len(written)


def test_a_backup_overwrites_nothing_and_is_not_the_store(store: SqliteStore, tmp_path: Path) -> None:
    with store.transaction() as tx:
        append(tx, draft())
    there = tmp_path / "there.db"
    there.write_bytes(b"mine")
    link = tmp_path / "link.db"
    link.symlink_to(store.path)
    dangling = tmp_path / "dangling.db"
    dangling.symlink_to(tmp_path / "nowhere")
    (tmp_path / "left.db-wal").touch()
    itself = [store.path, link, *(Path(f"{store.path}{ending}") for ending in ("-wal", "-shm", "-journal", ".lock"))]
    for target, why in [
        *((one, "the store itself") for one in itself),
        (there, "overwrites nothing"),
        (dangling, "overwrites nothing"),
        (tmp_path, "overwrites nothing"),
        (tmp_path / "left.db", "left of another database"),
        (tmp_path / "no" / "folder.db", "does not exist"),
    ]:
        with pytest.raises(InvalidInput, match=why):
            store.backup(target)
    assert there.read_bytes() == b"mine"
    with store.snapshot() as tx:
        assert tx.tree_size() == 1


def test_two_backups_to_one_name_leave_the_first(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction() as tx:
        append(tx, draft())
    target = tmp_path / "copy.db"
    flush = _backup._flush

    def meanwhile(place: Path) -> None:
        target.write_bytes(b"the other one")
        flush(place)

    monkeypatch.setattr(_backup, "_flush", meanwhile)
    for refused in (None, OSError(errno.EPERM, "no hard links here")):
        if refused is not None:

            def no_links(*_: object, error: OSError = refused) -> None:
                raise error

            monkeypatch.setattr(os, "link", no_links)
        target.unlink(missing_ok=True)
        with pytest.raises(InvalidInput, match="meanwhile"):
            store.backup(target)
        assert target.read_bytes() == b"the other one"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]


def test_a_file_system_without_hard_links_gets_the_backup_too(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction() as tx:
        append(tx, draft())

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    store.backup(tmp_path / "copy.db")
    with opened(tmp_path / "copy.db").snapshot() as tx:
        assert tx.tree_size() == 1


@pytest.mark.parametrize("stage", ["_copy", "_flush"])
def test_a_backup_that_fails_leaves_nothing(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    with store.transaction() as tx:
        append(tx, draft())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_backup, stage, full)
    with pytest.raises(StoreUnavailable, match=r"copy\.db cannot grow because the disk is full"):
        store.backup(tmp_path / "copy.db")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("store.db")) == []


def test_a_store_that_nothing_has_created_has_no_backup(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="there is no store"):
        opened(tmp_path / "s.db").backup(tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []
