"""Tells ComfyUI how much memory a pruned picture needs, before it decides which weights stay on the device.

The host estimates a step's memory from the area of the latents, reference latents included, and does so before any
sampling code of ours runs. A PREPARE_SAMPLING wrapper therefore lets it see reference latents of the size that will
be computed with: the layout and the tokens that are read. It sees shapes alone; what is sampled stays as it was.
"""

from __future__ import annotations

from typing import Any

import torch

from .conditioning import plans_of

Options = dict[str, Any]
LATENTS = "reference_latents"
PER_TOKEN = 4  # a token is 2 x 2 in a latent


def area(installed: Any, cond: Options) -> int | None:
    """Latent area of what one picture computes with beside its noise, None where no layout says; over the whole run,
    so windows count as open."""
    counted = [
        (method, plan, installed.settings(method.name))
        for method, plan in plans_of(cond)
        if method.sizes(plan)[1] and method.name in dict(installed.entries)
    ]
    if not counted:
        return None
    return PER_TOKEN * sum(method.computed_tokens(plan, settings) for method, plan, settings in counted)


def prepare_sampling(
    installed: Any, executor: Any, model: Any, noise_shape: Any, conds: Options, *args: Any, **kwargs: Any
) -> Any:
    """The host's own preparation, with the true area of the references for its estimate."""
    shown: dict[int, Options] = {}

    def show(cond: Options) -> Options:
        computed = area(installed, cond)
        if computed is None or not cond.get(LATENTS):
            return cond
        # The host counts a reference once, though it repeats it for every picture of the batch.
        shape = (1, cond[LATENTS][0].shape[1], 1, computed * int(noise_shape[0]))
        smaller = {**cond, LATENTS: [torch.empty(shape, device="meta")]}
        shown[id(smaller[LATENTS])] = cond
        return smaller

    def restore(cond: Options) -> Options:
        original = shown.get(id(cond.get(LATENTS)))
        return cond if original is None else {**cond, LATENTS: original[LATENTS]}

    seen = {kind: [show(cond) for cond in group] for kind, group in conds.items()}
    real, given, models = executor(model, noise_shape, seen, *args, **kwargs)
    if given is seen:
        return real, conds, models
    return real, {kind: [restore(cond) for cond in group] for kind, group in given.items()}, models
