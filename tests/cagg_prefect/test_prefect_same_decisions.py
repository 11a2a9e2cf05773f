"""A request built by the Prefect adapter is decided, and recorded, as the same request from any other engine."""

from pathlib import Path

import pytest

from cagg.request import GateOptions, Request, RequestIdentity
from cagg.testing.decisions import DecisionCase, decision_cases, recorded_decision
from cagg_prefect.asking import Subject, build_request
from cagg_prefect.naming import HOST
from cagg_prefect.runs import RootRun

GOLDEN = Path(__file__).parents[1] / "golden" / "decisions" / "v1.jsonl"


def _request(case: DecisionCase) -> Request:
    root = RootRun(
        run_id="a-flow-run",
        chain=("a-flow-run",),
        stand_ins=frozenset(),
        call_key="",
        deployed=True,
        attempt=case.attempt,
        deferrals=0,
        scheduled_start=case.scheduled_start,
        time_zone=case.time_zone,
        labels={"flow": "nightly"},
    )
    identity = RequestIdentity(host=HOST, root_run_id=root.run_id, task_key="nightly/validate", attempt=root.attempt)
    subject = Subject(options=GateOptions.from_mapping(case.options, where=case.name), name="validate")
    return build_request(subject, identity, root, can_defer=True)


@pytest.mark.parametrize("number", range(len(decision_cases)), ids=[case.name for case in decision_cases])
def test_the_recorded_decision_is_byte_for_byte_the_one_on_file(number: int, tmp_path: Path) -> None:
    expected = GOLDEN.read_bytes().splitlines()[number]
    assert recorded_decision(decision_cases[number], _request, tmp_path) == expected
