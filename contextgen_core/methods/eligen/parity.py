"""Golden cases of EliGen: masks on cells and tokens, ids and the attention mask are compared; the velocity by the
command."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from ...attention.groups import seen
from ...errors import InputError
from ...layout.tokens import TOKEN
from ..boundary import Bound
from ..golden import Arrays, Golden
from .masks import cells_to_tokens, mask_cells
from .method import ELIGEN, EliGenSettings
from .plan import EliGenPlan, phrase_tokens
from .visibility import PhraseSequence, dense_mask, query_groups, readable

TOLERANCE = 2e-5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """EliGen has none beside those of every method: with an adapter its velocity is compared."""


def plan_of(arrays: Arrays) -> EliGenPlan:
    """The plan from a case's mask pictures and sizes alone; phrases that hold no token stay in."""
    width, height = (int(side) // TOKEN for side in arrays["target_wh"])
    masks = (arrays[f"mask{number + 1}_px"] for number in range(int(arrays["n_entities"])))
    length = int(arrays["txt_len"])
    inside = (cells_to_tokens(mask_cells(mask, height, width)) for mask in masks)
    return EliGenPlan(width, height, tuple(phrase_tokens(length, one) for one in inside))


def golden(arrays: Arrays, arguments: argparse.Namespace) -> Golden:
    if "entity1_embeds" in arrays:
        raise InputError("this is a case of Qwen-Image, a family that EliGen does not run on yet; give one of FLUX.1.")
    plan, text = plan_of(arrays), int(arrays["txt_len"])
    settings = EliGenSettings(kernel=arguments.attention)
    sequence = PhraseSequence(plan, text, tuple(readable(plan)))
    whole = PhraseSequence(plan, text, tuple(range(len(plan.phrases))))
    cells = [mask_cells(arrays[f"mask{number + 1}_px"], plan.height, plan.width) for number in range(len(plan.phrases))]
    rows, columns = np.divmod(np.arange(plan.noise_tokens), plan.width)
    image_ids = np.stack([np.zeros_like(rows), rows, columns], axis=1).astype(np.float32)
    ids = np.concatenate([np.zeros((whole.noise_span.start, 3), np.float32), image_ids])
    owners = [*(phrase.tokens for phrase in plan.phrases), text]

    def tensor(key: str) -> torch.Tensor:
        return torch.from_numpy(arrays[key])

    return Golden(
        bound=Bound(ELIGEN, plan, settings),
        noise=tensor("noise_latent"),
        pictures=(),
        text=tensor("text_embeds"),
        pooled=tensor("pooled"),
        timestep=tensor("timestep"),
        guidance=tensor("guidance").reshape(1) if "guidance" in arrays else None,
        velocity=tensor("velocity_lora" if arguments.adapter else "velocity"),
        facts={
            "attention": arguments.attention,
            "phrases": len(plan.phrases),
            "tokens": sequence.length,
            "cell_masks_equal": bool(np.array_equal(np.array(cells), arrays["latmask"])),
            "token_masks_equal": bool(np.array_equal(plan.inside, arrays["tokmask"])),
            "segments_equal": bool(
                np.array_equal(np.repeat(np.arange(len(owners)), owners), arrays["seg"][: whole.noise_span.start])
            ),
            "ids_max_abs_diff": float(np.abs(ids - arrays["ids"]).max()),
            "mask_equal": bool(np.array_equal(dense_mask(whole), arrays["attn_mask"])),
            "groups_equal": bool(np.array_equal(seen(query_groups(whole), whole.length), arrays["attn_mask"])),
        },
        vectors={"phrases": tensor("entity_embeds").reshape(1, plan.phrase_tokens, -1)},
        tolerance=TOLERANCE,
    )
