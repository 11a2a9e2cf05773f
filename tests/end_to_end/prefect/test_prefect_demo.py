"""``cagg demo`` with a real local Prefect: the play from the budget to the verified ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_defers_runs_meters_charges_and_verifies(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cagg", "demo", "--json"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path / "elsewhere")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["complete"] is True
    assert document["verify"]["verified"] is True
    assert [body["verdict"]["verdict"] for body in document["decisions"]] == ["defer", "admit"]
    (measured,) = document["measurements"]
    assert measured["outcome"] == "completed"
    assert measured["grade"] in "ABCD"
    before, after = document["budgets_before"][-1], document["budgets_after"][-1]
    assert before["spent"] == 0 < after["spent"]
    assert after["held"] == 0
    for words in (
        "DECLARES",
        "chosen window",
        "waiting",
        "MEASURED",
        "Budget after",
        "verified (signed)",
        "cagg explain",
    ):
        assert words in done.stderr, words
    assert [item.name for item in tmp_path.iterdir()] == [".demo"]
