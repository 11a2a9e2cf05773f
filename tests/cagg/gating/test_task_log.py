"""The log of the task that ends hears of the newest checkpoint: once, in the transaction that settles anyway."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cagg
from cagg.errors import StoreUnavailable
from cagg.gating import Gate
from cagg.ledger.anchors import collect, line_of
from cagg.ports import Transaction
from cagg.steps.sequencing import Sequencer
from cagg.steps.signing import sign_and_publish
from cagg.testing.attacks import unlock


def ran(gate: Gate, name: str) -> str:
    """Run a little work and return what its summary has for the log."""
    with cagg.gate(name, opened=gate, energy="1 kWh", duration="1h") as run:
        gate.components.clock.sleep(60)
    assert run.summary is not None
    return run.summary.checkpoint


def signed(gate: Gate) -> str:
    Sequencer(gate.components).drain()
    checkpoint = sign_and_publish(gate.components, [])
    assert checkpoint is not None
    return line_of(checkpoint)


def test_a_checkpoint_gets_into_the_log_once(
    make_gate: Callable[..., Gate], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    gate = make_gate()
    with caplog.at_level(logging.INFO, logger="cagg"):
        assert ran(gate, "before there is one") == ""
        first = signed(gate)
        assert [ran(gate, "a"), ran(gate, "b")] == [first, ""]
        second = signed(gate)
        assert [ran(gate, "c"), ran(gate, "d")] == [second, ""]
    assert [text for text in caplog.messages if "cagg-checkpoint" in text] == [first, second]
    (tmp_path / "task.log").write_text("".join(f"INFO {text}\n" for text in caplog.messages))
    assert [line_of(item) for item in collect([str(tmp_path / "task.log")]).checkpoints] == [first, second]


def test_a_checkpoint_is_not_told_before_the_run_is_settled(
    make_gate: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit fails, the record goes into the spool: the next run tells the checkpoint."""
    gate = make_gate()
    ran(gate, "warm")
    line = signed(gate)
    store = gate.components.store
    whole = store.transaction

    @contextmanager
    def uncommitted() -> Iterator[Transaction]:
        with whole() as tx:
            yield tx
            raise StoreUnavailable("the disk is full; make room.")

    with cagg.gate("lost", opened=gate, energy="1 kWh", duration="1h") as run:
        gate.components.clock.sleep(60)
        monkeypatch.setattr(store, "transaction", uncommitted)
    monkeypatch.setattr(store, "transaction", whole)
    assert run.summary is not None
    assert (run.summary.checkpoint, run.summary.measurement_id) == ("", None)
    assert ran(gate, "next") == line


def test_it_costs_no_transaction(make_gate: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate()
    ran(gate, "warm")
    counts = []
    for number in range(2):
        opened: list[str] = []
        store, whole = gate.components.store, gate.components.store.transaction

        @contextmanager
        def counted(whole: Callable[[], Any] = whole, opened: list[str] = opened) -> Iterator[Transaction]:
            opened.append("x")
            with whole() as tx:
                yield tx

        with monkeypatch.context() as patch:
            patch.setattr(store, "transaction", counted)
            ran(gate, f"run {number}")
        counts.append(len(opened))
        signed(gate)
    assert counts[0] == counts[1]


def test_a_damaged_checkpoint_keeps_no_run_from_being_settled(make_gate: Callable[..., Gate]) -> None:
    gate = make_gate()
    ran(gate, "a")
    signed(gate)
    with gate.components.store.transaction() as tx:
        connection = unlock(tx)
        if connection.dialect.name == "postgresql":
            pytest.skip("PostgreSQL keeps no other type in the column")
        connection.exec_driver_sql("UPDATE cagg_checkpoint SET root = 'x'")
    with cagg.gate("b", opened=gate, energy="1 kWh", duration="1h") as run:
        gate.components.clock.sleep(60)
    assert run.summary is not None
    assert (run.summary.checkpoint, run.summary.measurement_id is None) == ("", False)
