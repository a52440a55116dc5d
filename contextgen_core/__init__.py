"""Several subjects in one picture, each in the box you draw: the methods, without ComfyUI.

Two verbs do the work; nothing is imported before one of them is asked for::

    from contextgen_core import prepare, sample

    prepared = prepare(compose(layout, references))
    picture = sample(model, prepared, words, steps=28, seed=0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .verbs import prepare, sample

__version__ = "1.0.0"
__all__ = ["prepare", "sample"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import verbs

    return getattr(verbs, name)
