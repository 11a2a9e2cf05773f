"""``cagg ledger private | redact | logs | roll``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cagg.entries import EntryDraft, EntryKind
from cagg.ledger.entry import append
from cagg.ledger.events import ApprovalDecision, approval_body
from cagg.ledger.private import commitment
from cagg.store.engine import open_store
from cagg.testing import ManualClock

NAME = "Ada Lovelace-Example"


@pytest.fixture
def approval(cli: Any, home: Path, clock: ManualClock, night: Path) -> Any:
    """Record an approval with a personal name and return its id."""

    def record(key: str = "release-1", *, risk: str = "limited") -> str:
        store = open_store(f"sqlite:///{home / 'cagg.db'}", clock=clock)
        body = approval_body(
            subject={"name": "model", "digest": None}, decision=ApprovalDecision.APPROVED, approver=None, risk=risk
        )
        wanted = EntryDraft(kind=EntryKind.APPROVAL, request_key=key, ordinal=0, body=body, private={"approver": NAME})
        with store.transaction() as tx:
            entry_id = append(tx, wanted).entry_id
        store.close()
        return entry_id

    return record


def test_a_value_is_shown_with_what_proves_it(cli: Any, approval: Any) -> None:
    entry_id = approval()
    found = cli("ledger", "private", entry_id, "--json")
    assert found.status == 0
    (row,) = found.json["private"]
    assert (row["field"], row["value"], row["fits"], row["kept_until"]) == ("approver", NAME, True, None)
    assert commitment(bytes.fromhex(row["salt"]), "approver", NAME) == row["commitment"]
    text = cli("ledger", "private", entry_id[:18]).out
    assert NAME in text
    assert "is what the entry committed to" in text
    assert NAME not in cli("ledger", "list", "--json").out
    assert NAME not in cli("explain", entry_id).out


def test_a_redacted_value_is_gone_and_verify_is_content(cli: Any, approval: Any, home: Path) -> None:
    entry_id = approval()
    assert cli("maintain").status == 0
    done = cli("ledger", "redact", entry_id, "approver", "--reason", "the person asked for it", "--json")
    assert (done.status, done.json["deleted"]) == (0, 1)
    again = cli("ledger", "redact", entry_id, "approver", "--reason", "once more", "--json")
    assert (again.status, again.json["deleted"], again.json["redaction"]) == (0, 0, done.json["redaction"])
    shown = cli("ledger", "private", entry_id, "--json")
    (row,) = shown.json["private"]
    assert (shown.status, row["value"], row["salt"]) == (0, None, None)
    assert row["redaction"]["reason"] == "the person asked for it"
    assert "redacted on 2026-01-05: the person asked for it" in cli("ledger", "private", entry_id).out
    assert cli("maintain").status == 0
    assert cli("ledger", "verify").status == 0
    for path in home.rglob("*"):
        assert not path.is_file() or NAME.encode() not in path.read_bytes(), path


def test_persons_words_are_told_in_words(cli: Any, approval: Any) -> None:
    entry_id = approval()
    told = cli("explain", entry_id).out
    assert "APPROVED: model of unknown digest" in told
    assert f"a personal value, shown by `cagg ledger private {entry_id}`" in told
    done = cli("ledger", "redact", entry_id, "approver", "--reason", "she asked", "--json").json
    told = cli("explain", entry_id).out
    assert "redacted on 2026-01-05: she asked" in told
    assert "commitment" not in told
    (state,) = cli("explain", entry_id, "--json").json["entries"][0]["private"]
    assert (state["field"], state["kept"], state["redaction"]) == ("approver", False, done["redaction"])
    told = cli("explain", done["redaction"]).out
    assert f"REDACTED: the value 'approver' of the entry {entry_id} was deleted with its salt" in told


def test_a_reason_that_repeats_the_value_is_refused(cli: Any, said: Any, approval: Any, home: Path) -> None:
    entry_id = approval()
    refused = cli("ledger", "redact", entry_id, "approver", "--reason", f"{NAME.upper()} asked for it")
    assert refused.status == 2
    said(refused)
    assert NAME.casefold() not in refused.err.casefold()
    assert cli("ledger", "list", "--kind", "redaction", "--json").json["entries"] == []
    assert cli("ledger", "private", entry_id, "--json").json["private"][0]["value"] == NAME


def test_what_must_be_kept_is_refused_with_the_date(cli: Any, said: Any, approval: Any) -> None:
    entry_id = approval(risk="high")
    refused = cli("ledger", "redact", entry_id, "approver", "--reason", "r")
    assert refused.status == 1
    said(refused)
    assert "until 2036-01-05" in refused.err
    assert "must be kept until 2036-01-05" in cli("ledger", "private", entry_id).out
    Path("cagg.toml").write_text(
        Path("cagg.toml").read_text(encoding="utf-8") + "[ledger]\nretention_years = 0\n", encoding="utf-8"
    )
    assert cli("ledger", "redact", entry_id, "approver", "--reason", "r").status == 0


@pytest.mark.parametrize(
    "command",
    [
        ("ledger", "redact", "ffff", "approver", "--reason", "r"),
        ("ledger", "redact", "latest", "approver", "--reason", "r"),
        ("ledger", "redact", "0", "owner", "--reason", "r"),
        ("ledger", "redact", "0", "approver", "--reason", " "),
        ("ledger", "private", "ffff"),
        ("ledger", "roll", "--reason", "bored"),
        ("ledger", "roll", "--reason", "restored"),
        ("ledger", "roll", "--name", "a b"),
        ("ledger", "roll", "--reason", "yearly", "--lost", "cagg.toml"),
        ("ledger", "roll", "--reason", "restored", "--lost", "nowhere.txt"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(cli: Any, said: Any, approval: Any, command: tuple[str, ...]) -> None:
    approval()
    refused = cli(*command)
    assert refused.status == 2
    said(refused)
    assert len(cli("ledger", "logs", "--json").json["logs"]) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("ledger", "private", "x"),
        ("ledger", "logs"),
        ("ledger", "roll"),
        ("ledger", "redact", "x", "y", "--reason", "r"),
    ],
)
def test_without_a_ledger_nothing_is_created(cli: Any, said: Any, home: Path, command: tuple[str, ...]) -> None:
    refused = cli(*command)
    assert refused.status == 2
    said(refused)
    assert not home.exists()


def test_a_value_that_was_exchanged_is_not_shown_as_proven(cli: Any, approval: Any, home: Path) -> None:
    import sqlite3

    entry_id = approval()
    with sqlite3.connect(home / "cagg.db") as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            raw.execute(f'DROP TRIGGER "{name}"')
        raw.execute("UPDATE cagg_private SET value = 'Somebody Else'")
    raw.close()
    found = cli("ledger", "private", entry_id)
    assert found.status == 1
    assert "is NOT what the entry committed to" in found.out
    verified = cli("ledger", "verify", "--json")
    assert verified.status == 1
    assert "private" in [item["kind"] for item in verified.json["failures"]]


def test_the_logs_of_a_store_are_listed(cli: Any, approval: Any) -> None:
    approval()
    assert cli("maintain").status == 0
    done = cli("ledger", "roll", "--reason", "yearly", "--name", "example.org/ml/2027", "--json")
    assert (done.status, done.json["begun"], done.json["problems"]) == (0, "example.org/ml/2027", [])
    approval("release-2")
    approval("release-1")  # once more: recorded in the frozen log
    found = cli("ledger", "logs", "--json").json
    assert [(log["state"], log["size"], log["signed_size"]) for log in found["logs"]] == [
        ("frozen", 3, 3),
        ("active", 2, 1),
    ]
    assert found["logs"][1]["predecessor"] == done.json["frozen"]
    assert (found["logs"][1]["reason"], found["problems"], found["breaks"]) == ("yearly", [], [])
    text = cli("ledger", "logs").out
    assert "example.org/ml/2027, goes on from cagg.local/" in text
    assert done.json["key"] in cli("ledger", "key").out or done.json["key"].startswith("example.org/ml/2027+")
    assert len(cli("ledger", "list", "--json").json["entries"]) == 5
    assert cli("maintain").status == 0
    assert cli("ledger", "verify").status == 0


def test_the_name_is_the_first_ones_with_the_year(cli: Any, approval: Any) -> None:
    approval()
    first = cli("ledger", "logs", "--json").json["logs"][0]["origin"]
    said = cli("ledger", "roll").out
    assert f"The log {first} is frozen at 3 entries; {first}/2026 goes on from it." in " ".join(said.split())
    assert f"{first}/2026+" in said


def test_a_run_records_nothing_of_the_person_who_started_it(
    cli: Any, night: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that a process can find out: user, login, home folder, host, the author of the code."""
    import socket
    import sqlite3

    for name in ("USER", "LOGNAME", "USERNAME", "GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "EMAIL"):
        monkeypatch.setenv(name, "ada-example")
    monkeypatch.setattr(socket, "gethostname", lambda: "ada-example")
    assert "ada-example" not in str(home)
    cli("budget", "set", "a", "1 kg/month")
    ran = cli("run", "--budget", "a", "--energy", "1 Wh", "--name", "job", "--", "true")
    assert ran.status == 0
    assert cli("maintain").status == 0
    with sqlite3.connect(home / "cagg.db") as raw:
        bodies = [row[0] for row in raw.execute("SELECT body FROM cagg_entry")]
        blobs = [row[0] for row in raw.execute("SELECT data FROM cagg_blob")]
    raw.close()
    assert len(bodies) >= 4
    for data in (*bodies, *blobs):
        assert b"ada-example" not in data
        assert str(Path.cwd()).encode() not in data
        assert str(home).encode() not in data
    assert "ada-example" not in ran.out + ran.err
