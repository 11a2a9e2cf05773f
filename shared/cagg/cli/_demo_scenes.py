"""What the demo shows, scene by scene: the setting, the decision, the wait, the reading, the budget, the verdict."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cagg.cli import demo_story
from cagg.cli._context import store_is_new
from cagg.cli._ledger_keys import trusted_keys
from cagg.cli._output import line
from cagg.cli._story import number, signed_carbon
from cagg.cli.budget import budget_line_json, print_budgets
from cagg.cli.demo_story import Story
from cagg.cli.ledger_verify import checked, report_json
from cagg.errors import CaggError
from cagg.quantities import CarbonIntensity, CarbonMass, Energy
from cagg.records import Budget, BudgetMode, EntryKind
from cagg.windows import format_duration, from_epoch_ms, parse_instant

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.budget.tree import BudgetLine
    from cagg.composition import Components
    from cagg.ledger.verify import VerifyReport

__all__ = [
    "Audience",
    "Chapters",
    "budgets",
    "document",
    "maintain_and_verify",
    "read_chapters",
    "set_budgets",
    "tell_budgets",
    "tell_next",
    "tell_reading",
    "tell_setting",
]


# ---- before -------------------------------------------------------------------------------------------------------


def set_budgets(parts: Components) -> tuple[BudgetLine, ...]:
    """Create the demo's budgets, enforced and ledgered, and return where they stand."""
    from cagg.budget.tree import parse_limit
    from cagg.steps.budgets import change_budget

    with parts.store.transaction() as tx:
        for path, limit in demo_story.BUDGETS:
            unit, amount, period = parse_limit(limit)
            rule = Budget(
                path=path,
                unit=unit,
                period=period,
                time_zone=parts.settings.timezone or "UTC",
                limit=amount,
                mode=BudgetMode.ENFORCE,
            )
            change_budget(tx, rule)
    return budgets(parts)


def budgets(parts: Components) -> tuple[BudgetLine, ...]:
    """Return where the budgets stand."""
    from cagg.budget.tree import tree

    with parts.store.snapshot() as tx:
        return tree(tx)


def tell_setting(to: Console, scale: int) -> None:
    """Say what is real and what is staged."""
    line(to)
    line(to, "What you will see:", style="bold")
    hours = format_duration(demo_story.DURATION)
    declared = (
        f"The job DECLARES what a real nightly job uses, {demo_story.ENERGY} in {hours}: work as small as this demo's "
        "is not worth a wait, and the gate would run it at once. What is metered is the small job itself."
    )
    for text in (
        "It is 22:00 and a validation has to be finished by 06:00.",
        "The forecast is real: Great Britain, 14 March 2023, 48 hours, by NESO (CC BY 4.0).",
        f"Time is compressed: {scale // 60} minutes of that night pass in one second.",
        declared,
    ):
        line(to, f"  - {text}")
    line(to)


def tell_budgets(to: Console, title: str, lines: tuple[BudgetLine, ...]) -> None:
    """Print the tree under a title."""
    line(to, title, style="bold")
    print_budgets(to, lines, None)


# ---- while it runs ------------------------------------------------------------------------------------------------


class Audience:
    """Reads the ledger while the engine works and tells each decision once, then the wait."""

    def __init__(self, *, to: Console, folder: Path, say_every: timedelta, counted_down: bool) -> None:
        self._to = to
        self._folder = folder
        self._say_every = say_every
        self._counted_down = counted_down
        self._told: set[str] = set()
        self._waiting: Mapping[str, Any] | None = None
        self._said: timedelta | None = None

    def look(self, parts: Components) -> None:
        """Tell what is new; a store that is being written is looked at again next time."""
        if store_is_new(parts):
            return
        try:
            chapters = read_chapters(parts)
        except CaggError:
            return
        for body in chapters.decisions:
            if body["entry_id"] not in self._told:
                self._told.add(body["entry_id"])
                self._decision(parts, body, demo_story.read_story(self._folder))
        if self._waiting is not None:
            self._wait(parts, self._waiting, demo_story.read_story(self._folder))

    def _decision(self, parts: Components, body: Mapping[str, Any], story: Story) -> None:
        to = self._to
        if self._counted_down:
            sys.stderr.write("\r\x1b[K")  # the engine counts down on the same line
            sys.stderr.flush()
        verdict, question, proposal = body["verdict"], body["question"], body["proposal"]
        now, start = from_epoch_ms(question["now_ms"]), from_epoch_ms(proposal["start_ms"])
        line(to)
        if verdict["verdict"] != "defer":
            line(to, f"{story.told(now)}  {verdict['verdict'].upper()}: {verdict['message']}", style="bold green")
            self._waiting = None
            return
        self._waiting = body
        line(to, f"{story.told(now)}  DEFER: the gate waits for a cleaner hour.", style="bold green")
        line(to, f"  now            {story.told(now)}  {_side(proposal, 'now')}")
        line(to, f"  chosen window  {story.told(start)}  {_side(proposal, 'then')}")
        difference = int(verdict["expected_difference_micrograms"])
        share = 100 * difference / max(1, number(proposal["now_micrograms"]) or 1)
        line(
            to, f"  expected       {signed_carbon(difference)} ({share:.0f} %) by the forecast, for the declared energy"
        )
        deadline = parse_instant(verdict["deadline"])
        line(to, f"  deadline       {story.told(deadline)}")
        tell_budgets(to, "Budget while it waits: what it may need is held already", budgets(parts))

    def _wait(self, parts: Components, body: Mapping[str, Any], story: Story) -> None:
        left = parse_instant(body["verdict"]["until"]) - parts.clock.now()
        if left <= timedelta(0) or self._counted_down:
            return
        if self._said is None or self._said - left >= self._say_every:
            self._said = left
            line(
                self._to,
                f"  waiting, {format_duration(left)} left ({format_duration(left * story.scale)} of that night)",
            )


