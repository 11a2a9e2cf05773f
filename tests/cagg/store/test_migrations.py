"""The migrations lead to exactly what a fresh store gets."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.exc import IntegrityError

from cagg.errors import StoreUnavailable
from cagg.ledger.entry import append
from cagg.store import tables
from cagg.store._schema import create_schema
from cagg.store.engine import open_store
from cagg.store.migrations import run
from cagg.store.sqlite import SqliteStore
from cagg.testing import ManualClock
from cagg.testing.stores import draft

NEXT = """
revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    from alembic import op
    op.execute("CREATE TABLE cagg_later (x INTEGER)")
"""


def _shape(connection: Connection) -> dict[str, Any]:
    look = inspect(connection)
    shape: dict[str, Any] = {}
    for name in look.get_table_names():
        shape[name] = {
            "columns": [
                (c["name"], str(c["type"]), c["nullable"], c["default"], c["primary_key"])
                for c in look.get_columns(name)
            ],
            "key": look.get_pk_constraint(name)["constrained_columns"],
            "unique": sorted((c["name"] or "", c["column_names"]) for c in look.get_unique_constraints(name)),
            "checks": sorted((c["name"] or "", c["sqltext"]) for c in look.get_check_constraints(name)),
            "foreign": sorted((c["constrained_columns"], c["referred_table"]) for c in look.get_foreign_keys(name)),
            "indexes": sorted((str(i["name"]), i["column_names"], i["unique"]) for i in look.get_indexes(name)),
            "rowid": "WITHOUT ROWID" in _sql(connection, name),
        }
    shape["triggers"] = sorted(
        tuple(row) for row in connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    )
    shape["version"] = [tuple(row) for row in connection.exec_driver_sql("SELECT * FROM cagg_schema_version")]
    return shape


def _sql(connection: Connection, name: str) -> str:
    return str(connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).scalar_one())


def test_migrations_from_nothing_give_what_a_fresh_store_has() -> None:
    shapes = []
    for make in (run.upgrade, create_schema):
        with create_engine("sqlite://").begin() as connection:
            make(connection)
            shapes.append(_shape(connection))
    assert shapes[0] == shapes[1]
    assert len(shapes[0]["triggers"]) == 18
    assert shapes[0]["version"] == [(tables.SCHEMA_VERSION,)]


def test_an_older_store_is_migrated_when_it_is_written_to(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction() as tx:
        append(tx, draft("before"))
    store.close()
    extra = tmp_path / "versions"
    extra.mkdir()
    (extra / "0004_later.py").write_text(NEXT)
    monkeypatch.setattr(run, "_VERSIONS", (*run._VERSIONS, extra))
    monkeypatch.setattr(tables, "SCHEMA_VERSION", "0004")
    newer = open_store(str(store.path), clock=ManualClock())
    with pytest.raises(StoreUnavailable, match="cagg store migrate"), newer.snapshot():
        pass
    with newer.transaction() as tx:
        append(tx, draft("after"))
        assert tx.tree_size() == 2
    newer.close()
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT version_num FROM cagg_schema_version").fetchall() == [("0004",)]
        assert connection.execute("SELECT count(*) FROM cagg_later").fetchall() == [(0,)]
    connection.close()


def test_an_entry_waits_once_and_one_that_has_its_place_is_not_given_another(store: SqliteStore) -> None:
    queued = "INSERT INTO cagg_queue (log_id, entry_id, leaf_hash, queued_us) VALUES (1, '{}', x'00', 1)"
    with store.transaction() as tx:
        entry = append(tx, draft("a"))
        run_sql = tx.connection.exec_driver_sql  # type: ignore[attr-defined]
        run_sql(queued.format(entry.entry_id))
        run_sql(queued.format("other"))
        with pytest.raises(IntegrityError):
            run_sql(queued.format("other"))
        assert [name for name, _ in tx.take_queued(1)] == ["other"]
        assert tx.queued() == 0


def test_an_older_version_without_a_way_up_is_refused(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.transaction():
        pass
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE cagg_schema_version SET version_num = '0000'")
    connection.close()
    with pytest.raises(StoreUnavailable, match="cannot be migrated"), store.transaction():
        pass
