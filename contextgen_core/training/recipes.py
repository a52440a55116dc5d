"""The methods that can be trained on the same base, data and budget.

A method is: the settings its runs start from, the network that trains, how it reads scenes, and the form of its file. A
further method adds its `Recipe` to `RECIPES`; the run, the stages and :mod:`compare` know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..errors import InputError
from ..lora.adapter import load_adapter
from ..methods.boundary import RunPosition
from ..methods.contextgen.schedule import Rule
from ..methods.contextgen.settings import Settings
from ..methods.instance_assemble.files import FLUX, SD3
from ..tiny import model as tiny
from . import assemble, eligen, sigma_gen
from .adapter import Adapter, adapter_state, add_adapter, load_adapter_state, read_adapter, save_adapter
from .batch import Batch
from .config import Config, MethodConfig
from .latents import PICTURES, Reader
from .model import FlowNetwork
from .small_world.controls import ROUTED, RoutedSet


class Network(Protocol):
    """A transformer with a method on it: a module whose call gives the velocity of the noise tokens. What trains are
    its parameters that want gradients, wherever they lie: a run averages and resumes those."""

    transformer: Any
    reader: Reader  # of scenes: the recipe's

    def __call__(self, batch: Batch, noisy: Tensor, times: Tensor, position: RunPosition | None = None) -> Tensor:
        """noisy (B, M, 64), times (B,) in 0..1 -> velocity (B, M, 64). position: where in a sampling run; None: in
        training, as if every part of the method were active."""
        ...


class Variant(NamedTuple):
    """title: behind the method's, in tables. settings: what changes in the method's config. adapter: of which variant
    ("" = the method itself) an adapter is judged, where nothing changes in training; None = it trains."""

    title: str
    settings: Mapping[str, Any]
    adapter: str | None = None


class Recipe(NamedTuple):
    """title: in tables. settings: what a run of the comparison changes in its config, nested like a config file.

    network puts the method on a transformer, freezes that, and adds what trains; reader: of scenes. state gives the
    adapter's tensors and load fills a network with such ones; write(path, state, config) makes the adapter's file, and
    read(path, config) gives the state of one. An untrained adapter need not leave the base as it is. variants: what
    ablations change, by name; shipped: where the pack's adapter of the method lies, if it has one; families: of models
    that it trains on."""

    title: str
    settings: Mapping[str, Any]
    network: Callable[[Any, Config], Any]
    state: Callable[[Any], dict[str, Tensor]]
    load: Callable[[Any, Mapping[str, Tensor]], None]
    write: Callable[[Path, Mapping[str, Tensor], Config], None]
    read: Callable[[Path, Config], dict[str, Tensor]]
    sizes: Callable[[Path], Mapping[str, Any]]  # settings of a network that takes the adapter in a file
    reader: Callable[[Config], Reader] = lambda _: PICTURES
    variants: Mapping[str, Variant] = {}  # noqa: RUF012 - never written to
    shipped: Path | None = None
    families: tuple[str, ...] = (FLUX,)


def settings_of(method: MethodConfig) -> Settings:
    """ContextGen's settings under training; batched keeps the official geometry and differs in the kernel alone."""
    return Settings(
        rule=Rule(method.rule),
        ica_blocks=method.ica_blocks,
        kernel="dense" if method.kernel == "dense" else "grouped",
    )


def base_network(transformer: Any, config: Config) -> FlowNetwork:
    """The transformer alone: words, and the composite where a batch has one."""
    method = config.method
    return FlowNetwork(
        transformer,
        settings_of(method),
        method.kernel,
        config.flow.guidance,
        method.masks,
        method.offsets == "cumulative",
    )


def _contextgen(transformer: Any, config: Config) -> FlowNetwork:
    lora = config.lora
    add_adapter(transformer, Adapter(lora.rank, lora.alpha or lora.rank, lora.folded, lora.one_sided), config.seed)
    return base_network(transformer, config)


def _eligen(transformer: Any, config: Config) -> eligen.EliGenNetwork:
    lora = config.lora
    adapter = Adapter(lora.rank, lora.alpha or lora.rank, lora.folded, lora.one_sided)
    add_adapter(transformer, adapter, config.seed, eligen.TARGETS)
    return eligen.EliGenNetwork(transformer, config.method.kernel, config.flow.guidance)


def _instance_assemble(transformer: Any, config: Config) -> assemble.AssembleNetwork:
    transformer.requires_grad_(False)
    method = config.method
    pictures = method.content != "phrases"
    weights = assemble.make_weights(transformer, config.lora.rank, config.seed, method.zero_start, pictures)
    return assemble.AssembleNetwork(transformer, weights, method, config.flow.guidance)


def _routed(config: Config) -> Reader:
    return ROUTED._replace(open=partial(RoutedSet.load, planes=config.routing.planes))


def _filled(title: str, judged: str) -> Variant:
    """Weights that know pictures, judged with one kind of content."""
    return Variant(title, {"method": {"content": "mixed", "judged": judged}}, adapter="pictures")


