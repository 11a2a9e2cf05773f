"""The adapter on the real gate: settings from Prefect, records in the ledger, nested gates, process pools."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.actions import VariableCreate
from prefect.task_runners import ProcessPoolTaskRunner

import cagg
from cagg.errors import ConfigurationError, MissingExtra, NotAdmitted
from cagg_prefect import carbon_aware, opening
from cagg_prefect.testing import LocalPrefect


@pytest.fixture
def home(prefect_server: LocalPrefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("CAGG_CONFIG", "CAGG_STORE", "CAGG_ZONE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CAGG_METER_SOURCES", "auto")
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    opening._opened.clear()


def _bodies() -> list[tuple[str, dict[str, Any]]]:
    with opening.open_gate().components.store.snapshot() as tx:
        return [(str(entry.kind), json.loads(entry.body)) for entry in tx.entries()]


def test_with_nothing_configured_a_flow_is_admitted_metered_and_recorded(home: Path) -> None:
    @carbon_aware()
    @task
    def inner(secret: str) -> int:
        return len(secret)

    @carbon_aware(kind="training")
    @flow
    def plain_night(secret: str) -> int:
        return inner(secret)

    assert plain_night("hunter2-hunter2") == 15
    kinds = [kind for kind, _ in _bodies()]
    assert sorted(kinds) == ["decision", "decision", "measurement", "measurement", "settlement"]
    assert b"hunter2" not in (home / "cagg.db").read_bytes()
    inner_body = next(body for kind, body in _bodies() if kind == "measurement" and "inner" in json.dumps(body))
    assert inner_body["part_of"] is not None
    outer, inside = [body for kind, body in _bodies() if kind == "decision"]
    assert (outer["parents"], inside["parents"]) == ([], [outer["entry_id"]])
    run = outer["request"]["engine_run"]
    assert run == {
        "engine": "prefect",
        "engine_version": prefect.__version__,
        "deployment": None,
        "workflow": "plain-night",
        "run_id": outer["request"]["root_run_id"],
        "task_id": None,
        "map_index": None,
        "try_number": 1,
    }
    assert inside["request"]["engine_run"] == {**run, "task_id": "inner"}


def test_tries_are_those_that_prefect_counts(home: Path) -> None:
    """A task that runs once in the second try of its flow was tried once; its attempt says that more was spent."""
    entered: list[int] = []

    @carbon_aware()
    @task(retries=1)
    def fragile() -> None:
        entered.append(len(entered))
        if len(entered) in (1, 2):
            raise RuntimeError

    @carbon_aware()
    def helper() -> None: ...

    @task
    def calling() -> None:
        helper()

    @flow(retries=1)
    def stubborn_night() -> None:
        fragile()
        calling()
        helper()

    stubborn_night()
    runs = [body["request"] for kind, body in _bodies() if kind == "decision"]
    said = [(run["attempt"], run["engine_run"]["task_id"], run["engine_run"]["try_number"]) for run in runs]
    assert [item[1:] for item in said] == [
        ("fragile", 1),
        ("fragile", 2),
        ("fragile", 1),
        ("calling", 1),
        (None, said[-1][0]),
    ]
    assert [item[0] for item in said][:3] == [1, 2, 3]


def test_the_code_of_a_flow_and_of_its_tasks_finds_its_run(home: Path) -> None:
    """Prefect copies the context to the threads of tasks, so what a task without a gate says stands in the flow's."""
    from concurrent.futures import ThreadPoolExecutor

    @task
    def load() -> int:
        run = cagg.current_run()
        assert run is not None
        run.add_input("data", b"rows", role="dataset")
        return 4

    @carbon_aware(kind="validation", purpose="work")
    @flow
    def reading_night() -> int:
        run = cagg.current_run()
        assert run is not None
        with ThreadPoolExecutor() as pool:  # without a copy of the context nobody is inside
            assert pool.submit(cagg.current_run).result() is None
        run.add_output("model", b"weights")
        return load.submit().result() + load()

    assert cagg.current_run() is None
    assert reading_night() == 8
    bodies = dict(_bodies())
    assert [item["name"] for item in bodies["measurement"]["inputs"]] == ["data"]
    assert [item["name"] for item in bodies["measurement"]["outputs"]] == ["model"]
    assert bodies["validation"]["parents"] == [bodies["measurement"]["entry_id"]]
    assert bodies["validation"]["outcome"] == "passed"


