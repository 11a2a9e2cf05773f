"""Rights on PostgreSQL: what gates, maintainers and readers can do with a role of their own, and what they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cagg.budget import reservations
from cagg.budget.tree import set_budget
from cagg.clock import SystemClock
from cagg.composition import Components, compose
from cagg.energy.meter import Meter, MeterSettings
from cagg.errors import InvalidInput, ReservationConflict, StoreUnavailable
from cagg.gating import Gate
from cagg.ledger.checkpoint import sign_checkpoint
from cagg.ledger.entry import append
from cagg.ledger.notes import verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ledger.verify import verify
from cagg.maintenance import maintain
from cagg.ports import JournalRow
from cagg.quantities import Energy, Unit
from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.settings import load_settings
from cagg.store.engine import open_store
from cagg.store.postgresql import PostgresqlStore
from cagg.testing.budgets import ask, budget
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import MemorySigner, draft
from cagg.verdict import Admit

LEAF = "acme/ml"
ROLES = ("writer", "maintainer", "reader")
CHANGES = [
    *(f"{verb} {table}" for table in ("cagg_entry", "cagg_journal") for verb in ("DELETE FROM", "TRUNCATE")),
    "UPDATE cagg_allotment SET limit_amount = 9000000",
    "UPDATE cagg_allotment SET held = 0",
    "UPDATE cagg_budget SET limit_amount = 9000000",
    "UPDATE cagg_reservation SET state = 'settled'",
    "UPDATE cagg_entry SET outcome = 'completed'",
    "DELETE FROM cagg_hold",
    "DELETE FROM cagg_queue",
    "TRUNCATE cagg_allotment CASCADE",
    "INSERT INTO cagg_leaf VALUES (1, 0, 'x', '\\x00')",
    "INSERT INTO cagg_journal (allotment_id, request_key, kind, d_held, d_spent) VALUES (1, 'x', 'hold', -5, 0)",
    "SELECT cagg_put_budget('{}')",
    "SELECT cagg_set_limit(1, 9000000)",
    "ALTER TABLE cagg_entry DISABLE TRIGGER ALL",
    "DROP FUNCTION cagg_post(jsonb, bigint[])",
    "CREATE TABLE cagg_mine (x integer)",
]


@dataclass
class Shop:
    """One store, seen by each role."""

    owner: PostgresqlStore
    writer: PostgresqlStore
    maintainer: PostgresqlStore
    reader: PostgresqlStore


@pytest.fixture
def urls(postgres: LocalPostgres, postgres_url: str) -> dict[str, str]:
    """The store's address for each role."""
    database = postgres_url.rpartition("/")[2]
    return {role: postgres.url_of(database, user=f"{role}_{database}", password=f"p{role}") for role in ROLES}


@pytest.fixture
def shop(postgres: LocalPostgres, postgres_url: str, urls: dict[str, str]) -> Iterator[Shop]:
    database = postgres_url.rpartition("/")[2]
    for role in ROLES:
        postgres.execute(f"CREATE ROLE {role}_{database} LOGIN PASSWORD 'p{role}'")
    stores: dict[str, Any] = {"owner": open_store(postgres_url, clock=SystemClock())}
    names = {role: f"{role}_{database}" for role in ROLES}
    stores["owner"].apply(stores["owner"].grants(**names))
    for role in ROLES:
        stores[role] = open_store(urls[role], clock=SystemClock())
    shop = Shop(**stores)
    with shop.maintainer.transaction() as tx:
        set_budget(tx, budget("acme", 100))
        set_budget(tx, budget(LEAF, 60))
    yield shop
    for store in stores.values():
        store.close()
    for name in names.values():
        postgres.execute(f"DROP OWNED BY {name}; DROP ROLE {name}", url=postgres_url)


