"""Choose energy sources for this machine, and say what is missing and how to get it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from cagg.energy.coefficients import cpu_power
from cagg.energy.domain import Missing, Selection
from cagg.energy.hardware import cpu_fields
from cagg.energy.host import HostUsage
from cagg.energy.options import AUTO_SOURCES, SOURCE_NAMES, MeterSettings
from cagg.energy.sources.codecarbon import find_codecarbon
from cagg.energy.sources.cpu_model import CpuModelSource
from cagg.energy.sources.memory_model import MemoryModelSource
from cagg.energy.sources.nvml import Nvml, driver_present, find_nvml
from cagg.energy.sources.rapl import RaplAbsent, find_rapl
from cagg.errors import ConfigurationError, MeterUnavailable, MissingExtra
from cagg.ports import Clock, EnergySource

__all__ = ["SourceFinder", "select_sources"]


class SourceFinder:
    """Finds each source on this machine.

    Args:
        clock: the meter's clock.
        usage: the operating system's figures.
        settings: the meter's settings.
        root: root of the file system, for tests.
        nvml: the GPU library, for tests; None = the real one.
        environment: environment variables; None = this process's.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        usage: HostUsage,
        settings: MeterSettings,
        root: Path = Path("/"),
        nvml: Nvml | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._clock = clock
        self._usage = usage
        self._settings = settings
        self._root = root
        self._nvml = nvml
        self._environment = environment
        self._power = cpu_power(cpu_fields(root / "proc"))

    def find(self, name: str) -> list[EnergySource]:
        """Return the sources of that name; empty when there is nothing to measure (no GPU).

        Raises:
            MeterUnavailable, MissingExtra, ConfigurationError: it cannot be read; the message names the remedy.
        """
        if name == "rapl":
            return [*self._rapl()]
        if name == "cpu_model":
            return [self._cpu_model()]
        if name == "memory_model":
            return [self._memory_model()]
        if name == "nvml":
            return [*self._gpus()]
        if name == "codecarbon":
            return [*find_codecarbon(self._clock, country_iso3=self._settings.codecarbon_country)]
        raise ConfigurationError(f"energy source {name!r} is unknown; use one of {', '.join(SOURCE_NAMES)}.")

    def _rapl(self) -> list[EnergySource]:
        cpus = self._usage.cpus
        idle = cpus * self._power.idle_milliwatts if cpus else None
        return [*find_rapl(self._clock, root=self._root / "sys/class/powercap", idle_milliwatts=idle)]

    def _cpu_model(self) -> EnergySource:
        if not self._usage.cpus:
            raise MeterUnavailable("the number of processors cannot be read (/proc/stat), so no model applies.")
        own_time_only = self._usage.latest().busy_ns is None and sys.platform == "darwin"
        source = CpuModelSource(
            clock=self._clock,
            look=self._usage.latest,
            cpus=self._usage.cpus,
            power=self._power,
            own_time_only=own_time_only,
        )
        source.read()
        return source

    def _memory_model(self) -> EnergySource:
        source = MemoryModelSource(clock=self._clock, look=self._usage.latest)
        source.read()
        return source

    def _gpus(self) -> list[EnergySource]:
        if self._nvml is None and not driver_present(self._root):
            return []
        return [*find_nvml(self._clock, nvml=self._nvml, environment=self._environment, proc=self._root / "proc")]


_DOMAIN_OF = {"rapl": "cpu", "cpu_model": "cpu", "memory_model": "memory", "nvml": "gpu", "codecarbon": "cpu"}


def select_sources(settings: MeterSettings, finder: SourceFinder) -> Selection:
    """Choose the first source that can be read for each domain; never raises for a source that cannot."""
    names = ("rapl", "cpu_model", "memory_model", "nvml") if settings.sources == AUTO_SOURCES else settings.sources
    chosen: dict[str, EnergySource] = {}
    failed: list[Missing] = []
    for name in names:
        if settings.sources == AUTO_SOURCES and name.endswith("_model") and _DOMAIN_OF[name] in chosen:
            continue  # measured already
        try:
            for source in finder.find(name):
                chosen.setdefault(source.domain, source)
        except RaplAbsent as error:
            if settings.sources != AUTO_SOURCES:
                failed.append(Missing(domain=_DOMAIN_OF[name], source=name, reason=str(error)))
        except (MeterUnavailable, MissingExtra, ConfigurationError) as error:
            failed.append(Missing(domain=_DOMAIN_OF[name], source=name, reason=str(error)))
    stood_in = [miss for miss in failed if miss.domain in chosen]
    lost = {miss.domain: miss for miss in failed if miss.domain not in chosen}
    return Selection(
        sources=tuple(chosen.values()),
        missing=tuple(lost.values()),
        notes=tuple(f"{miss.source} is not used: {miss.reason}" for miss in stood_in),
    )
