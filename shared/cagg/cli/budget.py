"""``cagg budget set`` and ``cagg budget show``: create or change a limit, see where all of them stand."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._output import Json, amount_bar, answer, line, when
from cagg.errors import BudgetUnknown, InvalidInput
from cagg.quantities import CarbonIntensity, Unit
from cagg.records import Allotment, Budget, BudgetMode

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.budget.tree import BudgetLine
    from cagg.settings import Settings

__all__ = ["app", "budget_line_json", "print_budgets"]

app = typer.Typer(help="Set limits and see where budgets stand.", no_args_is_help=True)
"""The commands below ``cagg budget``."""

_METERED = frozenset({Unit.CARBON, Unit.ENERGY})
"""Units that a meter of this version feeds; a limit in another one would never be counted against."""

_ORDER = (BudgetMode.OBSERVE, BudgetMode.WARN, BudgetMode.ENFORCE)


@app.command("set")
def set_(
    *,
    path: Annotated[str, typer.Argument(help="Whose budget, for example acme/ml/nightly.")],
    limit: Annotated[str, typer.Argument(help="Limit per period, for example '2 kg/month' or '30 kWh/week'.")],
    mode: Annotated[str | None, typer.Option(help="observe, warn or enforce; a new budget starts in observe.")] = None,
    period: Annotated[str | None, typer.Option(help="day, week, month, quarter, year or total.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Zone whose midnights bound the periods.")] = None,
    unknown_intensity: Annotated[
        str | None, typer.Option(help="What a kWh costs while the grid is unknown, '500 g/kWh', or 'deny'.")
    ] = None,
    json: Json = False,
) -> int:
    """Create a budget, or change it; what is not said stays as it was. The change is an entry in the ledger."""
    from cagg.budget.tree import above_limit, format_limit, parse_limit
    from cagg.cli._context import components
    from cagg.steps.budgets import change_budget

    unit, amount, parsed_period = parse_limit(_with_period(limit, period))
    if unit not in _METERED:
        raise InvalidInput(
            f"limit {limit!r} of {path} is in {unit}, which no meter feeds; this version counts carbon and energy, so "
            "set it in kg or kWh."
        )
    wanted_mode = _mode(mode)
    parts = components()
    with parts.store.transaction() as tx:
        before = next(
            (item for item in tx.budgets(path) if (item.unit, item.period) == (unit, parsed_period)),
            None,
        )
        unknown = None if before is None else before.unknown_intensity_milligrams_per_kwh
        if unknown_intensity is not None:
            unknown = None if unknown_intensity == "deny" else _price(unknown_intensity)
        stored = change_budget(
            tx,
            Budget(
                path=path,
                unit=unit,
                period=parsed_period,
                time_zone=time_zone or (before.time_zone if before else _default_zone(parts.settings)),
                limit=amount,
                mode=wanted_mode or (before.mode if before else BudgetMode.OBSERVE),
                unknown_intensity_milligrams_per_kwh=unknown,
            ),
        )
        above = above_limit(tx, stored)
    changed = before is None or stored.version != before.version
    document = {
        "changed": changed,
        "created": before is None,
        "budget": _budget_json(stored),
        "above_limit": [_above_json(one) for one in above],
    }

    def people(to: Console) -> None:
        verb = "is set to" if before is None else ("is now" if changed else "stays at")
        line(to, f"Budget {path} {verb} {format_limit(stored)} in mode {stored.mode} ({stored.time_zone}).")
        for one in above:
            line(to, _above_text(one, stored.mode, parts.settings.timezone or stored.time_zone), style="yellow")
        if stored.mode is not BudgetMode.ENFORCE:
            line(
                to,
                f"Nothing is refused in this mode; --mode enforce makes the limit hold: cagg budget set {quote(path)} "
                f"'{limit}' --mode enforce",
                style="dim",
            )

    return answer(document, people, json=json)


def _with_period(limit: str, period: str | None) -> str:
    if period is None:
        return limit
    if "/" in limit:
        raise InvalidInput(f"limit {limit!r} already names a period; leave --period {period!r} out.")
    return f"{limit}/{period}"


def _mode(mode: str | None) -> BudgetMode | None:
    if mode is None:
        return None
    try:
        return BudgetMode(mode)
    except ValueError:
        raise InvalidInput(f"mode {mode!r} is unknown; use one of {', '.join(_ORDER)}.") from None


def _price(text: str) -> int:
    return CarbonIntensity.parse(text).milligrams_per_kwh


def _default_zone(settings: Settings) -> str:
    return settings.timezone or "UTC"


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _budget_json(budget: Budget) -> dict[str, Any]:
    return {
        "path": budget.path,
        "unit": str(budget.unit),
        "period": str(budget.period),
        "time_zone": budget.time_zone,
        "limit": budget.limit,
        "mode": str(budget.mode),
        "unknown_intensity_milligrams_per_kwh": budget.unknown_intensity_milligrams_per_kwh,
        "version": budget.version,
    }


def _above_json(one: Allotment) -> dict[str, Any]:
    return {
        "start": one.window.start,
        "end": one.window.end,
        "limit": one.limit + one.extra,
        "spent": one.spent,
        "held": one.held,
        "above": -one.available,
    }


def _above_text(one: Allotment, mode: BudgetMode, zone_name: str) -> str:
    """Say what a limit below the committed amount means for one period."""
    from cagg.budget.tree import format_amount

    unit = one.budget.unit
    spent, held, over = (format_amount(unit, amount) for amount in (one.spent, one.held, -one.available))
    where = "in total" if one.budget.period == "total" else f"until {when(one.window.end, zone_name)}"
    then = "nothing more is admitted" if mode is BudgetMode.ENFORCE else "what runs from here on is overrun"
    return f"{spent} spent and {held} held {where} are {over} above the limit already; {then}."


# ---- show ---------------------------------------------------------------------------------------------------------


@app.command("show")
def show(
    *,
    path: Annotated[str | None, typer.Argument(help="Only this path and what lies below it.")] = None,
    json: Json = False,
) -> int:
    """Show budgets as a tree: spent, held, overrun, available. Exit status 1 when one of them is overrun."""
    from cagg.budget.tree import tree
    from cagg.cli._context import components, store_is_new
    from cagg.request import check_budget_path

    if path is not None:
        check_budget_path(path)
    parts = components()
    lines: tuple[BudgetLine, ...] = ()
    if not store_is_new(parts):
        with parts.store.snapshot() as tx:
            lines = tree(tx, path=path)
    if path is not None and not lines:
        raise BudgetUnknown(f"budget {path!r} does not exist; create it with `cagg budget set {path} '2 kg/month'`.")
    over = any(item.overrun > 0 for item in lines)
    document = {"budgets": [budget_line_json(item) for item in lines], "overrun": over}

    def people(to: Console) -> None:
        if not lines:
            line(to, "No budget yet; create one with: cagg budget set acme/ml/nightly '2 kg/month' --mode enforce")
        print_budgets(to, lines, parts.settings.timezone)

    return answer(document, people, json=json, status=1 if over else 0)


def budget_line_json(item: BudgetLine) -> Mapping[str, Any]:
    """Return one line of the tree as JSON values; amounts in the unit's integers."""
    return {
        "path": item.path,
        "unit": str(item.unit),
        "period": str(item.period),
        "mode": str(item.mode),
        "time_zone": item.time_zone,
        "start": item.window.start,
        "end": item.window.end,
        "limit": item.limit,
        "spent": item.spent,
        "held": item.held,
        "overrun": item.overrun,
        "available": item.available,
        "used_ppm": item.used_ppm,
    }


def print_budgets(to: Console, lines: tuple[BudgetLine, ...], zone_name: str | None) -> None:
    """Print the tree, two text lines per budget: the bar with what is left, and the figures behind it."""
    from cagg.budget.tree import format_amount

    top = min((item.depth for item in lines), default=0)
    for item in lines:
        indent = "  " * (item.depth - top)
        limit = max(1, item.limit)
        parts = (item.spent * 1_000_000 // limit, item.held * 1_000_000 // limit)
        bar = amount_bar(to, parts_ppm=parts)
        left = format_amount(item.unit, item.available)
        total = format_amount(item.unit, item.limit)
        line(to, f"{indent}{item.path}  {bar}  {left} of {total} {item.unit} left  [{item.mode}]")
        figures = [f"spent {format_amount(item.unit, item.spent)}", f"held {format_amount(item.unit, item.held)}"]
        if item.overrun:
            figures.append(f"overrun {format_amount(item.unit, item.overrun)}")
        until = "" if item.period == "total" else f" until {when(item.window.end, zone_name or item.time_zone)}"
        line(to, f"{indent}  {', '.join(figures)}; this {item.period}{until}", style="dim")
