"""The tree of budgets: paths, limits as people write them, setting a budget, and showing where all of them stand.

A path such as ``acme/ml/nightly`` names a node; its ancestors ``acme/ml`` and ``acme`` count everything below them.
Any node may carry several budgets, one per unit and period.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation

from cagg.budget._locking import lock_order
from cagg.budget.periods import period_window, windows_for
from cagg.errors import BudgetUnknown, InvalidInput
from cagg.ports import JournalRow, Transaction
from cagg.quantities import CarbonMass, Energy, Unit
from cagg.records import Allotment, Budget, BudgetMode, Period
from cagg.request import check_budget_path
from cagg.windows import Window

__all__ = [
    "BudgetLine",
    "above_limit",
    "ancestors",
    "format_amount",
    "format_limit",
    "parse_limit",
    "require_path",
    "set_budget",
    "tree",
    "unknown_budget",
]

_INT64_MAX = 2**63 - 1
_EXAMPLE = "12 kgCO2e/month"
_LIMIT = re.compile(r"^\s*(?P<number>[+-]?[\d_.,]+(?:[eE][+-]?\d+)?)\s*(?P<unit>[^\d\s/][^/]*?)\s*$")
_CARBON = re.compile(r"^(?:kg|g|mg|ug|µg|t)(?: ?CO2(?:e|eq)?)?$")
_ENERGY = re.compile(r"^(?:[mkMG]?Wh|kwh|wh|[mkMG]?J)$")
_TOKENS = re.compile(r"^(?P<prefix>[kMG]?)\s*[tT]okens?$")
_GPU_TIME = re.compile(r"^gpu[- ]?(?P<time>h|hours?|min|minutes?|s|seconds?|d|days?)$", re.IGNORECASE)
_CURRENCY = re.compile(r"^[A-Z]{3}$")
_THOUSANDS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_GPU_MILLISECONDS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


# ---- paths --------------------------------------------------------------------------------------------------------


def ancestors(path: str) -> tuple[str, ...]:
    """Return the path itself and everything above it, leaf first: ``a/b`` gives ``("a/b", "a")``.

    Raises:
        InvalidInput: the path is malformed.
    """
    parts = check_budget_path(path).split("/")
    return tuple("/".join(parts[:length]) for length in range(len(parts), 0, -1))


def require_path(tx: Transaction, path: str) -> tuple[Budget, ...]:
    """Return the budgets of exactly this path, in any unit and mode.

    Raises:
        BudgetUnknown: nobody created one for it; what its ancestors have doesn't count, so that a typing error in
            the last name is noticed.
    """
    found = tuple(tx.budgets(check_budget_path(path)))
    if not found:
        raise unknown_budget(path)
    return found


def unknown_budget(path: str) -> BudgetUnknown:
    """Return the error for a path that has no budget of its own."""
    return BudgetUnknown(
        f"budget {path!r} does not exist; create it with `cagg budget set {path} 2kg/month`, or correct the path."
    )


# ---- text ---------------------------------------------------------------------------------------------------------


def parse_limit(text: str) -> tuple[Unit, int, Period]:
    """Read a limit per period, such as ``"12 kgCO2e/month"``.

    Units: carbon (``2kg/week``, ``500 gCO2e/day``), energy (``30 kWh/week``), GPU time (``100 gpu-h/month``), tokens
    (``2M tokens/month``), money as a three-letter code (``50 EUR/month``). Periods: day, week, month, quarter, year,
    total. The amount comes back in the unit's integers, rounded half up.

    Raises:
        InvalidInput: no number, no unit, an unknown unit or period, a negative or too large amount.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"a limit must be text, got {text!r}; write it as {_EXAMPLE!r}.")
    amount_text, slash, period_text = text.rpartition("/")
    if not slash:
        raise InvalidInput(f"limit {text!r} names no period; write it as {_EXAMPLE!r}.")
    try:
        period = Period(period_text.strip().lower())
    except ValueError:
        raise InvalidInput(
            f"limit {text!r} has the unknown period {period_text.strip()!r}; use one of {', '.join(Period)}."
        ) from None
    match = _LIMIT.match(amount_text)
    if match is None or "," in match["number"]:
        raise InvalidInput(f"limit {text!r} needs a number and a unit; write it as {_EXAMPLE!r}.")
    try:
        number = Decimal(match["number"].replace("_", ""))
    except InvalidOperation:
        raise InvalidInput(f"limit {text!r} needs a number and a unit; write it as {_EXAMPLE!r}.") from None
    if number < 0:
        raise InvalidInput(f"limit {text!r} is negative; give zero or more, for example {_EXAMPLE!r}.")
    unit, amount = _amount(text, number, match["unit"].replace("\u03bc", "\u00b5"))
    return unit, amount, period


