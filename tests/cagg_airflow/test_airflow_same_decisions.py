"""A request built by the Airflow adapter is decided, and recorded, as the same request from any other engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cagg.request import GateOptions, Request
from cagg.testing.decisions import DecisionCase, decision_cases, recorded_decision
from cagg_airflow.asking import build_request

GOLDEN = Path(__file__).parents[1] / "golden" / "decisions" / "v1.jsonl"
RETRIES = 3


def _context(case: DecisionCase) -> dict[str, Any]:
    """What a task sees of itself in the case's try of a DAG run, by its schedule or by hand."""
    scheduled = case.scheduled_start is not None
    zone = None if case.time_zone is None else ZoneInfo(case.time_zone)
    return {
        "ti": SimpleNamespace(
            dag_id="nightly",
            task_id="validate",
            run_id="scheduled__2026-11-23T22:00:00+00:00" if scheduled else "manual__2026-11-23T22:00:00+00:00",
            map_index=-1,
            try_number=case.attempt,
            max_tries=RETRIES,
        ),
        "task": SimpleNamespace(operator_name="BashOperator", retries=RETRIES),
        "dag_run": SimpleNamespace(
            run_type="scheduled" if scheduled else "manual", run_after=case.scheduled_start or case.asked_at
        ),
        "dag": SimpleNamespace(timezone=zone, schedule="0 22 * * *"),
    }


def _request(case: DecisionCase) -> Request:
    return build_request(_context(case), GateOptions.from_mapping(case.options, where=case.name))


@pytest.mark.parametrize("number", range(len(decision_cases)), ids=[case.name for case in decision_cases])
def test_the_recorded_decision_is_byte_for_byte_the_one_on_file(number: int, tmp_path: Path) -> None:
    expected = GOLDEN.read_bytes().splitlines()[number]
    assert recorded_decision(decision_cases[number], _request, tmp_path) == expected
