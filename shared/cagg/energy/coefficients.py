"""Power of processors and memory when nothing measures it: the linear model of Cloud Carbon Footprint.

P = n x (min + (max - min) x u): n logical processors, u their mean utilisation, min and max in watts per logical
processor at 0 and 100 % load.

Source of the table: ccf-coefficients, ``output/coefficients-aws-use.csv`` (2026-04-24, Apache-2.0, Cloud Carbon
Footprint contributors), rounded to milliwatts. Its row "EPYC 5th Gen" (3.682 to 8.961 W, five times its neighbours) and
the Graviton rows (copies of EPYC 2nd Gen) are left out: such processors are treated as not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DATASET", "DEFAULT", "MEMORY_MILLIWATTS_PER_GB", "CpuPower", "cpu_power"]

DATASET = "ccf-coefficients 2026-04-24"
"""Name and date of the coefficients, for the record."""

MEMORY_MILLIWATTS_PER_GB = 392
"""0.000392 kWh per GB and hour: ccf-coefficients, ``ccfcoef/constants.py``, 2026-04-24 (Crucial and Micron data)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPower:
    """Power of one logical processor.

    Attributes:
        name: micro-architecture as the source names it.
        idle_milliwatts, full_milliwatts: at 0 and 100 % load.
        recognised: False for the default, which stands for a processor that is not in the table.
    """

    name: str
    idle_milliwatts: int
    full_milliwatts: int
    recognised: bool = True


DEFAULT = CpuPower(name="average of AWS servers", idle_milliwatts=740, full_milliwatts=3500, recognised=False)
"""0.74 to 3.5 W: Cloud Carbon Footprint, "Methodology", appendix "AWS min and max watts", used for unknown hardware."""

_TABLE = {
    power.name: power
    for power in (
        CpuPower(name="Broadwell", idle_milliwatts=713, full_milliwatts=3685),
        CpuPower(name="Cascade Lake", idle_milliwatts=690, full_milliwatts=4063),
        CpuPower(name="Coffee Lake", idle_milliwatts=1138, full_milliwatts=5422),
        CpuPower(name="EPYC 1st Gen", idle_milliwatts=847, full_milliwatts=2604),
        CpuPower(name="EPYC 2nd Gen", idle_milliwatts=474, full_milliwatts=1693),
        CpuPower(name="EPYC 3rd Gen", idle_milliwatts=456, full_milliwatts=1957),
        CpuPower(name="EPYC 4th Gen", idle_milliwatts=739, full_milliwatts=2282),
        CpuPower(name="Emerald Rapids", idle_milliwatts=814, full_milliwatts=4482),
        CpuPower(name="Granite Rapids", idle_milliwatts=582, full_milliwatts=2527),
        CpuPower(name="Haswell", idle_milliwatts=1857, full_milliwatts=5595),
        CpuPower(name="Ice Lake", idle_milliwatts=767, full_milliwatts=3758),
        CpuPower(name="Ivy Bridge", idle_milliwatts=1707, full_milliwatts=5557),
        CpuPower(name="Sandy Bridge", idle_milliwatts=2212, full_milliwatts=8631),
        CpuPower(name="Sapphire Rapids", idle_milliwatts=1036, full_milliwatts=4160),
        CpuPower(name="Skylake", idle_milliwatts=613, full_milliwatts=4104),
    )
}

# Family and model of server processors: Linux 6.10, arch/x86/include/asm/intel-family.h (Intel, family 6).
_INTEL_MODELS = {
    45: "Sandy Bridge",
    62: "Ivy Bridge",
    63: "Haswell",
    79: "Broadwell",
    86: "Broadwell",
    106: "Ice Lake",
    108: "Ice Lake",
    143: "Sapphire Rapids",
    207: "Emerald Rapids",
    173: "Granite Rapids",
    174: "Granite Rapids",
}

# EPYC 7xx1, 7xx2, 7xx3, 9xx4: the last digit of the model number is the generation (AMD, "EPYC model numbers").
_EPYC_MODEL = re.compile(r"EPYC\s+(?:Embedded\s+)?([0-9][0-9A-Z]{2}([1-9]))[A-Z]{0,2}\b", re.IGNORECASE)
_EPYC_GENERATIONS = {"1": "EPYC 1st Gen", "2": "EPYC 2nd Gen", "3": "EPYC 3rd Gen", "4": "EPYC 4th Gen"}


def cpu_power(cpu: Mapping[str, str]) -> CpuPower:
    """Return the power of one logical processor of this machine.

    Args:
        cpu: fields of ``/proc/cpuinfo``: ``vendor_id``, ``cpu family``, ``model``, ``stepping``, ``model name``.

    Returns:
        A row of the table when family and model, or the brand's model number, name a processor in it; else
        :data:`DEFAULT`, whose ``recognised`` is False.
    """
    brand = cpu.get("model name", "")
    family, model, stepping = (_number(cpu.get(key, "")) for key in ("cpu family", "model", "stepping"))
    name: str | None = None
    if "Xeon" in brand and family == 6:
        name = _intel(model, stepping)
    elif "EPYC" in brand:
        match = _EPYC_MODEL.search(brand)
        name = _EPYC_GENERATIONS.get(match[2]) if match else _epyc(family, model)
    return _TABLE.get(name or "", DEFAULT)


def _intel(model: int, stepping: int) -> str | None:
    if model == 85:  # Skylake-SP up to stepping 4, Cascade Lake 5 to 7, Cooper Lake from 10 (not in the table)
        return "Skylake" if stepping <= 4 else "Cascade Lake" if stepping <= 7 else None
    if model == 158:  # Coffee Lake is stepping 10 and later of this model
        return "Coffee Lake" if stepping >= 10 else None
    return _INTEL_MODELS.get(model)


def _epyc(family: int, model: int) -> str | None:
    if family == 23:
        return "EPYC 1st Gen" if model < 16 else "EPYC 2nd Gen" if 48 <= model < 64 else None
    if family == 25:
        if model < 16:
            return "EPYC 3rd Gen"
        return "EPYC 4th Gen" if 16 <= model < 32 or 160 <= model < 176 else None
    return None


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else -1
