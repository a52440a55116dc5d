"""A SAM network of a few thousand weights with the real architecture, and segment-anything imported where
torchvision is missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

import numpy as np
import torch
from PIL import Image

TINY = {
    "width": 32,
    "depth": 2,
    "heads": 2,
    "mlp_width": 64,
    "patch": 16,
    "image_size": 128,
    "window": 3,
    "global_blocks": (1,),
    "prompt_width": 32,
    "mask_channels": 8,
    "decoder_depth": 2,
    "decoder_mlp": 64,
    "masks": 3,
    "quality_depth": 3,
    "quality_width": 16,
}


def import_segment_anything() -> None:
    """segment-anything takes two functions from torchvision. On a machine without it (CPU builds of torch)
    PIL stands in while the package is imported, and leaves again: other libraries look for torchvision
    too."""
    if "segment_anything" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return
    functional = types.ModuleType("torchvision.transforms.functional")
    functional.to_pil_image = Image.fromarray
    functional.resize = lambda image, size: image.resize(size[::-1], Image.Resampling.BILINEAR)
    boxes = types.ModuleType("torchvision.ops.boxes")
    boxes.batched_nms = boxes.box_area = None
    stand_ins = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms", "torchvision.ops")}
    stand_ins |= {functional.__name__: functional, boxes.__name__: boxes}
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("segment_anything")
    finally:
        for name in stand_ins:
            del sys.modules[name]


def tiny_state(sam: types.ModuleType, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of the tiny network, large enough that masks differ from point to point.

    `sam`: the core's module of that name, under whatever package it was imported.
    """
    import_segment_anything()
    network = sam.build(sam.Shape(**TINY))
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * (0.3 if tensor.ndim > 1 else 0.1)
        for name, tensor in network.state_dict().items()
    }
    for name in state:
        if name.endswith("norm.weight") or ".norm" in name and name.endswith("weight"):
            state[name] += 1
    return state


def picture(height: int = 90, width: int = 120, seed: int = 0) -> np.ndarray:
    """A noisy picture with a bright disc."""
    pixels = np.random.default_rng(seed).integers(0, 80, (height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    pixels[(y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 4) ** 2] += 150
    return pixels
