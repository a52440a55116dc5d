"""The stages that train the transformer: base (sees no references), SFT (an adapter that reads them), DPO (the
adapter, refined)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..backbones import backbone
from ..errors import InputError
from ..methods.instance_assemble.files import FLUX
from ..tiny import model as tiny
from . import flow
from .batch import Batch
from .config import Config
from .latents import LatentSet
from .parts import autoencoder
from .recipes import Network, Recipe, base_network, recipe_of
from .shard import alike, whole_state
from .small_world.pictures import sample_sheet

logger = logging.getLogger("contextgen")


class FlowObjective(nn.Module):
    """Rectified flow on the wanted picture: base and SFT."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, times: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        velocity = self.network(batch, flow.mix(batch.target, noise, times), times)
        loss = flow.errors(velocity, batch.target, noise, batch.weight).mean()
        with torch.no_grad():
            plain = flow.errors(velocity, batch.target, noise).mean()
        return loss, {"error": plain}


class DpoObjective(nn.Module):
    """The authors' pairwise loss against a fixed anchor: the adapter as it was when DPO began."""

    def __init__(self, network: Network, recipe: Recipe, beta: float) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe
        self.beta = beta
        self._anchor = {
            name: value.clone() for name, value in recipe.state(network).items()
        }  # plain tensors: neither trained nor saved as parameters of the policy

    @property
    def anchor(self) -> dict[str, Tensor]:
        return self._anchor

    def set_anchor(self, anchor: dict[str, Tensor]) -> None:
        self._anchor = dict(anchor)

    def forward(self, batch: Batch, times: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad(), self._as_anchor():
            anchor_win, anchor_lose = self._errors(batch, times, noise)
        win, lose = self._errors(batch, times, noise)
        logits = flow.dpo_logits(win, lose, anchor_win, anchor_lose, self.beta).detach()
        loss = flow.dpo_loss(win, lose, anchor_win, anchor_lose, self.beta)
        metrics = {
            "win": win.detach().mean(),
            "lose": lose.detach().mean(),
            "anchor_win": anchor_win.mean(),
            "anchor_lose": anchor_lose.mean(),
            "logit": logits.mean(),
            "right": (logits > 0).float().mean(),
        }
        return loss, metrics

    def _errors(self, batch: Batch, times: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Errors on the wanted and the unwanted picture: same noise, times, words and conditions."""
        if batch.lose is None:
            raise InputError("The data has no unwanted pictures; make scenes with dpo.lose=pasted for DPO.")
        out = []
        for clean in (batch.target, batch.lose):
            velocity = self.network(batch, flow.mix(clean, noise, times), times)
            out.append(flow.errors(velocity, clean, noise))
        return out[0], out[1]

    @contextmanager
    def _as_anchor(self) -> Iterator[None]:
        """The adapter carries the anchor's weights inside this context; nothing else of the model changes."""
        own = {name: value.clone() for name, value in self.recipe.state(self.network).items()}
        self._load(self._anchor)
        try:
            yield
        finally:
            self._load(own)

    def _load(self, state: dict[str, Tensor]) -> None:
        self.recipe.load(self.network, state)
        torch.clear_autocast_cache()  # under autocast the next pass would go on with the copies of the other weights


def build_transformer(config: Config) -> Any:
    """The transformer of a run, in diffusers' form."""
    from diffusers import AutoModel, FluxTransformer2DModel

    if config.model.kind == "pretrained":
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
        if not config.model.weights:
            raise InputError(
                "model.weights is empty in the training config; give the folder or hub name of FLUX.1-Kontext-dev."
            )
        try:
            model = AutoModel.from_pretrained(config.model.weights, subfolder="transformer", torch_dtype=dtype)
        except OSError as error:
            raise InputError(
                f"No transformer was found at {config.model.weights!r}; download it and set model.weights to its"
                " folder."
            ) from error
        if config.model.checkpointing:
            model.enable_gradient_checkpointing()
        return model
    sizes = tiny.TinyConfig(num_layers=config.model.layers, num_single_layers=config.model.single_layers)
    model = FluxTransformer2DModel(**vars(sizes))
    model.load_state_dict(_tiny_weights(config, sizes))
    if config.model.checkpointing:
        model.enable_gradient_checkpointing()
    return model


def _tiny_weights(config: Config, sizes: tiny.TinyConfig) -> dict[str, Tensor]:
    if config.model.weights == "shipped":
        return tiny.tiny_transformer_state().state
    if not config.model.weights:
        return initial_weights(sizes, config.seed)
    try:
        return {k: v.float() for k, v in load_file(config.model.weights).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"model.weights {config.model.weights!r} cannot be read; train the stage before it or correct the path."
        ) from error


def initial_weights(sizes: tiny.TinyConfig, seed: int) -> dict[str, Tensor]:
    """Random weights with modulations and the last layer at zero (DiT's adaLN-zero), so that training starts calmly."""
    state = tiny.random_transformer_state(sizes, seed)
    for name in state:
        if name.endswith(
            ("norm1.linear.weight", "norm1_context.linear.weight", "norm.linear.weight", "norm_out.linear.weight")
        ):
            state[name].zero_()
        elif name.endswith(
            ("norm1.linear.bias", "norm1_context.linear.bias", "norm.linear.bias", "norm_out.linear.bias")
        ):
            state[name].zero_()
        elif name in ("proj_out.weight", "proj_out.bias"):
            state[name].zero_()
    return state


def compile_blocks(transformer: Any, backend: str) -> None:
    """Every block is compiled for itself: what a method does in a block depends on its number, so the programs differ
    from block to block, and from size to size of the pictures."""
    from torch import _dynamo

    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    programs = 8 * len(blocks)
    _dynamo.config.recompile_limit = max(_dynamo.config.recompile_limit, programs)
    _dynamo.config.accumulated_recompile_limit = max(_dynamo.config.accumulated_recompile_limit, programs)
    for block in blocks:
        block.compile(backend=backend, dynamic=False)


class TransformerTask:
    """base, sft and dpo on a set of scenes that is already encoded."""

    def __init__(self, config: Config, data: LatentSet | Any) -> None:
        self.config, self.data = config, data
        self.references = config.stage != "base"
        self.recipe, transformer = recipe_of(config), build_transformer(config)
        self._check(backbone(transformer).name)
        network = (self.recipe.network if self.references else base_network)(transformer, config)
        if self.references and config.model.adapter:
            path = Path(config.model.adapter)
            if not path.is_file():
                raise InputError(
                    f"The adapter {config.model.adapter!r} cannot be read; train SFT first or correct model.adapter."
                )
            self.recipe.load(network, self.recipe.read(path, config))
        if config.stage == "dpo":
            if not config.model.adapter:
                raise InputError(
                    "model.adapter is empty in the training config; DPO starts from an SFT adapter, give its file."
                )
            self.model: nn.Module = DpoObjective(network, self.recipe, config.dpo.beta)
        else:
            self.model = FlowObjective(network)
        self.network = network
        if config.model.compile:
            compile_blocks(transformer, config.model.compile)

    def _check(self, family: str) -> None:
        """Raises InputError where the stage cannot train on models of a family."""
        families = self.recipe.families if self.references else (FLUX,)
        if family not in families:
            what = self.recipe.title if self.references else "the stage base"
            raise InputError(
                f"model.weights is a {family}, but {what} trains on {' and '.join(families)}; choose another model."
            )

    def inputs(self, seed: int, part: int, done: float = 0.0, number: int = 0) -> tuple[Batch, Tensor, Tensor]:
        """Batch, times and noise of one part of a step; a function of the seed, of the share of the run that is done,
        and of the batch's number in the run, over all processes."""
        generator = torch.Generator().manual_seed(seed)
        batch = self.data.draw(np.random.default_rng(seed), self.config, done, number=number)
        times = flow.sample_times(len(batch.target), generator, self.config.flow.mean, self.config.flow.deviation)
        noise = torch.randn(batch.target.shape, generator=generator)
        device = next(self.network.transformer.parameters()).device
        return batch.to(device), times.to(device), noise.to(device)

    def extra(self) -> dict[str, Tensor]:
        return self.model.anchor if isinstance(self.model, DpoObjective) else {}

    def restore_extra(self, extra: dict[str, Tensor]) -> None:
        if isinstance(self.model, DpoObjective):
            if not extra:
                raise InputError("The checkpoint holds no DPO anchor; delete the output folder and start DPO again.")
            own = self.recipe.state(self.network)
            self.model.set_anchor({name: alike(value, own[name]) for name, value in extra.items()})

    def finish(self, output: Path | None) -> None:
        """Writes the stage's product: the transformer (base) or the adapter in its method's format."""
        network = self.network
        state = whole_state(self.recipe.state(network) if self.references else network.transformer.state_dict())
        if output is None:
            return
        if self.references:
            self.recipe.write(output / "adapter.safetensors", state, self.config)
        else:
            halves = {k: v.half().contiguous() for k, v in state.items()}
            save_file(halves, output / "transformer.safetensors", {"format": "pt"})

    def sample(self, path: Path | None) -> None:
        if self.config.model.kind == "tiny":
            sample_sheet(self.network, autoencoder(self.config), path, self.references)
