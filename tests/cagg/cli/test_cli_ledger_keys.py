"""Keys and anchors as a person meets them: rotate, revoke, list, publish, and what `doctor` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def signed(cli: Any) -> Any:
    """The command line of a home whose log is signed."""
    cli("budget", "set", "a", "1 kg/month")
    assert cli("maintain").status == 0
    return cli


def test_a_rotation_from_end_to_end(signed: Any, home: Path, tmp_path: Path) -> None:
    old = signed("ledger", "key").out
    assert old.count("\n") == 1, "one key, one line"
    (tmp_path / "old.vkey").write_text(old)
    done = signed("ledger", "rotate-key", "--reason", "yearly", "--json").json
    assert done["before"] == old.strip()
    assert done["key"] != done["before"]
    assert done["checkpoint"]["note"].count("\n— ") == 2
    signed("budget", "set", "b", "1 kg/month")
    assert signed("maintain").status == 0
    listed = signed("ledger", "key")
    assert [line for line in listed.out.splitlines() if not line.startswith("#")] == [done["key"]]
    assert f"# retired, replaced at {done['size']} entries: {done['before']}" in listed.out.splitlines()
    (tmp_path / "new.vkey").write_text(listed.out)
    for name in ("old.vkey", "new.vkey"):
        report = signed("ledger", "verify", "--key", str(tmp_path / name), "--json")
        assert (report.status, report.json["signed_size"]) == (0, report.json["size"])
    assert signed("ledger", "verify").status == 0
    assert signed("doctor").status == 0
    states = signed("ledger", "key", "--json").json["states"]
    assert {item["key"]: item["state"] for item in states} == {done["key"]: "active", done["before"]: "retired"}
    entry = signed("ledger", "list", "--kind", "key", "--json").json["entries"][0]
    assert (entry["kind"], entry["outcome"]) == ("key", "announced")


def test_a_revocation(signed: Any, said: Any) -> None:
    result = signed("ledger", "revoke-key", signed("ledger", "key").out.strip(), "--reason", "stolen")
    assert (result.status, "rotate-key" in result.err) == (2, True)
    said(result)
    before = signed("ledger", "rotate-key", "--reason", "yearly", "--json").json["before"]
    result = signed("ledger", "revoke-key", before.split("+")[1], "--reason", "a copy was found")
    assert (result.status, "counts for nothing from 3 entries on" in result.out) == (0, True)
    assert "need no other" in result.out
    assert "must be given" not in result.out
    again = signed("ledger", "revoke-key", before.split("+")[1], "--reason", "once more", "--json")
    assert (again.status, again.json["changed"], again.json["size"]) == (1, False, 3)
    assert "# revoked, replaced at 2 entries, counts for nothing from 3 entries on" in signed("ledger", "key").out
    assert signed("ledger", "verify").status == 0
    for wrong in ("12345678", "nonsense"):
        result = signed("ledger", "revoke-key", wrong, "--reason", "r")
        assert result.status == 2
        said(result)


def test_commands_that_have_nothing_to_do_say_so(cli: Any, said: Any) -> None:
    for command in (["rotate-key"], ["revoke-key", "12345678"]):
        result = cli("ledger", *command, "--reason", "r")
        assert result.status == 2
        said(result)
    cli("budget", "set", "a", "1 kg/month")
    result = cli("ledger", "rotate-key", "--reason", "r")
    assert (result.status, "cagg maintain" in result.err) == (2, True)
    said(result)
    cli("maintain")
    result = cli("ledger", "rotate-key", "--reason", " ")
    assert (result.status, "reason" in result.err) == (2, True)


def test_a_cut_store_is_refused_with_the_way_out(signed: Any, home: Path, tmp_path: Path) -> None:
    backup = (home / "cagg.db").read_bytes()
    signed("budget", "set", "b", "1 kg/month")
    signed("maintain")
    for name in ("cagg.db-wal", "cagg.db-shm"):
        (home / name).unlink(missing_ok=True)
    (home / "cagg.db").write_bytes(backup)
    result = signed("maintain")
    assert result.status == 1
    assert "roll --reason restored" in result.out


def test_anchors(signed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def anchors_of(report: Any) -> list[tuple[str, str]]:
        return [(item["level"], item["text"]) for item in report.json["findings"] if item["topic"] == "anchors"]

    ((level, text),) = anchors_of(signed("doctor", "--json"))
    assert (level, "cut tail" in text) == ("note", True)
    monkeypatch.setenv("CAGG_ANCHORS", f"file:{tmp_path}/notes,dir:{tmp_path}/missing,log")
    assert signed("run", "--name", "more", "--", "true").status == 0  # the log hears of what is signed anew
    result = signed("maintain")
    assert result.status == 1
    assert "missing" in result.out
    (line,) = [text for text in result.out.splitlines() if text.startswith("cagg-checkpoint ")]
    (tmp_path / "job.log").write_text(f"cron: {line}\n")
    (tmp_path / "missing").mkdir()
    again = signed("maintain", "--json")
    assert (again.status, again.json["problems"]) == (0, [])
    ((level, _),) = anchors_of(signed("doctor", "--json"))
    assert level == "ok"
    for place in ("notes", "missing", "job.log"):
        report = signed("ledger", "verify", "--anchors", str(tmp_path / place), "--json")
        assert (report.status, report.json["assurance"]) == (0, "anchored"), place
    monkeypatch.setenv("CAGG_ANCHORS", "ftp:/x")
    assert signed("maintain").status == 2


def test_keys_of_several_logs(signed: Any, home: Path) -> None:
    first = signed("ledger", "rotate-key", "--reason", "yearly", "--json").json
    assert signed("ledger", "roll").status == 0
    (home / "keys" / "a-log-that-never-began").mkdir()
    stray = "example.org/stray+8b1a9953+"
    (home / "keys" / "a-log-that-never-began" / "log.vkey").write_text(f"# {stray}\n{first['key']}\n", encoding="utf-8")
    assert signed("ledger", "roll").status == 2, "it has just begun"
    found = signed("ledger", "key", "--json").json
    assert [item["state"] for item in found["states"]] == ["retired", "frozen", "active"]
    assert [item.split("+")[0].count("/") for item in found["keys"]] == [1, 2], "in the order of the logs"
    refused = signed("ledger", "revoke-key", first["before"], "--reason", "stolen")
    assert (refused.status, "is of a log that is frozen" in refused.err) == (2, True)
