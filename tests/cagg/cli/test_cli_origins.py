"""What people are told about where a record comes from."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cagg.cli._origins import code_of, commit_of, engine_of, listed, origin_facts, tell_occurrence
from cagg.testing.kinds import LEAST

DIGEST = f"sha256:{'ab' * 32}"
COMMIT = "de8de3381f26e8e8d00f919950fa6a255fca880e"


def code(**facts: str) -> dict[str, Any]:
    return {"code": [{"name": name, "value": value} for name, value in facts.items()]}


@pytest.mark.parametrize(
    ("request_", "said", "commit"),
    [
        ({}, "", None),
        (code(commit=COMMIT, dirty="false"), "commit de8de3381f26, unchanged", "de8de3381f26"),
        (
            code(commit=COMMIT, dirty="true", diff_sha256="79cb63e483be85ee"),
            "commit de8de3381f26, with changes (diff sha256 79cb63e483be)",
            "de8de3381f26+",
        ),
        (code(dirty="unknown", reason="git is not installed"), "commit unknown, git is not installed", None),
        (code(commit=COMMIT), "commit de8de3381f26", "de8de3381f26"),  # as entries of earlier versions say it
    ],
)
def test_the_code_in_words(request_: dict[str, Any], said: str, commit: str | None) -> None:
    assert (code_of(request_), commit_of(request_)) == (said, commit)


def test_the_engine_in_words() -> None:
    run = {
        "engine": "airflow",
        "engine_version": "3.3.2",
        "deployment": "dags@abc",
        "workflow": "nightly",
        "run_id": "r-1",
        "task_id": "validate",
        "map_index": 0,
        "try_number": 2,
    }
    said = "airflow 3.3.2, nightly/validate[0], run r-1, try 2, deployed as dags@abc"
    assert engine_of({"engine_run": run}) == said
    bare = {**dict.fromkeys(run), "engine": "prefect", "run_id": "r-1"}
    assert engine_of({"engine_run": bare}) == "prefect, run r-1"
    assert engine_of({}) == ""


def test_artefacts_and_software_in_words() -> None:
    items = [{"name": "a", "digest": DIGEST, "role": "model"}, {"name": "b", "digest": None, "role": None}]
    assert listed(items) == "a (model) sha256:abababababab; b of unknown digest"
    assert listed(None) == ""
    versions = [{"name": "cagg", "value": "0.1.0"}, {"name": "python", "value": "3.11.7"}]
    told = dict(origin_facts({"software": {"versions": versions, "image_digest": DIGEST, "image_source": "x"}}))
    assert told["software"] == "cagg 0.1.0, python 3.11.7; image sha256:abababababab"
    told = dict(origin_facts({"software": {"versions": [], "image_digest": None, "image_source": "it is not set"}}))
    assert told["software"] == "; image unknown (it is not set)"
    assert {text for _, text in origin_facts({})} == {""}


def test_a_validation_in_words() -> None:
    body = {
        **LEAST["validation"],  # type: ignore[index]
        "kind": "validation",
        "subject": {"name": "candidate", "digest": DIGEST},
        "outcome": "failed",
        "validator": "leakage",
    }
    text = io.StringIO()
    tell_occurrence(Console(file=text, width=200), body)
    assert "VALIDATION of candidate sha256:abababababab: failed" in text.getvalue()
    assert "leakage" in text.getvalue()
    assert body["measurements"][0] in text.getvalue()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"outcome": "failed", "ended": "failed"}, "the work ended with an error"),
        ({"outcome": "failed", "ended": "completed"}, "the work ran to its end and said so itself"),
        ({"outcome": "inconclusive", "ended": "interrupted"}, "the work was interrupted"),
        ({"outcome": "not_validated", "ended": None}, "the gate refused the run, so nothing was checked"),
        ({"outcome": "failed", "ended": "failed", "reason": "leak in column 3"}, "leak in column 3"),
        ({"outcome": "failed"}, ""),
        ({"outcome": "passed", "ended": "completed"}, ""),
    ],
)
def test_why_a_validation_did_not_pass(said: dict[str, Any], why: str) -> None:
    text = io.StringIO()
    tell_occurrence(Console(file=text, width=200), {**LEAST["validation"], "kind": "validation", **said})  # type: ignore[index,dict-item]
    told = [line.split(maxsplit=1)[1] for line in text.getvalue().splitlines() if line.startswith("why ")]
    assert told == ([why] if why else [])


def test_the_story_of_a_validation(cli: Any, said: Any) -> None:
    cli("run", "--kind", "validation", "--work-item", "PR-17", "--energy", "1 Wh", "--duration", "1m", "--", "true")
    rows = cli("ledger", "list", "--json").json["entries"]
    assert [row["kind"] for row in rows] == ["settlement", "validation", "measurement", "decision"]
    assert rows[1]["outcome"] == "passed"
    text = cli("explain", rows[1]["entry_id"]).out
    assert text.index("MEASURED") < text.index("VALIDATION: passed") < text.index("SETTLED")
    assert "PR-17" in text
    assert "python 3." in text
    failed = cli("run", "--kind", "validation", "--energy", "1 Wh", "--duration", "1m", "--", "false")
    assert failed.status == 1
    assert cli("ledger", "list", "--kind", "validation", "--json").json["entries"][0]["outcome"] == "failed"
    assert "the work ended with an error" in cli("explain", "latest").out
