"""``cagg init``, ``cagg doctor``, ``cagg store``, ``cagg maintain``."""

from __future__ import annotations

import io
import json
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

# ---- init ---------------------------------------------------------------------------------------------------------


def test_init_writes_what_it_was_told(cli: Any) -> None:
    result = cli("init", "--zone", "GB", "--timezone", "Europe/London", "--budget", "acme/ml", "--no-input", "--json")
    assert result.status == 0
    assert result.json["zone"] == "neso:GB"
    text = Path("cagg.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == {
        "zone": "neso:GB",
        "timezone": "Europe/London",
        "mode": "enforce",
        "defaults": {"budget": "acme/ml"},
    }
    assert text.count("#") > 3
    assert cli("doctor", "--json").json["healthy"] is True


def test_init_leaves_open_what_it_was_not_told(cli: Any) -> None:
    result = cli("init", "--no-input", "--timezone", "UTC")
    assert result.status == 0
    assert "zone" not in tomllib.loads(Path("cagg.toml").read_text(encoding="utf-8"))
    assert "cagg zones" in result.out
    assert cli("doctor").status == 0


def test_init_never_overwrites_unasked(cli: Any, said: Any) -> None:
    Path("cagg.toml").write_text("# mine\n", encoding="utf-8")
    result = cli("init", "--no-input")
    assert result.status == 2
    said(result)
    assert Path("cagg.toml").read_text(encoding="utf-8") == "# mine\n"
    assert cli("init", "--no-input", "--force").status == 0
    assert Path("cagg.toml").read_text(encoding="utf-8") != "# mine\n"


