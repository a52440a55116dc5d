"""Compares the production path with a golden case of the authors' code.

    python -m contextgen_core.parity CASE.npz --weights FILE --config FILE [--adapter FILE] --host diffusers|comfy
        [--attention auto|grouped|merge|dense] [--prune on|off] [--ids float32|bfloat16] [--rule official|paper|cla]

Pixel boxes, mask pictures, sizes and latents of the case go in; tokens, ids, masks and the velocity come out of the
same code that a user runs and are compared with the case's arrays. One JSON line; exit status 0 when all is equal and
the velocity within 1e-5 (2e-5 with an adapter), absolute, in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ..attention.groups import seen
from ..composite.references import token_mask
from ..errors import InputError
from ..layout.box import Box
from ..layout.tokens import token_box
from ..lora.adapter import load_adapter
from ..methods.contextgen.schedule import BlockPlan, Rule
from ..methods.contextgen.sequence import Plan, reference_tokens
from ..methods.contextgen.settings import Settings, arrange, image_ids, references_read
from ..methods.contextgen.visibility import dense_mask, query_groups

TOLERANCE, ADAPTER_TOLERANCE = 1e-5, 2e-5
RULES = {"official": Rule.ICA, "paper": Rule.ICA_PAPER, "cla": Rule.CLA}
_VELOCITY = {"official": "velocity", "paper": "velocity_paper_ica", "cla": "velocity_cla_only"}


@dataclass(frozen=True)
class Case:
    """One golden case: what goes in, and (in ``arrays``) what must come out."""

    name: str
    plan: Plan
    arrays: dict[str, np.ndarray]

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    @property
    def latents(self) -> list[torch.Tensor]:
        """Layout and references, (1, 16, h, w) each."""
        count = len(self.plan.references)
        return [self.tensor("layout_latent"), *(self.tensor(f"ref{n}_latent") for n in range(count))]


def load_case(path: str | Path) -> Case:
    """Reads a case and plans it from its pixel boxes and mask pictures alone."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    width, height = (int(side) // 16 for side in arrays["target_wh"])
    references = tuple(
        reference_tokens(
            f"reference {n + 1}",
            token_mask(arrays[f"ref{n}_mask"]),
            token_box(Box(*(float(v) for v in box)), width, height),
        )
        for n, box in enumerate(arrays["boxes_px"])
    )
    return Case(Path(path).stem, Plan(width, height, references), arrays)


def pack(latent: torch.Tensor) -> torch.Tensor:
    """(B, 16, 2h, 2w) latents -> (B, h*w, 64) tokens, channel-major inside a token."""
    b, c, h, w = latent.shape
    return latent.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def _diffusers_velocity(case: Case, arguments: argparse.Namespace, settings: Settings) -> torch.Tensor:
    from ..hosts.diffusers import ContextGenFlux, load_transformer, merge_adapter  # only here is diffusers needed

    config = json.loads(Path(arguments.config).read_text())
    transformer = load_transformer(config.get("transformer", config), load_file(arguments.weights))
    if arguments.adapter:
        merge_adapter(transformer, load_adapter(arguments.adapter))
    with torch.no_grad(), ContextGenFlux(transformer) as model:
        return model.velocity(
            case.plan,
            case.tensor("noise_packed"),
            torch.cat([pack(latent) for latent in case.latents], dim=1),
            text=case.tensor("text_embeds"),
            pooled=case.tensor("pooled"),
            timestep=case.tensor("timestep"),
            guidance=case.tensor("guidance"),
            settings=settings,
        )


def _comfy_velocity(arguments: argparse.Namespace) -> torch.Tensor:
    from ..hosts.comfy_process import call_in_comfy

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "velocity.npy"
        names = ("case", "weights", "config", "adapter")
        paths = {k: str(Path(v).resolve()) if (v := getattr(arguments, k)) else None for k in names}
        plain = {k: getattr(arguments, k) for k in ("attention", "prune", "ids", "rule")}
        call_in_comfy("parity.run_case", json.dumps({**paths, **plain, "out": str(out)}))
        return torch.from_numpy(np.load(out, allow_pickle=False))


