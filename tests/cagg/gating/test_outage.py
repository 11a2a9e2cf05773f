"""The store is down: the stated policy applies, is written down, and reaches the ledger later."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cagg.budget.reservations import audit
from cagg.errors import StoreUnavailable
from cagg.gating import Gate
from cagg.maintenance import maintain
from cagg.records import EntryKind
from cagg.testing.postgresql import LocalPostgres
from cagg.verdict import Admit, Deny, Reason

Make = Callable[..., Gate]


class FileOutage:
    """Something that is no database lies where the store should be."""

    def __init__(self, home: Path) -> None:
        self._store, self._kept = home / "cagg.db", home / "kept.db"

    def begin(self) -> None:
        self._store.parent.mkdir(exist_ok=True)
        for suffix in ("-wal", "-shm", ""):
            side = Path(f"{self._store}{suffix}")
            if side.exists():
                side.rename(f"{self._kept}{suffix}")
        self._store.write_text("this is no database " * 100, encoding="utf-8")

    def end(self) -> None:
        self._store.unlink()
        for suffix in ("-wal", "-shm", ""):
            side = Path(f"{self._kept}{suffix}")
            if side.exists():
                side.rename(f"{self._store}{suffix}")


class ServerOutage:
    """The server crashes, and comes back."""

    def __init__(self, server: LocalPostgres) -> None:
        self._server = server

    def begin(self) -> None:
        self._server.kill_immediately()

    def end(self) -> None:
        self._server.restart()


@pytest.fixture(scope="module")
def server() -> Iterator[LocalPostgres]:
    """A server of this module's own: it crashes, and no other test shall notice."""
    with LocalPostgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_address(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "sqlite":
        yield None
        return
    server: LocalPostgres = request.getfixturevalue("server")
    url = server.new_database()
    yield url
    with contextlib.suppress(StoreUnavailable):
        server.restart()  # refused where it runs
    server.drop_database(url)


@pytest.fixture
def outage(bench: Any, store_address: str | None, request: pytest.FixtureRequest) -> FileOutage | ServerOutage:
    """What befalls the store of the bench."""
    if store_address is None:
        return FileOutage(bench.folder / "home")
    return ServerOutage(request.getfixturevalue("server"))


@pytest.mark.parametrize("store_address", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("options", "settings", "runs"),
    [
        ({"kind": "validation"}, {}, False),
        ({"kind": "validation", "budget": "acme"}, {"policy.on_store_down": "run"}, False),
        ({"budget": "acme"}, {}, False),
        ({"budget": "acme"}, {"policy.on_store_down": "run"}, True),
        ({"budget": "acme", "purpose": "monitor"}, {}, True),
        ({}, {}, True),
        ({"budget": "acme"}, {"mode": "observe"}, True),
    ],
)
def test_each_purpose_has_its_policy(
    bench: Any, make_gate: Make, outage: Any, options: dict[str, str], settings: dict[str, str], runs: bool
) -> None:
    outage.begin()
    decision = make_gate(**settings).ask(bench.request(**options))
    assert isinstance(decision.verdict, Admit if runs else Deny)
    assert decision.verdict.reason is Reason.STORE_DOWN
    assert "\n" not in decision.verdict.message
    assert len(list((bench.folder / "home" / "spool").glob("*.json"))) == 1


def test_a_run_without_a_store_is_metered_spooled_and_replayed(bench: Any, make_gate: Make, outage: Any) -> None:
    outage.begin()
    opened = make_gate()
    decision = opened.ask(bench.request(finish_by=None))
    with opened.run(decision) as run:
        bench.clock.advance(timedelta(minutes=30))
    assert run.summary is not None
    assert run.summary.measurement_id is None
    assert run.reading is not None
    outage.end()

    again = make_gate()
    report = maintain(again.components, hosts={})
    assert (report.replayed, report.problems) == (2, ())
    bodies = bench.bodies(again)
    assert [body["kind"] for body in bodies] == ["decision", "measurement"]
    assert bodies[1]["energy_millijoules"] == str(100 * 1_800 * 1_000)
    assert "spooled_at" in bodies[1]
    assert maintain(again.components, hosts={}).replayed == 0


def test_a_store_that_fails_during_the_run_is_settled_by_the_replay(bench: Any, make_gate: Make, outage: Any) -> None:
    opened = make_gate()
    bench.budget(opened, "acme", "10 kWh/day")
    decision = opened.ask(bench.request(budget="acme", finish_by=None))
    run = opened.run(decision)
    run.__enter__()
    bench.clock.advance(timedelta(minutes=3))
    opened.components.store.close()
    outage.begin()
    run.__exit__(None, None, None)
    assert run.summary is not None
    assert "spool" in run.summary.notes[-1]
    outage.end()

    again = make_gate()
    maintain(again.components, hosts={})
    with again.components.store.snapshot() as tx:
        assert audit(tx) == ()
        allotment = tx.allotments("acme")[0]
    assert (allotment.held, allotment.spent) == (0, 100 * 180 * 1_000)
    assert bench.bodies(again, EntryKind.SETTLEMENT)[0]["outcome"] == "settled"


@pytest.mark.parametrize("store_address", ["sqlite"], indirect=True)
def test_a_read_only_store_is_one_clear_sentence(bench: Any, make_gate: Make) -> None:
    opened = make_gate()
    opened.ask(bench.request(finish_by=None))
    with sqlite3.connect(bench.folder / "home" / "cagg.db") as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON cagg_entry BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    decision = opened.ask(bench.request("run-2", budget="acme", finish_by=None))
    assert isinstance(decision.verdict, Deny)
    assert len(list((bench.folder / "home" / "spool").glob("*.json"))) == 1


def test_when_even_the_spool_is_gone_it_says_what_is_lost(
    bench: Any, make_gate: Make, outage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outage.begin()
    (bench.folder / "home").mkdir(exist_ok=True)
    (bench.folder / "home" / "spool").write_text("a file in the way", encoding="utf-8")
    opened = make_gate()
    with caplog.at_level(logging.WARNING, logger="cagg"):
        decision = opened.ask(bench.request(finish_by=None))
        with opened.run(decision):
            bench.clock.advance(timedelta(minutes=1))
    assert isinstance(decision.verdict, Admit)
    assert "make one of them writable" in caplog.text
