"""Golden cases of LAMIC: segments, who holds which token, masks, ids and fed pictures; the velocity by the command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

import numpy as np
import torch

from ...attention.groups import seen
from ...layout.tokens import TOKEN
from ..boundary import Bound
from ..golden import Arrays, Golden
from .method import LAMIC, LamicSettings
from .pictures import fed_sizes, resized
from .plan import LamicPlan, LamicReference
from .regions import are_fractions, box_region, giving_way, mask_region
from .sequence import LamicSequence, image_ids
from .visibility import dense_mask, members, query_groups, segment_names, segment_table

FULL = "full"  # no mask at all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", choices=("1", "2", FULL), default="2")
    parser.add_argument("--overlap", choices=("kept", "removed"), default="removed")


def pictures_of(arrays: Arrays) -> tuple[np.ndarray, ...]:
    """The references as they are encoded, from the pictures and areas of the case."""

    def fed(pixels: np.ndarray, area: int) -> np.ndarray:
        return resized(pixels, fed_sizes(pixels.shape[1], pixels.shape[0], area))

    return tuple(fed(arrays[f"ref{number}_image"], int(area)) for number, area in enumerate(arrays["to_area"], 1))


def regions_of(arrays: Arrays) -> np.ndarray:
    """bool (references, M) from the boxes and mask pictures of the case."""
    width, height = (int(side) for side in arrays["target_wh"])

    def region(number: int, kind: str) -> np.ndarray:
        if kind == "mask":
            return mask_region(arrays[f"ref{number}_mask"], width, height)
        corners = [0.0, 0.0, 1.0, 1.0] if kind == "whole" else arrays["region_boxes"][number - 1].tolist()
        return box_region(corners, width, height, are_fractions(corners))

    return np.stack([region(number, str(kind)).reshape(-1) for number, kind in enumerate(arrays["region_kind"], 1)])


def gives_way_of(arrays: Arrays) -> Mapping[int, list[int]]:
    asked = json.loads(str(arrays["de_overlap"]))
    return {int(number) - 1: [int(other) - 1 for other in others] for number, others in asked.items()}


def plan_of(arrays: Arrays, pictures: tuple[np.ndarray, ...], overlap: str) -> LamicPlan:
    """The plan from what a user would give, and from the lengths of the texts, which depend on the tokenizer."""
    width, height = (int(side) // TOKEN for side in arrays["target_wh"])
    *phrases, scene_text = (int(count) for count in arrays["text_counts"])
    regions = regions_of(arrays)
    first = giving_way(regions, gives_way_of(arrays)) if overlap == "removed" else regions
    references = tuple(
        LamicReference(
            f"reference {number}",
            picture.shape[1] // TOKEN,
            picture.shape[0] // TOKEN,
            count,
            region.astype(np.uint8).tobytes(),
            reduced.astype(np.uint8).tobytes(),
        )
        for number, (picture, count, region, reduced) in enumerate(
            zip(pictures, phrases, regions, first, strict=True), 1
        )
    )
    return LamicPlan(width, height, scene_text, references)


def golden(arrays: Arrays, arguments: argparse.Namespace) -> Golden:
    pictures = pictures_of(arrays)
    plan = plan_of(arrays, pictures, arguments.overlap)
    settings = LamicSettings(
        first_ratio=1.0 if arguments.stage == "1" else 0.0,
        masked=arguments.stage != FULL,
        kernel=arguments.attention,
    )
    sequence = LamicSequence(plan, int(arrays["text_len"]), tuple(range(len(plan.references))))
    kept = arguments.overlap == "kept"
    names = segment_names(sequence)
    ids = torch.from_numpy(arrays["ids"][sequence.text :])

    def bits(name: str) -> np.ndarray:
        return np.unpackbits(arrays[name], axis=-1, count=int(arrays["S"])).astype(bool)

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(arrays[name])

    def masks_equal(first: bool, name: str) -> bool:
        mask = bits(name)
        grouped = seen(query_groups(sequence, first), sequence.length)
        return bool(np.array_equal(dense_mask(sequence, first), mask) and np.array_equal(grouped, mask))

    latents = (tensor(f"ref{number}_latent") for number in range(1, len(pictures) + 1))
    suffix = "_keep_overlap" if kept and arguments.stage == "1" else ""
    return Golden(
        bound=Bound(LAMIC, plan, settings),
        noise=tensor("noise_latent"),
        pictures=tuple(latent * float(gain) for latent, gain in zip(latents, arrays["enhance"], strict=True)),
        text=tensor("text_embeds"),
        pooled=tensor("pooled"),
        timestep=tensor("timestep"),
        guidance=tensor("guidance"),
        velocity=tensor("velocity_full" if arguments.stage == FULL else f"velocity_stage{arguments.stage}{suffix}"),
        facts={
            "attention": arguments.attention,
            "stage": arguments.stage,
            "overlap": arguments.overlap,
            "tokens": sequence.length,
            "pictures_equal": all(np.array_equal(p, arrays[f"ref{n}_fed"]) for n, p in enumerate(pictures, 1)),
            "segments_equal": list(names) == arrays["segment_names"].tolist(),
            "members_equal": bool(
                np.array_equal(members(sequence, first=False), bits("member"))
                and np.array_equal(members(sequence, first=True), bits("member" if kept else "member_stage1"))
            ),
            "table_equal": all(
                np.array_equal(segment_table(names, first), arrays["segment_table"][..., stage])
                for stage, first in enumerate((True, False))
            ),
            "masks_equal": masks_equal(True, "mask_stage1_keep_overlap" if kept else "mask_stage1")
            and masks_equal(False, "mask_stage2"),
            "ids_max_abs_diff": float((torch.from_numpy(image_ids(sequence)) - ids).abs().max()),
        },
    )
