"""The gate in front of an operator's ``execute``. Placed first in the operator's MRO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cagg.errors import InvalidInput
from cagg.request import GateOptions
from cagg_airflow.naming import RESUME_METHOD

__all__ = ["CarbonGateMixin", "options_mapping"]


class CarbonGateMixin:
    """Asks before the operator works and again at each wake, meters the work, settles.

    Attributes:
        carbon: the options in plain JSON types.
    """

    carbon: dict[str, Any]

    def execute(self, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Ask; work, defer, skip or fail as the verdict says.

        With more than a context an operator that deferred *itself* to ``execute`` continues: it has been admitted.
        """
        if args or kwargs:
            return super().execute(context, *args, **kwargs)  # type: ignore[misc]
        return self._ask_and_work(context)

    def resume_after_gate(self, context: Any, event: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """Continue after a deferral: ask again with the forecast of now. ``event`` repeats what the trigger carried."""
        del event, kwargs  # all state is in the store; dag.test() drops the arguments of a deferral
        return self._ask_and_work(context)

    def _ask_and_work(self, context: Any) -> Any:
        from cagg_airflow.asking import run_gated

        def work() -> Any:
            return super(CarbonGateMixin, self).execute(context)  # type: ignore[misc]

        options = GateOptions.from_mapping(self.carbon, where=f"carbon of task {getattr(self, 'task_id', '?')}")
        return run_gated(context, options, work, resume_method=RESUME_METHOD)


def options_mapping(carbon: GateOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return options in plain JSON types.

    Raises:
        InvalidInput: an option is unknown or cannot be used.
    """
    if carbon is None:
        return {}
    if isinstance(carbon, GateOptions):
        return carbon.to_mapping()
    if isinstance(carbon, Mapping):
        return GateOptions.from_mapping(carbon, where="carbon").to_mapping()
    raise InvalidInput(f"carbon must be GateOptions(...) or a mapping of its fields, got {carbon!r}.")
