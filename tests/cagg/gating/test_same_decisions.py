"""Decisions recorded without an engine; each adapter's suite compares its own with the same file."""

from pathlib import Path

import pytest

from cagg.request import GateOptions, HostProfile, Request, RequestIdentity
from cagg.testing.decisions import DecisionCase, decision_cases, recorded_decision

GOLDEN = Path(__file__).parents[2] / "golden" / "decisions" / "v1.jsonl"


def _request(case: DecisionCase) -> Request:
    return Request(
        identity=RequestIdentity(host="local", root_run_id="r", task_key="nightly", attempt=case.attempt),
        options=GateOptions.from_mapping(case.options, where=case.name),
        host=HostProfile(name="local"),
        scheduled_start=case.scheduled_start,
        schedule_time_zone=case.time_zone,
    )


@pytest.mark.parametrize("number", range(len(decision_cases)), ids=[case.name for case in decision_cases])
def test_the_recorded_decision_is_byte_for_byte_the_one_on_file(number: int, tmp_path: Path) -> None:
    expected = GOLDEN.read_bytes().splitlines()[number]
    assert recorded_decision(decision_cases[number], _request, tmp_path) == expected


def test_every_line_on_file_is_a_case() -> None:
    assert len(GOLDEN.read_bytes().splitlines()) == len(decision_cases)
