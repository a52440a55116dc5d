"""Sizes that do not go together and change the picture without a word: said before sampling."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import comfy.model_base
import comfy.model_sampling
import torch
from comfy.patcher_extension import WrappersMP

log = logging.getLogger("contextgen")

# ModelSamplingFlux's defaults: a line through two sizes, in image tokens.
FEW, LOW = 256, 0.5
MANY, HIGH = 4096, 1.15
SLOPE = (HIGH - LOW) / (MANY - FEW)
PIXELS = 16 * 16  # of a token
TOLERANCE = 0.005


def shift_doubt(model: Any, width: int, height: int) -> str | None:
    """One sentence where the model's sampling shift is the usual one of another size than this, in pixels.

    None where it fits, and for models of another family or without such a shift.
    """
    if type(model.model) is not comfy.model_base.Flux:
        return None
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, comfy.model_sampling.ModelSamplingFlux):
        return None
    if abs(sampling.shift - (LOW + SLOPE * (width * height / PIXELS - FEW))) < TOLERANCE:
        return None
    side = max(0.0, PIXELS * (FEW + (sampling.shift - LOW) / SLOPE)) ** 0.5
    return (
        f"the model's sampling shift is {sampling.shift:.3g}, the usual one of {side:.0f} x {side:.0f} pixels and not "
        f"of the layout's {width} x {height}; connect the Layout Composer's width and height to ModelSamplingFlux."
    )


def expect_sides(model: Any, node: str, sides: tuple[int, ...]) -> Any:
    """The model, which from now on says in the log where it is to paint other pictures than squares of these sides."""
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, node, partial(_said, node, sides))
    return model


def _said(node: str, sides: tuple[int, ...], executor: Any, noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    height, width = (8 * length for length in noise.shape[-2:])
    if width != height or width not in sides:
        known = " and ".join(f"{side} x {side}" for side in sides)
        log.warning("%s: it knows pictures of %s pixels, not %d x %d.", node, known, width, height)
    return executor(noise, *args, **kwargs)
