"""A store that is missing, damaged, locked or not ours: one sentence with a remedy, never the driver's own error."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cagg.errors import ConfigurationError, InvalidInput, StoreBusy, StoreUnavailable
from cagg.ledger.entry import append
from cagg.store import tables
from cagg.store.engine import CreateMode, open_store
from cagg.store.sqlite import SqliteStore, path_of_url
from cagg.testing import ManualClock
from cagg.testing.stores import draft

ROOT = os.geteuid() == 0


def reopened(path: Path, **options: object) -> SqliteStore:
    return open_store(str(path), clock=ManualClock(), **options)  # type: ignore[arg-type]


@pytest.fixture
def path(store: SqliteStore) -> Path:
    """A closed store with three entries."""
    with store.transaction() as tx:
        for name in "abc":
            append(tx, draft(name))
    store.close()
    return store.path


# ---- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite+pysqlite:////a/b.db", "/a/b.db"),
        ("/a/../c/b.db", "/c/b.db"),
        ("/a/with space & 100%.db", "/a/with space & 100%.db"),
    ],
)
def test_addresses_are_read(url: str, expected: str) -> None:
    assert str(path_of_url(url)) == expected


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert path_of_url("sqlite:///b.db") == tmp_path / "b.db"
    assert path_of_url("b.db") == tmp_path / "b.db"
    assert path_of_url("~/b.db") == tmp_path / "home" / "b.db"


MISSPELT = ["postgres:bob:secret@host/db", "postgresql+psycopg:/bob:secret@host/db", "bob:secret@host/db"]
"""Would each become a file that is named after the password."""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "  ",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "mysql://u:secret@h/d",
        "sqlite:////a?x=1",
        "a\0b",
        *MISSPELT,
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url, clock=ManualClock())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb"])
def test_a_log_name_is_one_word(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigurationError, match="log name"):
        reopened(tmp_path / "s.db", origin=origin)


def test_odd_characters_in_the_path_work(tmp_path: Path) -> None:
    store = reopened(tmp_path / "ü #1 100% ?x" / "my store.db")
    with store.transaction() as tx:
        append(tx, draft())
    with store.snapshot() as tx:
        assert tx.tree_size() == 1
    store.close()
    with store.snapshot() as tx:
        assert tx.tree_size() == 1


# ---- missing, and nothing left behind -------------------------------------------------------------------------------


def test_opening_creates_nothing(tmp_path: Path) -> None:
    store = reopened(tmp_path / "sub" / "s.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreUnavailable, match="there is no store"), store.snapshot():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_must_not_create_refuses(tmp_path: Path) -> None:
    store = reopened(tmp_path / "sub" / "s.db", create=CreateMode.NEVER)
    with pytest.raises(StoreUnavailable, match="there is no store"), store.transaction():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_must_not_create_writes_what_exists(path: Path) -> None:
    store = reopened(path, create=CreateMode.NEVER)
    with store.transaction() as tx:
        append(tx, draft("d"))
        assert tx.tree_size() == 4
    store.close()


def test_reading_leaves_no_files_behind(path: Path) -> None:
    before = sorted(path.parent.iterdir())
    store = reopened(path)
    with store.snapshot() as tx:
        assert tx.tree_size() == 3
    store.close()
    assert sorted(path.parent.iterdir()) == before


def test_a_store_that_is_replaced_is_noticed(path: Path) -> None:
    store = reopened(path)
    with store.transaction() as tx:
        append(tx, draft("d"))
    for file in path.parent.iterdir():
        file.unlink()
    with store.transaction() as tx:
        assert tx.tree_size() == 0
        append(tx, draft("e"))
    store.close()
    with store.snapshot() as tx:
        assert tx.tree_size() == 1


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_read_only_media_are_read_and_not_written(path: Path) -> None:
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        store = reopened(path)
        with store.snapshot() as tx:
            assert tx.tree_size() == 3
        with pytest.raises(StoreUnavailable, match=r"read-only|may not be accessed"), store.transaction():
            pass
    finally:
        path.parent.chmod(0o755)


def test_a_frozen_file_is_read_without_any_side_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)  # as on read-only media, also for root
    store = reopened(path)
    with store.snapshot() as tx:
        assert tx.tree_size() == 3
        assert not Path(f"{path}-wal").exists()
        assert not Path(f"{path}-shm").exists()


def test_a_frozen_file_that_changes_while_it_is_read_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    with pytest.raises(StoreUnavailable, match="changed while it was read"), reopened(path).snapshot():
        os.utime(path, ns=(1, 1))


# ---- damaged or foreign ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"hello, I am no database at all, but long enough " * 10, b"SQLite format 3\x00"])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "s.db"
    place.write_bytes(content)
    store = reopened(place)
    with pytest.raises(StoreUnavailable, match="not a SQLite database"), store.snapshot():
        pass
    with pytest.raises(StoreUnavailable), store.transaction():
        pass
    assert place.read_bytes() == content


def test_an_empty_file_is_no_store_to_read_and_filled_by_a_writer(tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    place.touch()
    store = reopened(place)
    with pytest.raises(StoreUnavailable, match="is empty"), store.snapshot():
        pass
    with store.transaction() as tx:
        assert tx.tree_size() == 0
    store.close()


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    with sqlite3.connect(place) as other:
        other.execute("CREATE TABLE orders (x)")
    other.close()
    store = reopened(place)
    for use in (store.snapshot, store.transaction):
        with pytest.raises(StoreUnavailable, match="something else"), use():
            pass
    with sqlite3.connect(place) as other:
        assert [row[0] for row in other.execute("SELECT name FROM sqlite_master")] == ["orders"]
    other.close()


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    store = reopened(tmp_path)
    for use in (store.snapshot, store.transaction):
        with pytest.raises(StoreUnavailable), use():
            pass


def test_a_cut_file_is_refused_as_an_incomplete_copy(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(StoreUnavailable, match="incomplete copy"), reopened(path).snapshot():
        pass


def test_damaged_pages_are_a_clear_error(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreUnavailable, match="damaged"), reopened(path).snapshot() as tx:
        list(tx.entries())


def test_a_full_disk_is_named_and_nothing_is_kept(path: Path) -> None:
    store = reopened(path)
    with store.transaction():
        pass
    writer = store._writer
    assert writer is not None
    pages = writer.exec_driver_sql("PRAGMA page_count").scalar_one()
    writer.exec_driver_sql(f"PRAGMA max_page_count={pages + 1}")
    writer.commit()
    with pytest.raises(StoreUnavailable, match="disk is full"), store.transaction() as tx:
        tx.put_blob("0" * 64, b"x" * 1_000_000)
    with store.snapshot() as tx:
        assert tx.blob("0" * 64) is None
    store.close()


def test_recorded_rows_refuse_changes(store: SqliteStore) -> None:
    with store.transaction() as tx:
        append(tx, draft())
    for statement in (
        "UPDATE cagg_entry SET outcome = 'x'",
        "DELETE FROM cagg_entry",
        "UPDATE cagg_leaf SET entry_id = 'x'",
        "DELETE FROM cagg_leaf",
    ):
        with pytest.raises(StoreUnavailable, match="append-only"), store.transaction() as tx:
            tx.connection.exec_driver_sql(statement)  # type: ignore[attr-defined]


# ---- versions -------------------------------------------------------------------------------------------------------


def _stamp(path: Path, version: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE cagg_schema_version SET version_num = ?", (version,))
    connection.close()


def test_a_store_one_version_ahead_is_shared(path: Path) -> None:
    _stamp(path, f"{int(tables.SCHEMA_VERSION) + 1:04}")
    store = reopened(path)
    with store.transaction() as tx:
        append(tx, draft("d"))
    with store.snapshot() as tx:
        assert tx.tree_size() == 4
    store.close()


@pytest.mark.parametrize("version", [f"{int(tables.SCHEMA_VERSION) + 2:04}", "abc", ""])
def test_a_store_further_ahead_is_refused(path: Path, version: str) -> None:
    _stamp(path, version)
    store = reopened(path)
    for use in (store.snapshot, store.transaction):
        with pytest.raises(StoreUnavailable, match="upgrade cagg"), use():
            pass


def test_a_fresh_store_does_not_load_the_migration_tool(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from cagg.clock import SystemClock\n"
        "from cagg.store.engine import open_store\n"
        f"store = open_store({str(tmp_path / 's.db')!r}, clock=SystemClock())\n"
        "with store.transaction(): pass\n"
        "with store.snapshot(): pass\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'mako', 'numpy', 'cryptography')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- locked ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def foreign_lock(path: Path) -> Iterator[int]:
    """Another program holds the lock file."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield descriptor
    os.close(descriptor)


