"""The one exception for mistakes a user can make."""

from __future__ import annotations


class InputError(ValueError):
    """One sentence that names what is wrong, the value, and the remedy.

    The core raises it with the sentence alone; a node adds its id and the input's name, which stand in front of
    the sentence where the error is shown.
    """

    def __init__(self, message: str, node: str | None = None, input: str | None = None) -> None:
        super().__init__(message)
        self.message, self.node, self.input = message, node, input

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.node, self.input) if part)
        return f"{place}: {self.message}" if place else self.message
