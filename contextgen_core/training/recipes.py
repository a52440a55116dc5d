"""The methods that can be trained on the same base, data and budget.

A method is four things: the settings its runs start from, what trains on a transformer, the network that gives the
velocity, and what of a scene it reads. A further method adds its `Recipe` to `RECIPES`; the run, the stages and
:mod:`compare` know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..errors import InputError
from ..methods.contextgen.schedule import Rule
from ..methods.contextgen.settings import Settings
from ..tiny import model as tiny
from ..tiny.text import Form
from .batch import Batch
from .config import Config, MethodConfig
from .latents import LatentSet
from .model import Adapter, FlowNetwork, adapter_state, add_adapter, load_adapter_state
from .parts import words_form


class Network(Protocol):
    """A transformer with a method on it: a module whose call gives the velocity of the noise tokens."""

    transformer: Any
    form: Form  # of the words that the transformer knows
    collate: Callable[..., Batch]  # the recipe's

    def __call__(self, batch: Batch, noisy: Tensor, times: Tensor) -> Tensor:
        """noisy (B, M, 64), times (B,) in 0..1 -> velocity (B, M, 64)."""
        ...


class Recipe(NamedTuple):
    """title: in tables. settings: what a run of the comparison changes in its config, nested like a config file.

    adapt gives a frozen transformer what trains, filled from a file's tensors where some are given; network puts the
    method on it; state is what the adapter's file holds; collate(data, indices, references, box, hidden, *, composite,
    named, form) makes a batch of scenes, as `LatentSet.batch` does."""

    title: str
    settings: Mapping[str, Any]
    adapt: Callable[[Any, Config, dict[str, Tensor] | None], None]
    network: Callable[[Any, Config], Any]
    state: Callable[[Any], dict[str, Tensor]]
    collate: Callable[..., Batch] = LatentSet.batch
    shipped: Callable[[], Path] | None = None  # the pack's adapter of the method


def settings_of(method: MethodConfig) -> Settings:
    """ContextGen's settings under training; batched keeps the official geometry and differs in the kernel alone."""
    return Settings(
        rule=Rule(method.rule),
        ica_blocks=method.ica_blocks,
        kernel="dense" if method.kernel == "dense" else "grouped",
    )


def _contextgen_adapter(transformer: Any, config: Config, state: dict[str, Tensor] | None) -> None:
    lora = config.lora
    add_adapter(transformer, Adapter(lora.rank, lora.alpha or lora.rank, lora.folded, lora.one_sided), config.seed)
    if state is not None:
        load_adapter_state(transformer, state)


def _contextgen_network(transformer: Any, config: Config) -> FlowNetwork:
    method = config.method
    return FlowNetwork(
        transformer,
        settings_of(method),
        method.kernel,
        config.flow.guidance,
        method.masks,
        method.offsets == "cumulative",
        words_form(config),
    )


RECIPES: dict[str, Recipe] = {
    "contextgen": Recipe(
        "ContextGen",
        {
            "lora": {"rank": 128, "folded": True, "one_sided": True},
            "optimizer": {"name": "muon", "rate": 0.02, "warmup": 10, "tail": 0.5},
            "flow": {"mean": 0.8, "box": 1.5, "hidden": 6.0},
            "method": {"kernel": "batched"},
        },
        _contextgen_adapter,
        _contextgen_network,
        adapter_state,
        shipped=lambda: tiny.adapter_path("sft"),
    )
}


def recipe_of(config: Config) -> Recipe:
    """The recipe of a run's method. Raises InputError for a name that is not known."""
    try:
        return RECIPES[config.method.name]
    except KeyError:
        raise InputError(
            f"method.name is {config.method.name!r} in the training config; use one of {', '.join(RECIPES)}."
        ) from None
