"""``carbon_aware(OperatorClass)``: any operator class with a gate in front of its work."""

from __future__ import annotations

import copyreg
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from cagg.errors import InvalidInput
from cagg.request import GateOptions
from cagg_airflow.mixin import CarbonGateMixin, options_mapping

__all__ = ["carbon_aware", "gated_class"]

PARAMETER = "carbon"


def carbon_aware(operator_class: type[Any]) -> type[Any]:
    """Return an operator class with a gate: ``Validate = carbon_aware(BashOperator)``.

    It takes one more argument, ``carbon=GateOptions(...)`` or a mapping of the same names, also through
    ``.partial(...)`` and ``default_args``; everything else stays as it is, template fields and links included. The
    same class is returned each time.

    An operator that defers *itself* goes on without this gate: what it used until then is settled and marked as not
    complete, and its later part is neither asked for nor metered.

    Raises:
        InvalidInput: it is no operator class, has a gate already, or has a parameter or attribute named ``carbon``.
    """
    if not inspect.isclass(operator_class):
        raise InvalidInput(
            f"carbon_aware takes an operator class, not {operator_class!r}; write Validate = carbon_aware(BashOperator)"
            " and then Validate(task_id=..., carbon=GateOptions(...)), or put @task.carbon_aware(...) on a function."
        )
    wanted: Any = operator_class
    return gated_class(wanted, f"CarbonAware{operator_class.__name__}")


@cache
def gated_class(operator_class: Any, name: str) -> type[Any]:
    """Return the gated class of an operator class, shown under a name; raises InvalidInput as :func:`carbon_aware`."""
    from airflow.sdk import BaseOperator

    _check(operator_class, BaseOperator)

    def __init__(self: Any, *, carbon: GateOptions | Mapping[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: N807
        super(made, self).__init__(**kwargs)
        self.carbon = options_mapping(carbon)
        if self.start_from_trigger:
            raise InvalidInput(
                f"task {self.task_id!r} starts in the triggerer (start_from_trigger), so a gate would never be asked; "
                "leave carbon_aware out, or put CarbonGateOperator before it."
            )

    def execute(self: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        # here too, so that Airflow guards it against calls by hand
        return CarbonGateMixin.execute(self, context, *args, **kwargs)

    def partial(cls: type[Any], /, **kwargs: Any) -> Any:
        if PARAMETER in kwargs:  # the DAG's serialised form holds plain JSON only
            kwargs[PARAMETER] = options_mapping(kwargs[PARAMETER])
        parent: Any = super(made, cls)
        return parent.partial(**kwargs)

    body: dict[str, Any] = {
        "__init__": __init__,
        "__doc__": f"{operator_class.__name__} with a carbon gate in front. {operator_class.__doc__ or ''}",
        "__module__": operator_class.__module__,
        "execute": execute,
        "partial": classmethod(partial),
        "gated_operator_class": operator_class,
    }
    kind: Any = type(operator_class)
    made: type[Any] = _metaclass(kind)(name, (CarbonGateMixin, operator_class), body)
    return made


def _check(operator_class: type[Any], base: type[Any]) -> None:
    if not issubclass(operator_class, base):
        raise InvalidInput(f"{operator_class.__name__} is no Airflow operator class; carbon_aware takes one.")
    if issubclass(operator_class, CarbonGateMixin):
        raise InvalidInput(f"{operator_class.__name__} has a carbon gate already; keep one of them.")
    for owner in operator_class.__mro__:
        init = owner.__dict__.get("__init__")
        if init is not None and PARAMETER in inspect.signature(init).parameters:
            raise InvalidInput(
                f"{operator_class.__name__} has a parameter {PARAMETER!r} of its own ({owner.__name__}), which the "
                "gate's would hide; gate it with a `cagg` tag on the DAG, or rename that parameter."
            )
    if hasattr(operator_class, PARAMETER):
        raise InvalidInput(
            f"{operator_class.__name__} has an attribute {PARAMETER!r} of its own, which the gate's would hide; "
            "rename it in a subclass."
        )


@cache
def _metaclass(plain: Any) -> Callable[..., type[Any]]:
    """Return a metaclass whose classes are pickled as "the gated class of that one": no module holds them by name."""
    made = type(f"CarbonAware{plain.__name__}", (plain,), {})
    copyreg.pickle(made, _reduce)
    return made


def _reduce(made: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return gated_class, (made.gated_operator_class, made.__name__)