def test_coroutines_find_their_own_run(home: Path) -> None:
    @carbon_aware(kind="inference")
    @task
    async def answer(number: int) -> None:
        run = cagg.current_run()
        assert run is not None
        await asyncio.sleep(0)
        run.add_input("question", str(number).encode())

    @flow
    async def asking() -> None:
        await asyncio.gather(answer(1), answer(2))

    asyncio.run(asking())
    digests = {body["inputs"][0]["digest"] for kind, body in _bodies() if kind == "inference"}
    assert len(digests) == 2


def test_a_flow_run_carries_its_artifact(home: Path) -> None:
    @carbon_aware()
    @flow(name="With | an artifact")
    def shown() -> None: ...

    state = shown(return_state=True)
    run_id = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        wanted = {"artifacts": {"flow_run_id": {"any_": [str(run_id)]}}}
        (artifact,) = client._client.post("/artifacts/filter", json=wanted).json()
    assert artifact["key"] == "carbon-with-an-artifact"
    assert "| Energy |" in artifact["data"]
    assert "Admit" in artifact["data"]


def test_a_budget_that_nobody_created_denies_or_admits_with_a_clear_sentence(home: Path) -> None:
    @carbon_aware(budget="acme/nobody")
    @flow
    def broke() -> None: ...

    with pytest.raises(NotAdmitted, match="cagg budget set"):
        broke()


def test_process_pool_runs_every_element_once_and_records_it(home: Path) -> None:
    state = pooled(return_state=True)
    assert state.result() == [2, 4, 6]
    measured = [body for kind, body in _bodies() if kind == "measurement"]
    assert len(measured) == 3
    assert all(body["outcome"] == "completed" for body in measured)


@carbon_aware()
@task
def doubled(number: int) -> int:
    return number * 2


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]  # Prefect's runners are not covariant
def pooled() -> list[int]:
    return list(doubled.map([1, 2, 3]).result())


@pytest.fixture
def variable(prefect_server: LocalPrefect) -> Iterator[Any]:
    def store(value: Any) -> None:
        with get_client(sync_client=True) as client:
            client.create_variable(VariableCreate(name=opening.VARIABLE, value=value))

    yield store
    with get_client(sync_client=True) as client:
        client.delete_variable_by_name(opening.VARIABLE)


def test_settings_come_from_the_prefect_variable(home: Path, variable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("cagg.toml").write_text('zone = "neso:GB"\ntimezone = "UTC"\n')
    variable({"zone": "climatology:DE", "grid": {"timeout": "2s"}, "defaults": {"on_deny": "skip"}})
    settings = opening.open_gate().components.settings
    assert (settings.zone, settings.timezone) == ("climatology:DE", "UTC")
    assert settings.grid_timeout.total_seconds() == 2
    assert settings.defaults.on_deny == "skip"
    assert settings.origins["zone"] == "Prefect Variable 'cagg'"
    monkeypatch.setenv("CAGG_ZONE", "climatology:FR")
    assert opening.open_gate().components.settings.zone == "climatology:FR"


def test_a_variable_that_cannot_be_read_is_named(home: Path, variable: Any) -> None:
    variable("no json")
    with pytest.raises(ConfigurationError, match="Prefect Variable 'cagg' must be a JSON object"):
        opening.host_settings()


def test_importing_the_package_does_not_import_prefect_and_names_the_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['prefect'] = None\n"
        "import cagg_prefect\n"
        "assert cagg_prefect.GateOptions is not None\n"
        "try:\n"
        "    cagg_prefect.carbon_aware\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(MissingExtra.__name__)
    assert "pip install 'cagg[prefect]'" in done.stdout
