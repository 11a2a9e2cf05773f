"""The story that ``cagg demo`` tells: a nightly job of a real evening, with that evening's forecast, in fast motion.

The forecast is real (Great Britain, 14 March 2023). Only time is compressed: some minutes of the story pass in a
second, how many is up to the engine. The trace provider does that; planner, gate and ledger see ordinary instants and
know nothing of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

from cagg.errors import ConfigurationError
from cagg.windows import format_instant, parse_instant

__all__ = ["BUDGETS", "BUDGET_PATH", "DURATION", "ENERGY", "SCALE", "Story", "begin", "read_story"]

SCALE = 600
"""Seconds of the story per second of the clock unless the engine plays it slower: two hours last twelve seconds."""

ENERGY = "2 kWh"
"""Declared energy of the nightly job: about an hour of a server with two busy GPUs. Own choice."""

DURATION = timedelta(hours=1)
"""Declared duration of the nightly job, in the story's time."""

BUDGET_PATH = "acme/ml/nightly"
"""Who pays."""

BUDGETS = (("acme/ml", "20 kg/month"), (BUDGET_PATH, "2 kg/month"))
"""Limits that are set before the run, enforced."""

_TRACE = "trace_gb_2023-03-14.csv"
_ZONE = "trace:gb-2023-03-14"
_TRACE_START = datetime(2023, 3, 14, 3, 0, tzinfo=UTC)
_BEDTIME = datetime(2023, 3, 14, 22, 0, tzinfo=UTC)
_MORNING = datetime(2023, 3, 15, 6, 0, tzinfo=UTC)
_FILE = "story.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The evening, laid onto the clock.

    Attributes:
        anchor: instant of the clock at which the forecast's first interval begins.
        scale: seconds of the story per second of the clock.
    """

    anchor: datetime
    scale: int

    def told(self, instant: datetime) -> str:
        """Return the story's time of day at an instant of the clock; its time zone is that of London, UTC in March."""
        nearest_minute = _TRACE_START + (instant - self.anchor) * self.scale + timedelta(seconds=30)
        return f"{nearest_minute:%H:%M}"

    def on_clock(self, instant: datetime) -> datetime:
        """Return the instant of the clock at which the story's instant comes."""
        return self.anchor + (instant - _TRACE_START) / self.scale

    @property
    def deadline(self) -> datetime:
        """Instant of the clock that is 06:00 in the story."""
        return self.on_clock(_MORNING)

    @property
    def duration(self) -> timedelta:
        """The job's declared duration on the clock."""
        return DURATION / self.scale


def begin(folder: Path, now: datetime, scale: int = SCALE) -> Story:
    """Let it be 22:00 in the story: write the settings, with the forecast laid onto the clock, into the folder.

    Args:
        folder: the demo's own.
        now: the clock's.
        scale: seconds of the story per second of the clock.
    """
    anchor = now - (_BEDTIME - _TRACE_START) / scale
    data = files("cagg.grid").joinpath("data", _TRACE).read_bytes()
    (folder / _TRACE).write_bytes(data)
    (folder / "cagg.toml").write_text(_settings(anchor, scale), encoding="utf-8")
    (folder / _FILE).write_text(json.dumps({"anchor": format_instant(anchor), "scale": scale}), encoding="utf-8")
    return Story(anchor=anchor, scale=scale)


def read_story(folder: Path) -> Story:
    """Return the story that was begun last in the folder.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        document = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return Story(anchor=parse_instant(document["anchor"]), scale=int(document["scale"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{folder} holds no demo; run `cagg demo` again.") from None


def _settings(anchor: datetime, scale: int) -> str:
    return f"""\
# Written by `cagg demo`. Paths are relative to this file.
home = "home"
zone = "{_ZONE}"
timezone = "Europe/London"

# A real 48-hour forecast of Great Britain, played {scale} times as fast: {scale // 60} minutes per second.
[grid.trace]
file = "{_TRACE}"
time_scale = {scale}
anchor = "{format_instant(anchor)}"
"""
