"""The engine's part of ``cagg demo``: a nightly validation as a Prefect flow, on a temporary server.

Run by the demo as ``python -m cagg_prefect.demo FOLDER`` in an environment in which all state lies in that folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from cagg.cli.demo_job import validate
from cagg.cli.demo_story import BUDGET_PATH, ENERGY, SCALE, begin
from cagg.clock import SystemClock

if TYPE_CHECKING:
    from cagg.cli.demo_job import validate
from cagg.cli.demo_story import Story

__all__ = ["COUNTS_DOWN", "IN_A_PROJECT", "SCALE", "isolate", "main"]

COUNTS_DOWN = True
"""On a terminal a deferred script shows how long it still waits."""

IN_A_PROJECT = "@carbon_aware above your @flow"
"""What a reader does next."""


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


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
