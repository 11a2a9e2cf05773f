"""Make a reading from what a run's account holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from cagg.energy.account import Account, DomainAccount, SliceList
from cagg.energy.domain import Domain, Missing
from cagg.energy.uncertainty import ComponentFacts, bounds, grade_of, reading_grade
from cagg.provenance import Grade
from cagg.quantities import PPM, Energy
from cagg.records import Component, Reading, ReadingSlice
from cagg.windows import Window

__all__ = ["make_reading", "unknown_reading"]

_NS_PER_SECOND = 1_000_000_000
_SHORTEST = timedelta(microseconds=1)


def make_reading(
    *,
    account: Account,
    domains: Sequence[Domain],
    missing: Sequence[Missing],
    start_ns: int,
    end_ns: int,
    instant: Callable[[int], datetime],
    hardware: Mapping[str, str],
) -> Reading:
    """Return the reading of a run.

    Args:
        account: what was attributed to it.
        domains: the sources it was measured with.
        missing: domains that exist but could not be read by anything.
        start_ns, end_ns: its interval on the meter's clock.
        instant: turns the meter's clock into UTC.
        hardware: what the record says about the machine.
    """
    seconds = (end_ns - start_ns) / _NS_PER_SECOND
    components = [_component(domain, account.domain(domain.source.domain), seconds) for domain in domains]
    components += [_lost(miss.domain, miss.source, miss.reason) for miss in missing]
    known = [part for part in components if part.energy is not None]
    window = _window(instant(start_ns), instant(end_ns))
    hardware = {**hardware, **{key: text for domain in domains for key, text in domain.source.describe().items()}}
    if not known:
        reason = "; ".join(part.reason for part in components) or "no energy source was found on this machine"
        return unknown_reading(
            window=window,
            reason=reason,
            components=tuple(components),
            cpu_milliseconds=account.cpu_ns // 1_000_000,
            notes=tuple(account.notes),
            hardware=hardware,
        )
    measured = [account.domain(part.domain) for part in known]
    energy = sum(part.energy for part in measured)
    host = sum(part.host for part in measured)
    other = sum(part.other for part in measured)
    unowned = sum(part.unowned_idle for part in measured)
    has_gpu = any(domain.source.domain.startswith("gpu:") for domain in domains)
    return Reading(
        window=window,
        energy=Energy(millijoules=energy),
        low=Energy(millijoules=sum(part.low.millijoules for part in known if part.low)),
        high=Energy(millijoules=sum(part.high.millijoules for part in known if part.high)),
        grade=reading_grade([(part.grade, part.energy.millijoules) for part in known if part.energy is not None]),
        components=tuple(components),
        slices=_slices(account.slices, window, instant),
        host_total=Energy(millijoules=host),
        other=Energy(millijoules=other),
        unowned_idle=Energy(millijoules=unowned),
        siblings=Energy(millijoules=host - energy - other - unowned),
        cpu_milliseconds=account.cpu_ns // 1_000_000,
        gpu_milliseconds=account.gpu_ns // 1_000_000 if has_gpu else None,
        notes=tuple(account.notes),
        hardware=hardware,
    )


def unknown_reading(
    *,
    window: Window,
    reason: str,
    components: tuple[Component, ...] = (),
    cpu_milliseconds: int | None = None,
    notes: tuple[str, ...] = (),
    hardware: Mapping[str, str] | None = None,
) -> Reading:
    """Return a reading that says why there is no energy."""
    return Reading(
        window=window,
        energy=None,
        low=None,
        high=None,
        grade=None,
        components=components,
        slices=(),
        host_total=None,
        other=None,
        unowned_idle=None,
        siblings=None,
        cpu_milliseconds=cpu_milliseconds,
        gpu_milliseconds=None,
        reason=reason,
        notes=notes,
        hardware=hardware or {},
    )


def _component(domain: Domain, account: DomainAccount, seconds: float) -> Component:
    source = domain.source
    if account.slices == 0:
        return _lost(source.domain, source.name, "; ".join(account.reasons) or "it was never read while the run ran")
    gap_seconds = account.gap_ns / _NS_PER_SECOND
    measured_seconds = account.measured_ns / _NS_PER_SECOND
    gap_energy = round(account.energy * gap_seconds / measured_seconds) if measured_seconds > 0 else 0
    facts = ComponentFacts(
        dynamic_millijoules=account.dynamic,
        idle_millijoules=account.idle,
        host_dynamic_millijoules=account.host_dynamic,
        best_grade=account.grade or source.grade,
        duration_seconds=seconds,
        resolution_seconds=source.resolution_seconds,
        sensor_uncertainty=source.sensor_uncertainty,
        power_milliwatts=domain.recent_milliwatts,
        gap_seconds=gap_seconds,
        gap_millijoules=gap_energy,
        ambiguous_millijoules=min(account.ambiguous, account.energy),
    )
    grade = grade_of(facts)
    low, high = bounds(facts, grade)
    reasons = list(account.reasons)
    if facts.too_short:
        reasons.append(f"the run was shorter than {source.name} can resolve ({2 * source.resolution_seconds:g} s)")
    if gap_seconds > 0:
        reasons.append(f"{gap_seconds:.1f} s of it could not be measured and are not in the value")
    return Component(
        domain=source.domain,
        source=source.name,
        method=" | ".join(account.methods),
        grade=grade,
        energy=Energy(millijoules=account.energy),
        dynamic=Energy(millijoules=account.dynamic),
        idle=Energy(millijoules=account.idle),
        low=Energy(millijoules=low),
        high=Energy(millijoules=high),
        share_ppm=round(facts.share * PPM),
        reason="; ".join(reasons),
    )


def _lost(domain: str, source: str, reason: str) -> Component:
    return Component(
        domain=domain,
        source=source,
        method="",
        grade=Grade.D,
        energy=None,
        dynamic=None,
        idle=None,
        low=None,
        high=None,
        reason=reason,
    )


def _window(start: datetime, end: datetime) -> Window:
    return Window(start=start, end=max(end, start + _SHORTEST))


def _slices(slices: SliceList, window: Window, instant: Callable[[int], datetime]) -> tuple[ReadingSlice, ...]:
    """Stretches in UTC: those that vanish at a microsecond's resolution go to their neighbour; no energy is lost."""
    found: list[ReadingSlice] = []
    start, waiting = window.start, 0
    spans = slices.spans()
    for index, (_, end_ns, energy) in enumerate(spans):
        end = window.end if index == len(spans) - 1 else min(instant(end_ns), window.end)
        waiting += energy
        if end > start:
            found.append(ReadingSlice(window=Window(start=start, end=end), energy=Energy(millijoules=waiting)))
            start, waiting = end, 0
    if waiting and found:
        last = found.pop()
        total = Energy(millijoules=last.energy.millijoules + waiting)
        found.append(ReadingSlice(window=last.window, energy=total))
    return tuple(found)
