"""The methods on diffusers' Stable Diffusion 3: those that act by steps after blocks; no token joins or leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..attention import Memo, Span
from ..backbones import Backbone, backbone, view
from ..errors import InputError
from ..methods.boundary import BlockCounts, BlockWork, Bound, RunPosition
from .diffusers import STATE, Streams, as_samples, hooked_forward
from .passes import Pass, PassRequest, active, plan_pass, run_rows


@dataclass(frozen=True)
class _State:
    """One forward pass, as :class:`contextgen_core.hosts.diffusers.State`."""

    passes: tuple[Pass, ...]
    noise: int
    vectors: Mapping[str, Tensor]
    modules: Mapping[str, Any]
    positive: Sequence[bool]
    states: Sequence[Sequence[dict[str, Any]]]

    def block(self, block: int, module: Any, original: Callable[..., Streams], arguments: Mapping[str, Any]) -> Streams:
        text, image = original(**{**arguments, "joint_attention_kwargs": None})  # the attention knows no layouts
        work = partial(self._work, block, module, text, arguments["temb"])
        return text, run_rows(self.passes, block, self.states, image, work)

    def _work(
        self,
        block: int,
        module: Any,
        text: Tensor | None,
        vec: Tensor,
        passed: Pass,
        rows: Span,
        which: int,
        image: Tensor,
    ) -> BlockWork:
        chosen = slice(*rows)
        return BlockWork(
            number=block,
            double=True,
            image=image,
            text=None if text is None else text[chosen],
            noise=Span(0, self.noise),
            vec=vec[chosen],
            rope=None,
            rope_of=_no_rope,
            block=view(module),
            modules=self.modules.get(passed.bounds[which].method.name),
            vectors={name: vector[chosen] if len(vector) > 1 else vector for name, vector in self.vectors.items()},
            positive=self.positive[chosen],
        )


class SD3Host:
    """An ``SD3Transformer2DModel`` that follows layouts until :meth:`remove` is called. Works as a context manager.

    All state of a call travels in ``joint_attention_kwargs``, so gradient checkpointing goes on working.
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self.blocks = list(transformer.transformer_blocks)
        self.counts = BlockCounts(len(self.blocks), 0)
        self._memo: Memo[Pass] = Memo()
        for number, block in enumerate(self.blocks):
            block.forward = hooked_forward(number, block, block.forward)

    def __enter__(self) -> SD3Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def backbone(self) -> Backbone:
        return backbone(self.transformer)

    def remove(self) -> None:
        """Gives the transformer back as it was."""
        for block in self.blocks:
            del block.forward  # ours; the class's comes to light again

    def velocity(
        self,
        bounds: Bound | tuple[Bound, ...] | list[tuple[Bound, ...]],
        latent: Tensor,
        *,
        text: Tensor,
        pooled: Tensor,
        timestep: Tensor,
        vectors: Mapping[str, Tensor] | None = None,
        modules: Mapping[str, Any] | None = None,
        positive: Sequence[bool] | None = None,
        position: RunPosition | None = None,
    ) -> Tensor:
        """The velocity (B, 16, h, w) of a noisy latent of that shape.

        text (B, T, C) token embeddings; pooled (B, P); timestep (B,) in 0..1000. The rest as in
        :meth:`contextgen_core.hosts.diffusers.FluxHost.velocity`.

        Raises InputError for a method that decides about tokens, which this family cannot carry out.
        """
        rows, columns = (side // 2 for side in latent.shape[-2:])
        passes = tuple(self._pass(own, (rows, columns), latent, text, position) for own in as_samples(bounds))
        state = _State(
            passes=passes,
            noise=rows * columns,
            vectors=vectors or {},
            modules=modules or {},
            positive=positive or [True] * len(latent),
            states=[[{} for _ in passed.bounds] for passed in passes],
        )
        return self.transformer(
            hidden_states=latent,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=timestep,
            joint_attention_kwargs={STATE: state},
            return_dict=False,
        )[0]

    def _pass(
        self,
        bounds: tuple[Bound, ...],
        noise: tuple[int, int],
        latent: Tensor,
        text: Tensor,
        position: RunPosition | None,
    ) -> Pass:
        acting, moments = active(bounds, position)
        autocast = torch.is_autocast_enabled(latent.device.type)
        dtype = torch.get_autocast_dtype(latent.device.type) if autocast else latent.dtype
        request = PassRequest(acting, moments, text.shape[1], self.counts, noise, device=latent.device, dtype=dtype)
        passed = plan_pass(request, self._memo)
        if passed.owners:
            raise InputError(f"{passed.owners[0].method.label} decides which tokens see each other; it needs FLUX.1.")
        return passed


def _no_rope(_ids: Tensor) -> Any:
    raise RuntimeError("Stable Diffusion 3 has no position table")


def load_sd3(config: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """A frozen ``SD3Transformer2DModel`` for inference from its configuration and weights."""
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel(**config)
    transformer.load_state_dict(state)
    return transformer.eval().requires_grad_(False)
