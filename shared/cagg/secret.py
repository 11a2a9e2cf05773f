"""A value that is used and never shown: tokens of grid sources."""

from __future__ import annotations

from dataclasses import dataclass, field

from cagg.errors import InvalidInput

__all__ = ["Secret"]

_MASK = "***"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Secret:
    """Text that no repr, message, log line or table shows.

    Attributes:
        value: the text itself; to be read only where it is sent.

    Raises:
        InvalidInput: the text is empty, or holds spaces, line breaks or other characters that a header cannot carry;
            the message does not repeat it.
    """

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) or not self.value:
            raise InvalidInput("must be text; it is a secret, so what was given is not shown.")
        if any(not "!" <= character <= "~" for character in self.value):
            raise InvalidInput(
                "holds a space, a line break or another character that a token never has; copy it again. It is a "
                "secret, so it is not shown."
            )

    def __repr__(self) -> str:
        return f"Secret({_MASK})"

    def __str__(self) -> str:
        return _MASK

    def hidden_in(self, text: str) -> str:
        """Return the text with the secret blotted out, for words that come from outside."""
        return text.replace(self.value, _MASK)
