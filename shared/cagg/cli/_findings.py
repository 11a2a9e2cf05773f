"""What ``cagg doctor`` finds: one answer to each question, with the remedy where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Level", "note", "ok", "problem"]


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """works, but less well than it could"""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer.

    Attributes:
        topic: config, environment, home, store, ledger, budget, spool, meter, grid, hosts or mode.
        level: how bad it is.
        text: what was found.
        remedy: what to do; empty when nothing has to be done.
    """

    topic: str
    level: Level
    text: str
    remedy: str = ""


def ok(topic: str, text: str) -> Finding:
    return Finding(topic=topic, level=Level.OK, text=text)


def note(topic: str, text: str, remedy: str = "") -> Finding:
    return Finding(topic=topic, level=Level.NOTE, text=text, remedy=remedy)


def problem(topic: str, text: str, remedy: str = "") -> Finding:
    return Finding(topic=topic, level=Level.PROBLEM, text=text, remedy=remedy)
