"""Where checks of one log put what they find."""

from __future__ import annotations

from cagg.ledger.report import Failure, FailureKind

__all__ = ["Failures"]

_ADVICE = "; run 'cagg ledger verify'"
"""How errors of the store end that reach anybody but a verification."""


class Failures:
    """Failures of one log, in the order in which they were found.

    Attributes:
        found: them.
        log: name of the log.
    """

    __slots__ = ("found", "log")

    def __init__(self, log: str) -> None:
        self.found: list[Failure] = []
        self.log = log

    def add(
        self, kind: FailureKind, index: int | None, message: str, *, entry_id: object = "", task: object = ""
    ) -> None:
        """Note one; what is no character in tampered text is escaped, so that any stream can take it.

        Args:
            kind: what does not agree.
            index: place of the entry or size of the checkpoint; None when it concerns neither.
            message: one sentence. Advice to run the verification, which is under way, is left out of it.
            entry_id, task: of the entry, as the store has them: anything.
        """
        said = [_printable(item) if isinstance(item, str) else "" for item in (entry_id, task)]
        text = _printable(message).replace(_ADVICE, "")
        self.found.append(Failure(kind=kind, index=index, message=text, log=self.log, entry_id=said[0], task=said[1]))


def _printable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
