"""A Prefect server and worker of one's own on the loopback interface, for tests of gated flows."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TypeVar

import httpx

from cagg.clock import SystemClock
from cagg.errors import CaggError
from cagg.ports import Clock

__all__ = ["LocalPrefect", "point_prefect_here", "shared_prefect", "until"]

_T = TypeVar("_T")


def until(
    what: str,
    look: Callable[[], _T | None],
    *,
    timeout_seconds: float,
    every_seconds: float = 0.25,
    clock: Clock | None = None,
) -> _T:
    """Return the first answer of ``look`` that is not None.

    Raises:
        CaggError: none came in time; names what was waited for.
    """
    clock = clock or SystemClock()
    end_ns = clock.monotonic_ns() + round(timeout_seconds * 1e9)
    while True:
        found = look()
        if found is not None:
            return found
        if clock.monotonic_ns() >= end_ns:
            raise CaggError(f"waited {timeout_seconds:g} s in vain for {what}.")
        clock.sleep(every_seconds)


@dataclass(slots=True, kw_only=True)
class LocalPrefect:
    """A server with a database of its own, and processes that talk to it.

    Attributes:
        home: folder for everything that Prefect writes.
        port: of the server, on 127.0.0.1.
    """

    home: Path
    port: int
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def start(cls, home: Path, *, port: int | None = None, timeout_seconds: float = 90.0) -> LocalPrefect:
        """Start a server and wait until it answers; a port of None takes a free one.

        Raises:
            CaggError: it did not start in time; shows the end of its log.
        """
        home.mkdir(parents=True, exist_ok=True)
        port = _free_port() if port is None else port
        prefect = cls(home=home, port=port)
        server = prefect.spawn(
            "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui", log="server.log"
        )

        def healthy() -> str | None:
            if server.poll() is not None:
                raise CaggError(f"the Prefect server ended at once: {prefect.log('server.log')[-2000:]}")
            try:
                return "healthy" if httpx.get(f"{prefect.api_url}/health", timeout=2.0).is_success else None
            except httpx.HTTPError:
                return None

        try:
            until("the Prefect server to answer", healthy, timeout_seconds=timeout_seconds)
        except CaggError:
            prefect.stop()
            raise
        return prefect

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.port}/api"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return this process's environment, pointed at the server; nothing reports to anybody outside."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {
            **own,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_PROMPT": "false",
            "DO_NOT_TRACK": "1",
            **(extra or {}),
        }

    def spawn(
        self, *arguments: str, log: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start ``prefect ARGUMENTS`` as a process group of its own, with its output in a log below ``home``."""
        output: IO[bytes]
        with (self.home / log).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                env=self.environment(environment),
                cwd=folder or self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def log(self, name: str) -> str:
        """Return what a process has written so far."""
        path = self.home / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def stop(self, process: subprocess.Popen[bytes] | None = None, *, timeout_seconds: float = 15.0) -> None:
        """End one process and its children, or all that were started here, newest first."""
        for one in [process] if process is not None else list(reversed(self._processes)):
            self._end(one, timeout_seconds)
            if one in self._processes:
                self._processes.remove(one)

    @staticmethod
    def _end(process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            try:
                process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                continue


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(slots=True)
class _Shared:
    folder: TemporaryDirectory[str]
    port: int
    server: LocalPrefect | None = None


_shared: list[_Shared] = []


def point_prefect_here() -> None:
    """Point this process's Prefect at the shared server, which need not run yet; to be called before Prefect is
    imported, because its threads read the settings that stood at import."""
    if not _shared:
        folder = TemporaryDirectory(prefix="cagg-prefect-", ignore_cleanup_errors=True)
        _shared.append(_Shared(folder, _free_port()))
        os.environ.update(LocalPrefect(home=Path(folder.name), port=_shared[0].port).environment())


def shared_prefect() -> LocalPrefect:
    """Return one server for the whole process, started at the first call and stopped when the process ends."""
    point_prefect_here()
    shared = _shared[0]
    if shared.server is None:
        shared.server = LocalPrefect.start(Path(shared.folder.name), port=shared.port)
        atexit.register(_stop_shared)
    return shared.server


def _stop_shared() -> None:
    while _shared:
        shared = _shared.pop()
        if shared.server is not None:
            shared.server.stop()
        shared.folder.cleanup()
