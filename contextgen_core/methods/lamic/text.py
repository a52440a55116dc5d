"""The text of LAMIC: one phrase per reference, then the scene, joined and encoded as one (``preprocess_prompt``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

OFFICIAL, CORRECTED = SPANS = ("official", "corrected")


def phrase(name: str, description: str) -> str:
    """A reference's phrase as the authors write it, "a red bird,sitting on a branch."; no space stands anywhere."""
    return f"{name},{description}." if description else f"{name}."


def segment_counts(texts: Sequence[str], count: Callable[[str], int], spans: str = OFFICIAL) -> tuple[int, ...]:
    """How many tokens of the joined text count as each text's.

    texts  the references' phrases and the scene's text, in order
    count  text -> tokens that the text encoder takes for it alone, its end token included, padding not
    spans  "official": what each text takes alone. Each then counts an end token that the joined text has only once,
           so that text k begins k - 1 tokens late; the released results were obtained that way. "corrected": where each
           text really lies in the joined text
    """
    if spans == OFFICIAL:
        return tuple(count(text) for text in texts)
    end = count("")
    stops = [count("".join(texts[: n + 1])) - end for n in range(len(texts))]
    return tuple(max(0, stop - start) for start, stop in zip([0, *stops], stops, strict=False))
