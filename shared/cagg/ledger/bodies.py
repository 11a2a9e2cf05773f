"""Builds the bodies of requests and measurements, and prices slices: the arithmetic that ``verify`` repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any

from cagg.engine_run import EngineRun
from cagg.errors import InvalidInput, LedgerDamaged
from cagg.ledger.encoding import parse_quantity, quantity
from cagg.ledger.entry import instant_us
from cagg.provenance import Convention
from cagg.quantities import PPM, CarbonIntensity, Energy, ceil_div
from cagg.records import Component, Reading
from cagg.request import Request
from cagg.windows import Window, format_instant

__all__ = [
    "carbon_of_slices",
    "check_measurement",
    "clean_text",
    "convention_body",
    "measurement_body",
    "named",
    "request_body",
]

_DIVISOR = 3_600_000_000_000
"""mJ x mg/kWh x ppm per µg: 3.6e9 mJ in a kWh, 1e-3 mg in a µg, 1e6 ppm in one."""

_UNKNOWN_INTENSITY = "the carbon intensity of a part of the run is unknown"


def clean_text(text: str) -> str:
    """Return the text with what is no character (lone surrogates, as file names may hold them) replaced."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def named(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a mapping with free keys as a list of {name, value}, by name: keys of bodies are fixed words."""
    return [{"name": clean_text(str(name)), "value": clean_text(str(values[name]))} for name in sorted(values)]


def convention_body(convention: Convention) -> dict[str, str]:
    """Return signal, basis and gas."""
    return {"signal": str(convention.signal), "basis": str(convention.basis), "gas": str(convention.gas)}


def request_body(request: Request) -> dict[str, Any]:
    """Return who asked, for what and for whom: identity, classification, labels, code and engine; no secrets."""
    identity, options = request.identity, request.options
    body = {
        "key": identity.key,
        "series_key": identity.series_key,
        "host": clean_text(identity.host),
        "root_run_id": clean_text(identity.root_run_id),
        "task_key": clean_text(identity.task_key),
        "ordinal": identity.ordinal,
        "inputs_digest": identity.inputs_digest,
        "attempt": identity.attempt,
        "zone": None if options.zone is None else clean_text(options.zone),
        "budget_path": None if options.budget is None else clean_text(options.budget),
        "kind": None if options.kind is None else str(options.kind),
        "purpose": str(options.resolved_purpose),
        "risk": str(options.resolved_risk),
        "work_item": None if options.work_item is None else clean_text(options.work_item),
        "scheduled_start": None if request.scheduled_start is None else format_instant(request.scheduled_start),
        "encloses_run": request.encloses_run,
        "labels": named(request.labels),
        "code": named(request.code),
    }
    # entries of requests without an engine keep the bytes that they always had
    return body if request.engine_run is None else {**body, "engine_run": _engine_body(request.engine_run)}


def _engine_body(run: EngineRun) -> dict[str, Any]:
    said = {item.name: getattr(run, item.name) for item in fields(EngineRun)}
    return {name: clean_text(value) if isinstance(value, str) else value for name, value in said.items()}


