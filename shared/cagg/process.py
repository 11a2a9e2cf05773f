"""What this process is: the run that it stands for when no engine started it, and the code that it runs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

__all__ = ["PROCESS_RUN_ID", "code_version"]

PROCESS_RUN_ID = f"{os.getpid()}-{uuid.uuid4()}"
"""Root run of gates that no engine started: one per process."""


def code_version(start: Path | None = None) -> Mapping[str, str]:
    """Return {"commit": …} of the git checkout around a folder, read without running git; empty when there is none."""
    for folder in ((start or Path.cwd()), *(start or Path.cwd()).parents):
        head = folder / ".git" / "HEAD"
        try:
            text = head.read_text(encoding="ascii").strip()
            if not text.startswith("ref: "):
                return {"commit": text[:64]}
            reference = folder / ".git" / text[5:]
            if reference.is_file():
                return {"commit": reference.read_text(encoding="ascii").strip()[:64]}
            for line in (folder / ".git" / "packed-refs").read_text(encoding="ascii").splitlines():
                if line.endswith(f" {text[5:]}"):
                    return {"commit": line.split(" ", 1)[0][:64]}
        except (OSError, UnicodeDecodeError):
            continue
    return {}
