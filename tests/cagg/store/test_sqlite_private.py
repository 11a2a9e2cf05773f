"""What is left in a SQLite file of a personal value that was deleted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cagg.entries import PrivateValue
from cagg.ledger.entry import append
from cagg.spool import Spool
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing import ManualClock
from cagg.testing.stores import draft

START = datetime(2026, 1, 5, tzinfo=UTC)


def test_a_deleted_personal_value_is_no_longer_in_the_file(store: SqliteStore) -> None:
    with store.transaction() as tx:
        entry = append(tx, draft())
        for field, value in (("owner", "Ada Lovelace"), ("approver", "Grace Hopper")):
            tx.put_private([PrivateValue(entry_id=entry.entry_id, field=field, salt=field.encode() * 4, value=value)])
    store.close()  # the write-ahead log is copied back
    assert b"Ada Lovelace" in store.path.read_bytes()
    with store.transaction() as tx:
        assert tx.drop_private(entry.entry_id, "owner")
    store.close()
    data = store.path.read_bytes()
    assert b"Ada Lovelace" not in data
    assert b"owner" * 4 not in data, "the salt is gone as well"
    assert b"Grace Hopper" in data


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """The umask with which others may read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
def test_what_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "above" / "home" / "cagg.db"
    made = open_store(f"sqlite:///{path}", clock=ManualClock(START))
    with made.transaction() as tx:
        append(tx, draft())
        assert {item.name: _mode(item) for item in path.parent.glob("cagg.db*") if item.suffix != ".lock"} == {
            "cagg.db": 0o600,
            "cagg.db-wal": 0o600,
            "cagg.db-shm": 0o600,
        }
    assert [_mode(folder) for folder in (path.parent, path.parent.parent)] == [0o700, 0o700]
    made.close()


@pytest.mark.usefixtures("usual_umask")
def test_what_is_there_keeps_its_rights(tmp_path: Path) -> None:
    """Several users of one machine share a file: whoever set that up gave the group its rights."""
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o2770)
    path = home / "cagg.db"
    path.touch()
    path.chmod(0o660)
    shared = open_store(f"sqlite:///{path}", clock=ManualClock(START))
    with shared.transaction() as tx:
        append(tx, draft())
        assert [_mode(item) for item in (home, path, home / "cagg.db-wal")] == [0o2770, 0o660, 0o660]
    shared.close()


@pytest.mark.usefixtures("usual_umask")
def test_a_spool_makes_its_home_for_its_owner_alone(tmp_path: Path) -> None:
    Spool(tmp_path / "home" / "spool").put({}, order=1)
    assert _mode(tmp_path / "home") == 0o700
