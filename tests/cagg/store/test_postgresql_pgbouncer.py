"""The store behind PgBouncer in transaction mode: no state of a session is relied upon."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.clock import SystemClock
from cagg.errors import StoreUnavailable
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append, append_many
from cagg.ledger.notes import verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.quantities import Unit
from cagg.store.engine import open_store
from cagg.testing.budgets import ask, budget
from cagg.testing.stores import MemorySigner, draft

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="needs pgbouncer on PATH")

SERVER_CONNECTIONS = 3
"""Far fewer than clients, so that each transaction gets another connection than the one before."""


@pytest.fixture
def bouncer_url(postgres_url: str) -> Iterator[str]:
    """The address of the new store through a pool of three connections."""
    assert PGBOUNCER is not None
    parts = urlsplit(postgres_url)
    folder = Path(tempfile.mkdtemp(prefix="cagg-bouncer-"))  # pytest's own folders are closed to other users
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "users.txt").write_text(f'"{parts.username}" "{parts.password}"\n', encoding="ascii")
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={parts.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {folder}/users.txt\n"
        f"pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 200\n"
        f"logfile = {folder}/log\npidfile =\n",
        encoding="ascii",
    )
    identity = {}
    if os.geteuid() == 0:  # it refuses to run as root
        user = pwd.getpwnam("nobody")
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        for place in (folder, *folder.iterdir()):
            os.chown(place, user.pw_uid, user.pw_gid)
    process = subprocess.Popen(
        [PGBOUNCER, str(folder / "pgbouncer.ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **identity
    )
    try:
        _wait_until_it_listens(port, process)
        yield f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        assert process.poll() is None, "pgbouncer did not start"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            SystemClock().sleep(0.01)
        else:
            return
    raise AssertionError("pgbouncer does not listen")


def test_gates_in_many_threads_share_three_connections(bouncer_url: str) -> None:
    store = open_store(bouncer_url, clock=SystemClock())
    with store.transaction() as tx:
        for path in ("acme", "acme/ml"):
            set_budget(tx, budget(path, 60))

    def work(worker: int) -> int:
        admitted = 0
        for number in range(12):
            key = f"{worker} {number}"
            with store.transaction() as tx:
                stored, _ = ask(tx, key, "acme/ml", 1)
                append(tx, draft(key))
                if stored is not None:
                    reservations.start(tx, key)
            if stored is not None and number % 2:
                with store.transaction() as tx:
                    reservations.settle(tx, key, 1, {Unit.CARBON: 1})
            with store.snapshot() as tx:
                assert (tx.reservations(series_key=f"series {key}") != []) == (stored is not None)
            admitted += stored is not None
        return admitted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 60
    with store.transaction() as tx:
        signer = MemorySigner(tx.origin())
        while sequence(tx):
            pass
        sign_checkpoint(tx, signer)
    with store.snapshot() as tx:
        assert reservations.audit(tx) == ()
        assert verify(tx, [str(verifier_key(signer))]).verified
        assert {one.held + one.spent for one in tx.allotments()} == {60}
    store.close()


def test_a_transaction_that_fails_leaves_the_shared_connection_as_it_was(bouncer_url: str) -> None:
    store = open_store(bouncer_url, clock=SystemClock())

    def fail() -> None:
        with store.transaction() as tx:
            append(tx, draft("gone"))
            raise ZeroDivisionError

    for _ in range(2 * SERVER_CONNECTIONS):
        with pytest.raises(StoreUnavailable), store.snapshot() as tx:
            tx.put_blob("0" * 64, b"a snapshot cannot write")
        with pytest.raises(ZeroDivisionError):
            fail()
        with store.transaction() as tx:
            append(tx, draft("kept"))
    with store.snapshot() as tx:
        assert tx.queued() == 1
    store.close()


def test_a_log_is_rolled_over_among_writers_who_share_connections(bouncer_url: str) -> None:
    store = open_store(bouncer_url, clock=SystemClock())
    with store.transaction() as tx:
        append(tx, draft("before"))

    def write(worker: int) -> None:
        for number in range(20):
            with store.transaction() as tx:
                append_many(tx, [draft(f"{number}"), draft(f"{worker} {number}")])

    def roll() -> None:
        for number in range(4):
            with store.transaction() as tx:
                tx.lock_log()
                while sequence(tx):
                    pass
                tx.begin_log(f"example.org/{number}")

    with ThreadPoolExecutor(7) as pool:
        done = [pool.submit(write, worker) for worker in range(6)] + [pool.submit(roll)]
        for one in done:
            one.result()
    with store.transaction() as tx:
        while sequence(tx):
            pass
    with store.snapshot() as tx:
        sizes = [tx.in_log(log.origin).tree_size() for log in tx.logs()]
        assert (len(sizes), sum(sizes)) == (5, 1 + 20 + 6 * 20)
        assert tx.row_counts()["foreign"] == 0
    store.close()
