"""What goes wrong with a server: addresses, versions, lost connections, forks, locks; and what people then read."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from cagg.clock import SystemClock
from cagg.errors import ConfigurationError, MissingExtra, StoreBusy, StoreOutcomeUnknown, StoreUnavailable
from cagg.ledger.entry import append
from cagg.ledger.sequencer import sequence
from cagg.store import engine, tables
from cagg.store._addresses import PostgresAddress
from cagg.store._postgresql_errors import explained
from cagg.store.engine import masked, open_store
from cagg.store.postgresql import PostgresqlStore
from cagg.testing import ManualClock
from cagg.testing.postgresql import LocalPostgres
from cagg.testing.stores import draft

SECRET = "s3cr3t"


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresqlStore]:
    opened = open_store(postgres_url, clock=SystemClock())
    assert isinstance(opened, PostgresqlStore)
    yield opened
    opened.close()


def _password(url: str) -> str:
    return url.split(":")[2].split("@")[0]


# ---- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{SECRET}@h:5/d", "postgresql://u:***@h:5/d"),
        (f"postgres://u:{SECRET}%2F%40{SECRET}@h/d", "postgres://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql:///d?host=/tmp", "postgresql:///d?host=/tmp"),
        (f"postgresql://h/d?user=u&password={SECRET}", "postgresql://h/d?user=u&password=***"),
        (f"postgresql://h/d?PASSWORD={SECRET}&sslpassword={SECRET}", "postgresql://h/d?PASSWORD=***&sslpassword=***"),
        (f"postgresql://u:{SECRET}@h1:1,h2:2/d", "postgresql://u:***@h1:1,h2:2/d"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert SECRET not in repr(PostgresAddress.parse(url, pool=1))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://bob:pa?{SECRET}@host/db", "postgresql://bob:***@host/db"),
        (f"postgresql://bob:p?{SECRET}=w@host/db", "postgresql://bob:***@host/db"),
        (f"postgresql://bob:p?schema={SECRET}@host/db", "postgresql://bob:***@host/db"),
        (f"postgresql://bob:p@{SECRET}@host/db?password={SECRET}", "postgresql://bob:***@host/db?password=***"),
        (f"postgresql://host/db?password=p@{SECRET}", "postgresql://host/db?password=***"),
        (f"postgresql://host:5432/db?password=p@{SECRET}", "postgresql://host:***"),
        (f"postgresql://host/db?pass%77ord={SECRET}:p@{SECRET}", "postgresql://host/db?pass%77ord=***:***"),
    ],
)
def test_a_password_that_is_not_encoded_is_not_shown_and_the_address_refused(url: str, shown: str) -> None:
    assert masked(url) == shown
    with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
        PostgresAddress.parse(url, pool=1)
    assert SECRET not in str(caught.value)
    if "?" in url.rpartition("@")[0]:
        with pytest.raises(ConfigurationError, match=r"'\?' before its '@'"):
            open_store(url, clock=SystemClock())


def test_what_a_server_says_is_repeated_without_passwords() -> None:
    import psycopg

    said = f'could not use "postgresql://bob:p/{SECRET}?a@host/db" with password={SECRET}'
    assert SECRET not in str(explained("here", psycopg.OperationalError(said)))


@pytest.mark.parametrize("state", ["55P03", "40P01", "40001", "57014"])
def test_what_another_attempt_may_get_past_is_told_apart(state: str) -> None:
    import psycopg

    busy = explained("here", psycopg.errors.lookup(state)("no"))
    assert isinstance(busy, StoreBusy)
    assert not isinstance(explained("here", psycopg.errors.lookup("42501")("no")), StoreBusy)


def test_what_is_ours_in_an_address_is_not_given_to_the_driver() -> None:
    address = PostgresAddress.parse("postgres://u@h/d?schema=cagg&pool=0&sslmode=require", pool=1)
    assert (address.schema, address.pool, address.conninfo) == ("cagg", 0, "postgresql://u@h/d?sslmode=require")
    assert PostgresAddress.parse("postgresql+psycopg://u@h/d", pool=3).pool == 3


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg2://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h/d?schema=x;drop",
        f"postgresql://u:{SECRET}@h/d?schema=pg_catalog",
        f"postgresql://u:{SECRET}@h/d?pool=-1",
        f"postgresql://u:{SECRET}@h/d?pool=many",
        f"postgresql://u:{SECRET}@h/d?nonsense",
        f"postgresql://u:{SECRET}@h/d d",
        f"postgresql://u:{SECRET}/{SECRET}@h/d",
        f"postgresql://u:x%zz{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h/d?no_such_option={SECRET}",
    ],
)
def test_addresses_that_make_no_sense_are_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught, open_store(url, clock=SystemClock()).transaction():
        pass
    assert SECRET not in str(caught.value).replace(f"no_such_option={SECRET}", "")


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'cagg\[postgres\]'"):
        open_store(postgres_url, clock=SystemClock())
    monkeypatch.undo()
    broken = open_store(postgres_url, clock=SystemClock())
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match="postgres"), broken.transaction():
        pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace(_password(url), "wrong"), "refuses the password"),
        (lambda url: url.replace(f":{_password(url)}", ""), "password"),
        (lambda url: f"{url}_gone", "no such database"),
        (lambda url: url.replace("127.0.0.1:", "127.0.0.1:1"), "address|port|answer|connection"),
        (lambda url: f"{url}?connect_timeout=2&sslmode=require", "encryption"),
        (lambda url: f"{url}?schema=elsewhere", "cagg store migrate"),
    ],
)
def test_a_server_that_cannot_be_used_says_why_without_the_password(
    postgres_url: str, change: object, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    url = change(postgres_url)  # type: ignore[operator]
    store = open_store(url, clock=SystemClock())
    for block in (store.transaction, store.snapshot):
        with pytest.raises(StoreUnavailable, match=says) as caught, block():
            pass
        assert _password(postgres_url) not in str(caught.value)
        assert "\n" not in str(caught.value)


# ---- the schema ---------------------------------------------------------------------------------------------------


def test_a_store_is_only_created_by_its_migration(postgres: LocalPostgres) -> None:
    url = postgres.empty_database()
    store = open_store(url, clock=ManualClock())
    assert isinstance(store, PostgresqlStore)
    with pytest.raises(StoreUnavailable, match="cagg store migrate"), store.transaction():
        pass
    assert store.version() is None
    threads = [threading.Thread(target=open_store(url, clock=ManualClock()).migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not store.migrate(), "again changes nothing"
    assert store.version() == tables.SCHEMA_VERSION
    with store.transaction() as tx:
        append(tx, draft())
    store.close()
    postgres.drop_database(url)


def test_a_store_lies_beside_another_programs_tables_and_in_a_schema_of_its_own(postgres: LocalPostgres) -> None:
    url = postgres.empty_database()
    postgres.execute("CREATE TABLE alembic_version (version_num text)", url=url)
    places = [open_store(f"{url}{query}", clock=ManualClock()) for query in ("", "?schema=cagg_two")]
    for number, store in enumerate(places):
        assert store.migrate()
        with store.transaction() as tx:
            for name in range(number + 1):
                append(tx, draft(f"k{name}"))
            assert sequence(tx) == number + 1
    for number, store in enumerate(places):
        with store.snapshot() as tx:
            assert tx.tree_size() == number + 1
        store.close()
    postgres.drop_database(url)


SHAPE = """
SELECT table_name, column_name, data_type, is_nullable, identity_generation FROM information_schema.columns
    WHERE table_schema = 'public' ORDER BY 1, ordinal_position;
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'cagg_schema_version' ORDER BY 1;
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid <> 'cagg_schema_version'::regclass
    ORDER BY 1;
