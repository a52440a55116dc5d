"""The two verbs for Python users: prepare a scene for a method, and sample a picture with diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .backbones.flux import CHANNELS, pack, shifted_sigmas, unpack
from .errors import InputError
from .methods.boundary import CONTENT, Bound, Prepared
from .methods.registry import method as method_named

if TYPE_CHECKING:
    from .composite.compose import Scene


def prepare(scene: Scene, method: str = "contextgen", options: Any = None) -> Prepared:
    """The scene as a method takes it: its plan, the pictures it reads and the phrases it binds.

    Arguments:
      scene    a layout with its references, from :func:`contextgen_core.composite.compose.compose`. Boxes are in pixels
               of the layout's canvas, x to the right and y down; pictures are uint8 RGB (H, W, 3), masks uint8 (H, W)
               with 255 = subject.
      method   its name: contextgen, lamic, ...
      options  the method's own, see its ``prepare``; None: as the authors run it.

    Returns a :class:`contextgen_core.methods.boundary.Prepared`: ``plan`` (hashable), ``pictures`` (tuple of uint8
    (h, w, 3), sides multiples of 16) and ``phrases`` (tuple of str).

    Raises InputError, one sentence with the remedy, for a scene that the method cannot take.
    """
    return method_named(method).prepare(scene, options)


@dataclass(frozen=True, eq=False)
class DiffusersModel:
    """A FLUX.1 model of diffusers and its autoencoder.

    transformer  a ``FluxTransformer2DModel``, adapters merged or loaded
    encode       float (B, 3, H, W) in 0..1 -> latents (B, 16, H/8, W/8) as the transformer reads them
    decode       the inverse
    guided       whether the transformer takes an embedded guidance (dev and Kontext do, schnell does not)
    modules      extra weights by the method's name
    """

    transformer: Any
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    guided: bool = True
    modules: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_pipeline(cls, pipeline: Any) -> DiffusersModel:
        """From a diffusers ``FluxPipeline`` or ``FluxKontextPipeline``. Latents are the posterior's mean."""
        vae, transformer = pipeline.vae, pipeline.transformer

        def encode(pictures: Tensor) -> Tensor:
            mean = vae.encode((2 * pictures - 1).to(vae.device, vae.dtype)).latent_dist.mode()
            return (mean - vae.config.shift_factor) * vae.config.scaling_factor

        def decode(latents: Tensor) -> Tensor:
            scaled = latents.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
            return vae.decode(scaled).sample.float() / 2 + 0.5

        return cls(transformer, encode, decode, bool(transformer.config.guidance_embeds))


@torch.no_grad()
def sample(
    model: DiffusersModel,
    prepared: Prepared,
    text: Tensor,
    pooled: Tensor,
    *,
    steps: int = 28,
    seed: int | Sequence[int] = 0,
    guidance: float = 2.5,
    batch: int = 1,
    settings: Any = None,
    vectors: Mapping[str, Tensor] | None = None,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Pictures that follow a prepared scene, by plain Euler steps on FLUX's shifted grid.

    Arguments:
      model     the transformer and its autoencoder
      prepared  from :func:`prepare`
      text      token embeddings of the prompt, float (1, T, C); ContextGen was trained with T = 512
      pooled    pooled embedding of the prompt, float (1, P)
      steps     1 or more
      seed      of the noise, which is drawn on the CPU as ComfyUI draws it; a sequence has one for each picture
      guidance  embedded guidance, where the model takes one
      batch     pictures to make at once
      settings  of the method; None: as the authors run it
      vectors   encoded phrases by name, batch of 1 first, for methods that bind phrases
      progress  called with the number of each step that is done, from 1

    Returns uint8 (batch, H, W, 3), RGB. The same arguments give the same pictures.

    Raises InputError where the method cannot work on this model.
    """
    from .hosts.diffusers import FlowPosition, FluxHost  # diffusers is needed here alone
    from .hosts.remembered import Remembered

    if steps < 1 or batch < 1:
        raise InputError(f"steps is {steps} and batch {batch}; give 1 or more of each.")
    if not isinstance(seed, int) and len(seed) != batch:
        raise InputError(f"there are {len(seed)} seeds for a batch of {batch}; give one for each picture.")
    method = method_named(prepared.method)
    (rows, columns), _ = method.sizes(prepared.plan)
    settings = method.default_settings() if settings is None else settings
    bound = Bound(method, prepared.plan, settings)
    like = next(model.transformer.parameters())
    gains = prepared.gains or (1.0,) * len(prepared.pictures)
    latents = [
        gain * model.encode(_to_tensor(picture)).to(like)
        for picture, gain in zip(prepared.pictures, gains, strict=True)
    ]
    conditions = torch.cat([pack(latent) for latent in latents], dim=1) if latents else None
    if prepared.content:
        content = [pack(model.encode(_to_tensor(picture)).to(like)) for picture in prepared.content]
        vectors = {**(vectors or {}), CONTENT: torch.cat(content, dim=1)}
    shape = (CHANNELS, 2 * rows, 2 * columns)
    if isinstance(seed, int):
        noise = torch.randn((batch, *shape), generator=torch.manual_seed(seed))
    else:
        noise = torch.cat([torch.randn((1, *shape), generator=torch.manual_seed(one)) for one in seed])
    x = pack(noise).to(like)
    sigmas = shifted_sigmas(steps, rows * columns).to(like.device)
    remembered = Remembered()
    unchanged = {
        "conditions": None if conditions is None else conditions.expand(batch, -1, -1),
        "text": text.to(like).expand(batch, -1, -1),
        "pooled": pooled.to(like).expand(batch, -1),
        "guidance": torch.full((batch,), guidance).to(like) if model.guided else None,
    }
    with FluxHost(model.transformer) as host:
        method.check(prepared.plan, settings, host.backbone)
        for step in range(steps):
            now, after = sigmas[step], sigmas[step + 1]
            velocity = host.velocity(
                bound,
                x,
                **unchanged,
                timestep=now.to(like).expand(batch),
                vectors=vectors,
                modules=model.modules,
                position=FlowPosition(float(now), sigmas.tolist(), rows * columns),
                remembered=remembered,
            )
            x = x + (after - now) * velocity
            if progress is not None:
                progress(step + 1)
    decoded = model.decode(unpack(x, columns, rows)).float().clamp(0, 1)
    return (decoded.movedim(1, -1) * 255).to(torch.uint8).cpu().numpy()  # cut off, not rounded, as ComfyUI saves


def _to_tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).float()[None] / 255
