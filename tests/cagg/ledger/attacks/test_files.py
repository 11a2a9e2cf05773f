"""What only a file suffers: copied without its write-ahead log, on read-only media, without an entry."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cagg.errors import StoreUnavailable
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.notes import verifier_key
from cagg.ledger.report import Assurance, FailureKind
from cagg.ledger.verify import verify
from cagg.ports import Checkpoint
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing import ManualClock
from cagg.testing.stores import MemorySigner, draft
from cagg.testing.tampering import ORIGIN, AttackedLog, Needs, attacked

SIGNER = MemorySigner(ORIGIN)
KEYS = [str(verifier_key(SIGNER))]


def opened(path: Path) -> SqliteStore:
    store = open_store(str(path), clock=ManualClock(), origin=ORIGIN)
    assert isinstance(store, SqliteStore)
    return store


def record(store: SqliteStore, *names: str) -> Checkpoint:
    with store.transaction() as tx:
        for name in names:
            append(tx, draft(name, text="x" * 3_000))
        return sign_checkpoint(tx, SIGNER)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store that stays open, so that its newest entries are in the write-ahead log only."""
    store = opened(tmp_path / "s.db")
    yield store
    store.close()


def copied(store: SqliteStore, folder: Path) -> SqliteStore:
    """The file alone, as whoever does not know better copies it."""
    place = folder / "copy.db"
    shutil.copy(store.path, place)
    return opened(place)


def test_a_copy_without_its_log_that_was_never_written_back_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    record(store, "a", "b")
    with pytest.raises(StoreUnavailable), copied(store, tmp_path).snapshot():
        pass


def test_a_copy_without_its_log_is_an_older_log_and_an_outside_checkpoint_shows_it(
    store: SqliteStore, tmp_path: Path
) -> None:
    older = record(store, "a", "b")
    with sqlite3.connect(store.path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    newer = record(store, "c")
    copy = copied(store, tmp_path)
    with copy.snapshot() as tx:
        report = verify(tx, KEYS)
        assert (report.assurance, report.size) == (Assurance.SIGNED, 2)
        assert "unproven without an outside checkpoint" in report.sentence
        assert verify(tx, KEYS, older).assurance is Assurance.ANCHORED
        assert {failure.kind for failure in verify(tx, KEYS, newer).failures} == {FailureKind.TRUNCATED}


def test_a_file_cut_short_is_refused(store: SqliteStore) -> None:
    record(store, *map(str, range(30)))
    store.close()
    data = store.path.read_bytes()
    store.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreUnavailable), store.snapshot() as tx:
        verify(tx, KEYS)


def test_read_only_media_are_verified_and_left_as_they_are(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = record(store, "a", "b")
    store.close()
    before = {item.name: item.read_bytes() for item in store.path.parent.iterdir()}
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # as on such media, for root too
    with store.snapshot() as tx:
        assert verify(tx, KEYS, kept).assurance is Assurance.ANCHORED
    assert {item.name: item.read_bytes() for item in store.path.parent.iterdir()} == before


def test_a_log_without_an_entry_is_never_called_verified(store: SqliteStore) -> None:
    with store.transaction():
        pass
    with store.snapshot() as tx:
        report = verify(tx, KEYS)
    assert (report.failures, report.assurance, report.verified) == ((), Assurance.NONE, False)
    assert "nothing to check" in report.sentence


def test_a_log_that_lost_all_its_entries_is_found_from_outside(store: SqliteStore, tmp_path: Path) -> None:
    kept = record(store, "a", "b")
    empty = opened(tmp_path / "new.db")
    with empty.transaction():
        pass
    with empty.snapshot() as tx:
        assert {failure.kind for failure in verify(tx, KEYS, kept).failures} == {FailureKind.TRUNCATED}


def test_an_attack_that_is_committed_is_found_by_whoever_opens_the_file_next(
    file_log: AttackedLog, tmp_path: Path
) -> None:
    """All other attacks are taken back; this one goes all the way through the file."""
    store = file_log.store
    assert isinstance(store, SqliteStore)
    store.close()
    place = tmp_path / "stolen.db"
    shutil.copy(store.path, place)
    with sqlite3.connect(place) as thief:
        for (name,) in thief.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            thief.execute(f"DROP TRIGGER {name}")
        thief.execute("UPDATE cagg_entry SET carbon_micrograms = 1 WHERE carbon_micrograms IS NOT NULL")
    thief.close()
    with opened(place).snapshot() as tx:
        report = verify(tx, file_log.keys, file_log.kept)
    assert {failure.kind for failure in report.failures} == {FailureKind.COLUMN}
    assert len(report.failures) > 50
    with attacked(file_log) as target:
        assert target.verdict(Needs.CHECKPOINT).verified