SELECT proname, prosecdef, prosrc, proconfig, proacl FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace ORDER BY 1;
SELECT tgname, tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1;
SELECT * FROM cagg_schema_version;
"""


def test_migrations_from_nothing_give_what_a_fresh_store_has(postgres: LocalPostgres, postgres_url: str) -> None:
    from sqlalchemy import create_engine

    from cagg.store.migrations.run import upgrade

    url = postgres.empty_database()
    made = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with made.begin() as connection:
        upgrade(connection)
    made.dispose()
    assert postgres.execute(SHAPE, url=url) == postgres.execute(SHAPE, url=postgres_url)
    postgres.drop_database(url)


def test_an_older_store_asks_for_its_migration_and_a_newer_one_is_shared(
    store: PostgresqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = int(tables.SCHEMA_VERSION)
    monkeypatch.setattr(tables, "SCHEMA_VERSION", f"{known + 1:04}")
    for block in (store.transaction, store.snapshot):
        with pytest.raises(StoreUnavailable, match="run 'cagg store migrate'"), block():
            pass
    monkeypatch.setattr(tables, "SCHEMA_VERSION", f"{known - 1:04}")
    with store.transaction() as tx:
        append(tx, draft())
    monkeypatch.setattr(tables, "SCHEMA_VERSION", f"{known - 2:04}")
    with pytest.raises(StoreUnavailable, match="upgrade cagg"), store.transaction():
        pass


# ---- lost connections ---------------------------------------------------------------------------------------------

CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cagg' AND datname = '{}'"


def _cut(postgres: LocalPostgres, url: str) -> None:
    postgres.execute(CUT.format(url.rpartition("/")[2]))


def test_an_idle_connection_that_was_cut_is_not_noticed(
    store: PostgresqlStore, postgres: LocalPostgres, postgres_url: str
) -> None:
    for number in range(2):
        with store.transaction() as tx:
            append(tx, draft(f"k{number}"))
        _cut(postgres, postgres_url)
        with store.snapshot() as tx:
            assert tx.queued() == number + 1
        _cut(postgres, postgres_url)


def test_a_connection_that_is_cut_in_a_transaction_keeps_nothing(
    store: PostgresqlStore, postgres: LocalPostgres, postgres_url: str
) -> None:
    def cut_off(names: str) -> None:
        with store.transaction() as tx:
            append(tx, draft(names[0]))
            _cut(postgres, postgres_url)
            for name in names[1:]:
                append(tx, draft(name))

    with pytest.raises(StoreUnavailable, match=r"shut down|closed|lost"):
        cut_off("ab")
    with pytest.raises(StoreOutcomeUnknown, match="kept or not"):
        cut_off("a")
    with store.transaction() as tx:
        assert tx.queued() == 0
        append(tx, draft("a"))


def test_a_swallowed_error_does_not_look_like_a_commit(store: PostgresqlStore) -> None:
    import psycopg

    def swallowing() -> None:
        with store.transaction() as tx:
            append(tx, draft("a"))
            with contextlib.suppress(psycopg.Error):
                tx.put_blob("0" * 65, b"too long")

    with pytest.raises(StoreUnavailable, match="kept nothing"):
        swallowing()
    with store.snapshot() as tx:
        assert tx.queued() == 0


def test_a_lock_that_is_not_given_in_time_ends_in_a_sentence(postgres_url: str, store: PostgresqlStore) -> None:
    hasty = open_store(postgres_url, clock=SystemClock(), lock_timeout_seconds=0.05)
    with store.transaction() as tx:
        assert tx.reservation("a") is None
        with pytest.raises(StoreBusy, match="locked by another program"), hasty.transaction() as other:
            other.reservation("a")
    hasty.close()


def test_no_state_stays_on_a_connection(postgres_url: str) -> None:
    one = open_store(f"{postgres_url}?pool=1", clock=SystemClock())
    with one.snapshot() as tx:
        before = tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()  # type: ignore[attr-defined]
    seen = []
    with one.transaction() as tx:
        run = tx.connection.exec_driver_sql  # type: ignore[attr-defined]
        assert run("SELECT pg_backend_pid()").scalar_one() == before, "the idle connection is used again"
        seen = [run(f"SHOW {name}").scalar_one() for name in ("lock_timeout", "idle_in_transaction_session_timeout")]
        run("ROLLBACK")
        run("BEGIN")
        assert [run(f"SHOW {name}").scalar_one() for name in ("lock_timeout", "statement_timeout")] == ["0", "0"]
        assert run("SELECT count(*) FROM pg_prepared_statements").scalar_one() == 0
        assert run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()").scalar() == 0
    assert seen == ["10s", "1min"]
    one.close()


def test_without_a_pool_every_connection_ends_with_its_transaction(postgres_url: str, postgres: LocalPostgres) -> None:
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{postgres_url.rpartition('/')[2]}'"
    store = open_store(f"{postgres_url}?pool=0", clock=SystemClock())
    with store.transaction() as tx:
        append(tx, draft())
        assert postgres.execute(count) == "1"
    with store.snapshot() as tx:
        process = tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()  # type: ignore[attr-defined]
    with store.snapshot() as tx:
        assert tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() != process  # type: ignore[attr-defined]


# ---- time, locks and sequencers -----------------------------------------------------------------------------------


def test_the_time_is_the_databases_unless_a_test_brings_its_own(postgres_url: str) -> None:
    own = ManualClock()
    with open_store(postgres_url, clock=own).transaction() as tx:
        assert tx.now() == own.now()
    with open_store(postgres_url, clock=SystemClock()).transaction() as tx:
        server = tx.connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()  # type: ignore[attr-defined]
        assert timedelta(0) <= server - tx.now() < timedelta(seconds=30)


def test_a_second_sequencer_steps_aside(postgres_url: str, store: PostgresqlStore) -> None:
    other = open_store(postgres_url, clock=SystemClock())
    with store.transaction() as tx:
        append(tx, draft("a"))
    with store.transaction() as tx:
        assert sequence(tx) == 1
        with other.transaction() as late:
            append(late, draft("b"))
            assert sequence(late) == 0
    with other.transaction() as tx:
        assert sequence(tx) == 1
        assert [entry.index for entry in tx.entries()] == [0, 1]
    other.close()


def test_a_snapshot_reads_reservations_without_locking_them(postgres_url: str, store: PostgresqlStore) -> None:
    with store.transaction() as tx:
        assert tx.reservation("a") is None
        with store.snapshot() as reader:
            assert reader.reservation("a") is None
            locks = "SELECT count(*) FROM pg_locks WHERE mode LIKE 'Row%%' AND pid = pg_backend_pid()"
            assert reader.connection.exec_driver_sql(locks).scalar_one() == 0  # type: ignore[attr-defined]


# ---- forks --------------------------------------------------------------------------------------------------------


def _in_child(work: object) -> str:
    """Fork, run, and return what the child said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = work()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent's test says it
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_forked_child_connects_anew_and_the_parent_goes_on(store: PostgresqlStore) -> None:
    with store.transaction() as tx:
        append(tx, draft("before"))

    def child() -> str:
        with store.transaction() as tx:
            append(tx, draft("child"))
            return str(tx.queued())

    assert _in_child(child) == "2"
    with store.transaction() as tx:
        append(tx, draft("after"))
        assert tx.queued() == 3


def test_a_fork_inside_a_transaction_leaves_it_to_the_parent(store: PostgresqlStore) -> None:
    with store.transaction() as tx:
        append(tx, draft("parent"))

        def child() -> str:
            append(tx, draft("child"))
            return "went on"

        assert "went on" not in _in_child(child)
        append(tx, draft("still here"))
    with store.snapshot() as tx:
        assert tx.queued() == 2
