"""Keep the nightly flow scheduled at 22:00; a deferred run ends its process and starts again in its window.

Runs until it is stopped.
"""

from __future__ import annotations

from nightly import nightly
from prefect.schedules import Cron

if __name__ == "__main__":
    nightly.serve(name="nightly", schedule=Cron("0 22 * * *", timezone="Europe/London"), limit=1)