def _low_rank_state(network: Network) -> dict[str, Tensor]:
    return adapter_state(network.transformer)


def _load_low_rank(network: Network, state: Mapping[str, Tensor]) -> None:
    load_adapter_state(network.transformer, state)


def _low_rank_sizes(path: Path) -> Mapping[str, Any]:
    return {"lora": {"rank": load_adapter(path).rank, "one_sided": False}}


RECIPES: dict[str, Recipe] = {
    "contextgen": Recipe(
        "ContextGen",
        {
            "lora": {"rank": 128, "folded": True, "one_sided": True},
            "optimizer": {"name": "muon", "rate": 0.02, "warmup": 10, "tail": 0.5},
            "flow": {"mean": 0.8, "box": 1.5, "hidden": 6.0},
            "method": {"kernel": "batched"},
        },
        _contextgen,
        _low_rank_state,
        _load_low_rank,
        save_adapter,
        read_adapter,
        _low_rank_sizes,
        shipped=tiny.FOLDER / tiny.ADAPTERS["sft"],
    ),
    "sigma_gen": Recipe(
        "SIGMA-GEN",
        {
            "lora": {"rank": 24, "folded": True},
            "optimizer": {"name": "muon", "rate": 0.01, "warmup": 10, "tail": 0.5},
            "flow": {"mean": 0.6, "box": 1.5, "hidden": 4.0},
            "method": {"kernel": "batched"},
        },
        sigma_gen.RoutedNetwork,
        sigma_gen.state_of,
        sigma_gen.load_state,
        save_adapter,
        read_adapter,
        _low_rank_sizes,
        _routed,
        {
            "one_plane": Variant("one plane in place of two", {"routing": {"planes": "one"}}),
            "unrouted": Variant("regions that do not say whose they are", {"routing": {"planes": "unnamed"}}),
            "zero": Variant("condition tokens at timestep zero", {"routing": {"timestep": "zero"}}),
            "conditions": Variant("adapter on the condition tokens alone", {"routing": {"scope": "conditions"}}),
            "apart": Variant("condition pictures that do not see each other", {"routing": {"cross": False}}),
        },
        shipped=tiny.FOLDER / tiny.METHOD_ADAPTERS["sigma_gen"],
    ),
    "instance_assemble": Recipe(
        "InstanceAssemble",
        {
            "lora": {"rank": 72},
            "optimizer": {"name": "muon", "rate": 0.02, "warmup": 10, "tail": 0.5},
            "flow": {"mean": 0.6, "box": 2.0, "hidden": 2.0},
            "method": {"kernel": "batched"},
        },
        _instance_assemble,
        assemble.state,
        assemble.load,
        assemble.write,
        assemble.read,
        assemble.sizes,
        lambda config: assemble.reader_of(config.method),
        {
            "off": Variant("no layout", {"method": {"ratio": 0.0}}, adapter=""),
            "corners": Variant("4 corners in place of 36 points", {"method": {"points": "corners"}}),
            "together": Variant("one masked attention in place of isolated ones", {"method": {"isolated": False}}),
            "nonzero": Variant("projections not from zero", {"method": {"zero_start": False}}),
            "ratio_10": Variant("boxes in the first 0.1 of the steps", {"method": {"ratio": 0.1}}, adapter=""),
            "ratio_30": Variant("boxes in the first 0.3 of the steps", {"method": {"ratio": 0.3}}, adapter=""),
            "ratio_50": Variant("boxes in the first 0.5 of the steps", {"method": {"ratio": 0.5}}, adapter=""),
            "pictures": Variant("phrases and pictures in boxes", {"method": {"content": "mixed"}}),
            "pictures_phrase": _filled("weights that know pictures, phrases alone", "phrases"),
            "pictures_picture": _filled("weights that know pictures, pictures alone", "pictures"),
        },
        tiny.FOLDER / tiny.METHOD_ADAPTERS["instance_assemble"],
        (FLUX, SD3),
    ),
    "eligen": Recipe(
        "EliGen",
        {
            "lora": {"rank": 16, "folded": True},
            "optimizer": {"name": "muon", "rate": 0.01, "warmup": 10, "tail": 0.5},
            "flow": {"mean": 0.6, "box": 2.0, "hidden": 2.0},
            "method": {"kernel": "batched"},
        },
        _eligen,
        _low_rank_state,
        _load_low_rank,
        save_adapter,
        read_adapter,
        _low_rank_sizes,
        lambda _: eligen.READER,
        shipped=tiny.FOLDER / tiny.METHOD_ADAPTERS["eligen"],
    ),
}


def recipe_of(config: Config) -> Recipe:
    """The recipe of a run's method. Raises InputError for a name that is not known."""
    try:
        return RECIPES[config.method.name]
    except KeyError:
        raise InputError(
            f"method.name is {config.method.name!r} in the training config; use one of {', '.join(RECIPES)}."
        ) from None
