"""Work that lasts hours keeps no connection that others may need."""

from typing import Any

import pytest

from cagg.testing.postgresql import LocalPostgres


@pytest.mark.parametrize("beats", [0, 3])
def test_no_connection_to_a_server_is_kept_while_the_work_runs(
    make_gate: Any, bench: Any, postgres: LocalPostgres, beats: int
) -> None:
    url = bench.overrides.get("store")
    if url is None:
        return  # a file: nobody else is kept waiting
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2].partition('?')[0]}'"
    gate = make_gate()
    bench.budget(gate, "acme", "100 kg/month")
    decision = gate.ask(bench.request(finish_by=None, budget="acme"))
    with gate.run(decision) as run:
        for _ in range(beats):
            bench.clock.advance(gate.components.settings.beat)
            run._beat(run._window)
        assert postgres.execute(count).strip() == "0"
    assert run.summary.settlement_id is not None
