"""Compares the production path with a golden case of a method's authors.

    python -m contextgen_core.parity CASE.npz --weights FILE --config FILE [--adapter FILE] --host diffusers|comfy
        [--method contextgen] [--attention auto|grouped|merge|dense] [--prune on|off] [--ids float32|bfloat16]
        [--rule official|paper|cla]
        [--method instance_assemble --layout-weights FILE [--scale 1|0.5|0]]
        [--method sigma_gen --timestep current|zero --scope all|conditions --cross on|off]

Pixel boxes, mask pictures, sizes and latents of the case go in; tokens, ids, masks and the velocity come out of the
same code that a user runs and are compared with the case's arrays. One JSON line; exit status 0 when all is equal and
the velocity within the method's tolerance (ContextGen: 1e-5, 2e-5 with an adapter; SIGMA-GEN: 2e-5), absolute, in
float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ..backbones.flux import pack
from ..errors import InputError
from ..input.checks import shorten
from ..lora.adapter import load_adapter
from ..lora.keys import FLUX, QWEN
from ..methods.golden import Golden
from ..methods.registry import MODULES, golden_module

PATHS = ("case", "weights", "config", "adapter")  # options that name files
SHORT_NAMES = {  # of a configuration in EliGen's cases, and diffusers'
    "layers": "num_layers",
    "heads": "num_attention_heads",
    "head_dim": "attention_head_dim",
    "axes": "axes_dims_rope",
    "in": "in_channels",
    "text": "joint_attention_dim",
}
FAMILY = {"flux": FLUX, "sd3": FLUX, "qwen": QWEN}  # of a case, whose adapters are read
NOTES = ("theta", "mlp")  # what no model of the family can have otherwise


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's words, with the options of every method."""
    parser = argparse.ArgumentParser(prog="python -m contextgen_core.parity", description="Compare with a golden case.")
    parser.add_argument("case")
    parser.add_argument("--weights", required=True, help="the transformer's weights in diffusers' names (safetensors)")
    parser.add_argument("--config", required=True, help="its configuration (JSON)")
    parser.add_argument("--adapter", help="adapter file (safetensors)")
    parser.add_argument("--host", choices=("diffusers", "comfy"), required=True)
    parser.add_argument("--method", choices=tuple(MODULES), default="contextgen")
    for name in MODULES:
        golden_module(name).add_arguments(parser)
    return parser.parse_args(argv)


def load(arguments: argparse.Namespace) -> Golden:
    """The case of the command's words, planned. Raises InputError for a file that is no case of the method."""
    with np.load(arguments.case, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    try:
        return golden_module(arguments.method).golden(arrays, arguments)
    except KeyError as missing:
        raise InputError(
            f"{Path(arguments.case).name} has no array {missing}; give a golden case of {arguments.method}."
        ) from None
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{Path(arguments.case).name} has arrays of other shapes or types ({shorten(str(error), 120)}); give a"
            f" golden case of {arguments.method}."
        ) from None


def transformer(path: str | Path, weights: str | Path, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The transformer's configuration (of that name in the file, or the whole file) and the weights for it."""
    read = json.loads(Path(path).read_text())
    given: dict[str, Any] = read.get(name, read)
    config = {SHORT_NAMES.get(key, key): value for key, value in given.items() if key not in NOTES}
    state = load_file(weights)
    if config.get("guidance_embeds") is False:
        state = {key: value for key, value in state.items() if ".guidance_embedder." not in key}
    return config, state


def diffusers_velocity(case: Golden, arguments: argparse.Namespace) -> torch.Tensor:
    """The velocity of the noise by the diffusers host, in the form of the case."""
    from ..hosts.diffusers import FluxHost, load_transformer, merge_adapter  # only here is diffusers needed
    from ..hosts.diffusers_qwen import QwenHost, load_qwen
    from ..hosts.diffusers_sd3 import SD3Host, load_sd3

    families = {"flux": (load_transformer, FluxHost), "sd3": (load_sd3, SD3Host), "qwen": (load_qwen, QwenHost)}
    build, host_of = families[case.family]
    model = build(*transformer(arguments.config, arguments.weights, case.config))
    if arguments.adapter and not case.modules:
        merge_adapter(model, load_adapter(arguments.adapter, FAMILY[case.family]))
    method = case.bound.method
    words: dict[str, Any] = {
        "text": case.text,
        "timestep": case.timestep,
        "vectors": case.vectors,
        "modules": {method.name: case.modules()} if case.modules else {},
        "positive": [case.positive],
    }
    with torch.no_grad(), host_of(model) as host:
        method.check(case.bound.plan, case.bound.settings, host.backbone)
        if isinstance(host, QwenHost):
            return pack(host.velocity(case.bound, case.noise, case.pictures, **words))
        words["pooled"] = case.pooled
        if isinstance(host, SD3Host):
            return host.velocity(case.bound, case.noise, **words)
        pictures = torch.cat([pack(latent) for latent in case.pictures], dim=1) if case.pictures else None
        return host.velocity(case.bound, pack(case.noise), pictures, guidance=case.guidance, **words)


def comfy_velocity(arguments: argparse.Namespace) -> torch.Tensor:
    """The same by ComfyUI, in its own process."""
    from ..hosts.comfy_process import call_in_comfy

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "velocity.npy"
        words = {**vars(arguments), "out": str(out)}
        for name in words:
            if (name in PATHS or name.endswith("_weights")) and words[name]:
                words[name] = str(Path(words[name]).resolve())
        call_in_comfy("parity.run_case", json.dumps({"words": words}))
        return torch.from_numpy(np.load(out, allow_pickle=False))


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs a case and compares everything on the way; see the module's first lines for the keys."""
    case = load(arguments)
    cases = (case, *case.others)
    if arguments.host == "comfy":
        velocity = comfy_velocity(arguments)
    else:
        velocity = torch.cat([diffusers_velocity(row, arguments) for row in cases])
    golden = torch.cat([row.velocity for row in cases])
    difference = float((velocity - golden).abs().max())
    equal = all(value is True for value in case.facts.values() if isinstance(value, bool))
    exact = all(v <= case.within.get(k, 0) for k, v in case.facts.items() if isinstance(v, float))
    return {
        "case": Path(arguments.case).stem,
        "host": arguments.host,
        "method": arguments.method,
        **case.facts,
        "velocity_max_abs_diff": difference,
        "velocity_scale": float(golden.abs().max()),
        "ok": equal and exact and difference <= case.tolerance,
    }


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        result = compare(arguments)
    except (InputError, OSError, ValueError) as error:
        sys.stderr.write(f"parity: {error}\n")
        return 2
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["ok"] else 1