def _side(proposal: Mapping[str, Any], side: str) -> str:
    intensity = number(proposal[f"{side}_intensity_milligrams_per_kwh"])
    carbon = number(proposal[f"{side}_micrograms"])
    if intensity is None or carbon is None:
        return "unknown"
    return f"{CarbonIntensity(milligrams_per_kwh=intensity)}  {CarbonMass(micrograms=carbon)}"


# ---- after --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapters:
    """The entries of the demo's run, decoded, in the order of the ledger."""

    decisions: Sequence[Mapping[str, Any]]
    measurements: Sequence[Mapping[str, Any]]
    settlements: Sequence[Mapping[str, Any]]

    @property
    def complete(self) -> bool:
        """True when the run was deferred, admitted, measured and settled."""
        verdicts = [body["verdict"]["verdict"] for body in self.decisions]
        return "defer" in verdicts and "admit" in verdicts and bool(self.measurements) and bool(self.settlements)


def read_chapters(parts: Components) -> Chapters:
    """Read the run's entries."""
    from cagg.ledger.entry import read_body

    found: dict[EntryKind, list[Mapping[str, Any]]] = {}
    with parts.store.snapshot() as tx:
        for entry in tx.entries():
            found.setdefault(entry.kind, []).append(read_body(tx, entry))
    return Chapters(
        decisions=found.get(EntryKind.DECISION, []),
        measurements=found.get(EntryKind.MEASUREMENT, []),
        settlements=found.get(EntryKind.SETTLEMENT, []),
    )


def tell_reading(to: Console, chapters: Chapters, story: Story) -> None:
    """Print what was declared, what was measured, and what the wait changed."""
    line(to)
    for body in chapters.measurements:
        start = parse_instant(body["start"])
        energy = number(body["energy_millijoules"])
        line(to, f"{story.told(start)}  MEASURED", style="bold green")
        if energy is None:
            line(to, f"  energy    unknown: {body.get('energy_reason', '')}")
        else:
            low, high = number(body["energy_low_millijoules"]), number(body["energy_high_millijoules"])
            bounds = f"{Energy(millijoules=low or 0)} to {Energy(millijoules=high or 0)}"
            line(to, f"  energy    {Energy(millijoules=energy)} ({bounds}), grade {body['grade']}")
            for item in body["components"]:
                used = number(item["energy_millijoules"])
                text = "unknown" if used is None else str(Energy(millijoules=used))
                line(to, f"            {item['domain']}: {text}, grade {item['grade']}, {item['source']}", style="dim")
        carbon = number(body["carbon_micrograms"])
        text = f"unknown: {body['carbon_reason']}" if carbon is None else str(CarbonMass(micrograms=carbon))
        line(to, f"  carbon    {text}")
        difference = number(body.get("intensity_difference_micrograms"))
        if difference is not None:
            line(to, f"  changed   {signed_carbon(difference)} than at the first ask, for the measured energy")
        line(to, f"  declared  {demo_story.ENERGY}: that was planned with and held; only what was measured is charged")
    line(to)


def maintain_and_verify(to: Console, parts: Components) -> VerifyReport:
    """Do one maintenance pass, which signs a checkpoint, and verify the ledger with the new key."""
    from cagg.maintenance import maintain

    report = maintain(parts, hosts={})
    line(to)
    if report.signed_size is not None:
        line(to, f"`cagg maintain` signed a checkpoint of {report.signed_size} entries.")
    for problem in report.problems:
        line(to, f"problem: {problem}", style="yellow")
    verdict = checked(parts, trusted_keys(parts))
    style = "bold green" if verdict.verified else "bold red"
    line(to, f"`cagg ledger verify`: {verdict.sentence}", style=style)
    return verdict


def tell_next(to: Console, folder: Path, hint: str) -> None:
    """Say where to look next."""
    line(to)
    line(to, "Where to look next", style="bold")
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    if shutil.which("cagg") is None:  # started by its path, as `make demo` does
        to.print(f'  export PATH="{Path(sys.executable).parent}:$PATH"', soft_wrap=True)
    to.print(f"  cd {shown}", soft_wrap=True)
    for command, text in (
        ("cagg explain latest", "why it was decided so; --recompute decides again"),
        ("cagg ledger list", "every entry"),
        ("cagg ledger verify", "check all of it"),
        ("cagg budget show", "where the budgets stand"),
        ("cagg doctor", "what works on this machine"),
    ):
        line(to, f"  {command:<22}{text}")
    line(to, f"In a project of your own: `cagg init`, then {hint}.")


def document(
    folder: Path,
    engine: str,
    chapters: Chapters,
    before: tuple[BudgetLine, ...],
    after: tuple[BudgetLine, ...],
    report: VerifyReport,
) -> dict[str, Any]:
    """Return the demo's outcome as JSON values."""
    return {
        "folder": str(folder),
        "engine": engine,
        "complete": chapters.complete,
        "declared_energy": demo_story.ENERGY,
        "decisions": list(chapters.decisions),
        "measurements": list(chapters.measurements),
        "settlements": list(chapters.settlements),
        "budgets_before": [budget_line_json(item) for item in before],
        "budgets_after": [budget_line_json(item) for item in after],
        "verify": report_json(report),
    }
