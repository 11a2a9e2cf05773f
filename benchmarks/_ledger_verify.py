"""Verifies one SQLite log and prints what that took, as JSON: the main program of a process that imports little else.

python _ledger_verify.py FILE full|tree KEY PROCESSES
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

from cagg.clock import SystemClock
from cagg.ledger.verify import verify
from cagg.store.engine import open_store


def main(path: str, mode: str, key: str, workers: int) -> dict[str, float]:
    """Return the entries, the seconds on the clock and of processors, and the peak memory, helpers included; raises
    unless the log verifies."""
    store = open_store(path, clock=SystemClock())
    begun = time.perf_counter()
    with store.snapshot() as tx:
        report = verify(tx, [key], tree_only=mode == "tree", workers=workers)
    seconds = time.perf_counter() - begun
    if not report.verified:
        raise RuntimeError(report.sentence)
    for helper in multiprocessing.active_children():
        helper.join()
    helpers = workers * _maxrss(resource.RUSAGE_CHILDREN) if workers > 1 else 0
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "entries": report.size,
        "seconds": seconds,
        "processor_seconds": sum(usage.ru_utime + usage.ru_stime for usage in used),
        "peak_bytes": _peak_bytes() + helpers,
    }


def _peak_bytes() -> int:
    """Peak resident memory of this process: VmHWM where Linux tells it, because ru_maxrss there begins with what the
    parent had when it started the process."""
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="ascii").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return _maxrss(resource.RUSAGE_SELF)


def _maxrss(who: int) -> int:
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
