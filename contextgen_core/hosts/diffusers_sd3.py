"""The methods on diffusers' Stable Diffusion 3: those that act by steps after blocks; no token joins or leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ..attention import Memo, Span
from ..backbones import Backbone, backbone, view
from ..errors import InputError
from ..methods.boundary import BlockCounts, BlockWork, Bound, RunPosition
from .passes import Pass, PassRequest, active, plan_pass, run_afters


class _Running:
    """One forward pass."""

    def __init__(
        self,
        passed: Pass,
        noise: int,
        vectors: Mapping[str, Tensor],
        modules: Mapping[str, Any],
        positive: Sequence[bool],
    ) -> None:
        self.passed, self.noise = passed, noise
        self.vectors, self.modules, self.positive = vectors, modules, positive
        self.states: list[dict[str, Any]] = [{} for _ in passed.bounds]

    def after(self, number: int, block: Any, arguments: Mapping[str, Any], output: tuple[Tensor | None, Tensor]) -> Any:
        text, image = output
        work = partial(self._work, number, block, text, arguments["temb"])
        return text, run_afters(self.passed, number, self.states, image, work)

    def _work(self, number: int, block: Any, text: Tensor | None, vec: Tensor, which: int, image: Tensor) -> BlockWork:
        return BlockWork(
            number=number,
            double=True,
            image=image,
            text=text,
            noise=Span(0, self.noise),
            vec=vec,
            rope=None,
            rope_of=_no_rope,
            block=view(block),
            modules=self.modules.get(self.passed.bounds[which].method.name),
            vectors=self.vectors,
            positive=self.positive,
        )


class SD3Host:
    """An ``SD3Transformer2DModel`` that follows layouts until :meth:`remove` is called. Works as a context manager."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self.blocks = list(transformer.transformer_blocks)
        self.counts = BlockCounts(len(self.blocks), 0)
        self._memo: Memo[Pass] = Memo()
        self._running: _Running | None = None
        self._hooks = [
            block.register_forward_hook(self._after(number, block), with_kwargs=True)
            for number, block in enumerate(self.blocks)
        ]

    def __enter__(self) -> SD3Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def backbone(self) -> Backbone:
        return backbone(self.transformer)

    def remove(self) -> None:
        """Gives the transformer back as it was."""
        for hook in self._hooks:
            hook.remove()

    def velocity(
        self,
        bounds: Bound | tuple[Bound, ...],
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
        given = (bounds,) if isinstance(bounds, Bound) else bounds
        acting, moments = active(given, position)
        rows, columns = (side // 2 for side in latent.shape[-2:])
        request = PassRequest(
            acting, moments, text.shape[1], self.counts, (rows, columns), device=latent.device, dtype=latent.dtype
        )
        passed = plan_pass(request, self._memo)
        if passed.owners:
            raise InputError(f"{passed.owners[0].method.label} decides which tokens see each other; it needs FLUX.1.")
        positive = positive or [True] * len(latent)
        self._running = _Running(passed, rows * columns, vectors or {}, modules or {}, positive)
        try:
            return self.transformer(
                hidden_states=latent,
                encoder_hidden_states=text,
                pooled_projections=pooled,
                timestep=timestep,
                return_dict=False,
            )[0]
        finally:
            self._running = None

    def _after(self, number: int, block: Any) -> Callable[..., Any]:
        names = list(inspect.signature(block.forward).parameters)

        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if self._running is None:
                return output
            return self._running.after(number, module, {**dict(zip(names, args, strict=False)), **kwargs}, output)

        return hook


def _no_rope(_ids: Tensor) -> Any:
    raise RuntimeError("Stable Diffusion 3 has no position table")


def load_sd3(config: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """A frozen ``SD3Transformer2DModel`` for inference from its configuration and weights."""
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel(**config)
    transformer.load_state_dict(state)
    return transformer.eval().requires_grad_(False)
