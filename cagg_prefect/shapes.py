"""How a gated Task or Flow stays what it was: its own class with a gate mixed in, and the plain body kept beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cagg.request import GateOptions

__all__ = ["GatedWork", "gated_class", "move_binding", "recast"]

_classes: dict[tuple[type[Any], type[Any]], type[Any]] = {}


class GatedWork:
    """What gated tasks and flows share.

    Attributes:
        cagg_options: the gate's options.
        cagg_body: the plain function, without gate and meter.
        cagg_class: the class before the gate was mixed in.
    """

    cagg_options: GateOptions
    cagg_body: Callable[..., Any]
    cagg_class: type[Any]

    def ungated(self) -> Any:
        """Return a copy without the gate, so that Prefect builds variants from the plain body and meters once."""
        plain = recast(self, self.cagg_class)
        plain.fn = self.cagg_body
        move_binding(getattr(self, "fn", None), plain.fn)
        for name in ("cagg_options", "cagg_body", "cagg_class", "cagg_subject"):
            plain.__dict__.pop(name, None)
        return plain


def recast(work: object, shape: type[Any]) -> Any:
    """Return a copy of a task or flow as an instance of another class; attributes are shared, as with ``copy``."""
    made = object.__new__(shape)
    made.__dict__.update(work.__dict__)
    return made


def gated_class(mixin: type[GatedWork], base: type[Any]) -> type[Any]:
    """Return the base class with the gate mixed in; the same class for the same base."""
    if (mixin, base) not in _classes:
        _classes[mixin, base] = _mixed(mixin, base)
    return _classes[mixin, base]


def _mixed(mixin: type[GatedWork], base: type[Any]) -> type[Any]:
    return type(f"CarbonAware{base.__name__}", (mixin, base), {"__doc__": base.__doc__, "__module__": base.__module__})


def move_binding(source: object, target: object) -> None:
    """Carry the instance or class to which Prefect bound a method from one function to another."""
    for name in ("__prefect_self__", "__prefect_cls__"):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))
