"""Reads answers of NESO's Carbon Intensity API. Pure: no clock, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cagg.errors import IntensityUnavailable, InvalidInput
from cagg.quantities import CarbonIntensity
from cagg.windows import Window

__all__ = ["BLOCK", "Block", "read_blocks"]

BLOCK = timedelta(minutes=30)
"""Length of every interval that the service publishes: a settlement period of the GB market."""

_MALFORMED = "neso sent an answer of an unknown shape ({}); its interface may have changed, look for a newer cagg."


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One half hour.

    Attributes:
        forecast: None where the service left it out.
        actual: the service's own estimate of what happened; None for the future and often for the newest block.
    """

    window: Window
    forecast: CarbonIntensity | None
    actual: CarbonIntensity | None


def read_blocks(document: Any, *, region: int | None, asked: Window) -> tuple[Block, ...]:
    """Return the blocks of an answer that overlap the window, in order.

    Args:
        document: parsed JSON.
        region: region id that was asked for; None = national.
        asked: the window that was asked for.

    Raises:
        IntensityUnavailable: an error document, another zone, another time, contradictions, or an unknown shape.
    """
    if not isinstance(document, dict):
        raise IntensityUnavailable("neso answered with an empty document; the region may not exist, see `cagg zones`.")
    if "error" in document:
        error = document["error"]
        words = error.get("message") if isinstance(error, dict) else error
        raise IntensityUnavailable(f"neso answered with an error ({str(words)[:200]}); ask again later.")
    data = document.get("data")
    if data is None or data in ({}, []):
        raise IntensityUnavailable(f"neso has no data for {asked}; ask for another time.")
    rows = _national(data) if region is None else _regional(data, region)
    blocks: dict[datetime, Block] = {}
    for row in rows:
        block = _block(row)
        known = blocks.setdefault(block.window.start, block)
        if known != block:
            raise IntensityUnavailable(f"neso contradicts itself about {block.window}; ask again later.")
    ordered = tuple(blocks[start] for start in sorted(blocks))
    _check_time(ordered, asked)
    return tuple(block for block in ordered if block.window.overlap(asked) > timedelta(0))


def _check_time(blocks: tuple[Block, ...], asked: Window) -> None:
    """Refuse an answer about another time: a stale cache between us and the service serves yesterday's."""
    if not blocks:
        raise IntensityUnavailable(f"neso has no data for {asked}; ask for another time.")
    first, last = blocks[0].window.start, blocks[-1].window.end
    # a start exactly on a boundary may also bring the block before it
    if first < asked.start - BLOCK or last > asked.end + BLOCK:
        raise IntensityUnavailable(
            f"neso answered for {first:%Y-%m-%d %H:%M}Z to {last:%Y-%m-%d %H:%M}Z when asked for {asked}, "
            "which is another time; check whether a proxy between here and the service serves old answers."
        )


def _national(data: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(data, list) or any(
        not isinstance(row, dict) or "regions" in row or "regionid" in row for row in data
    ):
        raise IntensityUnavailable("neso answered for another zone than GB; check its address.")
    yield from data


def _regional(data: Any, region: int) -> Iterator[Mapping[str, Any]]:
    """Both shapes of a regional answer: one region with its blocks (bare or in a list), or blocks with all regions."""
    if isinstance(data, list) and data and isinstance(data[0], dict) and "regions" in data[0]:
        for row in data:
            if not isinstance(row, dict) or not isinstance(row.get("regions"), list):
                raise IntensityUnavailable(_MALFORMED.format("regions"))
            own = [item for item in row["regions"] if isinstance(item, dict) and item.get("regionid") == region]
            if not own:
                raise IntensityUnavailable(f"neso answered without region {region}; see `cagg zones`.")
            yield {"from": row.get("from"), "to": row.get("to"), "intensity": own[0].get("intensity")}
        return
    one = data[0] if isinstance(data, list) else data
    if not isinstance(one, dict) or one.get("regionid") != region:
        answered = one.get("regionid") if isinstance(one, dict) else None
        what = "for Great Britain" if answered is None else f"for region {answered}"
        raise IntensityUnavailable(f"neso answered {what} when asked for region {region}; check its address.")
    rows = one.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise IntensityUnavailable(_MALFORMED.format("data"))
    yield from rows


def _block(row: Mapping[str, Any]) -> Block:
    start, end = _instant(row.get("from")), _instant(row.get("to"))
    if end - start != BLOCK:
        raise IntensityUnavailable(_MALFORMED.format(f"a block from {row.get('from')} to {row.get('to')}"))
    intensity = row.get("intensity")
    if intensity is None:
        intensity = {}
    if not isinstance(intensity, dict):
        raise IntensityUnavailable(_MALFORMED.format("intensity"))
    return Block(
        window=Window(start=start, end=end),
        forecast=_intensity(intensity.get("forecast"), start),
        actual=_intensity(intensity.get("actual"), start),
    )


def _instant(text: Any) -> datetime:
    """Read ``2023-03-14T03:00Z``; the service writes minutes, always UTC."""
    if isinstance(text, str):
        try:
            return datetime.strptime(text, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
        except ValueError:
            pass
    raise IntensityUnavailable(_MALFORMED.format(f"the time {str(text)[:40]!r}"))


def _intensity(value: Any, start: datetime) -> CarbonIntensity | None:
    if value is None:
        return None
    try:
        return CarbonIntensity.from_g_per_kwh(value)
    except InvalidInput as error:
        raise IntensityUnavailable(f"neso gave an unusable number for {start:%Y-%m-%d %H:%M}Z: {error}") from error
