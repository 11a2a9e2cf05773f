"""Tells ledger bodies to people: a decision with its grounds, a measurement with its grade, how a hold ended.

Everything is read from the entry itself, so the same words come from a decision that was just made, one that was
only tried (``cagg plan``), and one of last year (``cagg explain``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cagg.cli._origins import origin_facts
from cagg.cli._output import facts, in_words, joined, line, when
from cagg.quantities import CarbonIntensity, CarbonMass, Energy, Unit
from cagg.windows import format_duration, from_epoch_ms, parse_instant

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["decision_json", "number", "signed_carbon", "tell_decision", "tell_measurement", "tell_settlement"]


def number(text: object) -> int | None:
    """Return a recorded decimal text as a number; None for null."""
    return int(text) if isinstance(text, str | int) and not isinstance(text, bool) else None


def _intensity(text: object) -> str:
    amount = number(text)
    return "unknown" if amount is None else str(CarbonIntensity(milligrams_per_kwh=amount))


def _carbon(text: object) -> str:
    amount = number(text)
    return "unknown" if amount is None else str(CarbonMass(micrograms=amount))


def _energy(text: object) -> str:
    amount = number(text)
    return "unknown" if amount is None else str(Energy(millijoules=amount))


def signed_carbon(micrograms: int, *, then: str = "less", other: str = "more") -> str:
    """Return a difference in words: ``12 g less``, or ``12 g more`` for a negative one."""
    return f"{CarbonMass(micrograms=abs(micrograms))} {then if micrograms >= 0 else other}"


# ---- decisions ----------------------------------------------------------------------------------------------------


def decision_json(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what machines want of a decision: the verdict, now and the chosen start, and the grounds."""
    proposal, question = body.get("proposal"), body.get("question")
    document: dict[str, Any] = {"verdict": body["verdict"]}
    if isinstance(proposal, Mapping) and isinstance(question, Mapping):
        now, then = number(proposal["now_micrograms"]), number(proposal["then_micrograms"])
        document |= {
            "now": {
                "start": from_epoch_ms(question["now_ms"]),
                "intensity_milligrams_per_kwh": number(proposal["now_intensity_milligrams_per_kwh"]),
                "carbon_micrograms": now,
            },
            "chosen": {
                "start": from_epoch_ms(proposal["start_ms"]),
                "intensity_milligrams_per_kwh": number(proposal["then_intensity_milligrams_per_kwh"]),
                "carbon_micrograms": then,
            },
            "deadline": None if question["deadline_ms"] is None else from_epoch_ms(question["deadline_ms"]),
            "expected_difference_micrograms": None if now is None or then is None else now - then,
        }
    for name in ("estimate", "forecast", "budgets", "planning_basis", "policy", "options", "notes"):
        if name in body:
            document[name] = body[name]
    document["planning_intensity_milligrams_per_kwh"] = number(body.get("planning_intensity_milligrams_per_kwh"))
    return document


def tell_decision(to: Console, body: Mapping[str, Any], zone_name: str | None) -> None:
    """Print one decision: verdict, now and then, estimate, price, forecast, budgets."""
    verdict = body["verdict"]
    word = {"admit": "ADMIT", "defer": "DEFER", "deny": "DENY", "review": "REVIEW"}.get(verdict["verdict"], "?")
    line(to, f"{word}: {verdict['message']}", style="bold")
    if isinstance(body.get("store_down"), str):
        line(to, f"The store was down: {body['store_down']}")
        return
    proposal, question = body.get("proposal"), body.get("question")
    if not isinstance(proposal, Mapping) or not isinstance(question, Mapping):
        return
    facts(
        to,
        [
            *_candidates(proposal, question, zone_name),
            ("deadline", _deadline(question, zone_name)),
            ("estimate", _estimate(body["estimate"])),
            ("planning price", _planning(body)),
            ("forecast", _forecast(body["forecast"], body.get("asked_at"), zone_name)),
            ("grid notes", joined(body["forecast"].get("steps", []))),
        ],
    )
    for row in body.get("budgets", []):
        line(to, f"  {_budget(row)}")
    for path in verdict.get("over_limit", []):
        line(to, f"  let past the limit of {path}: booked as overrun", style="yellow")
    for note in body.get("notes", []):
        line(to, f"  note: {note}")


