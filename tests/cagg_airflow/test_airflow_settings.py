"""Where the gate's settings come from in Airflow, which executors share a file, what the provider says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException, AirflowRuntimeError, ErrorType

from cagg.errors import ConfigurationError, HostUnavailable
from cagg_airflow import asking, opening
from cagg_airflow.hooks import CaggHook
from cagg_airflow.provider_info import get_provider_info

SECRET = "postgresql://gate:hunter2hunter2@db/cagg"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Put a Connection in Airflow's hands; none for no arguments."""
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    stored: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in stored:
            raise AirflowNotFoundException(f"The conn_id `{name}` isn't defined")
        return stored[name]

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(get))

    def put(name: str = "cagg", **parts: Any) -> None:
        if "extra" in parts:
            parts["extra"] = json.dumps(parts["extra"])
        stored[name] = Connection(conn_id=name, conn_type="cagg", **parts)

    return put


def test_with_nothing_said_nothing_is_set(connect: Any) -> None:
    assert dict(opening.host_settings()) == {}
    assert opening.enabled() is False


def test_the_connection_is_above_the_section_and_both_below_the_environment(
    connect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cagg.toml").write_text(
        'zone = "neso:1"\ntimezone = "Asia/Tokyo"\nmode = "off"\n[policy]\nmax_deferrals = 1\n'
    )
    monkeypatch.setenv("AIRFLOW__CAGG__ZONE", "neso:2")
    monkeypatch.setenv("AIRFLOW__CAGG__TIMEZONE", "Europe/Paris")
    monkeypatch.setenv("AIRFLOW__CAGG__SETTINGS", '{"policy": {"max_deferrals": 2}, "reservation.lease": "9m"}')
    connect(extra={"zone": "neso:3", "grid": {"steering": "climatology"}, "mode": ""})
    monkeypatch.setenv("CAGG_GRID_STEERING", "neso")
    gate = opening.open_gate()
    settings = gate.components.settings
    gate.components.store.close()
    assert (settings.zone, settings.timezone, settings.max_deferrals) == ("neso:3", "Europe/Paris", 2)
    assert settings.lease.total_seconds() == 540
    assert settings.steering == ("neso",)
    assert str(settings.mode) == "off"  # an empty field of the form says nothing
    assert "Airflow Connection 'cagg'" in settings.origins["zone"]


