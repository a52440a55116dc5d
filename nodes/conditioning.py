"""ContextGenConditioning: puts the layout and its pictures into the conditioning."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io

from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.composite.references import PreparedReference, prepare
from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.contextgen.sequence import plan_from_scene
from . import host
from .sockets import LayoutType, naming, schema, to_image

NODE = "ContextGenConditioning"
CHANNELS = 16
SCALE = 8  # pixels along one side of a latent pixel


class ContextGenConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            display_name="ContextGen Conditioning",
            description=(
                "Encodes the layout's composite and its references and puts them, with every position, into the "
                "conditioning. The model must go through ContextGen Patch Model, or the layout has no effect."
            ),
            search_aliases=["layout", "regional", "bbox", "multi reference", "identity", "kontext", "contextgen"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    display_name="conditioning",
                    tooltip="From ContextGen Text Encode, or any FLUX text encoding.",
                ),
                io.Vae.Input(
                    "vae",
                    display_name="vae",
                    tooltip="FLUX.1's VAE (ae.safetensors): 16 channels, an eighth of the size.",
                ),
                LayoutType.Input("layout", display_name="layout", tooltip="From Layout Composer."),
                io.Int.Input(
                    "batch_size",
                    display_name="batch size",
                    optional=True,
                    default=1,
                    min=1,
                    max=64,
                    tooltip="How many pictures to make at once, all with this layout.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning_out",
                    display_name="conditioning",
                    tooltip="For FluxGuidance, then the sampler's positive input.",
                ),
                io.Latent.Output(
                    "latent", display_name="latent", tooltip="Empty latent of the layout's size, for the sampler."
                ),
            ],
        )

    @classmethod
    def execute(cls, conditioning: list[Any], vae: Any, layout: Scene, batch_size: int = 1) -> io.NodeOutput:
        width, height = layout.layout.width, layout.layout.height
        latent = torch.zeros(
            (batch_size, CHANNELS, height // SCALE, width // SCALE), device=comfy.model_management.intermediate_device()
        )
        if not layout.layout.instances:
            return io.NodeOutput(conditioning, {"samples": latent})
        if not any(reference is not None for reference in layout.references):
            raise InputError(
                f"{NODE}, layout: the layout has boxes but none is bound to a reference; bind a reference to at "
                f"least one box."
            )
        _check_vae(vae)
        with naming(NODE, "layout"):
            pictures = prepared_references(layout)
            plan = plan_from_scene(layout, pictures)
        encoded: dict[int, torch.Tensor] = {}
        latents = [_encode(vae, layout.composite)]
        for picture in pictures:
            if picture is None:
                continue
            if id(picture) not in encoded:
                comfy.model_management.throw_exception_if_processing_interrupted()
                encoded[id(picture)] = _encode(vae, picture.pixels)
            latents.append(encoded[id(picture)])
        return io.NodeOutput(host.attach_plan(conditioning, plan, latents), {"samples": latent})


def prepared_references(scene: Scene) -> list[PreparedReference | None]:
    """The references as the model reads them, aligned with the instances; each is prepared once."""
    made: dict[int, PreparedReference] = {}
    for reference in scene.references:
        if reference is not None and id(reference) not in made:
            made[id(reference)] = prepare(reference, scene.layout.width, scene.layout.height)
    return [None if reference is None else made[id(reference)] for reference in scene.references]


def _check_vae(vae: Any) -> None:
    if vae is None:
        raise InputError(f"{NODE}, vae: there is no VAE; load FLUX.1's ae.safetensors with Load VAE.")
    channels = getattr(vae, "latent_channels", CHANNELS)
    if channels != CHANNELS:
        raise InputError(
            f"{NODE}, vae: this VAE makes latents of {channels} channels, FLUX.1 needs {CHANNELS}; load FLUX.1's "
            "ae.safetensors with Load VAE."
        )


def _encode(vae: Any, pixels: np.ndarray) -> torch.Tensor:
    """uint8 (h, w, 3) -> latent (1, 16, h/8, w/8); the host's VAE gives the mean, so it is always the same."""
    latent = vae.encode(to_image(pixels))
    height, width = pixels.shape[:2]
    wanted = (1, CHANNELS, height // SCALE, width // SCALE)
    if tuple(latent.shape) != wanted:
        raise InputError(
            f"{NODE}, vae: this VAE turns {width} x {height} pixels into a latent of shape {tuple(latent.shape)}, "
            f"FLUX.1 "
            f"needs {wanted}; load FLUX.1's ae.safetensors with Load VAE."
        )
    return latent
