"""``cagg ledger prove | consistency | verify-proof``, and the exports that others check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def signed(cli: Any, night: Path) -> Any:
    """A ledger with a run under one checkpoint, a second run under another, and a third under none."""
    for name in ("first", "second"):
        assert cli("run", "--energy", "1 kWh", "--name", name, "--", "true").status == 0
        assert cli("maintain").status == 0
    assert cli("run", "--energy", "1 kWh", "--name", "third", "--", "true").status == 0
    return cli


@pytest.fixture
def key(signed: Any) -> str:
    """The log's public key."""
    text: str = signed("ledger", "key", "--json").json["keys"][0]
    return text


def _elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Stand on an auditor's machine: another home, no store."""
    folder.mkdir()
    monkeypatch.setenv("CAGG_HOME", str(folder / "home"))


def test_a_proof_is_checked_where_there_is_no_store(
    signed: Any, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = signed("ledger", "list", "--json").json["entries"]
    covered = next(row for row in rows if row["task"] == "second" and row["kind"] == "measurement")
    proof = tmp_path / "second.tlog-proof"
    for name in (covered["entry_id"], covered["entry_id"].upper()[:30], str(covered["index"])):
        assert signed("ledger", "prove", name, "-o", str(proof)).status == 0
        assert signed("ledger", "prove", name).out == proof.read_text(encoding="utf-8")
    assert signed("ledger", "verify-proof", str(proof)).status == 0
    _elsewhere(monkeypatch, tmp_path / "auditor")
    result = signed("ledger", "verify-proof", str(proof), "--key", key)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("Proven: entry ")
    assert covered["entry_id"] in result.out
    document = signed("ledger", "verify-proof", str(proof), "--key", key, "--json").json
    assert document["proven"] is True
    assert document["entry"]["request"]["task_key"] == "second"
    assert document["signed_by"] == [key]
    assert not (tmp_path / "auditor" / "home").exists()


def test_without_a_key_nothing_is_shown(
    signed: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "p"
    assert signed("ledger", "prove", "0", "-o", str(proof)).status == 0
    _elsewhere(monkeypatch, tmp_path / "auditor")
    result = signed("ledger", "verify-proof", str(proof))
    assert result.status == 2
    assert "--key" in result.err
    said(result)


def test_an_entry_under_no_checkpoint_is_not_proven_yet(signed: Any, said: Any) -> None:
    newest = signed("ledger", "list", "--json").json["entries"][0]
    result = signed("ledger", "prove", newest["entry_id"])
    assert (result.status, result.out) == (1, "")
    assert "cagg maintain" in result.err
    said(result)
    result = signed("ledger", "prove", "latest", "--json")
    assert result.status == 1
    assert result.json["error"]["kind"] == "NotProven"
    assert signed("maintain").status == 0
    assert signed("ledger", "prove", newest["entry_id"]).status == 0


def test_an_entry_is_named_by_a_beginning_that_only_it_has(signed: Any, said: Any) -> None:
    ids = sorted(row["entry_id"] for row in signed("ledger", "list", "--json").json["entries"])
    result = signed("ledger", "prove", ids[0][:3])
    assert result.status == 2
    assert "several entries" in result.err
    said(result)


def test_entries_of_a_frozen_log_are_proven_as_ever(signed: Any, key: str, said: Any, tmp_path: Path) -> None:
    rows = signed("ledger", "list", "--json").json["entries"]
    kept, proof = tmp_path / "kept", tmp_path / "p"
    kept.write_text(signed("ledger", "checkpoint").out, encoding="utf-8")
    assert signed("ledger", "roll").status == 0
    assert signed("run", "--energy", "1 kWh", "--name", "later", "--", "true").status == 0
    assert signed("maintain").status == 0
    for row in rows:
        assert signed("ledger", "prove", row["entry_id"], "-o", str(proof)).status == 0
        assert signed("ledger", "verify-proof", str(proof), "--key", key).status == 0
    assert signed("ledger", "consistency", str(kept), "-o", str(proof)).status == 0
    assert signed("ledger", "verify-proof", str(proof), "--key", key).status == 0
    later = signed("ledger", "list", "--json").json["entries"][0]["entry_id"]
    assert signed("ledger", "prove", later, "-o", str(proof)).status == 0
    assert signed("ledger", "verify-proof", str(proof), "--key", key).status == 1
    old = signed("ledger", "logs", "--json").json["logs"][0]["origin"]
    assert signed("ledger", "export", "--format", "tiles", "-o", str(tmp_path / "old"), "--log", old).status == 0
    assert (tmp_path / "old" / "checkpoint").read_text(encoding="utf-8").startswith(f"{old}\n")


def test_consistency_of_kept_and_stored_checkpoints(signed: Any, key: str, said: Any, tmp_path: Path) -> None:
    kept, proof = tmp_path / "kept", tmp_path / "chain"
    kept.write_text(signed("ledger", "checkpoint").out, encoding="utf-8")
    size = signed("ledger", "checkpoint", "--json").json["size"]
    assert signed("maintain").status == 0
    newer = signed("ledger", "checkpoint", "--json").json["size"]
    assert newer > size
    for arguments in ([str(kept)], [str(size)], [str(size), str(newer)], [str(kept), str(newer)]):
        assert signed("ledger", "consistency", *arguments, "-o", str(proof)).status == 0
        result = signed("ledger", "verify-proof", str(proof), "--key", key)
        assert result.status == 0
        assert f"the checkpoint of {newer} entries continues the one of {size} entries" in result.out
    forged = kept.read_text(encoding="utf-8").split("\n")
    forged[2] = f"{forged[2][1:43]}{forged[2][0]}="
    kept.write_text("\n".join(forged), encoding="utf-8")
    result = signed("ledger", "consistency", str(kept))
    assert result.status in (1, 2)
    said(result)
    for wrong in (["999"], [str(newer), str(size)], ["missing"], [str(tmp_path)], [str(size), "x"]):
        result = signed("ledger", "consistency", *wrong)
        assert result.status == 2, wrong
        said(result)


def test_every_tenth_changed_byte_of_a_proof_is_refused(signed: Any, key: str, tmp_path: Path) -> None:
    proof = tmp_path / "p"
    assert signed("ledger", "prove", "0", "-o", str(proof)).status == 0
    data = proof.read_bytes()
    for place in range(0, len(data), 37):
        proof.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        result = signed("ledger", "verify-proof", str(proof), "--key", key)
        assert result.status in (1, 2)
        assert "Traceback" not in result.err


def test_files_that_are_no_proof(signed: Any, key: str, said: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "large").write_bytes(b"c2sp.org/tlog-proof@v1\n" + b"x" * 5_000_000)
    for name in ("empty", "binary", "large", "missing", "."):
        result = signed("ledger", "verify-proof", str(tmp_path / name), "--key", key)
        assert result.status == 2
        said(result)


def test_the_entry_beside_its_proof(signed: Any, key: str, said: Any, tmp_path: Path) -> None:
    proof, entry = tmp_path / "p", tmp_path / "entry.json"
    assert signed("ledger", "prove", "0", "-o", str(proof), "--entry", str(entry)).status == 0
    assert json.loads(entry.read_bytes())["kind"] == "decision"
    assert signed("ledger", "verify-proof", str(proof), "--key", key, "--entry", str(entry)).status == 0
    result = signed("ledger", "verify-proof", str(proof), "--key", key)
    assert result.status == 2
    said(result)


def test_a_proof_survives_a_terminal_without_unicode(signed: Any, start: Any, key: str, tmp_path: Path) -> None:
    process = start("ledger", "prove", "0", PYTHONIOENCODING="ascii", LC_ALL="C")
    out, _ = process.communicate(timeout=60)
    (tmp_path / "p").write_text(out, encoding="utf-8")
    assert "\u2014 " in out
    assert signed("ledger", "verify-proof", str(tmp_path / "p"), "--key", key).status == 0


def test_unknown_entries_and_stores(cli: Any, signed: Any, said: Any, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("nonsense", "", "0199", "9999", "zzzzzzzz-"):
        result = signed("ledger", "prove", name)
        assert result.status == 2, name
        said(result)
    monkeypatch.setenv("CAGG_HOME", str(tmp_path / "new"))
    for command in (["prove", "0"], ["consistency", "1"], ["export", "--format", "tiles", "-o", "x"]):
        result = cli("ledger", *command)
        assert result.status == 2
        said(result)
    assert not (tmp_path / "new").exists()


# ---- exports --------------------------------------------------------------------------------------------------------


def test_tiles_grow_with_the_log(signed: Any, said: Any, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    first = signed("ledger", "export", "--format", "tiles", "-o", str(folder), "--json")
    assert first.status == 0
    assert first.json["new_entries"] == first.json["size"]
    assert first.json["left_out"] > 0
    assert (folder / "checkpoint").read_text(encoding="utf-8") == signed("ledger", "checkpoint").out
    assert signed("maintain").status == 0
    again = signed("ledger", "export", "--format", "tiles", "-o", str(folder), "--json").json
    assert again["new_entries"] == first.json["left_out"]
    (folder / "checkpoint").write_text((folder / "checkpoint").read_text(encoding="utf-8").replace("cagg.", "other."))
    result = signed("ledger", "export", "--format", "tiles", "-o", str(folder))
    assert result.status == 1
    said(result)
    for wrong in ([], ["-o", str(tmp_path / "log" / "checkpoint")], ["-o", str(folder), "--kind", "decision"]):
        result = signed("ledger", "export", "--format", "tiles", *wrong)
        assert result.status == 2
        said(result)


@pytest.mark.parametrize("name", ["bundle.zip", "bundle"])
def test_an_auditor_checks_a_bundle(signed: Any, key: str, tmp_path: Path, name: str) -> None:
    place, kept = tmp_path / name, tmp_path / "kept"
    kept.write_text(signed("ledger", "checkpoint").out, encoding="utf-8")
    assert signed("maintain").status == 0
    done = signed("ledger", "export", "--format", "bundle", "-o", str(place), "--json")
    assert done.status == 0
    script = Path(__import__("cagg").__file__).parent / "ledger" / "export" / "verifier.py"
    command = [sys.executable, "-I", str(script), str(place), "--key", key, "--checkpoint", str(kept)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"Verified: {done.json['entries']} entries" in result.stdout
    taken = signed("ledger", "export", "--format", "bundle", "-o", str(place))
    assert taken.status == (0 if name.endswith(".zip") else 2)


def test_an_export_of_what_nobody_signed(cli: Any, night: Path, said: Any, tmp_path: Path) -> None:
    assert cli("run", "--energy", "1 kWh", "--", "true").status == 0
    for form, name in (("tiles", "tiles"), ("bundle", "bundle"), ("bundle", "bundle.zip")):
        result = cli("ledger", "export", "--format", form, "-o", str(tmp_path / name))
        assert result.status == 1
        assert "cagg maintain" in result.err
        said(result)
        assert not (tmp_path / name).exists()
