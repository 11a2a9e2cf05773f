"""The store in one SQLite file: write-ahead log, flushed commits, fair writers, readers that create nothing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, RootTransaction, create_engine
from sqlalchemy.pool import NullPool

from cagg.errors import ConfigurationError, InvalidInput, StoreUnavailable
from cagg.folders import private_file, private_folder
from cagg.masking import looks_like_an_address, masked
from cagg.ports import Clock, Transaction
from cagg.store import tables as t
from cagg.store._backup import back_up, check_target
from cagg.store._errors import DATABASE_ERRORS, OPENING_ERRORS, unavailable
from cagg.store._flock import WriterLock
from cagg.store._forks import Readers, inherited, leave_to_the_parent, refuse_in_this_process, watch_forks
from cagg.store._opening import Opening, file_identity, incomplete_copy, look, missing_store, stamp_of
from cagg.store._schema import create_schema, ensure_log, stored_version, version_gap
from cagg.store.transaction import SqlTransaction

__all__ = ["CreateMode", "SqliteStore", "path_of_url"]

_BUSY_TIMEOUT_MS = 5_000
"""For programs that write to the file without taking the lock file, such as the sqlite3 shell."""
_CHECKPOINT_PAGES = 4_000
"""The write-ahead log is copied back every 16 MB: a commit touches about ten pages, and copying costs two flushes."""
_LOG = "SELECT log_id, origin FROM cagg_log ORDER BY state = 'active' DESC, log_id DESC LIMIT 1"
_VERSION = "SELECT version_num FROM cagg_schema_version"


class CreateMode(StrEnum):
    """What a writing transaction does about a missing file."""

    IF_MISSING = "if_missing"
    """create it and its folder"""
    NEVER = "never"
    """refuse"""


def path_of_url(url: str) -> Path:
    """Return the absolute path of a SQLite address.

    Raises:
        ConfigurationError: the address is empty, in memory, has options, or belongs to another database.
    """
    scheme, separator, rest = url.partition("://")
    if separator:
        if scheme.lower() not in {"sqlite", "sqlite+pysqlite"} or not rest.startswith("/"):
            raise ConfigurationError(
                f"the store address {scheme + '://…'!r} is unknown; use 'sqlite:////absolute/path' or a plain path."
            )
        if "?" in rest:
            raise ConfigurationError(f"the store address {masked(url)!r} has options after '?'; leave them out.")
        rest = rest[1:]
    else:
        if looks_like_an_address(url):  # its password would become the name of a file
            raise ConfigurationError(
                f"the store address {masked(url)!r} is neither a path nor an address; write two slashes behind the "
                "colon, as in 'postgresql://user@host:5432/database', or begin a path with './'."
            )
        rest = url
    if not rest.strip() or rest.startswith(":memory:") or "\x00" in rest:
        raise ConfigurationError(f"the store address {url!r} names no file; use 'sqlite:////absolute/path'.")
    path = Path(rest) if separator else Path(rest).expanduser()
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, abspath names what was said


class SqliteStore:
    """Implements :class:`cagg.ports.Store`; use it through :func:`cagg.store.engine.open_store`.

    May be shared by threads, which take turns as writers, and survives a fork: the child opens the file anew.

    Attributes:
        url: the address.
        path: the file.
    """

    def __init__(
        self, *, path: Path, clock: Clock, create: CreateMode, origin: str | None, lock_timeout_seconds: float
    ) -> None:
        if origin is not None and (not origin or any(c.isspace() or c == "+" for c in origin)):
            raise ConfigurationError(f"the log name {origin!r} must not be empty or hold spaces or '+'.")
        self.url = f"sqlite:///{path}"
        self.path = path
        self._clock = clock
        self._create = create
        self._new_origin = origin
        self._lock = WriterLock(f"{path}.lock", clock=clock, timeout_seconds=lock_timeout_seconds)
        self._readers = Readers()
        self._lock_timeout_seconds = lock_timeout_seconds
        self._open = threading.local()
        self._engines: dict[str, Engine] = {}
        self._writer: Connection | None = None
        self._identity: tuple[int, int] | None = None
        watch_forks(self)

    # ---- writing ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A writing transaction; commits at the end of the block, rolls back on an exception.

        Raises:
            StoreBusy: another writer holds the file too long; nothing was kept.
            StoreUnavailable: the file cannot be opened, created or written.
            InvalidInput: this thread already has a transaction of this store.
        """
        if getattr(self._open, "writing", False):
            raise InvalidInput(
                "this thread already has a transaction of the store; pass its tx down instead of opening another."
            )
        process = os.getpid()
        with self._border(OPENING_ERRORS):
            self._prepare_folder()
            self._lock.acquire()
        self._open.writing = True
        try:
            with self._border(OPENING_ERRORS):
                connection = self._connected_writer()
            with self._border(DATABASE_ERRORS):
                outer = connection.begin()
                try:
                    _raw(connection).execute("BEGIN IMMEDIATE")
                    yield self._over(connection)
                    if os.getpid() != process:
                        raise StoreUnavailable(
                            "the process was forked inside a store transaction; open transactions after the fork."
                        )
                    outer.commit()
                except BaseException:
                    if os.getpid() == process:
                        self._abandon(outer)
                    raise
        finally:
            self._open.writing = False
            if os.getpid() == process:
                self._lock.release()

    def _abandon(self, outer: RootTransaction) -> None:
        """Roll back; a connection that cannot even do that is thrown away."""
        try:
            outer.rollback()
        except DATABASE_ERRORS:
            self._drop_writer()

    def _prepare_folder(self) -> None:
        identity = file_identity(self.path)
        if identity is not None:
            self._refuse_inherited(identity)
            return
        if self._create is CreateMode.NEVER:
            raise missing_store(self.path)
        private_folder(self.path.parent)

    def _connected_writer(self) -> Connection:
        """Return the process's one writing connection; the lock is held, so nobody else uses it."""
        identity = file_identity(self.path)
        if self._writer is not None and identity is not None and identity == self._identity:
            return self._writer
        self._drop_writer()
        if identity is None and self._create is CreateMode.IF_MISSING:
            private_file(self.path)  # it holds personal values; SQLite gives -wal and -shm the same rights
        engine = self._engine("rw" if self._create is CreateMode.NEVER else "rwc")
        connection = engine.connect()
        try:
            raw = _raw(connection)
            mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if str(mode).lower() != "wal":
                raise StoreUnavailable(
                    f"the store {self.path} cannot keep a write-ahead log on this file system; put it on a local disk."
                )
            raw.execute("PRAGMA synchronous=FULL")
            raw.execute("PRAGMA foreign_keys=ON")
            raw.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            self._bring_up_to_date(connection)
        except BaseException:
            connection.close()
            raise
        self._writer = connection
        self._identity = file_identity(self.path)
        return connection

    def _bring_up_to_date(self, connection: Connection) -> None:
        place = str(self.path)
        with connection.begin():
            _raw(connection).execute("BEGIN IMMEDIATE")
            version = stored_version(connection, place)
            if version is None:
                create_schema(connection)
            elif version_gap(version, place) < 0:
                from cagg.store.migrations.run import upgrade  # heavy, and only needed for a store of an older version

                upgrade(connection)
            ensure_log(connection, origin=self._new_origin, now=self._clock.now())

    # ---- reading ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """A reading transaction: one consistent state; writers go on meanwhile.

        Raises:
            StoreUnavailable: the file is missing, unreadable, no database of ours, an incomplete copy, or of a
                version that this program does not know; a file on read-only media that changed while it was read.
        """
        process = os.getpid()
        self._readers.enter()
        try:
            with self._border(OPENING_ERRORS):
                opening = look(self.path)
                self._refuse_inherited(file_identity(self.path))
                connection = self._engine(opening.mode, query=opening.query).connect()
            with self._border(DATABASE_ERRORS):
                try:
                    yield self._begun(connection, opening)
                    if os.getpid() != process:
                        raise StoreUnavailable(
                            "the process was forked inside a store snapshot; open snapshots after the fork."
                        )
                    if opening.query and stamp_of(self.path) != opening.stamp:
                        raise StoreUnavailable(f"the store {self.path} changed while it was read; repeat the reading.")
                finally:
                    if os.getpid() != process:
                        leave_to_the_parent(connection)
                    else:
                        with contextlib.suppress(*DATABASE_ERRORS):
                            connection.close()
        finally:
            if os.getpid() == process:
                self._readers.leave()

    def _begun(self, connection: Connection, opening: Opening) -> SqlTransaction:
        """Begin reading; the transaction ends when the connection is closed."""
        raw = _raw(connection)
        try:
            raw.execute("PRAGMA query_only=ON")
            raw.execute("BEGIN")
            self._check_version(connection)
            return self._over(connection)
        except DATABASE_ERRORS as error:
            cut = incomplete_copy(self.path, opening, raw, error)
            if cut is None:
                raise
            raise cut from error

    def _check_version(self, connection: Connection) -> None:
        try:
            rows = _raw(connection).execute(_VERSION).fetchall()
        except sqlite3.OperationalError:
            rows = []
        version = str(rows[0][0]) if len(rows) == 1 else stored_version(connection, str(self.path))
        if version is None:
            raise StoreUnavailable(f"the store {self.path} is an empty database; let a gate fill it, or name another.")
        if version_gap(version, str(self.path)) < 0:
            raise StoreUnavailable(
                f"the store {self.path} has version {version} and this program needs {t.SCHEMA_VERSION}; "
                "run 'cagg store migrate'."
            )

    def migrate(self) -> bool:
        """Create the file, or bring it to this program's version; returns True when it was created.

        Raises:
            StoreUnavailable: as :meth:`transaction`.
        """
        created = not self.path.exists()
        with self.transaction():  # each writing transaction does
            return created

    def backup(self, target: Path) -> int:
        """Copy the store, in one consistent state while others write, to a new file; returns the copy's bytes.

        Raises:
            InvalidInput: the target exists, or is the store itself or beside it.
            StoreUnavailable: the store cannot be read, or the copy not be written.
        """
        check_target(self.path, target)
        with self.snapshot() as tx, self._border(OPENING_ERRORS, place=target):
            return back_up(_raw(tx.connection), target)  # type: ignore[attr-defined]

    # ---- common -------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Nothing: an open file costs nobody else anything."""

    def close(self) -> None:
        """Release the connection and the lock file; the store may be used again and opens them anew."""
        self._drop_writer()
        self._lock.close()

    @contextlib.contextmanager
    def _border(self, errors: tuple[type[Exception], ...], *, place: Path | None = None) -> Iterator[None]:
        """Nothing of the driver leaves the store: callers see StoreUnavailable with a remedy."""
        try:
            yield
        except errors as error:
            raise unavailable(str(place or self.path), error) from error

    def _engine(self, mode: str, *, query: str = "") -> Engine:
        address = f"file:{quote(str(self.path))}?mode={mode}{query}"
        if address in self._engines:
            return self._engines[address]

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(
                address,
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=_BUSY_TIMEOUT_MS / 1_000,
            )
            connection.text_factory = _text
            return connection

        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
        return self._engines.setdefault(address, engine)

    def _over(self, connection: Connection) -> SqlTransaction:
        log_id, origin = self._read_log(connection)
        return SqlTransaction(
            connection=connection, now=self._clock.now(), log_id=log_id, origin=origin, sequences_inline=True
        )

    def _read_log(self, connection: Connection) -> tuple[int, str]:
        row = _raw(connection).execute(_LOG).fetchone()
        if row is None:
            raise StoreUnavailable(f"the store {self.path} has lost its ledger's name; restore a backup.")
        return int(row[0]), str(row[1])

    def _refuse_inherited(self, identity: tuple[int, int] | None) -> None:
        if inherited(identity):
            raise StoreUnavailable(
                f"the store {self.path} was in use when this process was forked, so SQLite cannot lock it here; "
                "fork outside of store transactions, or start the process with 'spawn'."
            )

    def _drop_writer(self) -> None:
        writer, self._writer, self._identity = self._writer, None, None
        if writer is not None:
            with contextlib.suppress(*DATABASE_ERRORS):
                writer.close()

    # ---- forks --------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Let transactions and snapshots end and close the connection, so that the child inherits nothing of SQLite's.

        A fork inside this thread's own transaction or snapshot goes on; the child is then refused the file.
        """
        self._open.forking = True
        self._open.paused = not getattr(self._open, "writing", False) and self._lock.pause()
        if self._open.paused:
            self._drop_writer()
        self._open.clean = self._readers.pause(self._lock_timeout_seconds) and self._writer is None

    def after_fork_in_parent(self) -> None:
        """Go on; a store that another thread made meanwhile was not held back."""
        if getattr(self._open, "forking", False):
            self._open.forking = False
            self._readers.resume()
            if self._open.paused:
                self._lock.resume()

    def after_fork_in_child(self) -> None:
        """Start anew: SQLite forbids using, and even closing, a connection of the parent."""
        identity = self._identity or file_identity(self.path)
        if not getattr(self._open, "clean", False) and identity is not None:
            refuse_in_this_process(identity)
        if self._writer is not None:
            leave_to_the_parent(self._writer)
        self._writer, self._identity = None, None
        self._open = threading.local()
        self._readers = Readers()
        self._lock.forget()


def _raw(connection: Connection) -> sqlite3.Connection:
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - narrows the type
    return raw


def _text(data: bytes) -> str:
    """Read text that was tampered with as something else than what was written, instead of failing to read it."""
    return data.decode("utf-8", "surrogateescape")
