"""Airflow's log of a task hears of the newest checkpoint, and what it kept verifies the ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from cagg.gating import Gate
from cagg.ledger.anchors import collect, line_of
from cagg.settings import load_settings
from cagg.steps.signing import sign_and_publish
from cagg_airflow import carbon_aware, opening

Gated = carbon_aware(PythonOperator)


@pytest.fixture
def gate(enabled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A real gate with a store of its own."""
    settings = load_settings(environ={"CAGG_HOME": str(tmp_path / "home")}, start=tmp_path)
    opened = Gate.open(settings=settings)
    monkeypatch.setattr(opening, "open_gate", lambda: opened)
    yield opened
    opened.components.store.close()


def test_the_log_of_a_task_is_a_witness(
    gate: Gate, bench: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DAG("nightly"):
        task = Gated(task_id="validate", python_callable=lambda: "done")
    bench.start(bench.context(task, run_id="first"))
    checkpoint = sign_and_publish(gate.components, [])
    assert checkpoint is not None
    with caplog.at_level(logging.INFO, logger="cagg.airflow"):
        bench.start(bench.context(task, run_id="second"))
        bench.start(bench.context(task, run_id="third"))
    told = [text for text in caplog.messages if "cagg-checkpoint" in text]
    assert told == [line_of(checkpoint)]
    (tmp_path / "task.log").write_text("".join(f"[2026-11-23T22:00:00Z] INFO - {text}\n" for text in caplog.messages))
    assert [item.note for item in collect([str(tmp_path / "task.log")]).checkpoints] == [checkpoint.note]
