"""Finds checkpoints in text: signed notes one after the other, and lines of any log that carry one."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cagg.errors import LedgerDamaged
from cagg.ledger.notes import TreeHead, parse_note

__all__ = ["MARK", "Found", "found_in", "lines_of"]

MARK = "cagg-checkpoint"
"""The word that begins a checkpoint in a line of a log; what follows is the whole note in base64."""

_IN_LINE = re.compile(rf"\b{MARK} ([A-Za-z0-9+/]{{16,}}={{0,2}})")
_SIGNATURE = "— "
_LONGEST_LINE = 65_536
_SIGNATURE_CHARACTERS = 92
"""Base64 of a key id and an Ed25519 signature, 68 bytes: what is shorter was cut, not signed."""

_MOST_TEXT_LINES = 16
"""A checkpoint has three lines and rarely an extension; the text before a longer paragraph is not one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A checkpoint that stood in a text, or what looks like one and is none.

    Attributes:
        head, note: what it says, and the note; None and the text as it stands there, when it is none.
        problem: why it is none; empty when it is one.
    """

    head: TreeHead | None
    note: str
    problem: str = ""


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Return lines of a file as text, whatever bytes it holds; carriage returns are dropped, a line that is too long
    to hold a checkpoint comes cut."""
    for chunk in chunks:
        yield chunk[:_LONGEST_LINE].decode("utf-8", "replace").rstrip("\r\n")


def found_in(lines: Iterable[str]) -> Iterator[Found]:
    """Yield the checkpoints of a text, in its order. Other text is passed over: a log is full of it."""
    paragraph: list[str] = []
    before: list[str] = []  # the paragraph before the empty line that a signature follows
    signatures: list[str] = []
    for line in (*lines, "") if isinstance(lines, tuple | list) else _ended(lines):
        if line.startswith(_SIGNATURE) and (signatures or (not paragraph and before)):
            signatures.append(line)
            continue
        if signatures:
            yield _read("\n".join(before) + "\n\n" + "\n".join(signatures) + "\n")
            signatures, before = [], []
        for match in _IN_LINE.finditer(line):
            yield _decoded(match[1])
        if line:
            paragraph = [*paragraph, line][-_MOST_TEXT_LINES:]
        else:
            before, paragraph = paragraph, []


def _ended(lines: Iterable[str]) -> Iterator[str]:
    yield from lines
    yield ""


def _decoded(text: str) -> Found:
    try:
        return _read(base64.b64decode(text, validate=True).decode())
    except (binascii.Error, ValueError):
        return Found(head=None, note=text, problem="the line is cut or changed")


def _read(note: str) -> Found:
    try:
        head, _ = parse_note(note, ())
    except LedgerDamaged as error:
        return Found(head=None, note=note, problem=str(error).rstrip("."))
    signatures = note.rpartition("\n\n")[2].splitlines()
    if not any(len(line.rpartition(" ")[2]) >= _SIGNATURE_CHARACTERS for line in signatures):
        return Found(head=None, note=note, problem="its signature is cut")
    return Found(head=head, note=note)
