"""Quantities are exact, never negative, and are read only with their unit."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.errors import CaggError, InvalidInput
from cagg.quantities import PPM, CarbonIntensity, CarbonMass, Energy, Power, carbon_of, ceil_div

QUANTITIES = (Energy, Power, CarbonMass, CarbonIntensity)
_SMALLEST = {Energy: "mJ", Power: "mW", CarbonMass: "ug", CarbonIntensity: "mg/kWh"}
AMOUNTS = st.integers(min_value=0, max_value=2**63 - 1)


@pytest.mark.parametrize(
    ("text", "millijoules"),
    [
        ("0.1 kWh", 360_000_000),
        ("1.5 kWh", 5_400_000_000),
        ("1.5kWh", 5_400_000_000),
        (" 1.5 kWh ", 5_400_000_000),
        ("1 MWh", 3_600_000_000_000),
        ("1 mWh", 3_600),
        ("1 MJ", 1_000_000_000),
        ("1 mJ", 1),
        ("300 J", 300_000),
        ("1e3 J", 1_000_000),
        (".5 J", 500),
        ("+2 J", 2_000),
        ("1_000 J", 1_000_000),
        ("0 kWh", 0),
        ("0.0004 J", 0),
        ("0.0005 J", 1),
    ],
)
def test_energy_is_read_exactly(text: str, millijoules: int) -> None:
    assert Energy.parse(text) == Energy(millijoules=millijoules)


def test_mega_and_milli_are_told_apart() -> None:
    assert Power.parse("1 MW").milliwatts == 10**12 // 10**3
    assert Power.parse("1 mW").milliwatts == 1
    assert Energy.parse("1 MWh").millijoules == 10**9 * Energy.parse("1 mWh").millijoules


@pytest.mark.parametrize(
    ("text", "micrograms"),
    [
        ("2 kg", 2 * 10**9),
        ("500 gCO2e", 5 * 10**8),
        ("1 t CO2", 10**12),
        ("3 mgCO2eq", 3_000),
        ("7 µg", 7),
        ("7 ug", 7),
    ],
)
def test_carbon_mass_is_read_exactly(text: str, micrograms: int) -> None:
    assert CarbonMass.parse(text).micrograms == micrograms


@pytest.mark.parametrize(
    ("text", "milligrams_per_kwh"),
    [("180 g/kWh", 180_000), ("0.18 kgCO2e/kWh", 180_000), ("180 kg/MWh", 180_000), ("1000 lb/MWh", 453_592)],
)
def test_carbon_intensity_is_read_exactly(text: str, milligrams_per_kwh: int) -> None:
    assert CarbonIntensity.parse(text).milligrams_per_kwh == milligrams_per_kwh


BAD_TEXTS = [
    "",
    " ",
    "1.5",
    "kWh",
    "nan kWh",
    "inf kWh",
    "NaN",
    "-1 kWh",
    "1,5 kWh",
    "1.5 parsecs",
    "1..5 kWh",
    "e5 kWh",
]
BAD_TEXTS += ["1e40 kWh", "1 kWh 2", "--1 kWh", "1.5 KWH", "٣ kWh extra", "1e999999 kWh", "1 kWh\n1 kWh"]


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("text", [*BAD_TEXTS, "1 kW·h", "5 %"])
def test_bad_text_is_refused_in_one_sentence(quantity: type[Energy], text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        quantity.parse(text)
    message = str(caught.value)
    assert "\n" not in message.replace(repr(text), "")
    assert message.endswith(".")
    assert isinstance(caught.value, CaggError)


def test_a_refusal_names_the_value_and_the_remedy() -> None:
    with pytest.raises(InvalidInput, match=r"^energy '1\.5' needs a number and a unit, for example '1\.5 kWh'\.$"):
        Energy.parse("1.5")
    with pytest.raises(InvalidInput, match=r"unknown unit 'watt'; use one of W, kW"):
        Power.parse("3 watt")
    with pytest.raises(InvalidInput, match="is negative"):
        CarbonMass.parse("-3 kg")


@pytest.mark.parametrize("value", [-1, 1.0, "1", None, True, 2**63, float("nan"), Decimal(1)])
def test_fields_hold_whole_numbers_that_the_store_can_hold(value: object) -> None:
    with pytest.raises(InvalidInput):
        Energy(millijoules=value)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        Power(milliwatts=value)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        CarbonMass(micrograms=value)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        CarbonIntensity(milligrams_per_kwh=value)  # type: ignore[arg-type]


@given(AMOUNTS)
def test_the_smallest_unit_reads_back(amount: int) -> None:
    assert Energy.parse(f"{amount} mJ").millijoules == amount
    assert Power.parse(f"{amount} mW").milliwatts == amount
    assert CarbonMass.parse(f"{amount} ug").micrograms == amount
    assert CarbonIntensity.parse(f"{amount} mg/kWh").milligrams_per_kwh == amount


@given(st.decimals(min_value=0, max_value=10**6, places=6))
def test_kilowatt_hours_have_no_binary_error(kwh: Decimal) -> None:
    exact = Fraction(kwh) * 3_600_000_000
    assert exact.denominator == 1
    assert Energy.parse(f"{kwh:f} kWh").millijoules == exact


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for quantity in QUANTITIES:
        with suppress(InvalidInput):
            assert quantity.parse(text) >= quantity.parse(f"0 {_SMALLEST[quantity]}")


@given(st.integers(min_value=0, max_value=10**15), st.integers(min_value=0, max_value=10**7))
def test_power_over_time_is_rounded_up(milliwatts: int, milliseconds: int) -> None:
    energy = Power(milliwatts=milliwatts).over(milliseconds) if milliwatts * milliseconds < 2**62 else None
    if energy is not None:
        assert 0 <= energy.millijoules - Fraction(milliwatts * milliseconds, 1_000) < 1


@given(st.integers(min_value=-(10**30), max_value=10**30), st.integers(min_value=1, max_value=10**15))
def test_ceil_div_is_the_least_integer_above(numerator: int, denominator: int) -> None:
    quotient = ceil_div(numerator, denominator)
    assert (quotient - 1) * denominator < numerator <= quotient * denominator


@given(
    st.integers(min_value=0, max_value=10**15),
    st.integers(min_value=0, max_value=2_000_000),
    st.integers(min_value=PPM, max_value=3 * PPM),
)
def test_carbon_is_priced_exactly_and_rounded_up(millijoules: int, milligrams_per_kwh: int, pue_ppm: int) -> None:
    mass = carbon_of(
        Energy(millijoules=millijoules), CarbonIntensity(milligrams_per_kwh=milligrams_per_kwh), pue_ppm=pue_ppm
    )
    kwh = Fraction(millijoules, 1_000) / 3_600_000
    micrograms = kwh * milligrams_per_kwh * 1_000 * Fraction(pue_ppm, PPM)
    assert 0 <= mass.micrograms - micrograms < 1


def test_one_kilowatt_hour_at_one_gram() -> None:
    assert carbon_of(Energy.parse("1 kWh"), CarbonIntensity.parse("1 g/kWh")) == CarbonMass.parse("1 g")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), -0.1, -1, True, "200", None])
def test_a_providers_number_must_be_usable(number: object) -> None:
    with pytest.raises(InvalidInput):
        CarbonIntensity.from_g_per_kwh(number)  # type: ignore[arg-type]


@given(st.integers(min_value=0, max_value=3_000_000))
def test_a_providers_number_survives(milligrams: int) -> None:
    intensity = CarbonIntensity.from_g_per_kwh(milligrams / 1_000)
    assert intensity.milligrams_per_kwh == milligrams
    assert intensity.g_per_kwh == milligrams / 1_000


def test_addition_and_order() -> None:
    assert Energy.ZERO + Energy.parse("1 Wh") + Energy.parse("2 Wh") == Energy.parse("3 Wh")
    assert CarbonMass.ZERO + CarbonMass.parse("1 g") == CarbonMass.parse("1 g")
    assert Energy.parse("1 Wh") < Energy.parse("1 kWh")
    with pytest.raises(InvalidInput):
        Energy(millijoules=2**63 - 1) + Energy(millijoules=1)


def test_unlike_quantities_do_not_compare() -> None:
    with pytest.raises(TypeError):
        assert Energy.parse("1 J") < Power.parse("1 W")  # type: ignore[operator]
    assert Energy(millijoules=1) != Power(milliwatts=1)


def test_values_cannot_be_changed() -> None:
    energy = Energy(millijoules=1)
    with pytest.raises(AttributeError):
        energy.millijoules = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Energy(millijoules=500), "0.5 J"),
        (Energy.parse("5 Wh"), "5 Wh"),
        (Energy.parse("1.5 kWh"), "1.5 kWh"),
        (Energy.parse("2 GWh"), "2000 MWh"),
        (Power.parse("250 W"), "250 W"),
        (Power.parse("1.2 kW"), "1.2 kW"),
        (CarbonMass.parse("2 kg"), "2 kg"),
        (CarbonMass.parse("0.05 g"), "50 mg"),
        (CarbonMass.ZERO, "0 g"),
        (CarbonMass.parse("3 t"), "3 t"),
        (CarbonIntensity.parse("180.5 g/kWh"), "180.5 g/kWh"),
    ],
)
def test_texts_for_people(value: object, text: str) -> None:
    assert str(value) == text