def test_a_writer_runs_a_gate_from_the_ask_to_the_settlement(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        reservations.expire(tx)
        assert ask(tx, "a", LEAF, 40)[0] is not None
        append(tx, draft("a", large=["x" * 70_000]))
        reservations.start(tx, "a")
    with shop.writer.transaction() as tx:
        reservations.beat(tx, "a", 1, Energy(millijoules=5), 1)
        assert ask(tx, "b", LEAF, 30)[0] is None, "the limit holds"
    with shop.writer.transaction() as tx:
        assert reservations.settle(tx, "a", 1, {Unit.CARBON: 70}).overrun == {f"{LEAF}:carbon": 10}
        append(tx, draft("a", ordinal=1))
    with shop.reader.snapshot() as tx:
        assert reservations.audit(tx) == ()
        assert {(one.budget.path, one.spent) for one in tx.allotments()} == {("acme", 70), (LEAF, 70)}
        assert tx.queued() == 2


def test_a_whole_gate_runs_as_a_writer_and_maintain_as_a_maintainer(
    shop: Shop, urls: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "trace.csv").write_text("start,g_per_kwh\n2026-01-05T00:00:00+00:00,100\n2036-01-05T00:00:00+00:00,100")
    config = 'zone = "trace:GB"\ntimezone = "UTC"\n[grid.trace]\nfile = "trace.csv"\nname = "GB"\n'
    (tmp_path / "cagg.toml").write_text(config, encoding="utf-8")

    def parts(role: str) -> Components:
        environ = {"CAGG_HOME": str(tmp_path / role), "CAGG_STORE": urls[role]}
        settings = load_settings(start=tmp_path, environ=environ)
        meter = Meter(clock=SystemClock(), sources=[], settings=MeterSettings(background=False))
        return compose(settings, meter_factory=lambda: meter)

    with shop.maintainer.transaction() as tx:
        set_budget(tx, budget("whole", 10**12))
    gate = Gate(parts("writer"))
    options = GateOptions(energy="1 Wh", duration="1m", budget="whole")
    identity = RequestIdentity(host="local", root_run_id="r", task_key="nightly")
    decision = gate.ask(Request(identity=identity, options=options, host=HostProfile(name="local")))
    assert isinstance(decision.verdict, Admit), decision.verdict
    with gate.run(decision):
        pass
    report = maintain(parts("maintainer"), hosts={})
    assert (report.sequenced, report.signed_size, report.problems) == (3, 3, ())
    with shop.reader.snapshot() as tx:
        assert [str(entry.kind) for entry in tx.entries()] == ["decision", "measurement", "settlement"]
        assert reservations.audit(tx) == ()


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_gates_and_readers_change_nothing_that_was_recorded(shop: Shop, role: str) -> None:
    with shop.writer.transaction() as tx:
        ask(tx, "a", LEAF, 40)
        append(tx, draft("a"))
    store: PostgresqlStore = getattr(shop, role)
    for statement in CHANGES:
        with pytest.raises(StoreUnavailable, match="lacks a right"), store.transaction() as tx:
            tx.connection.execute(text(statement))  # type: ignore[attr-defined]


def test_a_reader_writes_nothing_and_verifies_everything(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        for number in range(300):
            append(tx, draft(f"k{number}"))
    with shop.maintainer.transaction() as tx:
        signer = MemorySigner(tx.origin())
        assert sequence(tx, 1_000) == 300
        sign_checkpoint(tx, signer)
    with shop.reader.snapshot() as tx:
        report = verify(tx, [str(verifier_key(signer))])
        assert report.failures == ()
        assert report.verified
        assert len(list(tx.entries())) == 300
    for work in (lambda tx: append(tx, draft("z")), lambda tx: ask(tx, "z", LEAF, 1)):
        with pytest.raises(StoreUnavailable, match="lacks a right"), shop.reader.transaction() as tx:
            work(tx)


def test_a_writer_cannot_sequence_and_a_maintainer_cannot_rewrite(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        append(tx, draft("a"))
    with pytest.raises(StoreUnavailable, match="lacks a right"), shop.writer.transaction() as tx:
        sequence(tx)
    for statement in ("UPDATE cagg_leaf SET leaf_index = 7", "DELETE FROM cagg_entry", "TRUNCATE cagg_checkpoint"):
        with pytest.raises(StoreUnavailable, match="lacks a right"), shop.maintainer.transaction() as tx:
            tx.connection.execute(text(statement))  # type: ignore[attr-defined]


def test_even_the_owner_is_kept_from_changing_records_by_mistake(shop: Shop) -> None:
    for table in ("cagg_entry", "cagg_leaf", "cagg_tile", "cagg_checkpoint", "cagg_journal"):
        column = {"cagg_journal": "d_held = 0"}.get(table, "log_id = 1")
        for verb in ("DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET {}"):
            with pytest.raises(StoreUnavailable, match=r"append-only|foreign key"), shop.owner.transaction() as tx:
                tx.connection.execute(text(verb.format(table, column)))  # type: ignore[attr-defined]


def _row(shop: Shop, **changes: Any) -> JournalRow:
    with shop.reader.snapshot() as tx:
        (one,) = tx.allotments(LEAF)
        at = tx.now()
    values = {"request_key": "a", "kind": "amend", "d_held": 0, "d_spent": 0, "d_overrun": 0, "at": at, **changes}
    return JournalRow(allotment_id=one.allotment_id, **values)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"d_held": 21}, "no room"),
    ({"d_held": 1, "kind": "settle"}, "give back more"),
    ({"d_held": -41}, "give back more"),
    ({"d_held": -1, "request_key": "another"}, "give back more"),
    ({"d_spent": -1}, "take back more"),
    ({"d_spent": -1, "kind": "settle", "request_key": "paid"}, "take back more"),
    ({"d_spent": -6, "kind": "late_settle", "request_key": "paid"}, "take back more"),
    ({"d_spent": -1, "kind": "late_settle"}, "take back more"),
    ({"kind": "gift"}, "contradicts"),
]


