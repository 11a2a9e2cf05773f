"""What budgets have left for a request: every allotment on its path, beside what it asks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from cagg.budget._locking import lock_order
from cagg.budget._pricing import assumed_carbon, check_pue
from cagg.budget._settling import check_amounts
from cagg.budget.periods import windows_for
from cagg.budget.tree import ancestors, unknown_budget
from cagg.ports import Transaction
from cagg.quantities import Energy, Unit
from cagg.records import Allotment, Budget, BudgetMode, Headroom
from cagg.windows import require_utc

__all__ = ["asked", "assess", "let_past", "open_path", "refusals"]


def assess(
    tx: Transaction,
    *,
    path: str,
    amounts: Mapping[Unit, int | None],
    energy: Energy,
    at: datetime,
    ignoring: str | None,
    pue_ppm: int | None = None,
) -> tuple[Headroom, ...]:
    """Return every budget from the path up to its root beside what is asked of it, root first, and lock them.

    Allotments of the periods that contain ``at`` are opened where they do not exist yet.

    Args:
        tx: the transaction in which :func:`hold` follows.
        path: who pays.
        amounts: what the run takes at most, by unit. Carbon that is missing or None is unknown: it is priced with the
            budget's assumed intensity, else it stays None and does not fit. Energy that is missing or None is
            ``energy``. Another unit (GPU time, tokens, money) that is None is unknown and does not fit; one that is
            missing is unknown to an enforced budget too, because a limit that nothing counts against holds nothing,
            and 0 to one that observes or warns.
        energy: upper bound of the energy at the IT equipment, for carbon at an assumed intensity.
        at: the planned start; it decides which periods pay.
        ignoring: request key whose present holds do not count against it; None = none.
        pue_ppm: power usage effectiveness for carbon at an assumed intensity, in parts per million; None = 1 000 000.

    Raises:
        BudgetUnknown: the path has no budget of its own.
        InvalidInput: the path, an amount, the instant or the PUE cannot be used.
    """
    at = require_utc(at, "the planned start")
    pue_ppm = check_pue(pue_ppm)
    known = check_amounts(amounts, "what is asked")
    own: dict[int, int] = {}
    if ignoring is not None:
        present = tx.reservation(ignoring)
        if present is not None and present.open:
            own = {item.allotment_id: item.amount for item in present.holds}
    headrooms = []
    for allotment in open_path(tx, path, at=at, held=own):
        amount, assumed = asked(allotment.budget, known, set(amounts), energy, pue_ppm)
        others = replace(allotment, held=allotment.held - own.get(allotment.allotment_id, 0))
        headrooms.append(Headroom(allotment=others, amount=amount, assumed_intensity_milligrams_per_kwh=assumed))
    order = {name: depth for depth, name in enumerate(reversed(ancestors(path)))}
    headrooms.sort(key=lambda item: (order[item.allotment.budget.path], *lock_order(item.allotment)[2:]))
    return tuple(headrooms)


def open_path(tx: Transaction, path: str, *, at: datetime, held: Collection[int] = ()) -> tuple[Allotment, ...]:
    """Open and lock every allotment from the path up to its root in the periods that contain an instant.

    Args:
        tx: the transaction.
        path: who pays; it must have a budget of its own.
        at: the instant, UTC.
        held: ids of further allotments to lock in the same order.

    Raises:
        BudgetUnknown: the path has no budget of its own.
    """
    above = ancestors(path)
    rules = tx.budgets_on(above)
    if not any(rule.path == path for rule in rules):
        raise unknown_budget(path)
    wanted = list(zip(rules, windows_for(tx, rules, at), strict=True))
    keys = {(window.start, rule.path, rule.unit.value, rule.period.value) for rule, window in wanted}
    return tuple(one for one in tx.lock_allotments(wanted, set(held)) if lock_order(one) in keys)


def asked(
    budget: Budget, known: Mapping[Unit, int], named: Collection[Unit], energy: Energy, pue_ppm: int
) -> tuple[int | None, int | None]:
    """Return what is asked of a budget, and the assumed intensity it was priced with."""
    if budget.unit in known:
        return known[budget.unit], None
    if budget.unit is Unit.ENERGY:
        return energy.millijoules, None
    if budget.unit is Unit.CARBON:
        carbon = assumed_carbon(energy, budget, pue_ppm=pue_ppm)
        return carbon, budget.unknown_intensity_milligrams_per_kwh
    unknown = budget.unit in named or budget.mode is BudgetMode.ENFORCE
    return (None if unknown else 0), None


def refusals(headrooms: Sequence[Headroom]) -> tuple[Headroom, ...]:
    """Return the enforced budgets that the request does not fit, unknown amounts included."""
    return tuple(one for one in headrooms if one.allotment.budget.mode is BudgetMode.ENFORCE and not one.fits)


def let_past(headrooms: Sequence[Headroom]) -> tuple[Headroom, ...]:
    """Return the observing and warning budgets whose limit the request is known to pass."""
    return tuple(
        one
        for one in headrooms
        if one.allotment.budget.mode is not BudgetMode.ENFORCE and one.amount is not None and not one.fits
    )
