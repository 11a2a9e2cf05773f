"""Several processes check a large log: the same verdict in the same order, and a process that dies is never a pass."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cagg.errors import HelperLost, InvalidInput
from cagg.ledger import _verify_pool
from cagg.ledger import verify as verify_module
from cagg.ledger._verify_body import Row
from cagg.ledger._verify_pool import checked_pages
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.notes import verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.ports import Store
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"
SIGNER = MemorySigner(NAME)
KEY = str(verifier_key(SIGNER))
SIZE = 1_600


@pytest.fixture
def filled(file_store: Store) -> Store:
    with file_store.transaction() as tx:
        for number in range(SIZE):
            append(tx, draft(f"k{number}"))
        while sequence(tx):
            pass
        sign_checkpoint(tx, SIGNER)
    return file_store


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let even a small log have helpers."""
    monkeypatch.setattr(verify_module, "WORTH_HELPERS", 1)


@pytest.mark.usefixtures("helped")
def test_helpers_find_the_same_in_the_same_order(filled: Store) -> None:
    with filled.transaction() as tx:
        connection = unlock(tx)
        connection.exec_driver_sql("UPDATE cagg_entry SET outcome = 'x' WHERE request_key IN ('k20', 'k700', 'k1599')")
        connection.exec_driver_sql("UPDATE cagg_entry SET body = zeroblob(2) WHERE request_key IN ('k700', 'k1200')")
        connection.exec_driver_sql("UPDATE cagg_entry SET host = CAST(x'ff' AS TEXT) WHERE request_key = 'k3'")
        alone = verify(tx, [KEY])
        several = verify(tx, [KEY], workers=2)
    assert several == alone
    places = [failure.index for failure in alone.failures if failure.index is not None]
    assert places == sorted(places)
    assert {3, 20, 700, 1200, 1599} == set(places)


@pytest.mark.usefixtures("helped")
def test_an_untouched_log_is_verified_with_helpers(filled: Store) -> None:
    with filled.snapshot() as tx:
        report = verify(tx, [KEY], workers=2)
    assert (report.verified, report.size) == (True, SIZE)


def test_a_small_log_starts_no_process(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(_verify_pool, "ProcessPoolExecutor", refuse)
    with filled.snapshot() as tx:
        assert verify(tx, [KEY], workers=8).verified


@pytest.mark.usefixtures("helped")
def test_where_no_process_can_be_started_one_does_all(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no semaphores here")

    monkeypatch.setattr(_verify_pool, "ProcessPoolExecutor", refuse)
    with filled.snapshot() as tx:
        assert verify(tx, [KEY], workers=2).verified


def test_a_helper_that_is_killed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_verify_pool, "_check", _die)

    def pages() -> Iterator[Sequence[Row]]:
        for _ in range(20):
            yield [(0, "x", b"", None, None, None, None)]

    with pytest.raises(HelperLost, match="not verified"):
        list(checked_pages(pages(), (), NAME, workers=2))


def _die(work: bytes) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return work


def test_the_number_of_processes_is_one_or_more(filled: Store) -> None:
    with filled.snapshot() as tx, pytest.raises(InvalidInput, match="1 or more"):
        verify(tx, [KEY], workers=0)
