"""What this machine is, as far as a record may say it: never a host name, serial number or address."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cagg.energy.coefficients import DATASET, cpu_power

__all__ = ["cpu_count", "cpu_fields", "describe_hardware", "memory_bytes"]

_KEYS = frozenset({"vendor_id", "cpu family", "model", "stepping", "model name"})


def cpu_fields(proc: Path = Path("/proc")) -> Mapping[str, str]:
    """Return vendor, family, model, stepping and brand of the first processor; empty where they cannot be read."""
    found: dict[str, str] = {}
    try:
        with (proc / "cpuinfo").open() as file:
            for line in file:
                key, separator, value = line.partition(":")
                if separator and key.strip() in _KEYS:
                    found[key.strip()] = value.strip()
                elif not line.strip() and found:
                    break
    except (OSError, UnicodeDecodeError):
        return {}
    return found


def cpu_count(proc: Path = Path("/proc")) -> int | None:
    """Return the number of online logical processors of the host; None when nothing says it."""
    try:
        with (proc / "stat").open() as file:
            count = sum(1 for line in file if line.startswith("cpu") and line[3:4].isdigit())
    except (OSError, UnicodeDecodeError):
        count = 0
    return count or os.cpu_count()


def memory_bytes(proc: Path = Path("/proc")) -> tuple[int, int] | None:
    """Return (total, used) memory of the host; used = total - available. None when it cannot be read."""
    found: dict[str, int] = {}
    try:
        with (proc / "meminfo").open() as file:
            for line in file:
                key, _, rest = line.partition(":")
                if key in ("MemTotal", "MemAvailable"):
                    found[key] = int(rest.split()[0]) * 1024
                    if len(found) == 2:
                        break
    except (OSError, ValueError, IndexError):
        return None
    if len(found) < 2:
        return None
    return found["MemTotal"], max(0, found["MemTotal"] - found["MemAvailable"])


def describe_hardware(proc: Path = Path("/proc")) -> Mapping[str, str]:
    """Return the class of hardware for the record: processor, counts, memory, kernel. Unknown parts are left out."""
    fields = cpu_fields(proc)
    system = os.uname()  # its node name is left alone
    facts = {"kernel": f"{system.sysname} {'.'.join(system.release.split('.')[:2])}", "machine": system.machine}
    if fields.get("model name"):
        facts["cpu"] = fields["model name"]
    count = cpu_count(proc)
    if count:
        facts["cpus"] = str(count)
    memory = memory_bytes(proc)
    if memory:
        facts["memory_gib"] = str(round(memory[0] / 2**30))
    power = cpu_power(fields)
    facts["cpu_model"] = f"{power.name} ({DATASET})" if power.recognised else f"not recognised: {power.name}"
    return facts
