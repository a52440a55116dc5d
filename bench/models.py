"""One denoising step of a FLUX.1 of any width with random weights, in diffusers or inside ComfyUI."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from workload import ROOT

HEAD = 128
POOLED = 64


class Shape(NamedTuple):
    """A FLUX.1: width (a multiple of 128, FLUX.1 has 3072) and numbers of blocks."""

    width: int = 256
    double: int = 19
    single: int = 38
    text: int = 512


class Step(NamedTuple):
    """``run(kernel, prune)`` computes one velocity; ``plain()`` one of the same model with the same pictures by its own
    several-reference path, without any layout."""

    run: Callable[[str, bool], Tensor]
    plain: Callable[[], Tensor]


class Keep(dict[Any, Any]):
    """A memory without bound, in the place of the hosts': the dense baseline must not pay for its mask in each step."""

    def get(self, key: Any, make: Callable[[], Any]) -> Any:  # type: ignore[override]
        if key not in self:
            self[key] = make()
        return self[key]


def diffusers_config(shape: Shape) -> dict[str, Any]:
    return {
        "num_layers": shape.double,
        "num_single_layers": shape.single,
        "attention_head_dim": HEAD,
        "num_attention_heads": shape.width // HEAD,
        "joint_attention_dim": shape.width,
        "pooled_projection_dim": POOLED,
        "in_channels": 64,
        "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56),
    }


def _randomise(module: torch.nn.Module) -> None:
    """Weights of a size that keeps activations near 1 through all blocks."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.dim() < 2:
            parameter.data.fill_(1.0 if "norm" in name or name.endswith("scale") else 0.0)
        else:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.data.copy_(noise * parameter.shape[1] ** -0.5)


def diffusers_step(plan: Any, shape: Shape, dtype: torch.dtype) -> Step:
    from diffusers import FluxTransformer2DModel

    from contextgen_core.hosts.diffusers import FluxHost
    from contextgen_core.methods.boundary import Bound
    from contextgen_core.methods.contextgen.method import CONTEXTGEN
    from contextgen_core.methods.contextgen.sequence import position_ids
    from contextgen_core.methods.contextgen.settings import Settings

    torch.set_default_dtype(dtype)
    model = FluxTransformer2DModel(**diffusers_config(shape)).requires_grad_(False).eval()
    torch.set_default_dtype(torch.float32)
    _randomise(model)
    flux = FluxHost(model)
    flux._memo = Keep()  # type: ignore[assignment]
    noise = torch.randn(1, plan.noise_tokens, 64).to(dtype)
    conditions = torch.randn(1, plan.image_tokens - plan.noise_tokens, 64).to(dtype)
    inputs = {
        "text": torch.randn(1, shape.text, shape.width).to(dtype),
        "pooled": torch.randn(1, POOLED).to(dtype),
        "timestep": torch.full((1,), 0.6, dtype=dtype),
        "guidance": torch.full((1,), 3.5, dtype=dtype),
    }

    @torch.inference_mode()
    def run(kernel: str, prune: bool) -> Tensor:
        return flux.velocity(Bound(CONTEXTGEN, plan, Settings(kernel=kernel, prune=prune)), noise, conditions, **inputs)

    @torch.inference_mode()
    def plain() -> Tensor:
        flux.remove()
        try:
            return model(
                hidden_states=torch.cat([noise, conditions], dim=1),
                encoder_hidden_states=inputs["text"],
                pooled_projections=inputs["pooled"],
                timestep=inputs["timestep"],
                guidance=inputs["guidance"],
                img_ids=torch.from_numpy(position_ids(plan)),
                txt_ids=torch.zeros(shape.text, 3),
                return_dict=False,
            )[0][:, : plan.noise_tokens]
        finally:
            flux.__init__(model)
            flux._memo = kept  # type: ignore[assignment]

    kept = flux._memo
    return Step(run, plain)


def load_host(path: Path) -> ModuleType:
    """Makes the ComfyUI at ``path`` importable, on CPU, and loads the pack as ComfyUI does."""
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]
    sys.path.insert(0, str(path))
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.base_directory = tempfile.mkdtemp(prefix="contextgen-bench-")
    comfy.cli_args.args.use_pytorch_cross_attention = True
    spec = importlib.util.spec_from_loader("contextgen_pack", None, is_package=True)
    assert spec is not None  # noqa: S101
    pack = importlib.util.module_from_spec(spec)
    pack.__path__ = [str(ROOT)]
    sys.modules["contextgen_pack"] = pack
    return pack


def comfy_step(plan: Any, shape: Shape, dtype: torch.dtype) -> Step:
    load_host(Path(os.environ["COMFYUI_PATH"]).expanduser())
    import comfy.model_patcher
    import comfy.supported_models
    from contextgen_pack.contextgen_core.methods.contextgen.method import CONTEXTGEN
    from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
    from contextgen_pack.nodes import host
    from contextgen_pack.nodes.host import call as host_call
    from contextgen_pack.nodes.host.conditioning import PLAN
    from contextgen_pack.nodes.host.models import flux_config

    config = comfy.supported_models.Flux(flux_config(diffusers_config(shape)))
    config.set_inference_dtype(dtype, None)
    base = config.get_model({}, "")
    _randomise(base.diffusion_model)
    base.eval().requires_grad_(False)
    host_call.MEMO = Keep()
    device = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(base, load_device=device, offload_device=device)
    latents = [torch.randn(1, 16, 2 * h, 2 * w) for w, h in [(plan.width, plan.height)] * 2]
    noise, pictures = latents[0], latents[1:]
    pictures += [torch.randn(1, 16, 2 * r.height, 2 * r.width) for r in plan.references]
    inputs = {
        "c_crossattn": torch.randn(1, shape.text, shape.width),
        "y": torch.randn(1, POOLED),
        "guidance": torch.full((1,), 3.5),
        "ref_latents": pictures,
    }

    @torch.inference_mode()
    def run(kernel: str, prune: bool) -> Tensor:
        clone = host.install(patcher, CONTEXTGEN, Settings(kernel=kernel, prune=prune))
        options = {**clone.model_options["transformer_options"], "wrappers": clone.wrappers}  # as the sampler does
        layout = {PLAN + CONTEXTGEN.name: plan.as_tuple()}
        return base.apply_model(noise, torch.full((1,), 0.6), transformer_options=options, **inputs, **layout)

    @torch.inference_mode()
    def plain() -> Tensor:
        options = {**patcher.model_options["transformer_options"]}
        return base.apply_model(noise, torch.full((1,), 0.6), transformer_options=options, **inputs)

    return Step(run, plain)


def make_step(host: str, plan: Any, shape: Shape, dtype: torch.dtype) -> Step:
    torch.manual_seed(0)
    return (comfy_step if host == "comfy" else diffusers_step)(plan, shape, dtype)
