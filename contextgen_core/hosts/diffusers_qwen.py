"""The methods on diffusers' ``QwenImageTransformer2DModel``: text keeps its length, each text has its own positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..attention import Attend, sdpa
from ..backbones import Positions
from ..backbones.flux import pack, unpack
from ..errors import InputError
from ..methods.boundary import Bound, RunPosition
from .diffusers import STATE, BlocksHost, Rotary, State
from .passes import Pass, PassRequest, active, plan_pass


class QwenHost(BlocksHost):
    """A ``QwenImageTransformer2DModel`` that follows layouts."""

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, transformer.transformer_blocks)

    def velocity(
        self,
        bounds: Bound | tuple[Bound, ...],
        latent: Tensor,
        references: Sequence[Tensor] = (),
        *,
        text: Tensor,
        timestep: Tensor,
        vectors: Mapping[str, Tensor] | None = None,
        modules: Mapping[str, Any] | None = None,
        positive: Sequence[bool] | None = None,
        position: RunPosition | None = None,
        attend: Attend = sdpa,
    ) -> Tensor:
        """The velocity (B, 16, h, w) of a noisy latent of that shape.

        references  latents (1 or B, 16, h, w) of the pictures to edit, of any sizes
        text        (B, T, C) token embeddings without padding; timestep (B,) in 0..1

        The rest as in :meth:`contextgen_core.hosts.diffusers.FluxHost.velocity`.
        """
        given = (bounds,) if isinstance(bounds, Bound) else bounds
        acting, moments = active(given, position)
        pictures = [latent, *references]
        grids = tuple((picture.shape[-2] // 2, picture.shape[-1] // 2) for picture in pictures)
        passed = self._pass(acting, moments, grids, latent, text)
        if passed.segments or passed.kept is not None or passed.ids is not None:
            raise InputError("The method changes tokens in a way that is known for FLUX.1 alone; load FLUX.1.")
        if passed.forward.phrases:
            phrases = (vectors or {})["phrases"]
            text = torch.cat([phrases.expand(len(text), -1, -1).to(text), text], dim=1)
        tokens = torch.cat([pack(picture).expand(len(latent), -1, -1) for picture in pictures], dim=1)
        state = State(
            passes=(passed,),
            blocks=self.counts,
            rotary=self.table((passed, grids, text.shape[1]), lambda: self._rotary(passed, grids, text.shape[1])),
            rope_of=self._rope,
            attend=attend,
            noise=grids[0][0] * grids[0][1],
            vectors=vectors or {},
            modules=modules or {},
            positive=positive or [True] * len(latent),
            states=[[{} for _ in passed.bounds]],
            vec_of=_no_vec,
        )
        out = self.transformer(
            hidden_states=tokens,
            encoder_hidden_states=text,
            timestep=timestep,
            img_shapes=[[(1, *grid) for grid in grids]] * len(latent),
            attention_kwargs={STATE: state},
            return_dict=False,
        )[0]
        return unpack(out[:, : state.noise], *reversed(grids[0]))

    def _pass(
        self, acting: tuple[Bound, ...], moments: tuple[Any, ...], grids: tuple[Any, ...], latent: Tensor, text: Tensor
    ) -> Pass:
        grad = torch.is_grad_enabled() and any(p.requires_grad for p in self.transformer.parameters())
        request = PassRequest(
            bounds=acting,
            moments=moments,
            text=text.shape[1],
            blocks=self.counts,
            noise=grids[0],
            references=grids[1:],
            positions=self._positions,
            grad=grad or latent.requires_grad,
            device=latent.device,
            dtype=text.dtype,
        )
        return plan_pass(request, self._memo)

    @property
    def _positions(self) -> Positions:
        positions = self.backbone.positions
        assert positions is not None  # noqa: S101 - what this family is
        return positions

    def _rotary(self, passed: Pass, grids: Sequence[tuple[int, int]], text: int) -> Rotary:
        words = passed.forward.text_ids
        words = self._positions.text((text,), grids) if words is None else words
        return self._rope(torch.cat([words, self._positions.image(grids)]))

    def _rope(self, ids: Tensor) -> Rotary:
        """cos and sin (1 or B, n, D) of position ids (n, 3) or (B, n, 3), from the model's own tables."""
        table = self.transformer.pos_embed
        turns = torch.cat([table.neg_freqs, table.pos_freqs]).to(self.transformer.device)  # of -n .. n - 1
        at = (ids if ids.dim() == 3 else ids[None]).long().to(turns.device) + len(table.neg_freqs)
        axes = turns.split([width // 2 for width in table.axes_dim], dim=1)
        turned = torch.cat([axis[at[..., number]] for number, axis in enumerate(axes)], dim=-1)
        cos, sin = (part.float().repeat_interleave(2, dim=-1) for part in (turned.real, turned.imag))
        return cos, sin


def _no_vec(_timestep: float | None, _guidance: float | None) -> Tensor:
    raise RuntimeError("tokens of Qwen-Image have one timestep")


def load_qwen(config: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """A frozen ``QwenImageTransformer2DModel`` for inference from its configuration and weights."""
    from diffusers import QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(**config)
    transformer.load_state_dict(state)
    return transformer.eval().requires_grad_(False)
