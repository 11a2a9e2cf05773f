"""Programs that share one store while others come and go: no log is deleted under anyone, nothing committed is lost.

A process that opens or closes the database by other means than SQLite loses its locks on it; the next program to exit
then deletes the write-ahead log that the first one goes on writing to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cagg.clock import SystemClock
from cagg.errors import StoreUnavailable
from cagg.ledger.entry import append, read_body
from cagg.ledger.verify import verify
from cagg.store import _forks
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing.stores import draft

SHORT_LIVED = """
import sys
from cagg.clock import SystemClock
from cagg.ledger.entry import append
from cagg.store.engine import open_store
from cagg.testing.stores import draft
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_store(path, clock=SystemClock())
for number in range(count):
    with store.transaction() as tx:
        append(tx, draft(f"{name}-{number}"))
    with store.snapshot() as tx:
        assert any(True for _ in tx.entries(request_key=f"{name}-{number}")), "does not see what it wrote"
    print(f"{name}-{number}", flush=True)
"""

SESSION = r"""
import json, os, sys
folder = sys.argv[1]
opened = []
def hook(event, arguments):
    # SQLite opens its files in C, which raises no event: whatever is seen here was somebody else
    if event in ("open", "os.rename", "os.remove", "os.truncate", "shutil.copyfile", "mmap.__new__"):
        for argument in arguments:
            if isinstance(argument, (str, bytes, os.PathLike)):
                name = os.path.basename(os.fsdecode(argument))
                if name.endswith((".db", ".db-wal", ".db-shm")):
                    opened.append(f"{event} {name}")
sys.addaudithook(hook)
from datetime import timedelta
from cagg.cli.__main__ import main
from cagg.gating import Gate
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
os.chdir(folder)
gate = Gate.open()
for number in range(3):
    request = Request(
        identity=RequestIdentity(host="local", root_run_id=f"r{number}", task_key="t"),
        options=GateOptions(energy="1 Wh", duration="1s"), host=HostProfile(name="local"),
    )
    decision = gate.ask(request)
    with gate.run(decision):
        pass
store = gate.components.store
path = str(store.path)
assert path.endswith(".db"), path
assert os.path.exists(path)
for arguments in (["store", "status"], ["store", "migrate"], ["maintain"], ["ledger", "verify"], ["ledger", "list"],
                  ["budget", "list"], ["doctor"]):
    main([*arguments])
store.close()
with store.snapshot() as tx:
    assert tx.tree_size() >= 6
store.close()
access, os.access = os.access, lambda *a, **k: False
with store.snapshot() as tx:
    assert tx.tree_size() >= 6