def _candidates(
    proposal: Mapping[str, Any], question: Mapping[str, Any], zone_name: str | None
) -> list[tuple[str, str]]:
    now, start = from_epoch_ms(question["now_ms"]), from_epoch_ms(proposal["start_ms"])
    now_carbon, then_carbon = number(proposal["now_micrograms"]), number(proposal["then_micrograms"])
    seconds = question["expected_duration_ms"] < 60_000

    def at(instant: datetime, intensity: str, carbon: int | None) -> str:
        if carbon is None:
            return when(instant, zone_name, seconds=seconds)
        return f"{when(instant, zone_name, seconds=seconds)}  {_intensity(proposal[intensity])}  {_carbon(carbon)}"

    rows = [("now", at(now, "now_intensity_milligrams_per_kwh", now_carbon))]
    if start > now:
        chosen = at(start, "then_intensity_milligrams_per_kwh", then_carbon)
        rows.append(("chosen window", f"{chosen}  ({in_words(start - now)})"))
        if now_carbon is not None and then_carbon is not None:
            share = 100 * (now_carbon - then_carbon) / max(1, now_carbon)
            rows.append(("difference", f"{signed_carbon(now_carbon - then_carbon)} by the forecast ({share:.0f} %)"))
    else:
        rows.append(("chosen window", f"now ({proposal['reason']})"))
    return rows


def _deadline(question: Mapping[str, Any], zone_name: str | None) -> str:
    deadline = question["deadline_ms"]
    seconds = question["expected_duration_ms"] < 60_000
    return "none, so it never waits" if deadline is None else when(from_epoch_ms(deadline), zone_name, seconds=seconds)


def _estimate(body: Mapping[str, Any]) -> str:
    duration = timedelta(milliseconds=body["expected_duration_ms"])
    longest = timedelta(milliseconds=body["upper_duration_ms"])
    method = body["method"]
    if body.get("sample_size"):
        method = f"{method}, {body['sample_size']} earlier runs"
    text = (
        f"{_energy(body['expected_energy_millijoules'])} (at most {_energy(body['upper_energy_millijoules'])}), "
        f"{format_duration(duration)} (at most {format_duration(longest)}): {method}"
    )
    return f"{text}; {body['note']}" if body.get("note") else text


def _planning(body: Mapping[str, Any]) -> str:
    price = body.get("planning_intensity_milligrams_per_kwh")
    basis = body.get("planning_basis", "")
    return f"unknown: {basis}" if price is None else f"{_intensity(price)} ({basis})"


def _forecast(body: Mapping[str, Any], asked_at: object, zone_name: str | None) -> str:
    if body.get("series") is None:
        return f"none ({body['quality']})"
    convention = body["convention"]
    parts = [f"{body['source']} ({body['kind']})" if body["kind"] not in body["source"] else str(body["source"])]
    parts[0] += f" for {body['zone']}" + ("" if body["quality"] in body["source"] else f", {body['quality']}")
    fetched = parse_instant(body["fetched_at"])
    if body["issued_at"] is not None:
        parts.append(f"issued {when(parse_instant(body['issued_at']), zone_name)}")
    elif isinstance(asked_at, str) and (age := parse_instant(asked_at) - fetched) > timedelta(seconds=1):
        parts.append(f"{format_duration(age)} old")
    parts.append(f"{convention['signal']} signal, {convention['basis']} basis, {convention['gas']}")
    if body.get("licence"):
        parts.append(body["licence"])
    return "; ".join(parts)


def _budget(row: Mapping[str, Any]) -> str:
    from cagg.budget.tree import format_amount

    unit = Unit(row["unit"])
    limit = int(row["limit"]) + int(row["extra"])
    left = limit - int(row["held"]) - int(row["spent"])
    asked = "an unknown amount" if row["amount"] is None else format_amount(unit, int(row["amount"]))
    return (
        f"budget {row['path']}: asks at most {asked} of the {format_amount(unit, left)} that "
        f"is left of {format_amount(unit, limit)} {unit} this {row['period']} [{row['mode']}]"
    )


