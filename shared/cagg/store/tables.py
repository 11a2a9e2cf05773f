"""Every table of the store, for SQLite and PostgreSQL alike. Migrations only add to what stands here.

Instants are microseconds since 1970-01-01T00:00Z, amounts integers of the unit named in the column, hashes raw
bytes. Columns of ``cagg_entry`` beside ``body`` are a cache: ``verify`` re-derives every one of them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["SCHEMA_VERSION", "metadata"]

SCHEMA_VERSION = "0003"
"""Identifier of the newest migration; stored in ``cagg_schema_version``."""

metadata = MetaData()
"""All tables; migrations are checked against it."""

_id = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit identity that SQLite recognises as its row id."""

schema_version = Table("cagg_schema_version", metadata, Column("version_num", String(32), primary_key=True))

log = Table(
    "cagg_log",
    metadata,
    Column("log_id", Integer, primary_key=True),
    Column("origin", Text, nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

FIRST_LOG = 1
"""Id of a store's first log: before it there is none, in which a key could have been recorded."""

entry = Table(
    "cagg_entry",
    metadata,
    Column("log_id", Integer, ForeignKey("cagg_log.log_id"), primary_key=True),
    Column("entry_id", String(36), primary_key=True),
    Column("idempotency_key", LargeBinary(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("kind", String(24), nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("request_key", Text, nullable=False),
    Column("host", Text),
    Column("root_run_id", Text),
    Column("task_key", Text),
    Column("attempt", Integer),
    Column("budget_path", Text),
    Column("start_us", BigInteger),
    Column("end_us", BigInteger),
    Column("outcome", String(24)),
    Column("energy_millijoules", BigInteger),
    Column("carbon_micrograms", BigInteger),
    Column("grade", String(1)),
    Column("part_of", Text),
    UniqueConstraint("log_id", "idempotency_key", name="cagg_entry_idempotency").ddl_if(dialect="sqlite"),
    UniqueConstraint("idempotency_key", "log_id", name="cagg_entry_idempotency").ddl_if(dialect="postgresql"),
    CheckConstraint("length(body) <= 65535", name="cagg_entry_body_size"),
    Index("cagg_entry_request", "request_key"),
    Index("cagg_entry_task", "task_key", "kind", "recorded_us"),
)

queue = Table(
    "cagg_queue",
    metadata,
    Column("queue_id", _id, Identity(always=True), primary_key=True),
    Column("log_id", Integer, nullable=False),
    Column("entry_id", String(36), nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("queued_us", BigInteger, nullable=False),
    Index("cagg_queue_entry", "log_id", "entry_id", unique=True),
    # SQLite cannot add one to the files of version 0001, and has the two rows written in one transaction anyway
    ForeignKeyConstraint(
        ["log_id", "entry_id"], ["cagg_entry.log_id", "cagg_entry.entry_id"], name="cagg_queue_of_entry"
    ).ddl_if(dialect="postgresql"),
)

leaf = Table(
    "cagg_leaf",
    metadata,
    Column("log_id", Integer, primary_key=True),
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
    Column("entry_id", String(36), nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    UniqueConstraint("log_id", "entry_id", name="cagg_leaf_entry"),
    sqlite_with_rowid=False,
)

tile = Table(
    "cagg_tile",
    metadata,
    Column("log_id", Integer, primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
)

checkpoint = Table(
    "cagg_checkpoint",
    metadata,
    Column("log_id", Integer, primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("note", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

private = Table(
    "cagg_private",
    metadata,
    Column("log_id", Integer, primary_key=True),
    Column("entry_id", String(36), primary_key=True),
    Column("field", String(63), primary_key=True),
    Column("salt", LargeBinary(32), nullable=False),
    Column("value", Text, nullable=False),
    ForeignKeyConstraint(
        ["log_id", "entry_id"], ["cagg_entry.log_id", "cagg_entry.entry_id"], name="cagg_private_of_entry"
    ).ddl_if(dialect="postgresql"),
)
"""The only rows of the ledger that may be deleted: what entries hold salted commitments to."""

blob = Table(
    "cagg_blob",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

budget = Table(
    "cagg_budget",
    metadata,
    Column("path", Text, primary_key=True),
    Column("unit", String(16), primary_key=True),
    Column("period", String(16), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("time_zone", Text, nullable=False),
    Column("limit_amount", BigInteger, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("unknown_intensity_milligrams_per_kwh", BigInteger),
    Column("created_us", BigInteger, nullable=False),
)

allotment = Table(
    "cagg_allotment",
    metadata,
    Column("allotment_id", _id, Identity(always=True), primary_key=True),
    Column("path", Text, nullable=False),
    Column("unit", String(16), nullable=False),
    Column("period", String(16), nullable=False),
    Column("starts_us", BigInteger, nullable=False),
    Column("ends_us", BigInteger, nullable=False),
    Column("limit_amount", BigInteger, nullable=False),
    Column("extra", BigInteger, nullable=False, default=0),
    Column("held", BigInteger, nullable=False, default=0),
    Column("spent", BigInteger, nullable=False, default=0),
    Column("overrun", BigInteger, nullable=False, default=0),
    UniqueConstraint("path", "unit", "period", "starts_us", name="cagg_allotment_period"),
    CheckConstraint("held >= 0", name="cagg_allotment_held"),
    CheckConstraint("spent >= 0", name="cagg_allotment_spent"),
)

reservation = Table(
    "cagg_reservation",
    metadata,
    Column("request_key", String(64), primary_key=True),
    Column("series_key", String(64), nullable=False),
    Column("host", Text, nullable=False),
    Column("root_run_id", Text, nullable=False),
    Column("task_key", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("budget_path", Text),
    Column("state", String(16), nullable=False),
    Column("first_asked_us", BigInteger, nullable=False),
    Column("deadline_us", BigInteger),
    Column("asks", Integer, nullable=False),
    Column("deferrals", Integer, nullable=False),
    Column("planning_intensity_milligrams_per_kwh", BigInteger),
    Column("planning_basis", Text, nullable=False),
    Column("planned_start_us", BigInteger, nullable=False),
    Column("upper_energy_millijoules", BigInteger, nullable=False),
    Column("lease_until_us", BigInteger),
    Column("lease_epoch", Integer, nullable=False),
    Column("last_beat_us", BigInteger),
    Column("started_us", BigInteger),
    Column("used_energy_millijoules", BigInteger, nullable=False),
    Column("last_power_milliwatts", BigInteger, nullable=False),
    Column("encloses_run", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("run_reference", Text),
    Index("cagg_reservation_series", "series_key"),
    Index("cagg_reservation_run", "host", "root_run_id"),
    Index("cagg_reservation_state", "state", "lease_until_us"),
)

hold = Table(
    "cagg_hold",
    metadata,
    Column("request_key", String(64), ForeignKey("cagg_reservation.request_key"), primary_key=True),
    Column("allotment_id", BigInteger, ForeignKey("cagg_allotment.allotment_id"), primary_key=True),
    Column("unit", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
)

journal = Table(
    "cagg_journal",
    metadata,
    Column("journal_id", _id, Identity(always=True), primary_key=True),
    Column("allotment_id", BigInteger, ForeignKey("cagg_allotment.allotment_id"), nullable=False),
    Column("request_key", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("d_held", BigInteger, nullable=False),
    Column("d_spent", BigInteger, nullable=False),
    Column("d_overrun", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("cagg_journal_allotment", "allotment_id"),
    Index("cagg_journal_request", "request_key"),
)

forecast = Table(
    "cagg_forecast",
    metadata,
    Column("forecast_id", _id, Identity(always=True), primary_key=True),
    Column("provider", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("convention", Text, nullable=False),
    Column("fetched_us", BigInteger, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("cagg_forecast_zone", "provider", "zone", "fetched_us"),
)
