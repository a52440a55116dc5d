"""Golden cases of ContextGen: boxes, token masks, ids and both masks are compared; the velocity by the command."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from ...attention.groups import seen
from ...layout.box import Box
from ...layout.tokens import token_box
from ..boundary import Bound
from ..golden import Arrays, Golden
from .method import CONTEXTGEN
from .references import token_mask
from .schedule import BlockPlan, Rule
from .sequence import Plan, reference_tokens
from .settings import Settings, arrange, image_ids, references_read
from .visibility import dense_mask, query_groups

TOLERANCE, ADAPTER_TOLERANCE = 1e-5, 2e-5
RULES = {rule.value: rule for rule in Rule}
_VELOCITY = {"official": "velocity", "paper": "velocity_paper_ica", "cla": "velocity_cla_only"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--attention", choices=("auto", "grouped", "merge", "dense"), default="grouped")
    parser.add_argument("--prune", choices=("on", "off"), default="on")
    parser.add_argument("--ids", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rule", choices=tuple(RULES), default="official")


def plan_of(arrays: Arrays) -> Plan:
    """The plan from a case's pixel boxes and mask pictures alone."""
    width, height = (int(side) // 16 for side in arrays["target_wh"])
    references = tuple(
        reference_tokens(
            f"reference {n + 1}",
            token_mask(arrays[f"ref{n}_mask"]),
            token_box(Box(*(float(v) for v in box)), width, height),
        )
        for n, box in enumerate(arrays["boxes_px"])
    )
    return Plan(width, height, references)


def golden(arrays: Arrays, arguments: argparse.Namespace) -> Golden:
    settings = Settings(
        rule=RULES[arguments.rule],
        kernel=arguments.attention,
        prune=arguments.prune == "on",
        round_ids=arguments.ids == "bfloat16",
    )
    plan, text = plan_of(arrays), int(arrays["txt_len"])
    depth = (19, 38)  # any depth: the sequence does not depend on it
    full = arrange(plan, Settings(prune=False), references_read(plan, Settings()), text, depth).sequence
    kept = arrange(plan, settings, references_read(plan, settings), text, depth).sequence
    boxes = np.array([r.box for r in plan.references], np.int64).reshape(-1, 4)
    edges = np.array([plan.width, plan.height, plan.width, plan.height])
    golden_boxes = arrays["boxes_tok"][1:].clip(0, edges)  # the authors clip only when they slice
    valid = [np.frombuffer(r.valid, np.uint8).astype(bool) for r in plan.references]
    ids = torch.from_numpy(arrays["ids_bf16" if settings.round_ids else "ids"][text:])
    ica = Rule.ICA_PAPER if settings.rule is Rule.ICA_PAPER else Rule.ICA

    def equal(rule: Rule, mask: np.ndarray) -> bool:
        grouped = seen(query_groups(full, BlockPlan(rule)), full.length)
        return bool(np.array_equal(grouped, mask) and np.array_equal(dense_mask(full, rule), mask))

    def tensor(key: str) -> torch.Tensor:
        return torch.from_numpy(arrays[key])

    return Golden(
        bound=Bound(CONTEXTGEN, plan, settings),
        noise=tensor("noise_latent"),
        pictures=(tensor("layout_latent"), *(tensor(f"ref{n}_latent") for n in range(len(plan.references)))),
        text=tensor("text_embeds"),
        pooled=tensor("pooled"),
        timestep=tensor("timestep"),
        guidance=tensor("guidance"),
        velocity=tensor("velocity_bf16ids" if settings.round_ids else _VELOCITY[arguments.rule]),
        facts={
            "attention": arguments.attention,
            "prune": arguments.prune,
            "tokens_full": full.length,
            "tokens_kept": kept.length,
            "boxes_equal": bool(np.array_equal(boxes, golden_boxes)),
            "token_masks_equal": all(np.array_equal(v, arrays[f"ref{n}_tokmask"]) for n, v in enumerate(valid)),
            "ids_max_abs_diff": float((image_ids(full, settings.round_ids) - ids).abs().max()),
            "mask_cla_equal": equal(Rule.CLA, arrays["mask_cla"]),
            "mask_ica_equal": equal(ica, arrays["mask_ica_paper" if ica is Rule.ICA_PAPER else "mask_ica"]),
        },
        tolerance=ADAPTER_TOLERANCE if arguments.adapter else TOLERANCE,
    )
