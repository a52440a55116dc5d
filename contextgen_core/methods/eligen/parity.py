"""Golden cases of EliGen: masks on cells and tokens, ids and the attention mask are compared; the velocity by the
command. Cases of Qwen-Image are told by their arrays."""

from __future__ import annotations

import argparse
import re

import numpy as np
import torch

from ...attention.groups import seen
from ...backbones import Grid
from ...backbones.qwen import COMFYUI, DIFFUSERS
from ...errors import InputError
from ...layout.tokens import TOKEN
from ..boundary import Bound
from ..golden import Arrays, Golden
from .masks import cells_to_tokens, mask_cells
from .method import ELIGEN, EliGenSettings
from .plan import EliGenPlan, phrase_tokens
from .visibility import PhraseSequence, dense_mask, query_groups, readable

FLUX_TOLERANCE, QWEN_TOLERANCE = 2e-5, 6e-5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """EliGen has none beside those of every method: with an adapter its velocity is compared."""


def is_qwen(arrays: Arrays) -> bool:
    """Whether a case is of Qwen-Image, whose prompts have lengths of their own."""
    return "text_lens" in arrays


def text_lengths(arrays: Arrays) -> tuple[int, ...]:
    """Tokens of each phrase, then of the scene's text."""
    if is_qwen(arrays):
        return tuple(int(length) for length in arrays["text_lens"])
    return (int(arrays["txt_len"]),) * (int(arrays["n_entities"]) + 1)


def plan_of(arrays: Arrays) -> EliGenPlan:
    """The plan from a case's mask pictures and sizes alone; phrases that hold no token stay in."""
    width, height = (int(side) // TOKEN for side in arrays["target_wh"])
    lengths = text_lengths(arrays)[:-1]
    masks = (cells_to_tokens(mask_cells(arrays[f"mask{n + 1}_px"], height, width)) for n in range(len(lengths)))
    return EliGenPlan(width, height, tuple(map(phrase_tokens, lengths, masks)))


def phrase_vectors(arrays: Arrays) -> torch.Tensor:
    """The encoded phrases one after another, (1, tokens, C)."""
    if is_qwen(arrays):
        return torch.cat([torch.from_numpy(arrays[f"entity{n + 1}_embeds"]) for n in range(_phrases(arrays))], dim=1)
    return torch.from_numpy(arrays["entity_embeds"]).flatten(0, 1)[None]


def references_of(arrays: Arrays) -> tuple[torch.Tensor, ...]:
    """Latents of the pictures to edit, (1, 16, h, w) each."""
    names = sorted(name for name in arrays if re.fullmatch(r"ref\d*_latent", name))
    return tuple(torch.from_numpy(arrays[name]).reshape(1, 16, *arrays[name].shape[-2:]) for name in names)


def golden(arrays: Arrays, arguments: argparse.Namespace) -> Golden:
    plan, (*phrases, text) = plan_of(arrays), text_lengths(arrays)
    settings = EliGenSettings(kernel=arguments.attention)
    references = references_of(arrays)
    grids = tuple((one.shape[-2] // 2, one.shape[-1] // 2) for one in references)
    sequence = PhraseSequence(plan, text, tuple(readable(plan)), references=grids)
    whole = PhraseSequence(plan, text, tuple(range(len(plan.phrases))), references=grids)
    cells = [mask_cells(arrays[f"mask{number + 1}_px"], plan.height, plan.width) for number in range(len(plan.phrases))]
    owners = np.repeat(np.arange(len(phrases) + 1), (*phrases, text))
    qwen = is_qwen(arrays)
    ids, wanted = _ids(arrays, (*phrases, text), ((plan.height, plan.width), *grids), arguments.host)

    def tensor(key: str) -> torch.Tensor:
        return torch.from_numpy(arrays[key])

    return Golden(
        bound=Bound(ELIGEN, plan, settings),
        noise=tensor("noise_latent"),
        pictures=references,
        text=tensor("text_embeds"),
        pooled=torch.zeros(1, 0) if qwen else tensor("pooled"),
        timestep=tensor("timestep"),
        guidance=tensor("guidance").reshape(1) if "guidance" in arrays else None,
        velocity=tensor(_velocity(arrays, arguments)),
        facts={
            "attention": arguments.attention,
            "phrases": len(plan.phrases),
            "tokens": sequence.length,
            "cell_masks_equal": bool(np.array_equal(np.array(cells), arrays["latmask"])),
            "token_masks_equal": bool(np.array_equal(plan.inside, arrays["tokmask"])),
            "segments_equal": bool(np.array_equal(owners, arrays["seg"][: whole.picture_span.start])),
            "ids_max_abs_diff": float(np.abs(ids - wanted).max()),
            "mask_equal": bool(np.array_equal(dense_mask(whole), arrays["attn_mask"])),
            "groups_equal": bool(np.array_equal(seen(query_groups(whole), whole.length), arrays["attn_mask"])),
        },
        vectors={"phrases": phrase_vectors(arrays)},
        tolerance=QWEN_TOLERANCE if qwen else FLUX_TOLERANCE,
        family="qwen" if qwen else "flux",
        config="qwen" if qwen else "transformer",
    )


def _phrases(arrays: Arrays) -> int:
    return len(text_lengths(arrays)) - 1


def _ids(arrays: Arrays, lengths: tuple[int, ...], grids: tuple[Grid, ...], host: str) -> tuple[np.ndarray, np.ndarray]:
    """Position ids of all tokens, and those of the case; Qwen-Image's are numbered by the host."""
    if is_qwen(arrays):
        positions, key = (COMFYUI, "ids_comfyui") if host == "comfy" else (DIFFUSERS, "ids")
        return torch.cat([positions.text(lengths, grids), positions.image(grids)]).numpy(), arrays[key]
    rows, columns = np.indices(grids[0]).reshape(2, -1)
    image = np.stack([np.zeros_like(rows), rows, columns], axis=1).astype(np.float32)
    return np.concatenate([np.zeros((sum(lengths), 3), np.float32), image]), arrays["ids"]


def _velocity(arrays: Arrays, arguments: argparse.Namespace) -> str:
    """The name of the answer to compare with.

    Qwen-Image is answered in the form that both hosts have, with the tanh GELU; on an odd grid ComfyUI counts from
    another middle, which has answers of its own.
    """
    lora = "_lora" if arguments.adapter else ""
    if not is_qwen(arrays):
        return "velocity" + lora
    name = "velocity_own_tanh_gelu" + lora
    if arguments.host == "comfy" and not np.array_equal(arrays["ids"], arrays["ids_comfyui"]):
        name += "_comfyui_ids"
    if name not in arrays:
        raise InputError(f"this case has no {name}, the answer for this host and adapter; leave the adapter out.")
    return name
