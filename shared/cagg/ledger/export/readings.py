"""The readings of a log, and which of them a later one replaces: what adds up, and what would count twice.

A reading is a measurement, or a correction that holds energy. Replaced is a reading that a correction names in
``corrects``, one of a run that was given up as lost and heard of after all, and one whose request and start a later
correction repeats. A reading inside of another (``part_of``) is in the outer one's sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cagg.entries import EntryKind
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.encoding import parse_quantity
from cagg.ledger.export.reader import Exported, LogReader, Selection, StoreReader
from cagg.ledger.kinds import READINGS
from cagg.ports import LedgerRows

__all__ = ["Revisions", "named_value", "readings_only", "shown", "weighted_intensity"]

_ENERGY = "energy_millijoules"
_LOST = "lost"
"""The outcome of a run whose lease ended before it was heard of again."""


def readings_only(selection: Selection, format_name: str) -> Selection:
    """Return the selection narrowed to readings; raises InvalidInput when none of its kinds is one."""
    kinds = selection.kinds or READINGS
    others = sorted(kinds - READINGS)
    if others:
        raise InvalidInput(
            f"{format_name} holds readings, and a {others[0]} is none; use --kind measurement or --kind correction, or "
            "another format."
        )
    # a correction may be about something else than a reading
    return replace(selection, kinds=frozenset(kinds), field=_ENERGY)


@contextmanager
def shown(item: Exported) -> Iterator[None]:
    """Make one LedgerDamaged of whatever a reading in a form that this version does not know may cause."""
    try:
        yield
    except (LedgerDamaged, KeyError, TypeError, AttributeError) as error:
        raise LedgerDamaged(
            f"entry {item.index} is no reading that this version can show ({error}); run 'cagg ledger verify'."
        ) from None


class Revisions:
    """What later readings did to earlier ones, from one pass; memory grows with lost and corrected runs.

    The pass goes over the exported log and those after it: a run that one log measured may be corrected in the next.

    Attributes:
        corrected: request keys that have a correction.
    """

    def __init__(self, reader: LogReader | StoreReader) -> None:
        self.corrected: set[str] = set()
        self._named: dict[str, str] = {}
        self._repeated: dict[tuple[str, str], tuple[tuple[int, int], str]] = {}
        names = [log.origin for log in reader.tx.logs()]
        self._order = {name: number for number, name in enumerate(names)}
        lost: dict[str, list[str]] = {}
        judged = [_in_log(reader.tx, name) for name in names[self._order[reader.origin] :]]
        for item in StoreReader(judged, Selection(kinds=READINGS)):
            body, entry_id = item.body, item.entry.entry_id
            key = str(body.get("request_key"))
            if isinstance(body.get("corrects"), str):
                self._named[body["corrects"]] = entry_id
            if body["kind"] == EntryKind.CORRECTION:
                self.corrected.add(key)
            if _ENERGY not in body:
                continue
            if body.get("outcome") == _LOST:
                lost.setdefault(key, []).append(entry_id)
                continue
            self._named.update((earlier, entry_id) for earlier in lost.pop(key, ()))
            if body["kind"] == EntryKind.CORRECTION:
                self._repeated[_run(body)] = (self._place(item), entry_id)

    def replaced_by(self, item: Exported) -> str | None:
        """Return the id of the entry that replaces this reading; None when it stands."""
        named = self._named.get(item.entry.entry_id)
        if named is not None:
            return named
        place, entry_id = self._repeated.get(_run(item.body), ((-1, -1), ""))
        return entry_id if place > self._place(item) else None

    def _place(self, item: Exported) -> tuple[int, int]:
        return self._order[item.origin], item.index


def _in_log(tx: LedgerRows, name: str) -> LedgerRows:
    return tx if name == tx.origin() else tx.in_log(name)


def _run(body: Mapping[str, Any]) -> tuple[str, str]:
    return str(body.get("request_key")), str(body.get("start"))


def named_value(body: Mapping[str, Any], group: str, name: str) -> str:
    """Return a value of a list of {name, value} in the request, such as the commit among ``code``; empty if absent."""
    request = body.get("request")
    listed = request.get(group) if isinstance(request, Mapping) else None
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, Mapping) and item.get("name") == name:
            return str(item.get("value", ""))
    return ""


def weighted_intensity(body: Mapping[str, Any]) -> int | None:
    """Return the mean intensity in mg/kWh, each slice weighted by its energy, half up; None when a slice's intensity
    is unknown, and when there is no energy to weigh with.

    Raises:
        LedgerDamaged: a slice holds no readable amount.
    """
    total, weighted = 0, 0
    slices = body.get("slices")
    for item in slices if isinstance(slices, list) else ():
        if item.get("intensity_milligrams_per_kwh") is None:
            return None
        energy = parse_quantity(item.get("energy_millijoules"))
        total += energy
        weighted += energy * parse_quantity(item["intensity_milligrams_per_kwh"])
    return None if total <= 0 else (2 * weighted + total) // (2 * total)