def _amount(text: str, number: Decimal, unit_text: str) -> tuple[Unit, int]:
    plain = f"{number} {unit_text}"
    if _CARBON.match(unit_text):
        return Unit.CARBON, CarbonMass.parse(plain).micrograms
    if _ENERGY.match(unit_text):
        return Unit.ENERGY, Energy.parse(plain).millijoules
    if tokens := _TOKENS.match(unit_text):
        unit, scale = Unit.TOKENS, _THOUSANDS[tokens["prefix"]]
    elif gpu := _GPU_TIME.match(unit_text):
        unit, scale = Unit.GPU_TIME, _GPU_MILLISECONDS[gpu["time"][0].lower()]
    elif _CURRENCY.match(unit_text):
        unit, scale = Unit.MONEY, 10**6
    else:
        raise InvalidInput(f"limit {text!r} has the unknown unit {unit_text!r}; use for example kgCO2e or kWh.")
    if number.adjusted() > 30 or (amount := int((number * scale).to_integral_value("ROUND_HALF_UP"))) > _INT64_MAX:
        raise InvalidInput(f"limit {text!r} is larger than the largest value that can be stored.")
    return unit, amount


def format_amount(unit: Unit, amount: int) -> str:
    """Return an amount of a unit as people read it; negative amounts (after an overrun) keep their sign."""
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    match unit:
        case Unit.CARBON:
            text = str(CarbonMass(micrograms=min(size, _INT64_MAX)))
        case Unit.ENERGY:
            text = str(Energy(millijoules=min(size, _INT64_MAX)))
        case Unit.GPU_TIME:
            text = f"{size / 3_600_000:.4g} GPU-h" if size >= 60_000 or not size else f"{size / 1_000:.4g} GPU-s"
        case Unit.TOKENS:
            text = f"{size:,} tokens"
        case Unit.MONEY:
            text = f"{size / 1_000_000:,.2f} of money"
    return sign + text


def format_limit(budget: Budget) -> str:
    """Return a budget's limit with its period, such as ``"12 kg/month"``."""
    return f"{format_amount(budget.unit, budget.limit)}/{budget.period}"


# ---- setting ------------------------------------------------------------------------------------------------------


def set_budget(tx: Transaction, budget: Budget) -> Budget:
    """Create a budget or replace it by its next version, and return what is stored.

    ``version`` of the given value is ignored; a budget that stays as it is gets no new version. The new limit applies
    to the allotments that are open now or were opened for later, even when it lies below what they have held and
    spent: then nothing more is admitted there. A changed time zone applies from the next period on.

    Raises:
        InvalidInput: path, unit, period, mode, time zone or one of the amounts cannot be used.
    """
    _check(budget)
    now = tx.now()
    period_window(budget.period, budget.time_zone, now)
    same = [one for one in tx.budgets(budget.path) if (one.unit, one.period) == (budget.unit, budget.period)]
    version = same[0].version if same else 0
    if same and replace(budget, version=version) == same[0]:
        return same[0]
    stored = replace(budget, version=version + 1)
    tx.put_budget(stored, now)
    for one in _opened(tx, budget, now):
        allotment = tx.allotment_by_id(one.allotment_id)
        if allotment.limit != stored.limit:
            tx.set_allotment_limit(allotment.allotment_id, stored.limit)
            tx.post(
                JournalRow(
                    allotment_id=allotment.allotment_id,
                    request_key="",
                    kind="limit",
                    d_held=0,
                    d_spent=0,
                    d_overrun=0,
                    at=now,
                )
            )
    return stored


