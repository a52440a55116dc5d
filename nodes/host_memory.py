"""Tells ComfyUI how much memory a pruned picture needs, before it decides which weights stay on the device.

The host estimates a step's memory from the area of the latents, reference latents included, and does so before any
sampling code of ours runs. A PREPARE_SAMPLING wrapper therefore lets it see reference latents of the size that will
be computed with: the layout and the tokens that are read. It sees shapes alone; what is sampled stays as it was.
"""

from __future__ import annotations

from typing import Any

import torch

from ..contextgen_core.methods.contextgen.sequence import Plan
from ..contextgen_core.methods.contextgen.settings import Settings, references_read

Options = dict[str, Any]
LATENTS = "reference_latents"
PER_TOKEN = 4  # a token is 2 x 2 in a latent


def area(plan: Plan, settings: Settings) -> int:
    """Latent area of what one picture computes with beside its noise; over the run, so windows count as open."""
    if not settings.prune:
        return PER_TOKEN * (plan.image_tokens - plan.noise_tokens)
    read = references_read(plan, settings)
    return PER_TOKEN * (plan.noise_tokens + sum(sum(plan.references[number].valid) for number in read))


def prepare_sampling(
    settings: Settings, executor: Any, model: Any, noise_shape: Any, conds: Options, *args: Any, **kwargs: Any
) -> Any:
    """The host's own preparation, with the true area of the references for its estimate."""
    from .host import plan_of  # host installs this wrapper

    shown: dict[int, Options] = {}

    def show(cond: Options) -> Options:
        plan = plan_of(cond)
        if plan is None or not cond.get(LATENTS):
            return cond
        # The host counts a reference once, though it repeats it for every picture of the batch.
        shape = (1, cond[LATENTS][0].shape[1], 1, area(plan, settings) * int(noise_shape[0]))
        made = {**cond, LATENTS: [torch.empty(shape, device="meta")]}
        shown[id(made[LATENTS])] = cond
        return made

    def restore(cond: Options) -> Options:
        original = shown.get(id(cond.get(LATENTS)))
        return cond if original is None else {**cond, LATENTS: original[LATENTS]}

    seen = {kind: [show(cond) for cond in group] for kind, group in conds.items()}
    real, given, models = executor(model, noise_shape, seen, *args, **kwargs)
    if given is seen:
        return real, conds, models
    return real, {kind: [restore(cond) for cond in group] for kind, group in given.items()}, models
