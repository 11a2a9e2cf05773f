"""Tells where a record comes from: code, software, engine, inputs and outputs; and what a validation came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cagg.cli._output import facts, line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["code_of", "commit_of", "engine_of", "listed", "origin_facts", "tell_occurrence"]

_SHORT = 12
"""Characters of a commit or digest that people compare by eye."""


def _named(items: object) -> dict[str, str]:
    return {str(item["name"]): str(item["value"]) for item in items} if isinstance(items, list) else {}


def commit_of(request: Mapping[str, Any]) -> str | None:
    """Return the commit that a recorded request names, with ``+`` when files differed from it; None = unknown."""
    code = _named(request.get("code"))
    commit = code.get("commit")
    return None if commit is None else f"{commit[:_SHORT]}{'+' if code.get('dirty') == 'true' else ''}"


def code_of(request: Mapping[str, Any]) -> str:
    """Return the version of the code in words; empty for records of before it was written down."""
    code = _named(request.get("code"))
    if not code:
        return ""
    parts = [f"commit {code['commit'][:_SHORT]}" if "commit" in code else "commit unknown"]
    match code.get("dirty"):
        case "true":
            diff = code.get("diff_sha256")
            parts.append("with changes" if diff is None else f"with changes (diff sha256 {diff[:_SHORT]})")
        case "false":
            parts.append("unchanged")
    if "reason" in code:
        parts.append(code["reason"])
    known = {"commit", "dirty", "diff_sha256", "reason"}
    parts.extend(f"{name} {value[:_SHORT]}" for name, value in code.items() if name not in known)
    return ", ".join(parts)


def engine_of(request: Mapping[str, Any]) -> str:
    """Return what the engine calls the run, in words; empty outside of any."""
    run = request.get("engine_run")
    if not isinstance(run, Mapping):
        return ""
    name = " ".join(str(run[part]) for part in ("engine", "engine_version") if run.get(part))
    work = "/".join(str(run[part]) for part in ("workflow", "task_id") if run.get(part))
    if run.get("map_index") is not None:
        work = f"{work}[{run['map_index']}]"
    tried = "" if run.get("try_number") is None else f"try {run['try_number']}"
    deployed = f"deployed as {run['deployment']}" if run.get("deployment") else ""
    return ", ".join(part for part in (name, work, f"run {run.get('run_id')}", tried, deployed) if part)


def listed(items: object) -> str:
    """Return artefacts in words: name, role, beginning of the digest."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        return ""
    parts = []
    for item in items:
        role = f" ({item['role']})" if item.get("role") else ""
        parts.append(f"{item['name']}{role} {_digest(item.get('digest'))}")
    return "; ".join(parts)


def _digest(digest: object) -> str:
    if not isinstance(digest, str):
        return "of unknown digest"
    method, _, value = digest.partition(":")
    return f"{method}:{value[:_SHORT]}"


def origin_facts(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return rows about what a run read, made and ran on."""
    software = body.get("software")
    text = ""
    if isinstance(software, Mapping):
        text = ", ".join(f"{name} {value}" for name, value in _named(software.get("versions")).items())
        image = software.get("image_digest")
        text += f"; image {_digest(image)}" if image else f"; image unknown ({software.get('image_source')})"
    return [("inputs", listed(body.get("inputs"))), ("outputs", listed(body.get("outputs"))), ("software", text)]


def tell_occurrence(to: Console, body: Mapping[str, Any]) -> None:
    """Print a validation, an inference or a regeneration: what it came to, about what, and where its figures are."""
    kind, subject = str(body.get("kind", "")), body.get("subject")
    about = f" of {subject['name']} {_digest(subject.get('digest'))}" if isinstance(subject, Mapping) else ""
    line(to, f"{kind.upper()}{about}: {body.get('outcome', '')}", style="bold")
    rows = [("validator", body.get("validator")), ("tier", body.get("tier")), ("work item", body.get("work_item"))]
    facts(
        to,
        [
            ("why", _why(body)),
            *[(name, str(value)) for name, value in rows if value],
            ("inputs", listed(body.get("inputs"))),
            ("outputs", listed(body.get("outputs"))),
            ("measured in", ", ".join(str(name) for name in body.get("measurements", []))),
        ],
    )


def _why(body: Mapping[str, Any]) -> str:
    """Return why a validation did not pass, as far as the entry knows; empty when it passed, or says nothing of it."""
    if body.get("kind") != "validation" or body.get("outcome") == "passed":
        return ""
    said = str(body.get("reason") or "")
    if body.get("outcome") == "not_validated" and "ended" in body and body["ended"] is None:
        said = said or "the gate refused the run, so nothing was checked"
    told = {
        "failed": "the work ended with an error",
        "interrupted": "the work was interrupted",
        "completed": "the work ran to its end and said so itself",
    }
    return said or told.get(str(body.get("ended")), "")
