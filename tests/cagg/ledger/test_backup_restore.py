"""A backup is restored over a store that went on: nothing is signed twice, the loss is seen, and the remedy works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cagg.cli.__main__ import main
from cagg.testing import ManualClock
from cagg.testing.postgresql import LocalPostgres

TRACE = "start,g_per_kwh\n2020-01-01T00:00:00+00:00,100\n2040-01-01T00:00:00+00:00,100\n"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cagg = Callable[..., Said]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store with its backup: how each is made and put back."""

    backup: Callable[[], None]
    restore: Callable[[], None]


@pytest.fixture
def cagg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cagg:
    """The command line in an empty home, under one budget."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "home"))
    Path("trace.csv").write_text(TRACE, encoding="utf-8")
    Path("cagg.toml").write_text(
        'zone = "trace:test"\ntimezone = "UTC"\n[grid]\nplanning_intensity = "300 g/kWh"\n'
        '[grid.trace]\nfile = "trace.csv"\nname = "test"\n',
        encoding="utf-8",
    )
    clock = ManualClock(datetime(2026, 11, 23, 22, tzinfo=UTC))
    monkeypatch.setattr("cagg.composition.SystemClock", lambda: clock)

    def run(*arguments: str) -> Said:
        capfd.readouterr()
        status = main(arguments)
        return Said(status=status, **dict(zip(("out", "err"), capfd.readouterr(), strict=True)))

    return run


@pytest.fixture(params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, cagg: Cagg, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A store, and the backup that its documentation describes."""
    saved = tmp_path / "saved"
    if request.param == "sqlite":
        file = tmp_path / "home" / "cagg.db"

        def restore() -> None:
            for path in file.parent.glob("cagg.db*"):
                path.unlink()
            shutil.copy(saved, file)

        def backup() -> None:
            assert cagg("store", "backup", str(saved)).status == 0

        yield Place(backup=backup, restore=restore)
        return
    server: LocalPostgres = request.getfixturevalue("postgres")
    if not (server.binaries / "pg_restore").exists():
        pytest.skip("this server came without pg_dump and pg_restore")
    url: str = request.getfixturevalue("postgres_url")
    monkeypatch.setenv("CAGG_STORE", url)

    def program(*arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        done = subprocess.run(
            [str(server.binaries / arguments[0]), *arguments[1:]],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")

    yield Place(
        backup=lambda: program("pg_dump", "--format=custom", f"--file={saved}", f"--dbname={url}"),
        restore=lambda: program(
            "pg_restore", "--clean", "--if-exists", "--single-transaction", f"--dbname={url}", str(saved)
        ),
    )


def ran(cagg: Cagg, *names: str) -> None:
    for name in names:
        assert cagg("run", "--budget", "acme", "--energy", "1 Wh", "--name", name, "--", "true").status == 0


@pytest.fixture
def restored(cagg: Cagg, place: Place) -> Path:
    """A store with one run, backed up; a second run and a checkpoint; then the backup again. Returns the checkpoint."""
    assert cagg("budget", "set", "acme", "1 kg/month", "--mode", "enforce").status == 0
    ran(cagg, "before")
    assert cagg("maintain").status == 0
    place.backup()
    ran(cagg, "after-1", "after-2")
    assert cagg("maintain").status == 0
    outside = Path("outside.txt")
    outside.write_text(cagg("ledger", "checkpoint").out, encoding="utf-8")
    assert cagg("ledger", "verify", "--since", str(outside)).status == 0
    place.restore()
    return outside


def test_the_backup_is_a_whole_store_with_balances_that_equal_the_journal(cagg: Cagg, restored: Path) -> None:
    assert restored.exists()
    found = cagg("ledger", "verify", "--json")
    assert (found.status, found.json["failures"], found.json["side_tables"]["problems"]) == (0, [], [])
    assert [row["task"] for row in cagg("ledger", "list", "--kind", "measurement", "--json").json["entries"]] == [
        "before"
    ]


def test_the_outside_checkpoint_shows_what_is_gone(cagg: Cagg, restored: Path) -> None:
    found = cagg("ledger", "verify", "--since", str(restored), "--json")
    assert found.status == 1
    assert [item["kind"] for item in found.json["failures"]] == ["truncated"]


def test_nothing_is_signed_after_the_restore_and_the_remedy_is_named(cagg: Cagg, restored: Path) -> None:
    assert restored.exists()
    for _ in range(2):
        found = cagg("maintain", "--json")
        assert found.status == 1
        assert "cagg ledger roll --reason restored" in found.json["problems"][0]
    ran(cagg, "goes-on")
    assert cagg("maintain").status == 1
    refused = cagg("ledger", "roll", "--reason", "yearly")
    assert refused.status == 2
    assert "cagg ledger roll --reason restored" in refused.err
    assert len(cagg("ledger", "logs", "--json").json["logs"]) == 1


def test_a_roll_states_the_break_and_everything_goes_on(cagg: Cagg, restored: Path) -> None:
    ran(cagg, "goes-on")
    rolled = cagg("ledger", "roll", "--reason", "restored", "--json")
    assert (rolled.status, rolled.json["problems"]) == (0, [])
    ran(cagg, "in-the-next-log")
    assert cagg("maintain").status == 0
    found = cagg("ledger", "verify", "--json")
    assert (found.status, found.json["failures"], found.json["side_tables"]["problems"]) == (0, [], [])
    assert "breaks off: a backup was restored" in " ".join(found.json["notes"])
    assert "breaks off" in cagg("ledger", "verify").out
    logs = cagg("ledger", "logs", "--json").json
    assert logs["problems"] == []
    lost = logs["logs"][1]["lost"]
    assert f"{lost['origin']}\n{lost['size']}\n" in restored.read_text(encoding="utf-8")
    assert lost["size"] > logs["logs"][1]["predecessor_signed_size"] > 0
    tasks = [row["task"] for row in cagg("ledger", "list", "--kind", "measurement", "--json").json["entries"]]
    assert tasks == ["in-the-next-log", "goes-on", "before"]


def test_the_lost_checkpoint_stays_a_loss_in_words_only_where_a_trusted_key_signed_them(
    cagg: Cagg, restored: Path, tmp_path: Path
) -> None:
    assert cagg("ledger", "roll", "--reason", "restored").status == 0
    found = cagg("ledger", "verify", "--since", str(restored), "--json")
    assert (found.status, found.json["failures"], found.json["assurance"]) == (0, [], "signed")
    (note,) = (note for note in found.json["notes"] if "were not compared" in note)
    assert note.startswith("1 outside checkpoints of the log cagg.local/")
    old_key = str(tmp_path / "home" / "keys" / "log.vkey")
    found = cagg("ledger", "verify", "--since", str(restored), "--key", old_key, "--json")
    assert found.status == 1
    assert {item["kind"] for item in found.json["failures"]} == {"signature", "truncated"}


def test_the_remedy_may_be_repeated_and_does_nothing_then(cagg: Cagg, restored: Path) -> None:
    assert cagg("ledger", "roll", "--reason", "restored").status == 0
    again = cagg("ledger", "roll", "--reason", "restored", "--lost", str(restored))
    assert again.status == 2
    ran(cagg, "later")
    assert cagg("ledger", "roll", "--reason", "restored", "--lost", str(restored)).status == 2
    assert len(cagg("ledger", "logs", "--json").json["logs"]) == 2


def test_with_the_keys_restored_too_the_outside_checkpoint_is_what_is_lost(
    cagg: Cagg, restored: Path, tmp_path: Path
) -> None:
    """The whole machine came back from a backup: only what was kept elsewhere knows of the later checkpoint."""
    (tmp_path / "home" / "keys" / "log.checkpoint").unlink()
    assert cagg("ledger", "roll", "--reason", "restored").status == 2
    rolled = cagg("ledger", "roll", "--reason", "restored", "--lost", str(restored), "--json")
    assert (rolled.status, rolled.json["problems"]) == (0, [])
    assert cagg("ledger", "verify").status == 0


def test_an_anchor_knows_what_is_lost_when_everything_else_was_restored(
    cagg: Cagg, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = f"dir:{tmp_path / 'anchor'}"
    (tmp_path / "anchor").mkdir()
    monkeypatch.setenv("CAGG_ANCHORS", anchor)
    assert cagg("budget", "set", "acme", "1 kg/month").status == 0
    assert cagg("maintain").status == 0
    place.backup()
    keys = tmp_path / "home" / "keys"
    shutil.copytree(keys, tmp_path / "keys")
    ran(cagg, "after")
    assert cagg("maintain").status == 0
    place.restore()
    shutil.rmtree(keys)
    shutil.copytree(tmp_path / "keys", keys)
    assert cagg("maintain").status == 1
    assert cagg("ledger", "verify", "--anchors", anchor).status == 1
    assert cagg("ledger", "roll", "--reason", "restored").status == 0
    ran(cagg, "in-the-next-log")
    assert cagg("maintain").status == 0
    found = cagg("ledger", "verify", "--anchors", anchor, "--json")
    assert (found.status, found.json["failures"]) == (0, [])
    assert "states as lost; they were not compared" in " ".join(found.json["notes"])


def test_what_was_lost_may_be_done_again_under_the_same_limit(cagg: Cagg, restored: Path) -> None:
    assert restored.exists()
    assert cagg("ledger", "roll", "--reason", "restored").status == 0
    ran(cagg, "after-1", "after-2")
    assert cagg("maintain").status == 0
    found = cagg("ledger", "verify", "--json").json
    assert (found["verified"], found["side_tables"]["agree"]) == (True, True)


def test_a_restore_from_before_a_roll_begins_a_log_of_another_name(cagg: Cagg, place: Place) -> None:
    assert cagg("budget", "set", "acme", "1 kg/month").status == 0
    ran(cagg, "before")
    assert cagg("maintain").status == 0
    place.backup()
    first = cagg("ledger", "roll", "--reason", "yearly", "--json").json["begun"]
    ran(cagg, "in-the-next-log")
    assert cagg("maintain").status == 0
    place.restore()
    assert cagg("maintain").status == 1
    second = cagg("ledger", "roll", "--reason", "restored", "--json")
    assert second.status == 0
    assert second.json["begun"] == f"{first}-2"
    assert cagg("ledger", "verify").status == 0