def test_the_gate_is_opened_again_only_when_something_changed(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(extra={"zone": "neso:GB"})
    first = opening.open_gate()
    assert opening.open_gate() is first
    connect(extra={"zone": "neso:13"})
    second = opening.open_gate()
    assert second is not first
    monkeypatch.setenv("CAGG_ZONE", "neso:14")
    assert opening.open_gate().components.settings.zone == "neso:14"


def test_another_connection_can_be_named(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect("other", password=SECRET, extra={"zone": "neso:GB"})
    monkeypatch.setenv("AIRFLOW__CAGG__CONNECTION_ID", "other")
    assert dict(opening.host_settings()) == {"store": SECRET, "zone": "neso:GB"}


@pytest.mark.parametrize("extra", ["[1]", "not json", '"hunter2"'])
def test_extras_that_are_no_table_are_refused_without_being_shown(connect: Any, extra: str) -> None:
    class Odd:
        password = None

        def __init__(self) -> None:
            self.extra = extra

    with pytest.raises(ConfigurationError, match="JSON object") as raised:
        opening.read_connection(Odd(), "cagg")
    assert "hunter2" not in str(raised.value)


def test_an_unknown_key_names_the_connection(connect: Any) -> None:
    connect(extra={"zonee": "GB"})
    with pytest.raises(ConfigurationError, match=r"Airflow Connection 'cagg'.*zonee"):
        opening.open_gate()


def test_an_airflow_that_does_not_answer_is_no_missing_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(name: str) -> Any:
        raise AirflowRuntimeError(error=type("E", (), {"error": ErrorType.API_SERVER_ERROR, "detail": None})())

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(get))
    with pytest.raises(HostUnavailable, match="could not be asked for the Connection 'cagg'"):
        opening.host_settings()


@pytest.mark.parametrize(
    "problem", [AirflowException("Invalid connection string: x://hunter2."), ValueError("hunter2"), PermissionError()]
)
def test_a_connection_that_cannot_be_read_is_a_matter_of_configuration(
    problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(name: str) -> Any:
        raise problem

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(get))
    with pytest.raises(ConfigurationError, match="cannot be read") as raised:
        opening.host_settings()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "missing"), [(ErrorType.CONNECTION_NOT_FOUND, True), (ErrorType.API_SERVER_ERROR, False)]
)
def test_a_failed_look_up_is_told_from_a_missing_connection(
    error: ErrorType, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Airflow's own look-up in a task, which says "not defined" for both."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse

    channel = SimpleNamespace(send=lambda message: ErrorResponse(error=error, detail={"status_code": 500}))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", channel, raising=False)
    if missing:
        assert dict(opening.host_settings()) == {}
    else:
        with pytest.raises(HostUnavailable, match="API_SERVER_ERROR"):
            opening.host_settings()


def test_several_machines_are_what_the_option_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    assert not asking.host_profile().remote_workers
    monkeypatch.setenv("AIRFLOW__CAGG__SEVERAL_MACHINES", "True")
    assert asking.host_profile().remote_workers


@pytest.mark.parametrize(("database", "lines"), [("postgresql://db/airflow", 1), ("sqlite:////a.db", 0)])
def test_a_file_under_schedulers_that_may_be_several_is_warned_of_once(
    connect: Any, database: str, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "_warned", threading.Event())
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", database)
    with caplog.at_level("WARNING", logger="cagg.airflow"):
        for zone in ("neso:1", "neso:2"):
            connect(extra={"zone": zone})
            opening.open_gate()
    assert caplog.text.count("several_machines") == lines


def test_a_gate_that_is_dropped_is_closed(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(extra={"zone": "neso:GB"})
    store, closed = opening.open_gate().components.store, []
    monkeypatch.setattr(type(store), "close", lambda self: closed.append(id(self)))
    connect(extra={"zone": "neso:13"})
    opening.open_gate()
    assert closed == [id(store)]


def test_a_hook_opens_one_gate_and_closes_it(connect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connect(password=f"sqlite:///{tmp_path}/gate.db")
    with CaggHook() as hook:
        store, closed = hook.get_conn().components.store, []
        assert hook.get_conn().components.store is store
        monkeypatch.setattr(type(store), "close", lambda self: closed.append(id(self)))
    assert closed == [id(store)]


def test_what_may_hold_tokens_is_masked() -> None:
    options = get_provider_info()["config"]["cagg"]["options"]
    assert {name for name, option in options.items() if option.get("sensitive")} == {"settings", "store"}


# ---- executors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor", "remote"),
    [
        ("LocalExecutor", False),
        ("airflow.executors.local_executor.LocalExecutor", False),
        ("SequentialExecutor", False),
        ("here:airflow.executors.local_executor.LocalExecutor", False),
        ("CeleryExecutor", True),
        ("LocalExecutor,KubernetesExecutor", True),
        ("airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor", True),
        ("pods:my.company.PodExecutor", True),
        ("LocalExecutor;team_a=CeleryExecutor", True),
        ("LocalExecutor;team_a=LocalExecutor", False),
    ],
)
def test_which_executors_leave_this_machine(executor: str, remote: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert opening.remote_workers() is remote
    assert asking.host_profile().remote_workers is remote


# ---- the hook -----------------------------------------------------------------------------------------------------


def test_the_test_button_says_what_it_found(connect: Any, tmp_path: Path) -> None:
    connect(password=f"sqlite:///{tmp_path}/gate.db", extra={"zone": "neso:GB"})
    found, message = CaggHook().test_connection()
    assert (found, "neso:GB" in message, "The store answers" in message) == (True, True, True)
    gate = CaggHook().get_conn()
    assert gate.components.settings.store_url == f"sqlite:///{tmp_path}/gate.db"
    gate.components.store.close()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"extra": {"zone": "nowhere:XX"}}, "nowhere"),
        ({"extra": {"mode": "maybe"}}, "mode"),
        ({"password": "sqlite:////proc/nope/gate.db"}, "gate.db"),
        ({"extra": {"grid.electricity_maps.token": "hunter2 hunter2"}}, "grid.electricity_maps.token"),
    ],
)
def test_the_test_button_says_what_is_wrong_and_shows_no_secret(connect: Any, parts: Any, message: str) -> None:
    connect(**parts)
    found, said = CaggHook().test_connection()
    assert found is False
    assert message in said
    assert "hunter2" not in said


