"""``cagg maintain`` as a Prefect flow: one line makes it a deployment.

``from cagg_prefect import maintain_flow; maintain_flow.serve(cron="*/10 * * * *")``

The process that serves it holds the signing key of the ledger in ``$CAGG_HOME/keys``; run it on one machine that you
trust, not on every worker.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow

from cagg.errors import CaggError
from cagg_prefect import opening
from cagg_prefect.compat import run_logger

__all__ = ["maintain_flow"]


@flow(name="cagg-maintain", description="Replays, expires, reconciles, fetches forecasts and signs the ledger.")
def maintain_flow() -> dict[str, Any]:
    """Do one pass of ``cagg maintain`` with the gate's own settings; returns its report as JSON values.

    Raises:
        CaggError: the pass met problems, which fail the run; what could be done was done.
        StoreUnavailable: the store is down; nothing was changed.
    """
    from cagg.maintenance import maintain

    log = run_logger()
    report = maintain(opening.open_gate().components)
    for note in report.notes:
        log.warning("%s", note)
    if report.problems:
        raise CaggError(f"cagg maintain met {len(report.problems)} problems: {' '.join(report.problems)}")
    log.info(
        "%d replayed, %d expired, %d reconciled, %d forecasts fetched, signed up to %s",
        report.replayed,
        report.expired,
        report.reconciled,
        report.forecasts,
        "nothing" if report.signed_size is None else report.signed_size,
    )
    return asdict(report)