# ---- what followed ------------------------------------------------------------------------------------------------


def tell_measurement(to: Console, body: Mapping[str, Any], zone_name: str | None) -> None:
    """Print one measurement: energy with bounds and grade, carbon with its prices, the parts of the machine."""
    start, end = parse_instant(body["start"]), parse_instant(body["end"])
    low = body.get("energy_low_millijoules", body.get("low_millijoules"))
    high = body.get("energy_high_millijoules", body.get("high_millijoules"))
    energy = body.get("energy_millijoules")
    if energy is None:
        text = f"energy unknown: {body.get('energy_reason') or 'no reason was recorded'}"
    else:
        bounds = "" if low is None or high is None else f" ({_energy(low)} to {_energy(high)})"
        text = f"{_energy(energy)}{bounds}, grade {body.get('grade')}"
    line(to, f"MEASURED ({body.get('outcome', '')}): {text}", style="bold")
    carbon = body.get("carbon_micrograms")
    difference = number(body.get("intensity_difference_micrograms"))
    facts(
        to,
        [
            ("when", f"{when(start, zone_name, seconds=True)}, {_length(end - start)}"),
            ("carbon", f"unknown: {body.get('carbon_reason', '')}" if carbon is None else _carbon(carbon)),
            ("priced with", _prices(body.get("slices", []))),
            ("means", _convention(body.get("convention"))),
            (
                "difference",
                "" if difference is None else f"{signed_carbon(difference)} than at the first ask, measured",
            ),
            ("method", str(body.get("method", ""))),
            *[(f"  {item['domain']}", _component(item)) for item in body.get("components", [])],
            *origin_facts(body),
            ("notes", joined(body.get("notes", []))),
        ],
    )


def _length(duration: timedelta) -> str:
    if duration < timedelta(seconds=10):
        return f"{duration.total_seconds():.3g} s"
    return format_duration(duration)


def _prices(slices: Sequence[Mapping[str, Any]]) -> str:
    known = [number(item["intensity_milligrams_per_kwh"]) for item in slices]
    priced = [item for item in known if item is not None]
    if not priced:
        return ""
    sources = ", ".join(sorted({item["source"] for item in slices if item["intensity_milligrams_per_kwh"] is not None}))
    low, high = _intensity(min(priced)), _intensity(max(priced))
    return f"{low if low == high else f'{low} to {high}'}, {sources}"


def _convention(convention: object) -> str:
    if not isinstance(convention, Mapping):
        return ""
    return f"{convention['signal']} signal, {convention['basis']} basis, {convention['gas']}"


def _component(item: Mapping[str, Any]) -> str:
    text = f"{_energy(item.get('energy_millijoules'))}, grade {item['grade']}, {item['source']}: {item['method']}"
    return f"{text} ({item['reason']})" if item.get("reason") else text


def tell_settlement(to: Console, body: Mapping[str, Any]) -> None:
    """Print how a reservation ended and what was charged."""
    from cagg.budget.tree import format_amount

    charged = {Unit(unit): int(amount) for unit, amount in _pairs(body.get("charged"))}
    text = ", ".join(f"{format_amount(unit, amount)} {unit}" for unit, amount in charged.items())
    path = body.get("budget_path")
    line(
        to,
        f"SETTLED ({body.get('outcome', '')}): {text or 'nothing'} charged{f' to {path}' if path else ''}",
        style="bold",
    )
    for item in body.get("overrun", []):
        name, _, unit = item["budget"].rpartition(":")
        line(to, f"  overrun of {name}: {format_amount(Unit(unit), int(item['amount']))}", style="yellow")


def _pairs(value: object) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [(str(name), str(amount)) for name, amount in value.items()]
    if isinstance(value, list):
        return [(str(item.get("unit", item.get("name"))), str(item.get("amount", item.get("value")))) for item in value]
    return []