def test_init_asks(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Europe/Berlin\nDE\n"))
    result = cli("init", "--json")
    assert result.status == 0
    assert (result.json["zone"], result.json["timezone"]) == ("climatology:DE", "Europe/Berlin")


def test_init_suggests_zones_of_the_country(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cagg.cli.init import suggested_zones

    if not suggested_zones("Europe/Berlin"):
        pytest.skip("this computer has no zone.tab, so the country of a time zone is unknown")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Europe/London\n\n"))
    result = cli("init", "--json")
    assert result.json["zone"] == "neso:GB"
    assert "climatology:GB" in result.err


def test_init_without_anybody_to_answer(cli: Any, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    result = cli("init")
    assert result.status == 2
    assert "--no-input" in result.err
    assert "Traceback" not in result.err
    assert not Path("cagg.toml").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--zone", "Atlantis"], ["--timezone", "Mars/Base"], ["--budget", "a//b"], ["--path", "/proc/no/cagg.toml"]],
)
def test_init_refuses_what_cannot_be_used(cli: Any, said: Any, arguments: list[str]) -> None:
    result = cli("init", "--no-input", *arguments)
    assert result.status == 2
    said(result)
    assert not Path("cagg.toml").exists()


# ---- doctor -------------------------------------------------------------------------------------------------------


def _levels(document: Any, topic: str) -> list[str]:
    return [item["level"] for item in document["findings"] if item["topic"] == topic]


def test_doctor_on_a_fresh_machine(cli: Any, home: Path) -> None:
    result = cli("doctor", "--json")
    assert result.status == 0
    assert result.json["healthy"] is True
    assert "problem" not in [item["level"] for item in result.json["findings"]]
    assert not home.exists()
    assert "Nothing is wrong" in cli("doctor").out


def test_doctor_names_the_origin_of_every_setting(cli: Any, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_MODE", "observe")
    rows = {row["key"]: row for row in cli("doctor", "--json").json["settings"]}
    assert rows["mode"]["origin"] == "environment (CAGG_MODE)"
    assert rows["zone"]["origin"].endswith("cagg.toml")
    assert rows["policy.materiality"]["origin"] == "default"


def test_doctor_shows_no_password(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_GRID_NESO_URL", "https://anna:hunter2@proxy.example/neso")
    for result in (cli("doctor"), cli("doctor", "--json")):
        assert "proxy.example" in result.out
        assert "hunter2" not in result.out


def test_doctor_finds_a_config_that_cannot_be_read(cli: Any) -> None:
    Path("cagg.toml").write_text("zone = [", encoding="utf-8")
    result = cli("doctor", "--json")
    assert result.status == 1
    assert "cagg.toml" in result.json["findings"][0]["text"]


def test_doctor_finds_a_store_that_is_no_database(cli: Any, home: Path) -> None:
    home.mkdir()
    (home / "cagg.db").write_text("no database", encoding="utf-8")
    result = cli("doctor", "--json")
    assert result.status == 1
    assert _levels(result.json, "store") == ["problem"]


def test_doctor_finds_an_unknown_zone(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_ZONE", "atlantis")
    result = cli("doctor", "--json")
    assert result.status == 1
    assert _levels(result.json, "grid") == ["problem"]


def test_doctor_finds_spooled_records_that_cannot_be_replayed(cli: Any, home: Path) -> None:
    (home / "spool").mkdir(parents=True)
    (home / "spool" / "1.bad").write_text("{", encoding="utf-8")
    result = cli("doctor", "--json")
    assert result.status == 1
    (finding,) = [item for item in result.json["findings"] if item["topic"] == "spool"]
    assert finding["level"] == "problem"
    assert finding["remedy"]


def test_doctor_sees_that_nobody_signs(cli: Any, clock: Any, night: Path) -> None:
    cli("budget", "set", "a", "1 kg/month")
    assert _levels(cli("doctor", "--json").json, "ledger") == ["note"]
    clock.advance(2 * 86_400)
    late = cli("doctor", "--json")
    assert (late.status, _levels(late.json, "ledger")) == (1, ["problem"])
    cli("maintain")
    assert _levels(cli("doctor", "--json").json, "ledger") == ["ok"]


def test_doctor_sees_a_restored_backup(cli: Any, night: Path, home: Path, tmp_path: Path) -> None:
    cli("run", "--", "true")
    assert cli("maintain").status == 0
    assert cli("store", "backup", str(tmp_path / "backup.db")).status == 0
    cli("run", "--", "true")
    assert cli("maintain").status == 0
    assert cli("doctor").status == 0
    for path in home.glob("cagg.db*"):
        path.unlink()
    (tmp_path / "backup.db").rename(home / "cagg.db")
    found = cli("doctor", "--json")
    (finding,) = [item for item in found.json["findings"] if item["topic"] == "ledger"]
    assert (found.status, finding["level"]) == (1, "problem")
    assert "has signed 6 entries" in finding["text"]
    assert "with 3," in finding["text"]
    assert "cagg ledger roll --reason restored" in finding["remedy"]
    assert cli("maintain").status == 1


def test_doctor_sees_that_the_key_is_missing(cli: Any, night: Path, home: Path) -> None:
    cli("run", "--", "true")
    assert cli("maintain").status == 0
    (home / "keys" / "log.key").unlink()
    found = cli("doctor", "--json")
    (finding,) = [item for item in found.json["findings"] if item["topic"] == "ledger"]
    assert (found.status, finding["level"]) == (1, "problem")
    assert "log.key is missing" in finding["text"]
    assert "--reason key_lost" in finding["remedy"]


def test_doctor_names_a_variable_that_is_no_setting(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_STORE_URL", "sqlite:///x")
    monkeypatch.setenv("CAGG_COMMIT", "0" * 40)
    found = cli("doctor", "--json")
    (finding,) = [item for item in found.json["findings"] if item["topic"] == "environment"]
    assert (found.status, finding["level"]) == (0, "note")
    assert ("CAGG_STORE_URL" in finding["text"], finding["remedy"]) == (True, "did you mean CAGG_STORE?")


def test_doctor_asks_the_grid_only_when_told_to(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_ZONE", "neso:GB")
    monkeypatch.setenv("CAGG_GRID_NESO_URL", "http://127.0.0.1:9")
    assert cli("doctor").status == 0
    online = cli("doctor", "--online", "--json")
    assert online.status == 1
    assert "problem" in _levels(online.json, "grid")


def test_doctor_says_why_a_meter_source_is_missing(cli: Any) -> None:
    texts = [item["text"] for item in cli("doctor", "--json").json["findings"] if item["topic"] == "meter"]
    assert any(text.startswith("rapl: ") for text in texts)
    assert all(len(text) > 20 for text in texts)


# ---- store and maintain -------------------------------------------------------------------------------------------


def test_the_stores_status(cli: Any, home: Path) -> None:
    assert cli("store", "status", "--json").status == 1
    assert not home.exists()
    assert cli("store", "migrate", "--json").json["created"] is True
    assert cli("store", "migrate", "--json").json["created"] is False
    document = cli("store", "status", "--json").json
    assert (document["exists"], document["entries"]) == (True, 0)
    assert document["schema"] == document["known_schema"]


def test_a_store_that_cannot_be_used(cli: Any, said: Any, home: Path) -> None:
    home.mkdir()
    (home / "cagg.db").write_text("no database", encoding="utf-8")
    for command in (["store", "status"], ["store", "migrate"], ["maintain"], ["budget", "show"], ["ledger", "verify"]):
        result = cli(*command)
        assert result.status == 2, command
        said(result)


def test_one_pass(cli: Any, night: Path) -> None:
    assert cli("maintain", "--json").json["signed_size"] is None
    cli("run", "--", "true")
    result = cli("maintain", "--json")
    assert result.status == 0
    assert set(result.json) == {
        "replayed",
        "sequenced",
        "lag_seconds",
        "waiting",
        "expired",
        "reconciled",
        "forecasts",
        "signed_size",
        "newly_signed",
        "problems",
        "notes",
    }
    assert result.json["signed_size"] == len(cli("ledger", "list", "--json").json["entries"])
    assert result.json["newly_signed"] is True


def test_a_checkpoint_is_told_once(cli: Any, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder of cron's: each pass is a process of its own, which has published nothing yet."""
    from cagg.steps import signing

    def passed() -> str:
        monkeypatch.setattr(signing, "_published", {})
        return str(cli("maintain").out)

    monkeypatch.setenv("CAGG_ANCHORS", "log")
    cli("run", "--", "true")
    first = passed()
    assert first.count("cagg-checkpoint ") == 1
    assert "Checkpoint of 3 entries." in first
    again = passed()
    assert "cagg-checkpoint" not in again
    assert "Nothing new to sign after 3 entries." in again
    cli("run", "--", "true")
    assert passed().count("cagg-checkpoint ") == 1


def test_notes_of_a_source_say_for_which_zone_and_why(cli: Any, night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAGG_GRID_NESO_URL", "http://127.0.0.1:9")
    cli("run", "--zone", "neso:GB", "--", "true")
    notes = cli("maintain", "--json").json["notes"]
    assert notes
    assert all(text.startswith("zone neso:GB (a gate named it, last on 2026-01-05): ") for text in notes)
    cli("run", "--zone", "neso:GB", "--energy", "1 kWh", "--", "true")
    assert ".;" not in cli("explain", "latest").out


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_loop_ends_cleanly(start: Any, name: str) -> None:
    process = start("maintain", "--every", "1h", "--json")
    first = json.loads(process.stdout.readline())
    assert first["problems"] == []
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("every", ["0s", "-1s", "often", "10"])
def test_a_pause_that_cannot_be_used(cli: Any, said: Any, every: str) -> None:
    result = cli("maintain", "--every", every)
    assert result.status == 2
    said(result)
