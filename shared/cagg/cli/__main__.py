"""The entry point of ``cagg``: runs a command and turns every expected error into one sentence and a status.

Status 0: yes, done. 1: the answer is no. 2: no answer could be given. 130: interrupted. ``cagg run`` passes its
command's status through and refuses with 125.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; None = the process's own arguments."""
    if sys.platform == "win32":
        sys.stderr.write("cagg: Windows is not supported; use Linux, for example in WSL, or macOS.\n")
        return 2
    from cagg.cli._app import run_app

    return run_app(sys.argv[1:] if arguments is None else list(arguments))


if __name__ == "__main__":
    sys.exit(main())