def settings_from(attention: str, prune: str, ids: str, rule: str) -> Settings:
    """The production settings that the command's words stand for."""
    return Settings(rule=RULES[rule], kernel=attention, prune=prune == "on", round_ids=ids == "bfloat16")


def compare(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs a case and compares everything on the way; see the module's first lines for the keys."""
    settings = settings_from(arguments.attention, arguments.prune, arguments.ids, arguments.rule)
    arrays, plan, text = case.arrays, case.plan, int(case.arrays["txt_len"])
    depth = (19, 38)  # any depth: the sequence does not depend on it
    full = arrange(plan, Settings(prune=False), references_read(plan, Settings()), text, depth).sequence
    kept = arrange(plan, settings, references_read(plan, settings), text, depth).sequence
    boxes = np.array([r.box for r in plan.references], np.int64).reshape(-1, 4)
    edges = np.array([plan.width, plan.height, plan.width, plan.height])
    golden_boxes = arrays["boxes_tok"][1:].clip(0, edges)  # the authors clip only when they slice
    valid = [np.frombuffer(r.valid, np.uint8).astype(bool) for r in plan.references]
    golden_ids = arrays["ids_bf16" if settings.round_ids else "ids"][text:]
    ica_rule = Rule.ICA_PAPER if settings.rule is Rule.ICA_PAPER else Rule.ICA
    golden_ica = arrays["mask_ica_paper" if ica_rule is Rule.ICA_PAPER else "mask_ica"]

    def mask_equal(rule: Rule, golden: np.ndarray) -> bool:
        grouped = seen(query_groups(full, BlockPlan(rule)), full.length)
        return bool(np.array_equal(grouped, golden) and np.array_equal(dense_mask(full, rule), golden))

    if arguments.host == "diffusers":
        velocity = _diffusers_velocity(case, arguments, settings)
    else:
        velocity = _comfy_velocity(arguments)
    golden = case.tensor("velocity_bf16ids" if settings.round_ids else _VELOCITY[arguments.rule])
    result: dict[str, Any] = {
        "case": case.name,
        "host": arguments.host,
        "attention": arguments.attention,
        "prune": arguments.prune,
        "tokens_full": full.length,
        "tokens_kept": kept.length,
        "boxes_equal": bool(np.array_equal(boxes, golden_boxes)),
        "token_masks_equal": all(np.array_equal(v, arrays[f"ref{n}_tokmask"]) for n, v in enumerate(valid)),
        "ids_max_abs_diff": float((image_ids(full, settings.round_ids) - torch.from_numpy(golden_ids)).abs().max()),
        "mask_cla_equal": mask_equal(Rule.CLA, arrays["mask_cla"]),
        "mask_ica_equal": mask_equal(ica_rule, golden_ica),
        "velocity_max_abs_diff": float((velocity - golden).abs().max()),
        "velocity_scale": float(golden.abs().max()),
    }
    tolerance = ADAPTER_TOLERANCE if arguments.adapter else TOLERANCE
    result["ok"] = (
        all(result[key] for key in ("boxes_equal", "token_masks_equal", "mask_cla_equal", "mask_ica_equal"))
        and result["ids_max_abs_diff"] == 0
        and result["velocity_max_abs_diff"] <= tolerance
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.parity", description="Compare with a golden case.")
    parser.add_argument("case")
    parser.add_argument("--weights", required=True, help="diffusers FluxTransformer2DModel weights (safetensors)")
    parser.add_argument("--config", required=True, help="its configuration (JSON)")
    parser.add_argument("--adapter", help="adapter file (safetensors)")
    parser.add_argument("--host", choices=("diffusers", "comfy"), required=True)
    parser.add_argument("--attention", choices=("auto", "grouped", "merge", "dense"), default="grouped")
    parser.add_argument("--prune", choices=("on", "off"), default="on")
    parser.add_argument("--ids", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rule", choices=tuple(RULES), default="official")
    arguments = parser.parse_args(argv)
    try:
        result = compare(load_case(arguments.case), arguments)
    except (InputError, OSError, KeyError) as error:
        sys.stderr.write(f"parity: {error}\n")
        return 2
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["ok"] else 1
