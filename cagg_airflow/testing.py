"""An Airflow of one's own (``airflow standalone``) on the loopback interface, for tests of gated DAGs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from cagg.errors import CaggError
from cagg_airflow.testing_api import LocalApi, until

if TYPE_CHECKING:
    import psutil

__all__ = ["COMPONENTS", "LocalAirflow", "until"]

_START = """\
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `make test &` hands it on as ignored
runpy.run_module("airflow", run_name="__main__", alter_sys=True)
"""

COMPONENTS = ("scheduler", "dag-processor", "api-server", "triggerer")
"""What ``airflow standalone`` starts, by their commands."""

_QUICK = {
    # One task of a test at a time matters more than throughput; 12 processes and 1 GiB instead of 40.
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
    "AIRFLOW__API__HOST": "127.0.0.1",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
    # What the README asks users to set: the end of a process that deferred is noticed at once.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    # Keeps /proc/PID/environ readable: by it the processes of this Airflow are found, whoever their parent is.
    "SPT_NOENV": "1",
}


@dataclass(slots=True, kw_only=True)
class LocalAirflow:
    """``airflow standalone`` with a home, a database and ports of its own.

    The API server listens on 127.0.0.1. Airflow 3.3 cannot bind its two log servers to one address: they take free
    ports on all interfaces and answer only to signed requests.

    Attributes:
        home: AIRFLOW_HOME, everything that Airflow writes.
        dags: folder of the DAG files.
        settings: variables of every process beside those that make Airflow quick and small.
        port: of the API server.
    """

    home: Path
    dags: Path
    settings: Mapping[str, str]
    port: int
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _api: LocalApi | None = None

    @classmethod
    def start(
        cls,
        home: Path,
        *,
        dags: Path | None = None,
        database_url: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 180.0,
    ) -> LocalAirflow:
        """Start it and wait until every component is healthy, 20 s on two idle cores.

        Args:
            home: made when it does not exist.
            dags: folder of the DAG files; None = ``dags`` below the home.
            database_url: metadata database, ``postgresql://…``; None = SQLite below the home.
            environment: further variables, of cagg or of Airflow.

        Raises:
            CaggError: it did not start in time, or ended; shows the end of its log.
        """
        airflow = cls.prepare(home, dags=dags, database_url=database_url, environment=environment)
        airflow.launch(timeout_seconds=timeout_seconds)
        return airflow

    @classmethod
    def prepare(
        cls,
        home: Path,
        *,
        dags: Path | None = None,
        database_url: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> LocalAirflow:
        """Lay out the home and choose ports and keys, but start nothing: see :meth:`launch` and :meth:`spawn`."""
        from cryptography.fernet import Fernet

        dags = home / "dags" if dags is None else dags
        for folder in (home, dags):
            folder.mkdir(parents=True, exist_ok=True)
        port, worker_logs, trigger_logs = _free_ports(3)
        settings = {
            **_QUICK,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            # One secret for all components, however many of them are started later.
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__API_AUTH__JWT_SECRET": Fernet.generate_key().decode(),
            "AIRFLOW__API__SECRET_KEY": Fernet.generate_key().decode(),
        }
        if database_url is not None:
            # SQLAlchemy's psycopg dialect is both: no second driver for Airflow's asynchronous sessions.
            url = "postgresql+psycopg://" + database_url.partition("://")[2]
            settings |= {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url}
        return cls(home=home, dags=dags, settings={**settings, **(environment or {})}, port=port)

    def launch(self, *, timeout_seconds: float = 180.0) -> None:
        """Start ``airflow standalone`` and wait until it is healthy; stopped again when it does not get there."""
        self.spawn("standalone")
        try:
            self.wait_until_healthy(timeout_seconds=timeout_seconds)
        except CaggError as problem:
            end = self.log("standalone")[-4000:]
            self.stop()
            raise CaggError(f"{problem}\n{end}") from None

    @property
    def api(self) -> LocalApi:
        """The REST API as its administrator."""
        if self._api is None:
            self._api = LocalApi(self.url, self._password())
        return self._api

    @property
    def url(self) -> str:
        """Address of the API server."""
        return f"http://127.0.0.1:{self.port}"

    def credentials(self) -> dict[str, str]:
        """Return the variables with which cagg asks this Airflow as its administrator."""
        return {
            "CAGG_AIRFLOW_URL": self.url,
            "CAGG_AIRFLOW_USERNAME": "admin",
            "CAGG_AIRFLOW_PASSWORD": self._password(),
        }

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return this process's environment, pointed at this Airflow and at no other."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        folders = [str(Path(sys.executable).parent), own.get("PATH", os.defpath)]  # standalone starts `airflow`
        return {**own, "PATH": os.pathsep.join(folders), **self.settings, **(extra or {})}

    def spawn(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start ``airflow ARGUMENTS`` as a process group of its own; its log is named by the first argument."""
        with (self.home / f"{arguments[0]}.log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, *arguments],
                env=self.environment(environment),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def wait_until_healthy(
        self, components: Sequence[str] = COMPONENTS, *, timeout_seconds: float = 60.0
    ) -> Mapping[str, object]:
        """Wait until the API answers that the components beat; raises CaggError when they do not in time."""

        def healthy() -> Mapping[str, object] | None:
            ended = [process for process in self._processes if process.poll() is not None]
            if ended and len(ended) == len(self._processes):
                raise CaggError(f"Airflow ended at once with status {ended[-1].returncode}.")
            try:
                answer = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5.0, trust_env=False)
            except httpx.HTTPError:
                return None
            if not answer.is_success:
                return None
            states: Mapping[str, Mapping[str, object]] = answer.json()
            wanted = {name.replace("-", "_") for name in components if name != "api-server"}
            return states if all(states[name]["status"] == "healthy" for name in wanted) else None

        return until("Airflow to be healthy", healthy, timeout_seconds=timeout_seconds, every_seconds=0.5)

    def processes(self, component: str | None = None) -> list[psutil.Process]:
        """Return every living process of this Airflow, or those started as ``airflow COMPONENT``."""
        import psutil

        found = []
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                    continue
                if process.environ().get("AIRFLOW_HOME") != str(self.home):
                    continue
                # a component's own process is the one whose parent runs another command than itself
                if component is None or self._runs(process, component):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    @staticmethod
    def _runs(process: psutil.Process, component: str) -> bool:
        words = {component, component.replace("-", "_")}  # the API server retitles itself ``airflow api_server``

        def named(one: psutil.Process) -> bool:
            return bool(words & set(" ".join(one.cmdline()).split()))

        parent = process.parent()
        return named(process) and (parent is None or not named(parent))

    def kill(self, component: str) -> None:
        """SIGKILL a component and what belongs to it, as a crash of its machine would."""
        for process in self.processes(component):
            for one in [*process.children(recursive=True), process]:
                self._kill(one)

    def log(self, name: str = "standalone") -> str:
        """Return what a process that was started here has written so far."""
        path = self.home / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def stop(self, *, timeout_seconds: float = 30.0) -> None:
        """End everything that belongs to this Airflow; nothing is left behind.

        SIGINT, because on SIGTERM ``airflow standalone`` leaves its components running (Airflow 3.3.2).
        """
        if self._api is not None:
            self._api.close()
            self._api = None
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        for left in self.processes():
            self._kill(left)

    @staticmethod
    def _kill(process: psutil.Process) -> None:
        import psutil

        try:
            process.kill()
            process.wait(5)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            return

    def _password(self) -> str:
        path = self.home / "simple_auth_manager_passwords.json.generated"
        return str(json.loads(path.read_text(encoding="utf-8"))["admin"])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
