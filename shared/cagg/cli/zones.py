"""``cagg zones``: the grid areas that cagg knows, by provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._output import Json, answer, columns, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cagg.grid.zones import ZoneEntry

__all__ = ["matching_zones", "zones"]


def zones(
    *,
    search: Annotated[
        str | None, typer.Argument(help="Part of a code, a name or a cloud region (aws:eu-west-2).")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="neso, electricity_maps, climatology, yearly or trace.")] = None,
    json: Json = False,
) -> int:
    """List zones with what their numbers mean. Exit status 1 when none matches."""
    from cagg.cli._context import components

    parts = components()
    known = [*matching_zones(search), *(item for item in parts.grid.trace_zones() if _matches(item, search))]
    found = [item for item in known if provider is None or item.zone.provider == provider]
    document = {"zones": [_zone_json(item) for item in found]}
    return answer(document, lambda to: _print(to, found, search), json=json, status=0 if found else 1)


def matching_zones(search: str | None) -> list[ZoneEntry]:
    """Return the built-in zones whose code, alias, name or cloud region holds the text; all of them for None."""
    from cagg.grid.zones import all_zones

    return [item for item in all_zones() if _matches(item, search)]


def _matches(item: ZoneEntry, search: str | None) -> bool:
    if search is None:
        return True
    from cagg.grid.zones import cloud_names

    wanted = search.casefold()
    if ":" in wanted:
        return any(wanted in word.casefold() for word in (str(item.zone), *cloud_names(item)))
    words = (item.zone.code, item.name, *item.aliases, *cloud_names(item))
    return any(wanted in word.casefold() for word in words)


def _zone_json(item: ZoneEntry) -> dict[str, Any]:
    from cagg.grid.zones import cloud_names

    return {
        "zone": str(item.zone),
        "provider": item.zone.provider,
        "code": item.zone.code,
        "name": item.name,
        "aliases": list(item.aliases),
        "regions": list(cloud_names(item)),
        "kind": str(item.kind),
        "signal": str(item.convention.signal),
        "basis": str(item.convention.basis),
        "gas": str(item.convention.gas),
    }


def _print(to: Console, found: Sequence[ZoneEntry], search: str | None) -> None:
    if not found:
        line(to, f"No zone matches {search or 'that'}; `cagg zones` lists all of them.")
        return
    rows = []
    for item in found:
        code = str(item.zone) + (f" ({', '.join(item.aliases)})" if item.aliases else "")
        rows.append((code, item.name, f"{item.kind}, {item.convention.basis}, {item.convention.gas}"))
    columns(to, rows, header=("zone", "name", "numbers"))