os.access = access
open(path, "rb").close()
print("SEEN " + json.dumps(opened))
"""


PLAIN_READER = """
import sqlite3, sys
print(*sqlite3.connect(sys.argv[1]).execute("SELECT request_key FROM cagg_entry ORDER BY request_key"))
"""


def short_lived(path: Path, name: str, count: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SHORT_LIVED, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.split()


def keys_in(path: Path) -> list[str]:
    """What another program finds, through a store of its own."""
    store = open_store(str(path), clock=SystemClock())
    with store.snapshot() as tx:
        assert verify(tx, []).failures == ()
        keys = [read_body(tx, entry)["request_key"] for entry in tx.entries()]
    store.close()
    return keys


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_store(str(tmp_path / "s.db"), clock=SystemClock())
    yield opened
    opened.close()


def put(store: SqliteStore, key: str) -> None:
    with store.transaction() as tx:
        append(tx, draft(key))


def size(store: SqliteStore) -> int:
    with store.snapshot() as tx:
        return tx.tree_size()


# ---- several programs -----------------------------------------------------------------------------------------------


def test_a_program_that_exits_takes_nothing_from_one_that_goes_on(shared: SqliteStore) -> None:
    put(shared, "a-1")
    assert size(shared) == 1
    assert ended(short_lived(shared.path, "b")) == ["b-0"]
    assert Path(f"{shared.path}-wal").exists(), "the log was deleted under an open connection"
    put(shared, "a-2")
    assert size(shared) == 3
    assert ended(short_lived(shared.path, "c")) == ["c-0"]
    shared.close()
    fresh = subprocess.run(
        [sys.executable, "-c", PLAIN_READER, str(shared.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert fresh.stdout.strip() == "('a-1',) ('a-2',) ('b-0',) ('c-0',)"
    assert sorted(keys_in(shared.path)) == ["a-1", "a-2", "b-0", "c-0"]


def test_refused_and_failed_readings_do_not_give_the_locks_away(
    shared: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(shared, "a-1")
    monkeypatch.setattr("cagg.store.tables.SCHEMA_VERSION", "0009")
    with pytest.raises(StoreUnavailable), shared.snapshot():
        pass
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError), shared.snapshot():
        raise ZeroDivisionError
    second = open_store(str(shared.path), clock=SystemClock())
    put(second, "a-2")
    second.close()
    ended(short_lived(shared.path, "b"))
    put(shared, "a-3")
    assert sorted(keys_in(shared.path)) == ["a-1", "a-2", "a-3", "b-0"]


def test_short_programs_four_at_a_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    acknowledged: list[str] = []
    running: list[subprocess.Popen[str]] = []
    for number in range(16):  # always four of them, so that one begins while another ends
        if len(running) == 4:
            acknowledged += ended(running.pop(0))
        running.append(short_lived(path, f"p{number}", 1 + number % 4))
    for process in running:
        acknowledged += ended(process)
    assert len(acknowledged) == 40
    assert sorted(keys_in(path)) == sorted(acknowledged)


def test_nothing_but_sqlite_opens_the_database(tmp_path: Path) -> None:
    (tmp_path / "cagg.toml").write_text('timezone = "UTC"\n', encoding="utf-8")
    environ = {**os.environ, "CAGG_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", SESSION, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environ,
        check=False,
    )
    seen = [line for line in done.stdout.splitlines() if line.startswith("SEEN ")]
    assert done.returncode == 0, done.stderr
    opened = json.loads(seen[0].removeprefix("SEEN "))
    assert len(opened) == 1, f"beside the one that the test made itself: {opened[:-1]}"
    assert opened[0].startswith("open ")


# ---- forks ----------------------------------------------------------------------------------------------------------


def _exit_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_waits_for_the_snapshots_of_other_threads(shared: SqliteStore) -> None:
    put(shared, "a-1")
    reading, go_on = threading.Event(), threading.Event()

    def read() -> None:
        with shared.snapshot():
            reading.set()
            go_on.wait(0.1)  # the fork comes meanwhile and waits for this snapshot's end

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(10)
    child = os.fork()
    if child == 0:
        put(shared, "child")
        os._exit(0 if size(shared) == 2 else 3)
    assert _exit_of(child) == 0
    thread.join()
    put(shared, "a-2")
    assert sorted(keys_in(shared.path)) == ["a-1", "a-2", "child"]


def test_a_child_that_was_forked_inside_a_snapshot_is_refused_the_file(shared: SqliteStore) -> None:
    put(shared, "a-1")
    child = -1
    refused: list[str] = []
    try:
        with shared.snapshot() as tx:
            child = os.fork()
            assert tx.tree_size() == 1
    except StoreUnavailable as error:
        refused.append(str(error))
    if child == 0:
        another = open_store(str(shared.path), clock=SystemClock())
        for use in (shared.transaction, shared.snapshot, another.transaction, another.snapshot):
            try:
                with use():
                    os._exit(4)
            except StoreUnavailable as error:
                refused.append(str(error))
        os._exit(0 if "forked inside" in refused[0] and all("spawn" in text for text in refused[1:]) else 5)
    assert refused == []
    assert _exit_of(child) == 0
    assert not _forks.inherited(_forks_identity(shared))
    put(shared, "a-2")
    ended(short_lived(shared.path, "b"))
    put(shared, "a-3")
    assert sorted(keys_in(shared.path)) == ["a-1", "a-2", "a-3", "b-0"]


def _forks_identity(store: SqliteStore) -> tuple[int, int]:
    found = store.path.stat()
    return found.st_dev, found.st_ino


def test_a_snapshot_inside_a_snapshot_does_not_wait_for_a_fork(shared: SqliteStore) -> None:
    put(shared, "a-1")
    forked, inner = threading.Event(), threading.Event()

    def read() -> None:
        with shared.snapshot():
            forked.wait(0.2)  # the fork holds new snapshots back by now
            assert size(shared) == 1
            inner.set()

    thread = threading.Thread(target=read)
    thread.start()
    child = os.fork()
    if child == 0:
        os._exit(0)
    forked.set()
    assert _exit_of(child) == 0
    thread.join(10)
    assert inner.is_set()