# ---- the provider -------------------------------------------------------------------------------------------------


def test_the_provider_has_the_shape_that_airflow_asks_for() -> None:
    import airflow

    schema = json.loads(Path(airflow.__file__).with_name("provider_info.schema.json").read_text(encoding="utf-8"))
    info = get_provider_info()
    jsonschema.validate(info, schema)
    assert json.loads(json.dumps(info)) == info
    assert all(
        set(option) <= {"description", "version_added", "type", "example", "default", "sensitive"}
        for option in info["config"]["cagg"]["options"].values()
    )


def test_everything_the_provider_names_exists() -> None:
    info = get_provider_info()
    named = [item["class-name"] for item in info["task-decorators"]]
    named += [item["hook-class-name"] for item in info["connection-types"]]
    for path in named:
        module, _, name = path.rpartition(".")
        assert getattr(import_module(module), name)
    for room in ("operators", "sensors", "triggers", "hooks"):
        for entry in info[room]:
            for module in entry["python-modules"]:
                assert import_module(module).__doc__


def test_the_form_offers_settings_that_exist(connect: Any) -> None:
    [form] = get_provider_info()["connection-types"]
    examples = {"zone": "neso:GB", "timezone": "UTC", "grid.electricity_maps.token": "abcdefgh", "mode": "observe"}
    assert set(form["conn-fields"]) == set(examples)
    connect(extra=examples)
    opening.open_gate().components.store.close()


def test_every_option_of_the_section_is_read(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"home": "/x", "store": SECRET, "zone": "neso:GB", "timezone": "UTC", "mode": "observe"}
    for key, value in values.items():
        monkeypatch.setenv(f"AIRFLOW__CAGG__{key.upper()}", value)
    assert opening.section_settings() == values
    read = {*values, "enabled", "connection_id", "settings", "several_machines"}
    assert set(get_provider_info()["config"]["cagg"]["options"]) == read


_WATCH = """
import builtins, json, socket, sys
import airflow.sdk
from airflow.sdk import DAG, task
from airflow.providers.standard.operators.bash import BashOperator
import airflow.providers.standard.decorators.python
import cagg_airflow.cluster_policy
import cagg_airflow.provider_info
cagg_airflow.provider_info.get_provider_info()
before = set(sys.modules)
quiet = sorted(name for name in before if name.partition(".")[0] in {"cagg", "cagg_prefect"})
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked at parse")
socket.socket.connect = refuse
from cagg_airflow import GateOptions, carbon_aware
with DAG("d", tags=["cagg"]):
    @task.carbon_aware(zone="GB", finish_by="06:00", energy="1 kWh")
    def work(): ...
    work()
    carbon_aware(BashOperator)(task_id="b", bash_command="true", carbon=GateOptions(budget="a/b"))
    plain = BashOperator(task_id="c", bash_command="true")
cagg_airflow.cluster_policy.task_policy(plain)
assert type(plain) is not BashOperator
new = set(sys.modules) - before
print(json.dumps([quiet, sorted(new)]))
"""


def test_parsing_a_gated_dag_loads_no_store_no_grid_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CAGG__ENABLED", "True")
    done = subprocess.run([sys.executable, "-c", _WATCH], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    quiet, new = json.loads(done.stdout.strip().splitlines()[-1])
    assert quiet == []  # the policy and the provider's description load nothing of cagg
    ours = {name for name in new if name.startswith("cagg")}
    assert ours <= {
        "cagg",
        "cagg.engine_run",
        "cagg.errors",
        "cagg.quantities",
        "cagg.request",
        "cagg.windows",
        "cagg_airflow.compat",
        "cagg_airflow.decorators",
        "cagg_airflow.mixin",
        "cagg_airflow.naming",
        "cagg_airflow.operators",
        "cagg_airflow.policing",
    }
    heavy = ("sqlalchemy", "alembic", "numpy", "httpx", "cryptography", "psycopg")
    assert [name for name in new if name.partition(".")[0] in heavy] == []
