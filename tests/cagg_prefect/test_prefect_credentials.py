"""What the adapter reads from a Block, and maintenance as a flow, on a real Prefect server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import ObjectNotFound

from cagg.errors import CaggError
from cagg_prefect import carbon_aware, maintain_flow, opening
from cagg_prefect.blocks import CaggCredentials
from cagg_prefect.opening import BLOCK_TYPE, VARIABLE, host_settings
from cagg_prefect.testing import LocalPrefect

TOKEN = "pr3f3ct-token-0123456789"


@pytest.fixture
def home(prefect_server: LocalPrefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("CAGG_CONFIG", "CAGG_STORE", "CAGG_ZONE", "CAGG_GRID_ELECTRICITY_MAPS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    opening._opened.clear()
    yield tmp_path / "home"
    opening._opened.clear()


@pytest.fixture
def block(home: Path) -> Iterator[Any]:
    """Saves a block named ``cagg`` and takes it away again."""
    saved: list[CaggCredentials] = []

    def save(**fields: Any) -> CaggCredentials:
        credentials = CaggCredentials(**fields)
        credentials.save(VARIABLE, overwrite=True)
        saved.append(credentials)
        return credentials

    yield save
    if saved:
        CaggCredentials.delete(VARIABLE)


@pytest.fixture
def variable(home: Path) -> Iterator[Any]:
    """Sets the Variable ``cagg`` and takes it away again."""

    def put(value: Any) -> None:
        with get_client(sync_client=True) as client:
            client.create_variable(VariableCreate(name=VARIABLE, value=value))

    yield put
    with get_client(sync_client=True) as client:
        if client.read_variable_by_name(VARIABLE) is not None:
            client.delete_variable_by_name(VARIABLE)


def test_without_a_block_nothing_is_said(home: Path) -> None:
    assert host_settings() == {}


def test_a_block_says_store_token_and_zone(block: Any, home: Path) -> None:
    block(store="sqlite:////tmp/none.db", electricity_maps_token=TOKEN, zone="electricity_maps:DE")
    assert host_settings() == {
        "store": "sqlite:////tmp/none.db",
        "grid.electricity_maps.token": TOKEN,
        "zone": "electricity_maps:DE",
    }


def test_what_a_block_leaves_open_stays_open_and_the_variable_is_stronger(block: Any, variable: Any) -> None:
    block(electricity_maps_token=TOKEN, zone="electricity_maps:DE", store="")
    variable({"zone": "neso:GB", "grid": {"electricity_maps": {"basis": "direct"}}})
    assert host_settings() == {
        "grid.electricity_maps.token": TOKEN,
        "zone": "neso:GB",
        "grid.electricity_maps.basis": "direct",
    }
    settings = opening.open_gate().components.settings
    assert settings.zone == "neso:GB"
    assert settings.electricity_maps_basis == "direct"
    assert "Block 'cagg'" in settings.origins["electricity_maps_token"]


def test_the_workers_environment_is_stronger_than_the_block(block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    block(zone="electricity_maps:DE")
    monkeypatch.setenv("CAGG_ZONE", "neso:GB")
    assert opening.open_gate().components.settings.zone == "neso:GB"


def test_the_token_is_shown_nowhere_and_is_in_no_ledger(block: Any, home: Path) -> None:
    credentials = block(electricity_maps_token=TOKEN)

    @carbon_aware(energy="1 Wh", duration="1m")
    @flow(name="block-night")
    def night() -> str:
        return repr(opening.open_gate().components.settings)

    assert TOKEN not in night()
    assert TOKEN not in repr(credentials) + str(credentials) + str(credentials.model_dump())
    assert TOKEN.encode() not in (home / "cagg.db").read_bytes()
    secret = opening.open_gate().components.settings.electricity_maps_token
    assert secret is not None
    assert secret.value == TOKEN


def test_the_block_type_is_registered_by_its_module(home: Path, prefect_server: LocalPrefect) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "block", "register", "-m", "cagg_prefect.blocks"],
        env=prefect_server.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with get_client(sync_client=True) as client:
        assert client.read_block_type_by_slug(BLOCK_TYPE).name == "cagg Credentials"
        with pytest.raises(ObjectNotFound):
            client.read_block_document_by_name("never-made", BLOCK_TYPE)


# ---- maintenance --------------------------------------------------------------------------------------------------


def test_maintenance_is_a_flow_that_signs_the_ledger(home: Path) -> None:
    @carbon_aware(energy="1 Wh", duration="1m")
    @flow(name="maintained-night")
    def night() -> None: ...

    night()
    report = maintain_flow()
    assert report["signed_size"] == 3
    assert report["problems"] == ()
    assert (home / "keys" / "log.vkey").exists()


def test_problems_fail_the_run_with_their_sentences(home: Path) -> None:
    spool = home / "spool"
    spool.mkdir(parents=True)
    (spool / "0001.json").write_text(json.dumps({"format": "nonsense"}), encoding="utf-8")
    with pytest.raises(CaggError, match="cagg maintain met 1 problems: "):
        maintain_flow()
    state = maintain_flow(return_state=True)
    assert state.name == "Completed"  # what could not be replayed was set aside, and is told once


def test_one_line_makes_it_a_deployment(home: Path) -> None:
    deployment = maintain_flow.to_deployment(name="cagg-maintain", cron="*/10 * * * *")
    assert deployment.entrypoint == "cagg_prefect.maintaining.maintain_flow" or deployment.entrypoint.endswith(
        "cagg_prefect/maintaining.py:maintain_flow"
    )
    identifier = deployment.apply()
    with get_client(sync_client=True) as client:
        stored = client.read_deployment(identifier)
        client.delete_deployment(identifier)
    assert stored.schedules[0].schedule.cron == "*/10 * * * *"
