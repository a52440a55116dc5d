"""Tells ComfyUI how much memory a pruned picture needs, before it decides which weights stay on the device.

The host estimates a step's memory from the area of the latents, reference latents included, and does so before any
sampling code of ours runs. A PREPARE_SAMPLING wrapper therefore lets it see reference latents of the size that will
be computed with (the layout and the tokens that are read), and as much more as the keys and values need that are
remembered over the run. It sees shapes alone; what is sampled stays as it was.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ...contextgen_core.methods.boundary import Bound, Method
from .conditioning import plans_of
from .families import family_of

Options = dict[str, Any]
LATENTS = "reference_latents"
PER_TOKEN = 4  # a token is 2 x 2 in a latent


def area(installed: Any, cond: Options, batch: int, model: Any) -> int | None:
    """Latent area of what a batch computes with beside its noise, None where no layout says; over the whole run, so
    windows count as open."""
    acting = [
        Bound(method, plan, installed.settings(method.name))
        for method, plan in plans_of(cond)
        if method.name in dict(installed.entries)
    ]
    counted = [bound for bound in acting if bound.method.sizes(bound.plan)[1]]
    if not counted:
        return None
    computed = PER_TOKEN * sum(method.computed_tokens(plan, settings) for method, plan, settings in counted)
    alone = [one for one in counted if not any(_always(other) for other in acting if other is not one)]
    return batch * computed + sum(_remembered(model, *one) for one in alone)


def _always(bound: Bound) -> bool:
    """Whether a method has its say about the tokens in every step: what another one could remember is then dropped."""
    method, plan, settings = bound
    return method.arranges and not method.timed(plan, settings) and method.moment(plan, settings, None) is not None


def _remembered(model: Any, method: Method, plan: Any, settings: Any) -> int:
    """Latent area that the host takes to need as much memory as the keys and values that are remembered."""
    tokens = method.fixed_tokens(plan, settings)
    if not tokens:
        return 0
    known = family_of(model).backbone
    base = model.model
    item = torch.empty((), dtype=base.manual_cast_dtype or base.get_dtype()).element_size()
    size = 2 * (known.double + known.single) * tokens * known.width * item
    return math.ceil(size / base.memory_required([1, 1, 1, 1])) if size <= method.memory_limit(settings) else 0


def prepare_sampling(
    installed: Any, executor: Any, model: Any, noise_shape: Any, conds: Options, *args: Any, **kwargs: Any
) -> Any:
    """The host's own preparation, with the true area of the references for its estimate."""
    shown: dict[int, Options] = {}

    def show(cond: Options) -> Options:
        computed = area(installed, cond, int(noise_shape[0]), model)
        if computed is None or not cond.get(LATENTS):
            return cond
        # The host counts a reference once, though it repeats it for every picture of the batch.
        shape = (1, cond[LATENTS][0].shape[1], 1, computed)
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
