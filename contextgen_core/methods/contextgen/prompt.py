"""The prompt's frame: FLUX.1-Kontext edits a picture, so the prompt is wrapped in an instruction to do so.

The released weights were trained with one fixed frame. The default here asks for the same in our own words; whoever
has the official string can give it, and :func:`is_official` tells it by its hash.
"""

from __future__ import annotations

import hashlib
import re

from ...errors import InputError

PLACE = "{prompt}"
MAX_PROMPT = 20000  # characters

DEFAULT_TEMPLATE = (
    'Edit this picture until it shows "{prompt}". Leave every object where it is and keep what makes it that object: '
    "its features, its identity and the details of its face. Change poses where the composition needs it, and let a "
    "fitting background fill the rest. The result must look natural."
)

_LEADING = re.compile(r"^\s*(?:a photo of|an image of|a picture of)\s+", re.IGNORECASE)
# SHA-256 of the official frame around two prompts.
_OFFICIAL = {
    "": "f12a01728e9d2b13823de0dc86f60f9c3c79518a6a31eed6f9cd50119669361d",
    "A cat": "d42e798999fcec70c4f131202381ed31722d8d73b8eb13aa4db339da8ad6b550",
}


def strip_leading(prompt: str) -> str:
    """The prompt without one leading "a photo of", "an image of" or "a picture of"."""
    return _LEADING.sub("", prompt, count=1)


def wrap(prompt: str, template: str = DEFAULT_TEMPLATE) -> str:
    """The prompt, its leading phrase stripped, in the template's place for it.

    An empty template gives the prompt as it is. Raises InputError for a template without {prompt} and for text of more
    than 20000 characters.
    """
    for text, what in ((prompt, "prompt"), (template, "template")):
        if len(text) > MAX_PROMPT:
            raise InputError(f"the {what} has {len(text)} characters, the limit is {MAX_PROMPT}; shorten it.")
    if not template.strip():
        return prompt
    if PLACE not in template:
        raise InputError(
            f"the template has no {PLACE}; put {PLACE} where the prompt belongs, or leave the template empty."
        )
    return template.replace(PLACE, strip_leading(prompt))


def is_official(template: str) -> bool:
    """Whether this is, to the letter, the frame that the released weights were trained with."""
    return PLACE in template and all(
        hashlib.sha256(wrap(prompt, template).encode()).hexdigest() == digest for prompt, digest in _OFFICIAL.items()
    )


def describe(template: str) -> str:
    """One of "official", "pack default", "own", "none" (the prompt alone)."""
    if not template.strip():
        return "none"
    if is_official(template):
        return "official"
    return "pack default" if template == DEFAULT_TEMPLATE else "own"
