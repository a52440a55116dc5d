"""The one exception for mistakes a user can make."""

from __future__ import annotations


class InputError(ValueError):
    """One sentence that names what is wrong, the value, and the remedy.

    Nodes put their name and the input's name in front of it; nothing else is added.
    """
