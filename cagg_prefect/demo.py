"""The engine's part of ``cagg demo``: a nightly validation as a Prefect flow, on a temporary server.

Run by the demo as ``python -m cagg_prefect.demo FOLDER`` in an environment in which all state lies in that folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from cagg.cli.demo_story import BUDGET_PATH, ENERGY, begin
from cagg.clock import SystemClock

if TYPE_CHECKING:
    from cagg.cli.demo_story import Story

__all__ = ["isolate", "main"]

_LEAST_ACCURACY = 0.9


def main(folder: Path) -> int:
    """Start the server, let the story begin, run the flow; returns the exit status."""
    isolate(folder, os.environ)
    from cagg_prefect.compat import sync_client

    with sync_client() as client:
        client.hello()  # the story's clock starts when the server is up, not while it migrates its database
    story = begin(folder, SystemClock().now())
    accuracy = _nightly(story)
    sys.stdout.write(f"\n  The flow run completed; the validated model is right in {accuracy:.1%} of the cases.\n")
    sys.stdout.flush()
    return 0


def isolate(folder: Path, environ: MutableMapping[str, str]) -> None:
    """Take the user's Prefect out of an environment and put all of Prefect's state into the folder.

    Must happen before Prefect is imported, because it reads its settings then.
    """
    for name in [name for name in environ if name.startswith("PREFECT_")]:
        del environ[name]
    environ.update(
        PREFECT_HOME=str(folder / "prefect"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_LOGGING_LEVEL="WARNING",
        PREFECT_LOGGING_SERVER_LEVEL="ERROR",
        # Two busy cores need longer than the default of 20 s to make a new database (Prefect 3.8).
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="90",
    )


def _nightly(story: Story) -> float:
    from prefect import flow

    from cagg_prefect import carbon_aware

    @carbon_aware(
        budget=BUDGET_PATH,
        energy=ENERGY,
        duration=story.duration,
        finish_by=story.deadline,
        kind="validation",
    )
    @flow(name="nightly-validation")
    def nightly() -> float:
        return validate()

    return nightly()


def validate() -> float:
    """Train a small classifier on made-up data and return its accuracy on data it has not seen.

    Raises:
        ValueError: it is worse than a release may be.
    """
    import random

    chance = random.Random(20230314)  # noqa: S311 - made-up data, the same every time
    rows = [[chance.gauss(0, 1) for _ in range(8)] for _ in range(4_000)]
    truth = [1.0 if row[0] + 2 * row[1] - row[2] > 0 else 0.0 for row in rows]
    weights = _trained(rows[:3_000], truth[:3_000])
    right = sum(
        (sum(weight * value for weight, value in zip(weights, row, strict=True)) > 0) == (label > 0.5)
        for row, label in zip(rows[3_000:], truth[3_000:], strict=True)
    )
    accuracy = right / 1_000
    if accuracy < _LEAST_ACCURACY:
        raise ValueError(f"the model is right in {accuracy:.1%} of the cases; a release needs {_LEAST_ACCURACY:.0%}")
    return accuracy


def _trained(rows: list[list[float]], truth: list[float]) -> list[float]:
    """Logistic regression by stochastic gradient descent."""
    from math import exp

    weights = [0.0] * len(rows[0])
    for turn in range(12):
        for row, label in zip(rows, truth, strict=True):
            score = sum(weight * value for weight, value in zip(weights, row, strict=True))
            step = 0.5 / (turn + 1) * (label - 1 / (1 + exp(-max(-30.0, min(30.0, score)))))
            weights = [weight + step * value for weight, value in zip(weights, row, strict=True)]
    return weights


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