def _opened(tx: Transaction, budget: Budget, now: datetime) -> list[Allotment]:
    """Return the budget's allotments whose period has not ended, in the order in which they are locked."""
    wanted = budget.unit, budget.period
    opened = [one for one in tx.allotments(budget.path) if (one.budget.unit, one.budget.period) == wanted]
    return sorted((one for one in opened if one.window.end > now), key=lock_order)


def above_limit(tx: Transaction, budget: Budget) -> tuple[Allotment, ...]:
    """Return the budget's present and later allotments that have held and spent more than they grant, earliest first.

    For a limit that was lowered below what is committed: nothing is taken back, and no more is admitted there.
    """
    return tuple(one for one in _opened(tx, budget, tx.now()) if one.available < 0)


def _check(budget: Budget) -> None:
    check_budget_path(budget.path)
    for value, kind in ((budget.unit, Unit), (budget.period, Period), (budget.mode, BudgetMode)):
        if not isinstance(value, kind):
            raise InvalidInput(f"budget {budget.path}: {value!r} is unknown; use one of {', '.join(kind)}.")
    price = budget.unknown_intensity_milligrams_per_kwh
    if price is not None and (isinstance(price, bool) or not isinstance(price, int) or not 0 <= price <= _INT64_MAX):
        raise InvalidInput(
            f"budget {budget.path}: the price of unknown intensity must be a whole number of mg/kWh from 0 to 2^63-1, "
            f"got {price!r}."
        )


# ---- showing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """Where one budget stands in one period; amounts in the unit's integers.

    Attributes:
        path, unit, period, time_zone, mode: the rule.
        depth: how many names stand above it, 0 for an organisation.
        window: the period shown.
        limit: granted for it, extras included.
        spent, held, overrun: counters; zero while nothing was asked in the period.
        available: what a new hold may take; negative after an overrun.
        used_ppm: (spent + held) / limit in parts per million, rounded down; None at a limit of zero.
    """

    path: str
    unit: Unit
    period: Period
    time_zone: str
    mode: BudgetMode
    depth: int
    window: Window
    limit: int
    spent: int
    held: int
    overrun: int
    available: int
    used_ppm: int | None

    @property
    def used_percent(self) -> float | None:
        """(spent + held) / limit in percent, for display; None at a limit of zero."""
        return None if self.used_ppm is None else self.used_ppm / 10_000


def tree(tx: Transaction, *, path: str | None = None, at: datetime | None = None) -> tuple[BudgetLine, ...]:
    """Return every budget as it stands, parents before children. Writes nothing: a snapshot will do.

    Args:
        tx: where to read.
        path: only this node and what lies below it; None = all.
        at: which period; None = the store's now.
    """
    at = tx.now() if at is None else at
    rules = [rule for rule in tx.budgets() if path is None or rule.path == path or rule.path.startswith(f"{path}/")]
    rules.sort(key=lambda rule: (rule.path.split("/"), list(Unit).index(rule.unit), list(Period).index(rule.period)))
    wanted = list(zip(rules, windows_for(tx, rules, at), strict=True))
    return tuple(
        _line(rule, window, next((one for one in opened if one.window == window), None))
        for (rule, window), opened in zip(wanted, tx.opened(wanted), strict=True)
    )


def _line(rule: Budget, window: Window, opened: Allotment | None) -> BudgetLine:
    limit, spent, held, overrun = rule.limit, 0, 0, 0
    if opened is not None:
        limit, spent, held, overrun = opened.limit + opened.extra, opened.spent, opened.held, opened.overrun
    return BudgetLine(
        path=rule.path,
        unit=rule.unit,
        period=rule.period,
        time_zone=rule.time_zone,
        mode=rule.mode,
        depth=rule.path.count("/"),
        window=window,
        limit=limit,
        spent=spent,
        held=held,
        overrun=overrun,
        available=limit - spent - held,
        used_ppm=(spent + held) * 1_000_000 // limit if limit else None,
    )
