"""Several processes, forks and SIGKILL: nothing acknowledged is lost and the tree stays dense."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from cagg.clock import SystemClock
from cagg.errors import StoreUnavailable
from cagg.ledger.entry import append, read_body
from cagg.ledger.verify import verify
from cagg.store.engine import open_store
from cagg.store.sqlite import SqliteStore
from cagg.testing.stores import draft

WRITER = """
import sys
from cagg.clock import SystemClock
from cagg.ledger.entry import append
from cagg.store.engine import open_store
from cagg.testing.stores import draft
path, name, count, shared = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = open_store(path, clock=SystemClock())
for number in range(count):
    key = f"shared-{number}" if number % 10 < shared else f"{name}-{number}"
    with store.transaction() as tx:
        append(tx, draft(key))
    print(key, flush=True)
"""


def _start(path: Path, name: str, *, count: int, shared: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count), str(shared)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _keys(path: Path) -> list[str]:
    store = open_store(str(path), clock=SystemClock())
    with store.snapshot() as tx:
        entries = list(tx.entries())
        assert [entry.index for entry in entries] == list(range(len(entries)))
        keys = [read_body(tx, entry)["request_key"] for entry in entries]
        assert verify(tx, []).failures == ()
    store.close()
    return keys


def test_processes_with_common_requests_record_each_once(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    running = [_start(path, f"p{number}", count=60, shared=2) for number in range(4)]
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0]
    keys = _keys(path)
    assert sorted(keys) == sorted({key for lines in said for key in lines})
    assert len(keys) == len(set(keys)) == 4 * 48 + 12


def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    acknowledged: list[str] = []
    for round_number, lines in enumerate((3, 40, 90)):
        process = _start(path, f"r{round_number}", count=100_000, shared=0)
        assert process.stdout is not None
        acknowledged += [process.stdout.readline().strip() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split()
        process.wait()
        process.stdout.close()
    keys = _keys(path)
    whole = {key for key in acknowledged if key in keys}
    cut_short = [key for key in acknowledged if key not in whole]
    assert len(cut_short) <= 3, "at most the line that was being printed at each kill may be incomplete"
    assert all(any(known.startswith(key) for known in keys) for key in cut_short)
    assert len(keys) - len(whole) <= 6
    assert len(keys) == len(set(keys))


def test_a_forked_child_opens_the_store_anew(store: SqliteStore) -> None:
    with store.transaction() as tx:
        append(tx, draft("parent"))

    def child() -> None:
        with store.transaction() as tx:
            append(tx, draft("child"))
        with store.snapshot() as tx:
            os._exit(0 if tx.tree_size() == 2 else 3)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    with store.transaction() as tx:
        append(tx, draft("after"))
        assert tx.tree_size() == 3


def test_a_child_that_was_forked_while_another_thread_writes_is_not_stuck(store: SqliteStore) -> None:
    inside, never = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction() as tx:
            append(tx, draft("parent"))
            inside.set()
            never.wait(0.1)  # the fork comes meanwhile and waits for this transaction's end

    def child() -> None:
        with store.transaction() as tx:
            append(tx, draft("child"))
        os._exit(0)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    thread.join()
    process.join(30)
    assert process.exitcode == 0
    with store.snapshot() as tx:
        assert tx.tree_size() == 2


def test_a_fork_inside_a_transaction_commits_once_and_in_the_parent(store: SqliteStore) -> None:
    child = -1
    try:
        with store.transaction() as tx:
            append(tx, draft("a"))
            child = os.fork()
    except StoreUnavailable as error:
        os._exit(0 if child == 0 and "forked inside" in str(error) else 1)
    if child == 0:
        os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with store.transaction() as tx:
        append(tx, draft("b"))
        assert tx.tree_size() == 2
