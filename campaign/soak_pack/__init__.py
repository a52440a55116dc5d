"""Two nodes that the soak puts beside the pack, or in its place, into a ComfyUI's custom_nodes: a copy of this folder.

SoakProbe counts in the server's process. SoakModel is a small FLUX.1 that needs nothing but the host, for the same
prompts without the pack.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
from typing import Any

NUMBER = ("INT", {"default": 0, "min": -1, "max": 1 << 30})


class SoakProbe:
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "campaign", True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"number": NUMBER}}

    def look(self, number: int) -> dict[str, Any]:
        return {"ui": {"text": [json.dumps(counted())]}}


def counted() -> dict[str, float]:
    """What is alive in this process once everything that can be freed is."""
    import torch

    for _ in range(2):
        gc.collect()
    allocated = _allocator()
    objects = gc.get_objects()
    tensors = [one for one in objects if type(one) in (torch.Tensor, torch.nn.Parameter)]
    values = {
        id(one): one for name, module in sys.modules.items() if "contextgen-layout" in name
        for one in vars(module).values()
    }.values()  # fmt: skip
    return {
        **allocated,
        "objects": len(objects),
        "tensors": len(tensors),
        "tensor MB": sum(one.nelement() * one.element_size() for one in tensors) / 1e6,
        "objects of ours": sum("contextgen" in str(type(one).__module__) for one in objects),
        "cached by us": sum(one.cache_info().currsize for one in values if hasattr(type(one), "cache_info")),
        "plans of ours": sum(len(one) for one in values if type(one).__name__ in ("Memo", "Remembered")),
        "Python threads": threading.active_count(),
    }


def _allocator() -> dict[str, float]:
    """Megabytes that the C library has given out, where it says so (glibc); what it keeps for later goes back first."""
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        ask = library.mallinfo2
    except (AttributeError, OSError, TypeError):
        return {}

    class Info(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t)
            for name in "arena ordblks smblks hblks mapped usmblks fsmblks used free keepcost".split()
        ]

    ask.restype = Info
    said = ask()
    return {"allocated MB": (said.used + said.mapped) / 1e6}


class SoakModel:
    """Model, VAE and a text's vectors, all of random weights; ``words`` -1 fails."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "VAE", "CONDITIONING"), "build", "campaign"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"words": NUMBER}}

    def build(self, words: int) -> tuple[Any, Any, Any]:
        import comfy.ldm.flux.model as flux  # pyright: ignore[reportMissingImports]
        import comfy.model_patcher  # pyright: ignore[reportMissingImports]
        import comfy.sd  # pyright: ignore[reportMissingImports]
        import comfy.supported_models  # pyright: ignore[reportMissingImports]
        import comfy.taesd.taesd  # pyright: ignore[reportMissingImports]
        import torch

        generator, cpu = torch.Generator().manual_seed(1), torch.device("cpu")
        text = torch.randn(1, words, 64, generator=generator)
        size: dict[str, Any] = {
            "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 64,
            "context_in_dim": 64, "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 3,
            "depth_single_blocks": 6, "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True,
            "guidance_embed": False,
        }  # fmt: skip
        if "txt_ids_dims" in flux.FluxParams.__dataclass_fields__:  # demanded by later hosts, unknown to earlier ones
            size["txt_ids_dims"] = []
        config = comfy.supported_models.Flux(size)
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device=cpu)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, 0.0, 0.05, generator)
        patcher = comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
        torch.manual_seed(1)
        vae = comfy.sd.VAE(sd=comfy.taesd.taesd.TAESD(latent_channels=16).state_dict())
        return patcher, vae, [[text, {"pooled_output": text.mean(1)}]]


NODE_CLASS_MAPPINGS = {"SoakProbe": SoakProbe, "SoakModel": SoakModel}