def measurement_body(
    *,
    request: Mapping[str, Any],
    reading: Reading,
    priced: Sequence[tuple[Window, Energy, CarbonIntensity | None, str]],
    convention: Convention | None,
    pue_ppm: int | None,
    outcome: str,
    part_of: str | None,
    carbon_reason: str,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the body of a measurement.

    Args:
        request: what :func:`request_body` returned.
        reading: what was measured; its energy may be None.
        priced: (window, energy, intensity, source) of each slice, in order; the energies add up to the reading's.
            An intensity of None means that it is unknown: the run's carbon is then null.
        convention: what the intensities mean; None when no slice has one.
        pue_ppm: power usage effectiveness in parts per million; None = unknown, priced as 1 000 000.
        outcome: completed, failed, lost ….
        part_of: request key of the enclosing gate, whose reading contains this one; None for an outermost run.
        carbon_reason: why the carbon is null; ignored when it is known.
        extra: further fields in the canonical profile.

    Raises:
        InvalidInput: the slices overlap, leave the order, or do not add up to the reading; or a PUE below one.
    """
    _check_priced(reading, priced)
    if pue_ppm is not None and (isinstance(pue_ppm, bool) or pue_ppm < PPM):
        raise InvalidInput(f"a power usage effectiveness must be {PPM} ppm (1.0) or more, got {pue_ppm}.")
    slices = [_slice_body(window, energy, intensity, source) for window, energy, intensity, source in priced]
    carbon = None if reading.energy is None else carbon_of_slices(slices, pue_ppm)
    why_unknown = clean_text(carbon_reason or reading.reason or _UNKNOWN_INTENSITY)
    body = {
        "request": dict(request),
        "start": format_instant(reading.window.start),
        "end": format_instant(reading.window.end),
        "outcome": outcome,
        "part_of": part_of,
        "energy_millijoules": _energy(reading.energy),
        "energy_low_millijoules": _energy(reading.low),
        "energy_high_millijoules": _energy(reading.high),
        "energy_reason": clean_text(reading.reason),
        "grade": None if reading.grade is None else str(reading.grade),
        "slices": slices,
        "pue_ppm": pue_ppm,
        "carbon_micrograms": None if carbon is None else quantity(carbon),
        "carbon_reason": "" if carbon is not None else why_unknown,
        "convention": None if convention is None else convention_body(convention),
        "components": [_component_body(component) for component in reading.components],
        "closure": {
            "host_total_millijoules": _energy(reading.host_total),
            "other_millijoules": _energy(reading.other),
            "unowned_idle_millijoules": _energy(reading.unowned_idle),
            "siblings_millijoules": _energy(reading.siblings),
        },
        "cpu_milliseconds": reading.cpu_milliseconds,
        "gpu_milliseconds": reading.gpu_milliseconds,
        "notes": [clean_text(note) for note in reading.notes],
        "hardware": named(reading.hardware),
    }
    taken = sorted(set(extra) & set(body))
    if taken:
        raise InvalidInput(f"a measurement already holds {taken[0]!r}; give the further field another name.")
    return {**body, **extra}


def carbon_of_slices(slices: Sequence[Mapping[str, Any]], pue_ppm: int | None) -> int | None:
    """Return the carbon of recorded slices in micrograms, or None when a slice lacks an intensity.

    ceil(sum of mJ x mg/kWh x PUE in ppm / 3.6e12), rounded up once, after the sum; a null PUE counts as 1 000 000.
    Source: ledger entry format 1; 1 kWh = 3.6e9 mJ (SI Brochure, 9th edition 2019).

    Raises:
        LedgerDamaged: a slice is not in the recorded form.
    """
    total = 0
    unknown = False
    for item in slices:
        if not isinstance(item, Mapping):
            raise LedgerDamaged("a slice is no object.")
        energy = parse_quantity(item.get("energy_millijoules"))
        intensity = item.get("intensity_milligrams_per_kwh")
        if intensity is None:
            unknown = True
        else:
            total += energy * parse_quantity(intensity)
    if pue_ppm is not None and (isinstance(pue_ppm, bool) or not isinstance(pue_ppm, int)):
        raise LedgerDamaged(f"'pue_ppm' must be a whole number, got {pue_ppm!r}.")
    return None if unknown else ceil_div(total * (PPM if pue_ppm is None else pue_ppm), _DIVISOR)


def check_measurement(body: Mapping[str, Any]) -> None:
    """Repeat the arithmetic of a recorded body with slices: order, sum of energies, carbon.

    Raises:
        LedgerDamaged: a figure does not follow from the recorded slices; the message names it.
    """
    slices = body.get("slices")
    if not isinstance(slices, list):
        raise LedgerDamaged("'slices' is no list.")
    energy = body.get("energy_millijoules")
    recorded = body.get("carbon_micrograms")
    carbon = None if energy is None else carbon_of_slices(slices, body.get("pue_ppm"))
    expected = None if carbon is None else quantity(carbon)
    if recorded != expected:
        raise LedgerDamaged(f"'carbon_micrograms' is {recorded!r}, the slices give {expected!r}.")
    total = 0
    last = None
    for item in slices:
        if not isinstance(item, Mapping):
            raise LedgerDamaged("a slice is no object.")
        amounts = [parse_quantity(item.get("energy_millijoules"))]
        if item.get("intensity_milligrams_per_kwh") is not None:
            amounts.append(parse_quantity(item["intensity_milligrams_per_kwh"]))
        if min(amounts) < 0:
            raise LedgerDamaged(f"the slice at {item.get('start')!r} holds an amount below zero.")
        total += amounts[0]
        start, end = instant_us(item.get("start"), "start"), instant_us(item.get("end"), "end")
        if end <= start or (last is not None and start < last):
            raise LedgerDamaged(f"the slices overlap or leave the order at {item.get('start')!r}.")
        if start < instant_us(body.get("start"), "start") or end > instant_us(body.get("end"), "end"):
            raise LedgerDamaged(f"the slice at {item.get('start')!r} lies outside of the run.")
        last = end
    if total != (0 if energy is None else parse_quantity(energy)):
        raise LedgerDamaged(f"'energy_millijoules' is {energy!r}, the slices add up to {total}.")


def _check_priced(reading: Reading, priced: Sequence[tuple[Window, Energy, CarbonIntensity | None, str]]) -> None:
    total = sum(energy.millijoules for _, energy, _, _ in priced)
    expected = 0 if reading.energy is None else reading.energy.millijoules
    if total != expected:
        raise InvalidInput(f"the priced slices add up to {total} mJ and the reading is {expected} mJ; they must agree.")
    for (before, *_), (after, *_) in pairwise(priced):
        if after.start < before.end:
            raise InvalidInput(f"the priced slices overlap or leave the order at {after.start.isoformat()}.")


def _slice_body(window: Window, energy: Energy, intensity: CarbonIntensity | None, source: str) -> dict[str, Any]:
    return {
        "start": format_instant(window.start),
        "end": format_instant(window.end),
        "energy_millijoules": quantity(energy.millijoules),
        "intensity_milligrams_per_kwh": None if intensity is None else quantity(intensity.milligrams_per_kwh),
        "source": clean_text(source),
    }


def _component_body(component: Component) -> dict[str, Any]:
    return {
        "domain": clean_text(component.domain),
        "source": clean_text(component.source),
        "method": clean_text(component.method),
        "grade": str(component.grade),
        "energy_millijoules": _energy(component.energy),
        "dynamic_millijoules": _energy(component.dynamic),
        "idle_millijoules": _energy(component.idle),
        "low_millijoules": _energy(component.low),
        "high_millijoules": _energy(component.high),
        "share_ppm": component.share_ppm,
        "reason": clean_text(component.reason),
    }


def _energy(energy: Energy | None) -> str | None:
    return None if energy is None else quantity(energy.millijoules)
