"""Prefect's log of a run hears of the newest checkpoint, and what it kept verifies the ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import flow

from cagg.ledger.anchors import collect, line_of
from cagg.ledger.keyfolder import last_signed
from cagg.steps.signing import sign_and_publish
from cagg_prefect import carbon_aware, opening
from cagg_prefect.testing import LocalPrefect


@pytest.fixture
def home(prefect_server: LocalPrefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own."""
    for name in ("CAGG_CONFIG", "CAGG_STORE", "CAGG_ZONE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CAGG_METER_SOURCES", "auto")
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    opening._opened.clear()


def test_the_log_of_a_flow_run_is_a_witness(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @carbon_aware()
    @flow
    def witnessed() -> None:
        """Nothing to do."""

    witnessed()
    checkpoint = sign_and_publish(opening.open_gate().components, [])
    assert checkpoint is not None
    with caplog.at_level(logging.INFO):
        witnessed()
        witnessed()
    told = [record for record in caplog.records if "cagg-checkpoint" in record.getMessage()]
    assert [record.getMessage() for record in told] == [line_of(checkpoint)]
    assert told[0].name.startswith("prefect"), "in the run's own log, which Prefect keeps"
    (tmp_path / "run.log").write_text("\n".join(record.getMessage() for record in caplog.records))
    assert [item.note for item in collect([str(tmp_path / "run.log")]).checkpoints] == [last_signed(home / "keys")]
