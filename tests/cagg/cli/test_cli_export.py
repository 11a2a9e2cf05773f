"""``cagg ledger export``: whole files or none, the streams of a pipe, and sentences for what cannot be exported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

FORMATS = ("jsonl", "csv", "openlineage", "in-toto")


@pytest.fixture
def recorded(cli: Any, night: Path) -> Any:
    """Two runs, signed."""
    assert cli("run", "--name", "=cmd()", "--", "true").status == 0
    assert cli("run", "--", "false").status == 1
    assert cli("maintain").status == 0
    return cli


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_holds_what_a_pipe_gets(recorded: Any, name: str) -> None:
    piped = recorded("ledger", "export", "--format", name)
    assert piped.status == 0
    assert piped.err == ""
    told = recorded("ledger", "export", "--format", name, "-o", "out", "--json").json
    written = Path("out").read_bytes()
    assert written.decode() == piped.out
    assert told["sha256"] == hashlib.sha256(written).hexdigest()
    assert told["bytes"] == len(written)
    (log,) = told["logs"]
    assert log["size"] == log["signed_size"] == len(recorded("ledger", "list", "--json").json["entries"])
    assert log["root"] == recorded("ledger", "checkpoint", "--json").json["root"]
    assert told.get("readings", told.get("entries")) == (2 if name in ("csv", "openlineage") else log["size"])
    assert log["entries"] == told.get("readings", told.get("entries"))
    assert sorted(path.name for path in Path().iterdir()) == ["cagg.toml", "out", "trace.csv"]


def test_all_logs_of_the_store_are_exported_and_each_line_names_its_own(recorded: Any) -> None:
    assert recorded("ledger", "roll", "--name", "example.org/next").status == 0
    assert recorded("run", "--name", "later", "--", "true").status == 0
    old, new = (log["origin"] for log in recorded("ledger", "logs", "--json").json["logs"])

    def lines(name: str, *options: str) -> list[Any]:
        result = recorded("ledger", "export", "-f", name, *options)
        assert (result.status, result.err) == (0, "")
        return [json.loads(line) for line in result.out.splitlines()]

    def table(*options: str) -> list[tuple[str, str]]:
        result = recorded("ledger", "export", "-f", "csv", *options)
        return [(row["log"], row["task"]) for row in csv.DictReader(io.StringIO(result.out, newline=""))]

    assert table() == [(old, "'=cmd()"), (old, "false"), (new, "later")]
    assert table("--log", old) == [(old, "'=cmd()"), (old, "false")]
    assert table("--log", new) == [(new, "later")]
    assert {line["body"]["log"] for line in lines("jsonl")} == {old, new}
    assert {line["predicate"]["ledger"]["origin"] for line in lines("in-toto")} == {old, new}
    events = [line["run"]["facets"]["cagg_carbonLedger"] for line in lines("openlineage") if "facets" in line["run"]]
    assert [facet["log"] for facet in events] == [old, old, new]
    told = recorded("ledger", "export", "-f", "csv", "-o", "t.csv", "--json").json
    assert [(log["origin"], log["entries"]) for log in told["logs"]] == [(old, 2), (new, 1)]


@pytest.mark.parametrize("name", ["tiles", "bundle"])
def test_what_holds_one_log_says_which_others_there_are(recorded: Any, name: str) -> None:
    assert recorded("ledger", "export", "-f", name, "-o", "one").err == ""
    assert recorded("ledger", "roll", "--name", "example.org/next").status == 0
    old = recorded("ledger", "logs", "--json").json["logs"][0]["origin"]
    said = recorded("ledger", "export", "-f", name, "-o", "two", "--json")
    assert said.json["origin"] == "example.org/next"
    assert f"--log exports the others: {old}." in said.err


def test_people_are_told_in_words(recorded: Any) -> None:
    result = recorded("ledger", "export", "-f", "csv", "-o", "table.csv")
    assert result.status == 0
    assert "2 readings as csv in table.csv" in result.out
    with Path("table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["outcome"]) for row in rows] == [("'=cmd()", "completed"), ("false", "failed")]


def test_kind_and_time_choose(recorded: Any) -> None:
    def count(*options: str) -> int:
        return len(recorded("ledger", "export", "-f", "jsonl", *options).out.splitlines())

    assert count() == 6
    assert count("--kind", "measurement", "--kind", "settlement") == 4
    assert count("--since", "2026-01-05") == 6
    assert count("--until", "2026-01-05T22:00:00+00:00") == 0
    assert count("--since", "2026-01-06") == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-f", "csv", "--kind", "decision"], "decision"),
        (["-f", "csv", "--kind", "nonsense"], "nonsense"),
        (["-f", "csv", "--since", "yesterday"], "yesterday"),
        (["-f", "csv", "--since", "2026-13-01"], "2026-13-01"),
        (["-f", "csv", "--since", "2026-02-01", "--until", "2026-01-01"], "after its start"),
        (["-f", "csv", "--log", "example.org/none"], "example.org/none"),
        (["-f", "csv", "--json"], "-o"),
        (["-f", "csv", "-o", "no/such/out.csv"], "no/such"),
        (["-f", "csv", "-o", "."], "is no file"),
        (["-f", "pdf"], "the format 'pdf' is unknown; use one of tiles, bundle,"),
        ([], "--format"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(recorded: Any, said: Any, arguments: list[str], named: str) -> None:
    result = recorded("ledger", "export", *arguments)
    assert result.status == 2
    assert named in result.err
    if "--json" not in arguments:
        assert result.out == ""
    said(result)


def test_a_day_begins_in_the_settings_time_zone(recorded: Any) -> None:
    config = Path("cagg.toml")
    config.write_text(config.read_text(encoding="utf-8").replace('"UTC"', '"Asia/Tokyo"'), encoding="utf-8")
    assert len(recorded("ledger", "export", "-f", "jsonl", "--since", "2026-01-06").out.splitlines()) == 6
    config.write_text(config.read_text(encoding="utf-8").replace('timezone = "Asia/Tokyo"\n', ""), encoding="utf-8")
    refused = recorded("ledger", "export", "-f", "jsonl", "--since", "2026-01-06")
    assert refused.status == 2
    assert "timezone" in refused.err


def test_a_store_without_a_ledger(cli: Any, said: Any) -> None:
    result = cli("ledger", "export", "-f", "csv")
    assert result.status == 2
    said(result)


def _edit(home: Path) -> None:
    with sqlite3.connect(home / "cagg.db") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        done = connection.execute(
            "UPDATE cagg_entry SET body = replace(body, 'false', 'fa1se') WHERE kind = 'measurement'"
        )
        assert done.rowcount
    connection.close()


@pytest.mark.parametrize("name", FORMATS)
def test_an_edited_ledger_leaves_the_old_file_as_it_was(recorded: Any, said: Any, home: Path, name: str) -> None:
    Path("out").write_text("the old export", encoding="utf-8")
    _edit(home)
    result = recorded("ledger", "export", "-f", name, "-o", "out")
    assert result.status == 2
    assert "cagg ledger verify" in result.err
    said(result)
    assert Path("out").read_text(encoding="utf-8") == "the old export"
    assert sorted(path.name for path in Path().iterdir()) == ["cagg.toml", "out", "trace.csv"]


def test_a_link_stays_a_link_and_rights_are_the_users(recorded: Any) -> None:
    Path("real.csv").write_text("old", encoding="utf-8")
    Path("link.csv").symlink_to("real.csv")
    before = os.umask(0o027)
    try:
        assert recorded("ledger", "export", "-f", "csv", "-o", "link.csv").status == 0
    finally:
        os.umask(before)
    assert Path("link.csv").is_symlink()
    assert Path("real.csv").read_text(encoding="utf-8").startswith("start,")
    assert Path("real.csv").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_no_half_file(recorded: Any, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    Path("out").write_text("the old export", encoding="utf-8")
    monkeypatch.setattr("cagg.cli._files.os.fsync", full)
    result = recorded("ledger", "export", "-f", "jsonl", "-o", "out")
    assert result.status == 2
    assert "No space left" in result.err
    said(result)
    assert Path("out").read_text(encoding="utf-8") == "the old export"
    assert sorted(path.name for path in Path().iterdir()) == ["cagg.toml", "out", "trace.csv"]


# ---- a store that machines share ------------------------------------------------------------------------------------


def test_what_waits_for_its_place_is_said_and_left_out(
    cli: Any, night: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAGG_STORE", postgres_url)
    assert cli("run", "--", "true").status == 0
    result = cli("ledger", "export", "-f", "csv")
    assert result.status == 0
    assert len(list(csv.reader(io.StringIO(result.out)))) == 1, "the header"
    assert "3 entries wait for their place" in result.err
    doctor = cli("doctor", "--json").json["findings"]
    assert any("3 entries wait for their place in the log, the oldest for" in item["text"] for item in doctor)
    told = cli("maintain", "--json").json
    assert (told["sequenced"], told["waiting"], told["problems"]) == (3, 0, [])
    assert told["lag_seconds"] >= 0
    result = cli("ledger", "export", "-f", "csv")
    assert (len(list(csv.reader(io.StringIO(result.out)))), result.err) == (2, "")


def test_maintain_places_entries_between_its_passes(start: Any, cli: Any, night: Path, postgres_url: str) -> None:
    """A process of its own, with an hour between its passes: what is written meanwhile gets its place at once."""
    import time

    process = start("maintain", "--every", "1h", "--json", CAGG_STORE=postgres_url)
    first = json.loads(process.stdout.readline())
    assert (first["sequenced"], first["lag_seconds"], first["waiting"]) == (0, None, 0)
    os.environ["CAGG_STORE"] = postgres_url
    try:
        assert cli("run", "--", "true").status == 0
        deadline = time.monotonic() + 30
        while [row["index"] for row in cli("ledger", "list", "--json").json["entries"]] != [2, 1, 0]:
            assert time.monotonic() < deadline, "nobody gave the entries their places"
            time.sleep(0.1)
    finally:
        del os.environ["CAGG_STORE"]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.prove
def test_maintain_lives_through_a_crash_of_the_server(start: Any, night: Path) -> None:
    """The server crashes between two passes and comes back: that is said once each, and entries get their places."""
    from cagg.ledger.entry import append
    from cagg.store.engine import open_store
    from cagg.testing import ManualClock
    from cagg.testing.postgresql import LocalPostgres
    from cagg.testing.stores import draft

    with LocalPostgres() as server:
        url = server.new_database()
        process = start("maintain", "--every", "1h", "--json", CAGG_STORE=url)
        assert json.loads(process.stdout.readline())["waiting"] == 0
        server.kill_immediately()
        down = json.loads(process.stdout.readline())
        assert set(down) == {"at", "note"}
        server.restart()
        assert "answers again" in json.loads(process.stdout.readline())["note"]
        store = open_store(url, clock=ManualClock())
        with store.transaction() as tx:
            append(tx, draft("after"))
        size = 0
        while size == 0:
            with store.snapshot() as tx:
                size = tx.tree_size()
        store.close()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
