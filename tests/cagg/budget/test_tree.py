"""Budget paths and limits as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.budget.tree import ancestors, format_amount, format_limit, parse_limit
from cagg.errors import InvalidInput
from cagg.quantities import Unit
from cagg.records import Budget, Period


def test_ancestors_go_from_leaf_to_root() -> None:
    assert ancestors("acme/ml/nightly") == ("acme/ml/nightly", "acme/ml", "acme")
    assert ancestors("acme") == ("acme",)


@pytest.mark.parametrize("path", ["", "/", "a/", "/a", "a//b", "a/../b", " a", "a/b\n", "/".join("a" * 17), "a" * 513])
def test_malformed_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="budget path"):
        ancestors(path)


@pytest.mark.parametrize(
    ("text", "unit", "amount", "period"),
    [
        ("12 kgCO2e/month", Unit.CARBON, 12 * 10**9, Period.MONTH),
        ("2kg/month", Unit.CARBON, 2 * 10**9, Period.MONTH),
        (" 0.5 t CO2 / year ", Unit.CARBON, 5 * 10**11, Period.YEAR),
        ("500 gCO2eq/day", Unit.CARBON, 5 * 10**8, Period.DAY),
        ("7 \u03bcg/total", Unit.CARBON, 7, Period.TOTAL),
        ("30 kWh/week", Unit.ENERGY, 30 * 3_600_000_000, Period.WEEK),
        ("1e3 J/Day", Unit.ENERGY, 10**6, Period.DAY),
        ("2M tokens/month", Unit.TOKENS, 2_000_000, Period.MONTH),
        ("1_000 tokens/quarter", Unit.TOKENS, 1_000, Period.QUARTER),
        ("1.5k tokens/day", Unit.TOKENS, 1_500, Period.DAY),
        ("100 gpu-h/month", Unit.GPU_TIME, 360_000_000, Period.MONTH),
        ("90 GPU-min/day", Unit.GPU_TIME, 5_400_000, Period.DAY),
        ("50 EUR/month", Unit.MONEY, 50_000_000, Period.MONTH),
        ("0.1 USD/total", Unit.MONEY, 100_000, Period.TOTAL),
        ("0 kg/month", Unit.CARBON, 0, Period.MONTH),
    ],
)
def test_limits_are_read_exactly(text: str, unit: Unit, amount: int, period: Period) -> None:
    assert parse_limit(text) == (unit, amount, period)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("12 kg", "names no period"),
        ("12 kg/fortnight", "unknown period"),
        ("12/month", "needs a number and a unit"),
        ("kg/month", "needs a number and a unit"),
        ("-1 kg/month", "negative"),
        ("nan kg/month", "needs a number and a unit"),
        ("inf kg/month", "needs a number and a unit"),
        ("1,5 kg/month", "needs a number and a unit"),
        ("1.2.3 kg/month", "needs a number and a unit"),
        ("12 bananas/month", "unknown unit"),
        ("12 mpg/month", "unknown unit"),
        ("1e40 kg/month", "larger than"),
        ("1e999999 tokens/month", "larger than"),
        ("10000000000000000000 tokens/month", "larger than"),
        ("", "names no period"),
        ("/month", "needs a number and a unit"),
        (12, "must be text"),
    ],
)
def test_limits_that_make_no_sense_are_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        parse_limit(text)
    assert "\n" not in str(caught.value)


def test_amounts_read_well() -> None:
    assert format_amount(Unit.CARBON, 2_100_000_000) == "2.1 kg"
    assert format_amount(Unit.CARBON, -500_000_000) == "-500 g"
    assert format_amount(Unit.ENERGY, 5_400_000_000) == "1.5 kWh"
    assert format_amount(Unit.TOKENS, 2_000_000) == "2,000,000 tokens"
    assert format_amount(Unit.GPU_TIME, 5_400_000) == "1.5 GPU-h"
    assert format_amount(Unit.GPU_TIME, 30_000) == "30 GPU-s"
    assert format_amount(Unit.MONEY, 12_340_000) == "12.34 of money"
    rule = Budget(path="a", unit=Unit.CARBON, period=Period.WEEK, time_zone="UTC", limit=12 * 10**9)
    assert format_limit(rule) == "12 kg/week"


@given(unit=st.sampled_from(Unit), amount=st.integers(-(2**64), 2**64))
def test_every_amount_can_be_shown(unit: Unit, amount: int) -> None:
    assert format_amount(unit, amount).startswith("-") == (amount < 0)
