"""Golden cases of SIGMA-GEN's construction: planes, areas and ids are compared; the velocity by the command.

The authors' program is not public. The velocities come from OminiControl, on which it is built, with SIGMA-GEN's ids.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...backbones.flux import pack
from ...layout.box import Box
from ...lora.adapter import load_adapter
from ...lora.switched import SwitchedAdapter
from ..boundary import Bound
from ..golden import Arrays, Golden
from .control import areas, box_region, control_picture
from .method import SIGMA_GEN, Settings, plan_of, position_ids

_GUIDANCE = {("zero", "user"): "tzero_gsame", ("current", "one"): "tcur_gone"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timestep", choices=("current", "zero"), default="current", help="SIGMA-GEN: of conditions")
    parser.add_argument("--scope", choices=("all", "conditions"), default="all", help="SIGMA-GEN: of the adapter")
    parser.add_argument("--cross", choices=("on", "off"), default="on", help="SIGMA-GEN: conditions see each other")
    parser.add_argument("--context", choices=("on", "off"), default="on", help="SIGMA-GEN: conditions see the rest")
    parser.add_argument(
        "--condition-guidance",
        choices=("automatic", "user", "one"),
        default="automatic",
        help="SIGMA-GEN: guidance embedded with the conditions",
    )


def golden(arrays: Arrays, arguments: argparse.Namespace) -> Golden:
    settings = Settings(
        timestep=arguments.timestep,
        guidance=arguments.condition_guidance,
        scope=arguments.scope,
        cross=arguments.cross == "on",
        context=arguments.context == "on",
    )
    width, height = (int(side) for side in arrays["target_wh"])
    masks = np.unpackbits(arrays["region_masks"], axis=-1, count=width).astype(bool)
    boxes = [
        np.array_equal(box_region(Box(*box), width, height), mask)
        for box, kind, mask in zip(arrays["boxes"].tolist(), arrays["kinds"], masks, strict=True)
        if kind == "box"
    ]
    plan = plan_of(arrays["i_s"], arrays["i_c"])
    text = arrays["text_embeds"].shape[1]
    pictures = (torch.from_numpy(arrays["i_s_latent"]), torch.from_numpy(arrays["i_c_latent"]))
    packed = [
        np.array_equal(pack(p)[0], arrays[f"{n}_packed"][0]) for n, p in zip(("i_s", "i_c"), pictures, strict=True)
    ]

    def modules(_linear: Any = None) -> SwitchedAdapter:
        config = json.loads(Path(arguments.config).read_text())
        double = int(config.get("transformer", config)["num_layers"])
        return SwitchedAdapter(load_adapter(arguments.adapter), double)

    switched = settings.scope == "conditions" and bool(arguments.adapter)
    return Golden(
        bound=Bound(SIGMA_GEN, plan, settings),
        noise=torch.from_numpy(arrays["noise_latent"]),
        pictures=pictures,
        text=torch.from_numpy(arrays["text_embeds"]),
        pooled=torch.from_numpy(arrays["pooled"]),
        timestep=torch.from_numpy(arrays["timestep"]),
        guidance=torch.from_numpy(arrays["guidance"]),
        velocity=torch.from_numpy(arrays[_key(settings, bool(arguments.adapter))]),
        facts={
            "timestep": settings.timestep,
            "condition_guidance": settings.guidance,
            "scope": settings.scope,
            "cross": arguments.cross,
            "context": arguments.context,
            "boxes_equal": all(boxes),
            "planes_equal": np.array_equal(control_picture(masks, arrays["i_c"][..., 2]), arrays["i_c"]),
            "areas_equal": np.array_equal(areas(masks), arrays["areas"]),
            "packing_equal": all(packed),
            "ids_max_abs_diff": float((position_ids(plan) - torch.from_numpy(arrays["ids"][text:])).abs().max()),
        },
        modules=modules if switched else None,
    )


def _key(settings: Settings, adapter: bool) -> str:
    """The array that holds the answer; not every combination has one."""
    timestep = {"current": "tcur", "zero": "tzero"}[settings.timestep]
    timestep = _GUIDANCE.get((settings.timestep, settings.guidance), timestep)
    scope = ("lora" + {"all": "all", "conditions": "cond"}[settings.scope]) if adapter else "loranone"
    seen = "full" if settings.cross else "nocross"
    if not settings.context:
        seen = "indep_cross" if settings.cross else "indep"
    return f"velocity__{timestep}__{scope}__{seen}"
