"""What this process is: the run that it stands for when no engine started it."""

from __future__ import annotations

import os
import uuid

__all__ = ["PROCESS_RUN_ID"]

PROCESS_RUN_ID = f"{os.getpid()}-{uuid.uuid4()}"
"""Root run of gates that no engine started: one per process."""
