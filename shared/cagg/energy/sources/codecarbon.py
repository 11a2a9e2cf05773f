"""CodeCarbon as a source or a cross-check, under settings that keep it offline, quiet and alone.

One OfflineEmissionsTracker per process whatever the number of runs (trackers side by side each count the whole machine:
codecarbon issue 681), its energy divided by our own attribution. Never EmissionsTracker (it asks geolocation services,
and falls back to a wrong country without a network). No file, no lock, no signal handler, no API; ``pue`` and ``wue``
neutral because usage effectiveness is applied once, elsewhere; settings from CODECARBON_* and configuration files are
not read. Written for codecarbon 3.3.2.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
from collections.abc import Mapping
from typing import Any

from cagg.errors import ConfigurationError, MeterUnavailable, MissingExtra
from cagg.ports import Clock, Sample
from cagg.provenance import Grade
from cagg.quantities import MILLIJOULES_PER_KWH

__all__ = ["CodeCarbon", "CodeCarbonSource", "find_codecarbon"]

_COUNTRY = re.compile(r"^[A-Z]{3}$")
_FIELDS = {"cpu": "cpu_energy", "memory": "ram_energy", "gpu:all": "gpu_energy"}


class CodeCarbon:
    """The one tracker of this process; started by the first read.

    Args:
        country_iso3: ISO 3166-1 alpha-3 code. It prices CodeCarbon's own carbon figure, which is not used; without a
            valid one CodeCarbon silently takes another country's.
        clock: for the age of the last figures.

    Raises:
        ConfigurationError: the country is missing, not alpha-3, or unknown to CodeCarbon.
        MissingExtra: codecarbon is not installed.
    """

    _ours: tuple[int, str, CodeCarbon] | None = None
    _guard = threading.Lock()

    def __init__(self, *, country_iso3: str | None, clock: Clock) -> None:
        if country_iso3 is None or not _COUNTRY.match(country_iso3):
            raise ConfigurationError(
                f"the source 'codecarbon' needs a three-letter country code, got {country_iso3!r}; "
                "set codecarbon_country, for example 'FRA'."
            )
        self._clock = clock
        self._lock = threading.Lock()
        self._figures: Mapping[str, float] = {}
        self._at_ns: int | None = None
        self._tracker = _make_tracker(country_iso3, self._take)

    @classmethod
    def shared(cls, *, country_iso3: str | None, clock: Clock) -> CodeCarbon:
        """Return this process's tracker, made on the first call and again after a fork."""
        with cls._guard:
            if cls._ours is None or cls._ours[0] != os.getpid() or cls._ours[1] != country_iso3:
                tracker = cls(country_iso3=country_iso3, clock=clock)
                cls._ours = (os.getpid(), country_iso3 or "", tracker)
            return cls._ours[2]

    def energies_kwh(self) -> Mapping[str, float]:
        """Return cumulative kWh by CodeCarbon's field name; raises MeterUnavailable when it gives none."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            if self._at_ns == now_ns and self._figures:
                return self._figures  # the domains of one slice come from one measurement
            self._figures = {}
            self._tracker.flush()
            if not self._figures:
                raise MeterUnavailable("codecarbon gave no figures; see its log with logging level DEBUG.")
            self._at_ns = now_ns
            return self._figures

    def _take(self, data: Any) -> None:
        fields = (*_FIELDS.values(), "energy_consumed")
        self._figures = {field: float(getattr(data, field)) for field in fields if hasattr(data, field)}


def _make_tracker(country_iso3: str, take: Any) -> Any:
    logger = logging.getLogger("codecarbon")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    try:
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.input import DataSource
        from codecarbon.output import BaseOutput
    except ImportError:
        raise MissingExtra(
            "the source 'codecarbon' needs the package codecarbon; run pip install \"cagg[codecarbon]\"."
        ) from None
    known = DataSource().get_global_energy_mix_data()
    if country_iso3 not in known:
        raise ConfigurationError(f"codecarbon_country {country_iso3!r} is unknown to codecarbon; use its ISO-3 code.")

    class _Isolated(OfflineEmissionsTracker):  # type: ignore[misc]
        """The tracker without its outside settings: files and CODECARBON_* would change the figures."""

        _external_conf = property(lambda self: {}, lambda self, value: None)  # noqa: ARG005

    class _Figures(BaseOutput):  # type: ignore[misc]
        """Hands over the totals and keeps nothing."""

        def out(self, total: Any, delta: Any) -> None:  # noqa: ARG002 - CodeCarbon's signature
            take(total)

        def live_out(self, total: Any, delta: Any) -> None:  # noqa: ARG002 - CodeCarbon's signature
            take(total)

    try:
        tracker = _Isolated(
            country_iso_code=country_iso3,
            output_methods=[],
            output_handlers=[_Figures()],
            api_call_interval=1,
            allow_multiple_runs=True,
            tracking_mode="machine",
            measure_power_secs=5,
            pue=1.0,
            wue=0.0,
            log_level="error",
        )
        tracker.start()
    finally:
        # CodeCarbon installs its own handler and stops propagation: its lines would bypass the host's task log.
        logger.handlers, logger.propagate = handlers, True if not handlers else propagate
        logger.setLevel(max(level, logging.ERROR))
    return tracker


class CodeCarbonSource:
    """One of CodeCarbon's three energies as a cumulative counter of the host.

    CodeCarbon does not say whether a figure was measured or modelled, so the grade is D.

    Args:
        clock: gives the samples their time.
        tracker: the process's tracker.
        domain: ``cpu``, ``memory`` or ``gpu:all``.
    """

    name = "codecarbon"
    grade = Grade.D
    resolution_seconds = 1.0
    sensor_uncertainty = 0.40
    longest_interval_seconds = 3600.0
    idle_milliwatts: int | None = None

    def __init__(self, *, clock: Clock, tracker: CodeCarbon, domain: str) -> None:
        self.domain = domain
        self._clock = clock
        self._tracker = tracker
        self._last = 0

    def read(self) -> Sample:
        """Read the counter; raises MeterUnavailable when codecarbon gives none or runs backwards."""
        now_ns = self._clock.monotonic_ns()
        kwh = self._tracker.energies_kwh().get(_FIELDS[self.domain], math.nan)
        if not math.isfinite(kwh) or kwh < 0:
            raise MeterUnavailable(f"codecarbon gave no usable energy for {self.domain} ({kwh!r} kWh).")
        millijoules = math.floor(kwh * MILLIJOULES_PER_KWH)
        before, self._last = self._last, millijoules
        if millijoules < before:
            raise MeterUnavailable(f"codecarbon's energy for {self.domain} ran backwards.")
        return Sample(monotonic_ns=now_ns, millijoules=millijoules)

    def describe(self) -> Mapping[str, str]:
        """Version of codecarbon."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return {"codecarbon": version("codecarbon")}
        except PackageNotFoundError:
            return {"codecarbon": "unknown version"}


def find_codecarbon(clock: Clock, *, country_iso3: str | None) -> list[CodeCarbonSource]:
    """Return CodeCarbon's processor, memory and GPU energies; raises as :class:`CodeCarbon` does."""
    tracker = CodeCarbon.shared(country_iso3=country_iso3, clock=clock)
    return [CodeCarbonSource(clock=clock, tracker=tracker, domain=domain) for domain in _FIELDS]