def test_a_writer_waits_only_so_long_and_names_the_file(path: Path, foreign_lock: int) -> None:
    store = reopened(path, lock_timeout_seconds=0.05)
    with pytest.raises(StoreBusy, match=r"store\.db\.lock.*fuser"), store.transaction():
        pass
    with store.snapshot() as tx:
        assert tx.tree_size() == 3
    fcntl.flock(foreign_lock, fcntl.LOCK_UN)
    with store.transaction() as tx:
        append(tx, draft("d"))
    store.close()


def test_a_wait_that_was_given_up_does_not_keep_the_lock(path: Path, foreign_lock: int) -> None:
    store = reopened(path, lock_timeout_seconds=0.02)
    for _ in range(3):
        with pytest.raises(StoreUnavailable), store.transaction():
            pass
    waiting = [thread for thread in threading.enumerate() if thread.name == "cagg-store-lock"]
    assert len(waiting) == 1
    fcntl.flock(foreign_lock, fcntl.LOCK_UN)
    waiting[0].join(5)
    assert not waiting[0].is_alive()
    fcntl.flock(foreign_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_waiter_takes_over_when_the_lock_becomes_free(path: Path, foreign_lock: int) -> None:
    store = reopened(path, lock_timeout_seconds=20)
    entered = threading.Event()

    def write() -> None:
        with store.transaction() as tx:
            append(tx, draft("d"))
            entered.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not entered.wait(0.05)
    fcntl.flock(foreign_lock, fcntl.LOCK_UN)
    assert entered.wait(10)
    thread.join()
    store.close()


def test_a_program_that_ignores_the_lock_file_makes_writers_give_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cagg.store.sqlite._BUSY_TIMEOUT_MS", 20)
    rude = sqlite3.connect(path, isolation_level=None)
    rude.execute("BEGIN IMMEDIATE")
    store = reopened(path)
    with pytest.raises(StoreBusy, match="locked by another program"), store.transaction():
        pass
    rude.execute("ROLLBACK")
    rude.close()
    with store.transaction() as tx:
        append(tx, draft("d"))
    store.close()


def test_a_thread_may_use_two_stores_at_once(tmp_path: Path) -> None:
    one, two = reopened(tmp_path / "1.db"), reopened(tmp_path / "2.db")
    with one.transaction() as first, two.transaction() as second:
        append(first, draft())
        append(second, draft())
    with pytest.raises(InvalidInput), one.transaction(), one.transaction():
        pass
    one.close()
    two.close()
