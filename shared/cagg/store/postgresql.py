"""The store in PostgreSQL: for many machines, behind PgBouncer too, with rights that keep gates off the counters.

Each transaction says everything it needs within itself (isolation, timeouts, schema), so any server connection will
do: no session state, no prepared statements, only locks that end with the transaction.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from cagg.clock import SystemClock
from cagg.errors import CaggError, ConfigurationError, InvalidInput, MissingExtra, StoreOutcomeUnknown, StoreUnavailable
from cagg.ports import Clock, Transaction
from cagg.store import tables as t
from cagg.store._addresses import PostgresAddress
from cagg.store._forks import leave_to_the_parent, watch_forks
from cagg.store._grants import facts_of, grant_statements
from cagg.store._instants import from_us
from cagg.store._postgresql_errors import explained, unreachable
from cagg.store._postgresql_values import one_row, raw_of
from cagg.store._schema import create_schema, ensure_log, stored_version, version_gap
from cagg.store.migrations.functions_0002 import KEY_SPACE
from cagg.store.migrations.functions_0003 import WRITERS
from cagg.store.postgresql_rows import PostgresqlSnapshot, PostgresqlTransaction

if TYPE_CHECKING:
    from psycopg import Connection as RawConnection

__all__ = ["DEFAULT_POOL", "PostgresqlStore"]

DEFAULT_POOL = 1
"""Idle connections a process keeps where the address says nothing. Own choice: one, so that the two or three
transactions of an ask do not connect anew each time (a handshake costs some 10 ms); ``?pool=0`` keeps none."""

_CONNECT_SECONDS = 10
_RECYCLE_SECONDS = 300
"""An idle connection older than this is replaced: firewalls forget silent ones."""
_STATEMENT_SECONDS = 60
_READ_STATEMENT_SECONDS = 600
"""Verifying a large ledger counts all of its rows in one statement."""
_IDLE_SECONDS = 60
"""A transaction that stands still this long holds locks for nobody: its process was stopped, or lost its network."""
_READ_IDLE_SECONDS = 900
_OLDEST_SERVER = 130_000
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_HEAD = (
    f"SELECT {_NOW}, (SELECT min(v.version_num) FROM cagg_schema_version v HAVING count(*) = 1), "  # noqa: S608
    "l.log_id, l.origin FROM cagg_log l ORDER BY l.state = 'active' DESC, l.log_id DESC LIMIT 1"
)
_WRITE = f"SELECT pg_advisory_xact_lock_shared({WRITERS}); "
"""Before the head, so that what the head reads of the logs stays true until the transaction ends."""
_UNDEFINED_TABLE = "42P01"


class PostgresqlStore:
    """Implements :class:`cagg.ports.Store`; use it through :func:`cagg.store.engine.open_store`.

    May be shared by threads and survives a fork: the child connects anew and never speaks on the parent's sockets.

    Attributes:
        url: the address without its password.
    """

    def __init__(self, *, url: str, clock: Clock, origin: str | None, lock_timeout_seconds: float) -> None:
        if origin is not None and (not origin or any(c.isspace() or c == "+" for c in origin)):
            raise ConfigurationError(f"the log name {origin!r} must not be empty or hold spaces or '+'.")
        self._address = PostgresAddress.parse(url, pool=DEFAULT_POOL)
        self.url = self._address.shown
        self._clock = clock
        self._new_origin = origin
        self._lock_ms = max(1, round(lock_timeout_seconds * 1_000))
        self._open = threading.local()
        self._guard = threading.Lock()
        self._engine_or_none: Engine | None = None
        self._errors: tuple[type[Exception], ...] = (SQLAlchemyError,)
        self._raws: weakref.WeakSet[Any] = weakref.WeakSet()
        watch_forks(self)

    # ---- transactions -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A writing transaction; commits at the end of the block, rolls back on an exception.

        Raises:
            StoreBusy, StoreOutcomeUnknown: a lock was not given in time; the answer to the commit was lost.
            StoreUnavailable: the server cannot be reached or has not been migrated, or it refused a statement.
            InvalidInput: this thread already has a transaction of this store.
        """
        if getattr(self._open, "writing", False):
            raise InvalidInput(
                "this thread already has a transaction of the store; pass its tx down instead of opening another."
            )
        begin = self._begin(
            "READ COMMITTED", lock_ms=self._lock_ms, statement_seconds=_STATEMENT_SECONDS, idle_seconds=_IDLE_SECONDS
        )
        self._open.writing = True
        try:
            with self._held(begin + _WRITE) as (connection, (now, log_id, origin)):
                yield PostgresqlTransaction(connection=connection, now=now, log_id=log_id, origin=origin)
                self._commit(connection)
        finally:
            self._open.writing = False

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """A reading transaction: one consistent state, no lock on any row; writers go on meanwhile.

        Raises:
            StoreUnavailable: as :meth:`transaction`.
        """
        begin = self._begin(
            "REPEATABLE READ READ ONLY",
            lock_ms=self._lock_ms,
            statement_seconds=_READ_STATEMENT_SECONDS,
            idle_seconds=_READ_IDLE_SECONDS,
        )
        with self._held(begin) as (connection, (now, log_id, origin)):
            yield PostgresqlSnapshot(connection=connection, now=now, log_id=log_id, origin=origin)

    def _begin(self, isolation: str, *, lock_ms: int, statement_seconds: int, idle_seconds: int) -> str:
        """What starts a transaction, in one round trip; all of it ends with the transaction."""
        path = "" if self._address.schema is None else f'SET LOCAL search_path = "{self._address.schema}"; '
        return (
            f"BEGIN ISOLATION LEVEL {isolation}; "
            f"SET LOCAL lock_timeout = {lock_ms}; SET LOCAL statement_timeout = {statement_seconds * 1_000}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {idle_seconds * 1_000}; {path}"
        )

    @contextlib.contextmanager
    def _held(self, begin: str) -> Iterator[tuple[Connection, tuple[datetime, int, str]]]:
        """A connection with an open transaction, rolled back unless the block commits it."""
        process = os.getpid()
        with self._border():
            connection, head = self._begun(begin)
            try:
                yield connection, head
                if os.getpid() != process:
                    raise StoreUnavailable(
                        "the process was forked inside a store transaction; open transactions after the fork."
                    )
            finally:
                if os.getpid() == process:
                    self._give_back(connection)
                else:
                    leave_to_the_parent(connection)

    def _begun(self, begin: str) -> tuple[Connection, tuple[datetime, int, str]]:
        """Begin; once more on a new connection where a kept one turns out to be dead, because nothing was done yet."""
        for attempt in (1, 2):
            connection = self._engine().connect()
            try:
                return connection, self._head(raw_of(connection).execute(begin + _HEAD))
            except CaggError:
                self._give_back(connection)
                raise
            except self._errors as error:
                self._give_back(connection)
                if getattr(error, "sqlstate", None) == _UNDEFINED_TABLE:
                    raise self._unmigrated(None) from error
                if attempt == 2 or not unreachable(error):
                    raise
                self.close()
        raise AssertionError("unreachable")  # pragma: no cover

    def _head(self, cursor: Any) -> tuple[datetime, int, str]:
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        cursor.close()
        if row is None:
            raise StoreUnavailable(f"the store {self.url} has lost its ledger's name; restore a backup.")
        now_us, version, log_id, origin = row
        if version is None:
            raise StoreUnavailable(f"the store {self.url} does not say which version it has; restore a backup.")
        if version_gap(version, self.url) < 0:
            raise self._unmigrated(version)
        return self._now(now_us), log_id, origin

    def _now(self, database_us: int) -> datetime:
        """The database's clock, the same for all machines; a clock that was made for a test comes first."""
        return from_us(database_us) if isinstance(self._clock, SystemClock) else self._clock.now()

    def _unmigrated(self, version: str | None) -> StoreUnavailable:
        what = "has no tables of cagg yet" if version is None else f"has version {version}"
        return StoreUnavailable(
            f"the store {self.url} {what} and this program needs {t.SCHEMA_VERSION}; run 'cagg store migrate'."
        )

    def _commit(self, connection: Connection) -> None:
        raw = raw_of(connection)
        try:
            said = raw.execute("COMMIT").statusmessage
        except self._errors as error:
            if unreachable(error):
                raise StoreOutcomeUnknown(
                    f"the store {self.url} was lost while it committed, so this change was kept or not; repeat it: "
                    "what was kept is not done twice."
                ) from error
            raise
        if said != "COMMIT":
            raise StoreUnavailable(
                f"the store {self.url} kept nothing of this transaction, because one of its statements had failed; "
                "look at the first error and try again."
            )

    def _give_back(self, connection: Connection) -> None:
        """Return a connection; what is still open on it is rolled back, and one that cannot even do that goes."""
        try:
            raw = raw_of(connection)
            if raw.closed:
                connection.invalidate()
            else:
                raw.rollback()
            connection.close()
        except self._errors:
            with contextlib.suppress(*self._errors):
                connection.invalidate()
            with contextlib.suppress(*self._errors):
                connection.close()

    @contextlib.contextmanager
    def _border(self) -> Iterator[None]:
        """Nothing of the driver leaves the store: callers see StoreUnavailable with a remedy."""
        self._driver()
        try:
            yield
        except self._errors as error:
            raise explained(self.url, error) from error

    # ---- connections --------------------------------------------------------------------------------------------

    def _driver(self) -> Any:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra(
                f"a PostgreSQL store needs psycopg ({error}); run: pip install 'cagg[postgres]'."
            ) from None
        self._errors = (SQLAlchemyError, psycopg.Error)
        return psycopg

    def _engine(self) -> Engine:
        with self._guard:
            if self._engine_or_none is None:
                pool: dict[str, Any] = {"poolclass": NullPool}
                if self._address.pool:
                    pool = {
                        "poolclass": QueuePool,
                        "pool_size": self._address.pool,
                        "max_overflow": -1,
                        "pool_use_lifo": True,
                        "pool_recycle": _RECYCLE_SECONDS,
                    }
                self._engine_or_none = create_engine(
                    "postgresql+psycopg://", creator=self._connect, use_native_hstore=False, **pool
                )
            return self._engine_or_none

    def _connect(self) -> RawConnection[Any]:
        defaults: dict[str, Any] = {
            "connect_timeout": _CONNECT_SECONDS,
            "application_name": "cagg",
            "client_encoding": "utf8",
        }
        given = {name: value for name, value in defaults.items() if name not in self._address.options}
        # transactions are begun in words of our own, and a pooler's server connections know no prepared statements
        driver = self._driver()
        try:
            raw = driver.connect(self._address.conninfo, autocommit=True, prepare_threshold=None, **given)
        except driver.ProgrammingError:  # quotes a part of the address, which may be of the password
            raise ConfigurationError(
                f"the store address {self.url!r} cannot be read; percent-encode what is special in it."
            ) from None
        self._raws.add(raw)
        return raw  # type: ignore[no-any-return]

    def rest(self) -> None:
        """Close idle connections: thousands of long tasks with one each would use up the server's."""
        self.close()

    def close(self) -> None:
        """Close idle connections; the store may be used again and connects anew."""
        with self._guard:
            engine, self._engine_or_none = self._engine_or_none, None
        if engine is not None:
            with contextlib.suppress(*self._errors):
                engine.dispose()

    # ---- the schema ---------------------------------------------------------------------------------------------

    def migrate(self) -> bool:
        """Create the tables, or bring them to this program's version; returns True when they were created.

        Raises:
            StoreUnavailable: the server cannot be reached, is too old, keeps another encoding than UTF8, or this role
                may not create tables.
        """
        with self._administered() as connection:
            raw = raw_of(connection)
            version_number, encoding = one_row(
                raw, "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')"
            )
            if version_number < _OLDEST_SERVER:
                raise StoreUnavailable(
                    f"the store {self.url} runs PostgreSQL {version_number // 10_000}; use 13 or newer."
                )
            if encoding != "UTF8":
                raise StoreUnavailable(
                    f"the store {self.url} keeps text as {encoding}; make the database with the encoding UTF8."
                )
            if self._address.schema is not None:
                raw.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._address.schema}"')
            version = stored_version(connection, self.url)
            if version is None:
                create_schema(connection)
            elif version_gap(version, self.url) < 0:
                from cagg.store.migrations.run import upgrade  # heavy, and only needed for an older store

                upgrade(connection)
            ensure_log(connection, origin=self._new_origin, now=self._now(one_row(raw, f"SELECT {_NOW}")[0]))
        return version is None

    def dump_command(self, file: str) -> str:
        """Return the command that backs the database up to a file."""
        return self._address.dump_command(file)

    def version(self) -> str | None:
        """The version of the stored schema; None before the first migration."""
        with self._administered() as connection:
            return stored_version(connection, self.url)

    def facts(self) -> Mapping[str, str | int | bool]:
        """Server version, database, schema, role, size in bytes and what the role may do, for people."""
        with self._administered() as connection:
            return facts_of(connection)

    def grants(self, *, writer: str | None, maintainer: str | None, reader: str | None) -> list[str]:
        """Return the statements that give roles exactly the rights that their work needs; applies nothing.

        Raises:
            InvalidInput: no role, or one role for two kinds of work.
        """
        with self._administered() as connection:
            schema = str(one_row(raw_of(connection), "SELECT quote_ident(current_schema())")[0])
        return grant_statements(schema, writer=writer, maintainer=maintainer, reader=reader)

    def apply(self, statements: list[str]) -> None:
        """Execute statements of :meth:`grants`, all or none."""
        with self._administered() as connection:
            for statement in statements:
                raw_of(connection).execute(statement)

    @contextlib.contextmanager
    def _administered(self) -> Iterator[Connection]:
        """A transaction on the schema itself; one at a time, so that two migrations do not meet."""
        begin = self._begin("READ COMMITTED", lock_ms=self._lock_ms, statement_seconds=600, idle_seconds=600)
        with self._border():
            connection = self._engine().connect()
            try:
                with connection.begin():
                    raw_of(connection).execute(f"{begin}SELECT pg_advisory_xact_lock({KEY_SPACE}, 0)")
                    yield connection
                    self._commit(connection)
            finally:
                self._give_back(connection)

    # ---- forks --------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Nothing has to wait: a connection is only ever used by the process that made it."""

    def after_fork_in_parent(self) -> None:
        """Go on as before."""

    def after_fork_in_child(self) -> None:
        """Start anew, and see to it that nothing can be said on a socket that belongs to the parent."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for raw in list(self._raws):
            with contextlib.suppress(OSError, *self._errors):
                os.dup2(nowhere, raw.fileno(), inheritable=False)
            leave_to_the_parent(raw)
        os.close(nowhere)
        if self._engine_or_none is not None:
            leave_to_the_parent(self._engine_or_none)
        self._engine_or_none = None
        self._raws = weakref.WeakSet()
        self._guard = threading.Lock()
        self._open = threading.local()
