"""Split the host's energy of one slice among runs, exactly, in integer millijoules.

Formula, for one domain and one slice (after Kepler's ratio model, Kepler documentation "Power attribution", 2025, with
the idle energy kept apart so that either policy can be recomputed):

    E_idle = min(dE, P_idle x dt)          E_dyn = dE - E_idle
    dyn_i  = E_dyn x c_i / B               B = max(busy processor time of the host, sum of c_i)
    other  = E_dyn - sum dyn_i             reported, never spread over runs
    idle_i = E_idle x w_i                  w_i = reserved share | 1 / active runs | 0

so that sum(dyn_i) + sum(idle_i) + other + unowned idle = dE in every slice. Rounding to millijoules is by largest
remainder over the exact amounts plus what earlier slices left over, so that a run of many short slices neither loses
nor gains: the left-over of each claimant stays within one millijoule per claimant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cagg.errors import InvalidInput

__all__ = ["REST", "Split", "Splitter", "apportion", "idle_energy"]

_FINE = 1_000_000
"""Left-overs are kept in millionths of a millijoule (nanojoules)."""

REST = 0
"""Key of the claimant that takes what no run owns; runs have keys from 1."""


def apportion(
    total: int, weights: Sequence[int], left_over: Sequence[int] | None = None
) -> tuple[list[int], list[int]]:
    """Divide whole units by weights so that the parts sum to the total exactly.

    Args:
        total: what is divided, zero or more.
        weights: zero or more each; with all of them zero everything goes to the last claimant.
        left_over: what earlier rounds still owe each claimant, in millionths of a unit; sums to zero.

    Returns:
        The parts, and the new left-overs (they sum to what the old ones summed to).

    Raises:
        InvalidInput: nothing to divide among, a negative amount, or lists of different length.

    Source: largest-remainder method (Hamilton), with the remainders carried on.
    """
    count = len(weights)
    carried = [0] * count if left_over is None else list(left_over)
    if count == 0 or total < 0 or any(weight < 0 for weight in weights) or len(carried) != count:
        raise InvalidInput(f"cannot divide {total} by the weights {list(weights)!r}; give amounts of zero or more.")
    whole = sum(weights)
    if whole == 0:
        exact = [0] * (count - 1) + [total * _FINE]
    else:
        exact = [total * _FINE * weight // whole for weight in weights]
        exact[-1] += total * _FINE - sum(exact)
    wanted = [amount + owed for amount, owed in zip(exact, carried, strict=True)]
    parts = [max(0, amount // _FINE) for amount in wanted]
    missing = total - sum(parts)
    if missing > 0:
        order = sorted(range(count), key=lambda index: (parts[index] * _FINE - wanted[index], index))
        for step in range(missing):
            parts[order[step % count]] += 1
    while missing < 0:
        index = min((i for i in range(count) if parts[i]), key=lambda i: (wanted[i] - parts[i] * _FINE, i))
        parts[index] -= 1
        missing += 1
    return parts, [amount - part * _FINE for amount, part in zip(wanted, parts, strict=True)]


def idle_energy(energy_millijoules: int, idle_milliwatts: int | None, elapsed_ns: int) -> int:
    """Return the idle part of a slice's energy in millijoules; zero when the idle power is unknown (None)."""
    if idle_milliwatts is None or elapsed_ns <= 0:
        return 0
    return min(energy_millijoules, idle_milliwatts * elapsed_ns // 1_000_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One slice of one domain, divided; all in millijoules.

    Attributes:
        dynamic, idle: by run key.
        other: dynamic energy that no run caused.
        unowned_idle: idle energy that no run holds.
    """

    dynamic: Mapping[int, int]
    idle: Mapping[int, int]
    other: int
    unowned_idle: int


class Splitter:
    """Divides one domain's slices one after the other and remembers what rounding left over.

    Not thread-safe; the meter holds its lock.
    """

    def __init__(self) -> None:
        self._dynamic: dict[int, int] = {}
        self._idle: dict[int, int] = {}

    def split(
        self,
        *,
        dynamic_millijoules: int,
        idle_millijoules: int,
        usage: Mapping[int, int],
        rest_usage: int,
        idle_weights: Mapping[int, int],
        rest_idle_weight: int,
    ) -> Split:
        """Divide one slice.

        Args:
            dynamic_millijoules: energy caused by activity.
            idle_millijoules: energy that would have been used anyway.
            usage: what each run used (processor time, bytes, device time: one unit for all), by key.
            rest_usage: what everybody else used.
            idle_weights: each run's claim on the idle energy, by key; the keys of ``usage``.
            rest_idle_weight: the claim of nobody.
        """
        keys = list(usage)
        dynamic = _divide(dynamic_millijoules, keys, usage, rest_usage, self._dynamic)
        idle = _divide(idle_millijoules, keys, idle_weights, rest_idle_weight, self._idle)
        return Split(
            dynamic={key: dynamic[key] for key in keys},
            idle={key: idle[key] for key in keys},
            other=dynamic[REST],
            unowned_idle=idle[REST],
        )

    def forget(self, key: int) -> None:
        """Hand the left-overs of a run that ended to nobody."""
        for owed in (self._dynamic, self._idle):
            owed[REST] = owed.get(REST, 0) + owed.pop(key, 0)


def _divide(
    total: int, keys: Sequence[int], weights: Mapping[int, int], rest: int, owed: dict[int, int]
) -> dict[int, int]:
    claimants = [*keys, REST]
    parts, left = apportion(total, [*(weights[key] for key in keys), rest], [owed.get(key, 0) for key in claimants])
    owed.update(zip(claimants, left, strict=True))
    return dict(zip(claimants, parts, strict=True))
