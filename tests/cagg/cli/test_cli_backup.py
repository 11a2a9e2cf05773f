"""``cagg store backup``: a copy of a file, and what to run for a server."""

from __future__ import annotations

import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cagg.testing.postgresql import LocalPostgres


def test_a_backup_is_put_in_the_place_of_a_lost_store(cli: Any) -> None:
    assert cli("budget", "set", "a", "9 kg/month").status == 0
    assert cli("maintain").status == 0
    before = cli("ledger", "verify", "--json").json
    done = cli("store", "backup", "copy.db", "--json")
    target = Path("copy.db").absolute()
    assert (done.status, done.json["backup"]) == (0, str(target))
    assert done.json["bytes"] == target.stat().st_size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    store = Path(done.json["url"].removeprefix("sqlite:///"))
    for file in store.parent.glob(f"{store.name}*"):
        file.unlink()
    shutil.copy(target, store)
    after = cli("ledger", "verify", "--json").json
    assert [after[name] for name in ("assurance", "size", "failures")] == [
        before[name] for name in ("assurance", "size", "failures")
    ]
    assert cli("store", "status").status == 0


def test_a_backup_overwrites_nothing(cli: Any) -> None:
    assert cli("budget", "set", "a", "9 kg/month").status == 0
    assert cli("store", "backup", "copy.db").out.startswith("sqlite:///")
    again = cli("store", "backup", "copy.db")
    assert (again.status, again.out) == (2, "")
    assert "overwrites nothing" in again.err
    assert again.err.count("\n") == 1


def test_there_is_no_backup_of_nothing(cli: Any) -> None:
    done = cli("store", "backup", "copy.db")
    assert done.status == 2
    assert "there is no store" in done.err
    assert not Path("copy.db").exists()


def test_for_a_server_the_command_to_run_is_told(
    cli: Any, postgres: LocalPostgres, postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CAGG_STORE", f"{postgres_url}?pool=0&schema=cagg&connect_timeout=5")
    assert cli("store", "migrate").status == 0
    target = tmp_path / "my copy.dump"
    done = cli("store", "backup", str(target))
    assert done.status == 2
    command = shlex.split(done.err.strip().partition("back it up with: ")[2])
    password = postgres_url.partition("://")[2].partition(":")[2].partition("@")[0]
    assert password not in done.err
    assert command[:3] == ["pg_dump", "--format=custom", "--schema=cagg"]
    assert command[-1].endswith("?connect_timeout=5")
    program = postgres.binaries / "pg_dump"
    if program.exists():
        subprocess.run([str(program), *command[1:]], check=True, env={"PGPASSWORD": password}, timeout=60)
        assert target.read_bytes().startswith(b"PGDMP")
