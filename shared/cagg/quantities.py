"""Energy, power, carbon mass and carbon intensity as exact, non-negative integers.

Inside: millijoules, milliwatts, micrograms of CO2 (or CO2-equivalent: the provenance says which) and
milligrams per kilowatt-hour. A 64-bit counter of micrograms holds 9.2 million tonnes, one of
millijoules 2.56 TWh. Text is read with :class:`decimal.Decimal`, so ``"0.1 kWh"`` is exactly 360 000 000 mJ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import ClassVar, Self

from cagg.errors import InvalidInput

__all__ = [
    "MILLIJOULES_PER_KWH",
    "PPM",
    "CarbonIntensity",
    "CarbonMass",
    "Energy",
    "Power",
    "Unit",
    "carbon_of",
    "ceil_div",
]

MILLIJOULES_PER_KWH = 3_600_000_000
"""1 kWh = 3.6 MJ exactly (SI Brochure, 9th edition 2019, table 8)."""

PPM = 1_000_000
"""One, in parts per million: the scale of power usage effectiveness and of shares."""

_INT64_MAX = 2**63 - 1
_AMOUNT = re.compile(
    r"^\s*(?P<number>[+-]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[^\W\d_].*?)\s*$"
)


class Unit(StrEnum):
    """What a budget counts. Amounts are integers of the smallest useful unit."""

    CARBON = "carbon"
    """micrograms of CO2 or CO2-equivalent"""
    ENERGY = "energy"
    """millijoules"""
    GPU_TIME = "gpu_time"
    """milliseconds of one GPU"""
    TOKENS = "tokens"
    """single tokens"""
    MONEY = "money"
    """1e-6 of a currency"""


def ceil_div(numerator: int, denominator: int) -> int:
    """Return the least integer that is not below ``numerator / denominator`` (denominator > 0)."""
    return -(-numerator // denominator)


def _parse(text: str, units: dict[str, Decimal], what: str, example: str) -> int:
    match = _AMOUNT.match(text)
    if match is None:
        raise InvalidInput(f"{what} {text!r} needs a number and a unit, for example {example!r}.")
    scale = units.get(match["unit"])
    if scale is None:
        known = ", ".join(units)
        raise InvalidInput(f"{what} {text!r} has the unknown unit {match['unit']!r}; use one of {known}.")
    try:
        number = Decimal(match["number"].replace("_", ""))
    except InvalidOperation:
        raise InvalidInput(f"{what} {text!r} needs a number and a unit, for example {example!r}.") from None
    if number.is_signed() and number != 0:
        raise InvalidInput(f"{what} {text!r} is negative; give zero or more, for example {example!r}.")
    if number.adjusted() > 30:
        raise InvalidInput(f"{what} {text!r} is larger than the largest value that can be stored.")
    return int((number * scale).to_integral_value(rounding="ROUND_HALF_UP"))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Quantity:
    """An exact, non-negative integer amount; subclasses name the field's unit."""

    def _amount(self) -> int:
        raise NotImplementedError

    def _check(self, value: object, what: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInput(
                f"{what} must be a whole number, got {value!r}; use {type(self).__name__}.parse for text."
            )
        if value < 0:
            raise InvalidInput(f"{what} must not be negative, got {value}.")
        if value > _INT64_MAX:
            raise InvalidInput(f"{what} {value} is larger than the largest value that can be stored ({_INT64_MAX}).")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Energy(_Quantity):
    """Electrical energy in millijoules."""

    millijoules: int
    ZERO: ClassVar[Energy]
    _UNITS: ClassVar[dict[str, Decimal]] = {
        "kWh": Decimal(3_600_000_000),
        "Wh": Decimal(3_600_000),
        "MWh": Decimal(3_600_000_000_000),
        "GWh": Decimal(3_600_000_000_000_000),
        "mWh": Decimal(3_600),
        "J": Decimal(1_000),
        "mJ": Decimal(1),
        "kJ": Decimal(1_000_000),
        "MJ": Decimal(1_000_000_000),
        "GJ": Decimal(1_000_000_000_000),
        "kwh": Decimal(3_600_000_000),
        "wh": Decimal(3_600_000),
    }

    def __post_init__(self) -> None:
        self._check(self.millijoules, "an energy in millijoules")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read text such as ``"1.5 kWh"`` or ``"300 J"``; raises InvalidInput without a unit."""
        return cls(millijoules=_parse(text, cls._UNITS, "energy", "1.5 kWh"))

    def __add__(self, other: Energy) -> Energy:
        return Energy(millijoules=self.millijoules + other.millijoules)

    def __str__(self) -> str:
        wh = self.millijoules / 3_600_000
        if wh >= 1_000_000:
            return f"{wh / 1_000_000:.4g} MWh"
        if wh >= 1_000:
            return f"{wh / 1_000:.4g} kWh"
        if wh >= 1:
            return f"{wh:.4g} Wh"
        return f"{self.millijoules / 1_000:.4g} J"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Power(_Quantity):
    """Electrical power in milliwatts."""

    milliwatts: int
    _UNITS: ClassVar[dict[str, Decimal]] = {
        "W": Decimal(1_000),
        "kW": Decimal(1_000_000),
        "mW": Decimal(1),
        "MW": Decimal(1_000_000_000),
        "w": Decimal(1_000),
        "kw": Decimal(1_000_000),
    }

    def __post_init__(self) -> None:
        self._check(self.milliwatts, "a power in milliwatts")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read text such as ``"250 W"``; raises InvalidInput without a unit."""
        return cls(milliwatts=_parse(text, cls._UNITS, "power", "250 W"))

    def over(self, milliseconds: int) -> Energy:
        """Return the energy of this power held for a time (rounded up to a millijoule)."""
        return Energy(millijoules=ceil_div(self.milliwatts * milliseconds, 1_000))

    def __str__(self) -> str:
        watts = self.milliwatts / 1_000
        return f"{watts / 1_000:.4g} kW" if watts >= 1_000 else f"{watts:.4g} W"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CarbonMass(_Quantity):
    """A mass of CO2 or CO2-equivalent in micrograms; which of the two is said by its provenance."""

    micrograms: int
    ZERO: ClassVar[CarbonMass]
    _UNITS: ClassVar[dict[str, Decimal]] = {
        f"{prefix}{suffix}": scale
        for prefix, scale in {
            "kg": Decimal(10**9),
            "g": Decimal(10**6),
            "mg": Decimal(10**3),
            "ug": Decimal(1),
            "µg": Decimal(1),
            "t": Decimal(10**12),
        }.items()
        for suffix in ("", "CO2e", "CO2eq", "CO2", " CO2e", " CO2eq", " CO2")
    }

    def __post_init__(self) -> None:
        self._check(self.micrograms, "a carbon mass in micrograms")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read text such as ``"2 kg"`` or ``"500 gCO2e"``; raises InvalidInput without a unit."""
        return cls(micrograms=_parse(text, cls._UNITS, "carbon mass", "2 kgCO2e"))

    def __add__(self, other: CarbonMass) -> CarbonMass:
        return CarbonMass(micrograms=self.micrograms + other.micrograms)

    def __str__(self) -> str:
        grams = self.micrograms / 1_000_000
        if grams >= 1_000_000:
            return f"{grams / 1_000_000:.4g} t"
        if grams >= 1_000:
            return f"{grams / 1_000:.4g} kg"
        if grams >= 0.1 or self.micrograms == 0:
            return f"{grams:.4g} g"
        return f"{self.micrograms / 1_000:.4g} mg"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CarbonIntensity(_Quantity):
    """Carbon per electrical energy in milligrams per kilowatt-hour."""

    milligrams_per_kwh: int
    _UNITS: ClassVar[dict[str, Decimal]] = {
        f"{mass}{gas}/{energy}": scale
        for mass, energy, scale in (
            ("g", "kWh", Decimal(1_000)),
            ("mg", "kWh", Decimal(1)),
            ("kg", "kWh", Decimal(1_000_000)),
            ("kg", "MWh", Decimal(1_000)),
            ("t", "MWh", Decimal(1_000_000)),
            # 1 lb = 0.45359237 kg exactly (International yard and pound agreement, 1959)
            ("lb", "MWh", Decimal("453.59237")),
        )
        for gas in ("", "CO2e", "CO2eq", "CO2")
    }

    def __post_init__(self) -> None:
        self._check(self.milligrams_per_kwh, "a carbon intensity in mg/kWh")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read text such as ``"180 g/kWh"``; raises InvalidInput without a unit."""
        return cls(milligrams_per_kwh=_parse(text, cls._UNITS, "carbon intensity", "180 g/kWh"))

    @classmethod
    def from_g_per_kwh(cls, g_per_kwh: float) -> Self:
        """Convert a provider's number; raises InvalidInput for NaN, infinities, booleans and negatives."""
        if isinstance(g_per_kwh, bool) or not isinstance(g_per_kwh, int | float):
            raise InvalidInput(f"a carbon intensity must be a number in g/kWh, got {g_per_kwh!r}.")
        if g_per_kwh != g_per_kwh or g_per_kwh in (float("inf"), float("-inf")):
            raise InvalidInput(f"a carbon intensity must be finite, got {g_per_kwh!r}.")
        number = (Decimal(str(g_per_kwh)) * 1_000).to_integral_value(rounding="ROUND_HALF_UP")
        return cls(milligrams_per_kwh=int(number))

    @property
    def g_per_kwh(self) -> float:
        """The intensity in g/kWh, for display."""
        return self.milligrams_per_kwh / 1_000

    def __str__(self) -> str:
        return f"{self.g_per_kwh:.4g} g/kWh"


Energy.ZERO = Energy(millijoules=0)
CarbonMass.ZERO = CarbonMass(micrograms=0)


def carbon_of(energy: Energy, intensity: CarbonIntensity, *, pue_ppm: int = PPM) -> CarbonMass:
    """Price energy at an intensity, rounded up to a microgram.

    Args:
        energy: energy at the IT equipment.
        intensity: carbon intensity of the grid while it was used.
        pue_ppm: power usage effectiveness in parts per million; 1 000 000 leaves the energy as it is.

    Source: mass = energy x intensity x PUE with 1 kWh = 3.6e9 mJ and 1 mg = 1 000 µg, hence the divisor
    3.6e9 / 1e3 x 1e6 = 3.6e12 (ledger entry format 1).
    """
    product = energy.millijoules * intensity.milligrams_per_kwh * pue_ppm
    return CarbonMass(micrograms=ceil_div(product, 3_600_000_000_000))