def test_the_function_refuses_what_no_gate_would_post(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        ask(tx, "a", LEAF, 40)
    with shop.writer.transaction() as tx:
        ask(tx, "paid", LEAF, 5)
        epoch = reservations.start(tx, "paid").lease_epoch
        reservations.settle(tx, "paid", epoch, {Unit.CARBON: 5})
    with pytest.raises(StoreUnavailable, match="give back more"), shop.writer.transaction() as tx:
        tx.post(_row(shop, request_key="paid", d_held=-5))  # its row of holds is still there, to be read
    for changes, why in REFUSED:
        row = _row(shop, **changes)
        with pytest.raises((ReservationConflict, StoreUnavailable), match=why), shop.writer.transaction() as tx:
            tx.post(row)
    with shop.reader.snapshot() as tx:
        assert reservations.audit(tx) == ()


def test_holds_are_what_the_journal_says(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        stored, _ = ask(tx, "a", LEAF, 40)
    assert stored is not None
    more = tuple(replace(hold, amount=hold.amount + 1) for hold in stored.holds)
    for holds in (more, stored.holds[:1], ()):
        with pytest.raises(StoreUnavailable, match="journal"), shop.writer.transaction() as tx:
            tx.put_reservation(replace(stored, holds=holds))
    with shop.reader.snapshot() as tx:
        assert reservations.audit(tx) == ()


def test_a_column_that_a_later_version_adds_is_left_to_its_default(
    shop: Shop, postgres: LocalPostgres, postgres_url: str
) -> None:
    for table in ("cagg_reservation", "cagg_budget"):
        postgres.execute(f"ALTER TABLE {table} ADD COLUMN later integer NOT NULL DEFAULT 7", url=postgres_url)
    with shop.maintainer.transaction() as tx:
        set_budget(tx, budget("later", 60))
    with shop.writer.transaction() as tx:
        assert ask(tx, "a", "later", 40)[0] is not None


def test_a_gate_that_queues_an_entry_again_does_not_stop_the_sequencer(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        entry = append(tx, draft("a"))
    queued = "INSERT INTO cagg_queue (log_id, entry_id, leaf_hash, queued_us) VALUES (1, '{}', '\\x00', 1)"
    for name in (entry.entry_id, "nobody"):
        with pytest.raises(StoreUnavailable, match="breaks one of its rules"), shop.writer.transaction() as tx:
            tx.connection.execute(text(queued.format(name)))  # type: ignore[attr-defined]
    with shop.maintainer.transaction() as tx:
        assert sequence(tx) == 1
    with shop.writer.transaction() as tx:
        tx.connection.execute(text(queued.format(entry.entry_id)))  # type: ignore[attr-defined]
        append(tx, draft("b"))
    with shop.maintainer.transaction() as tx:
        assert [sequence(tx, 1), sequence(tx, 1), tx.queued(), tx.tree_size()] == [1, 0, 0, 2]


def test_what_may_pass_a_limit_is_booked_and_a_refusal_leaves_the_transaction_usable(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        ask(tx, "a", LEAF, 40)
    row = _row(shop, request_key="b", d_held=21, d_overrun=1)
    with shop.writer.transaction() as tx:
        with pytest.raises(ReservationConflict):
            tx.post_all([row])
        tx.post_all([row], allow_over=[row.allotment_id])
    with shop.reader.snapshot() as tx:
        assert [(one.held, one.overrun) for one in tx.allotments(LEAF)] == [(61, 1)]


def test_nobody_opens_a_period_that_overlaps_another(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        ask(tx, "a", LEAF, 40)
        (one,) = tx.allotments(LEAF)
    inside = replace(one.window, start=one.window.start + timedelta(hours=1))
    with pytest.raises(StoreUnavailable, match="overlaps"), shop.writer.transaction() as tx:
        tx.lock_allotments([(one.budget, inside)])


def test_grants_name_each_role_once_and_quote_it(shop: Shop) -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        shop.owner.grants(writer=None, maintainer=None, reader=None)
    with pytest.raises(InvalidInput, match="of its own"):
        shop.owner.grants(writer="x", maintainer="x", reader=None)
    with pytest.raises(InvalidInput, match="63"):
        shop.owner.grants(writer="x" * 64, maintainer=None, reader=None)
    statements = shop.owner.grants(writer='we"ird; DROP', maintainer=None, reader=None)
    assert all('"we""ird; DROP"' in statement for statement in statements)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        shop.owner.apply(statements)


def test_a_role_knows_what_it_is(shop: Shop) -> None:
    roles = {name: getattr(shop, name).facts()["rights"] for name in ("owner", *ROLES)}
    assert roles == {name: name for name in roles}


def test_the_functions_use_no_table_that_a_gate_puts_before_ours(shop: Shop) -> None:
    with shop.writer.transaction() as tx:
        ask(tx, "a", LEAF, 40)
    with shop.writer.transaction() as tx:
        run = tx.connection.exec_driver_sql  # type: ignore[attr-defined]
        run("CREATE TEMP TABLE cagg_allotment (LIKE cagg_allotment) ON COMMIT DROP")
        run("INSERT INTO pg_temp.cagg_allotment SELECT * FROM public.cagg_allotment")
        run("UPDATE pg_temp.cagg_allotment SET held = 0, limit_amount = 9000")
        ((found,),) = run("SELECT cagg_lock_allotments('[]', ARRAY(SELECT allotment_id FROM cagg_allotment))").all()
    assert sorted((row["held"], row["limit_amount"]) for row in found) == [(40, 60), (40, 100)]
