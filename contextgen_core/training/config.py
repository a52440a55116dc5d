"""A training run as data: YAML file, overrides `key.sub=value`, frozen dataclasses, one clear sentence for every
mistake."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..tiny import model as tiny

CONTENTS = ("phrases", "pictures", "both")
STAGES = ("scenes", "controls", "contents", "autoencoder", "base", "sft", "dpo")


@dataclass(frozen=True)
class ModelConfig:
    """kind `tiny` (the small model) or `pretrained` (a diffusers folder or hub name with a FLUX transformer, VAE
    and text encoders).

    weights: a transformer to start from (safetensors, tiny only; empty = random by seed, `shipped` = the pack's);
    adapter: an adapter to start from (SFT: continue; DPO: the anchor); autoencoder: a TAESD file (empty = the
    pack's; stage autoencoder: where to start from, empty = at random); compile: the backend of torch.compile for the
    blocks (`inductor`; empty = not compiled), worth its minutes where many steps have pictures of few sizes."""

    kind: str = "tiny"
    weights: str = ""
    adapter: str = ""
    autoencoder: str = ""
    checkpointing: bool = False
    compile: str = ""
    layers: int = tiny.CONFIG.num_layers
    single_layers: int = tiny.CONFIG.num_single_layers


@dataclass(frozen=True)
class LoraConfig:
    """alpha 0 means alpha = rank. folded, one_sided: see `contextgen_core.training.model.Adapter`. keep: the rank
    that the file is cut to by singular values, 0 = as trained."""

    rank: int = 64
    alpha: float = 0.0
    folded: bool = False
    one_sided: bool = False
    keep: int = 0


@dataclass(frozen=True)
class OptimizerConfig:
    """name adamw, prodigy or muon (what is not a matrix steps as Adam's does, at `vector_share` of the rate). The rate
    warms up over `warmup` steps, stays, and falls as a cosine over the last `tail` share."""

    name: str = "adamw"
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 50
    tail: float = 0.0
    floor: float = 0.02
    clip: float = 1.0
    bias_correction: bool = True
    safeguard_warmup: bool = True
    vector_share: float = 0.2


@dataclass(frozen=True)
class FlowConfig:
    """t = sigmoid(mean + deviation * normal). guidance: the value fed to guidance-distilled models, none otherwise.

    box, hidden: weight of the error on tokens inside boxes and inside the box of a hidden creature (1 = plain mean);
    blank: inside boxes of scenes in whose composite some are left blank."""

    mean: float = 0.0
    deviation: float = 1.0
    guidance: float | None = None
    box: float = 1.0
    hidden: float = 1.0
    blank: float = 1.0


@dataclass(frozen=True)
class DpoConfig:
    """lose: `composite` (the authors' pair: the layout's own latents) or `pasted` (the composite over the true
    background)."""

    beta: float = 1000.0
    lose: str = "composite"


@dataclass(frozen=True)
class DataConfig:
    """kind `world` (encoded scenes of the small world in `path`), `imig` (the folders of ContextGen's authors),
    `sigma_set` (folders for SIGMA-GEN, see `contextgen_core.training.sigma_set`) or `coco` (pictures with a phrase for
    each box, see `contextgen_core.training.coco`).

    count, seed: how many scenes the stage `scenes` makes, and which; tiers: how many of each tier a round of them has
    (tiers of one canvas size); folders: subfolders of `path` (sets of scenes, or the authors' subsets), with their
    shares; hidden_share: share of scenes that hide a creature (world; 0 = as stored); composite: share of the base's
    batches that show the composite (the others have words alone); blank: share of these in which some creatures' boxes
    are blank and only the caption tells what stands there; named: share of the captions beside a composite that
    name creatures; curriculum: how long each phase of the run lasts, as weights, by the numbers of subjects in its
    pictures: `{"1-4": 3, "3-": 2}` (empty = all numbers all along);
    window: shards whose samples are mixed at a time, where the folders hold shards (imig, sigma_set; see
    `contextgen_core.training.stream`);
    size: side of the target picture, reference: area of a reference as the side of a square, in pixels (imig;
    sigma_set: size alone)."""

    kind: str = "world"
    path: str = ""
    count: int = 24000
    seed: int = 0
    folders: dict[str, float] = field(default_factory=dict)
    size: int = 128
    reference: int = 64
    repaint: float = 0.5
    caption_drop: float = 0.0
    hidden_share: float = 0.0
    composite: float = 1.0
    blank: float = 0.0
    named: float = 0.0
    curriculum: dict[str, float] = field(default_factory=dict)
    window: int = 8
    tiers: dict[str, int] = field(default_factory=lambda: {"flexible": 3, "basic": 1, "complex": 1})


@dataclass(frozen=True)
class MethodConfig:
    """name: one of `recipes.RECIPES`; kernel grouped / batched / dense.

    ContextGen: rule official / paper / cla; ica_blocks `[first, stop]` over all blocks, double first; offsets
    `cumulative` or `overlapping` and masks true/false exist for the ablations.
    InstanceAssemble: ratio, the share of the sampling steps in which boxes act; for the ablations points `grid` (36)
    or `corners` (4), isolated false (one masked attention over the boxes of a picture) and zero_start false. content:
    what fills its boxes, `phrases` or `mixed`: each box a phrase, its picture, or both, at random; judged: what fills
    them where mixed ones are judged, `phrases`, `pictures` or `both`."""

    name: str = "contextgen"
    rule: str = "official"
    ica_blocks: tuple[int, int] | None = None
    kernel: str = "grouped"
    masks: bool = True
    offsets: str = "cumulative"
    ratio: float = 1.0
    points: str = "grid"
    isolated: bool = True
    zero_start: bool = True
    content: str = "phrases"
    judged: str = "both"


@dataclass(frozen=True)
class RoutingConfig:
    """SIGMA-GEN: its switches, and how its control pictures are drawn.

    timestep, guidance, scope, cross: as in `contextgen_core.methods.sigma_gen.method.Settings`; cell: side of an
    identity's cell in pixels; regions: shares of the kinds, one kind in a picture; variants: control pictures of each
    encoded scene; dilation: the most, as a share of the picture's side; jitter: of a box's sides; drop: probability
    that one channel is empty;
    planes: both, or for the ablations `one` (ascending alone) and `unnamed` (regions are told, but not whose)."""

    timestep: str = "current"
    guidance: str = "automatic"
    scope: str = "all"
    cross: bool = True
    cell: int = 64
    regions: dict[str, float] = field(default_factory=lambda: {"mask": 1.0, "cuboid": 1.0, "box": 1.0})
    variants: int = 3
    dilation: float = 0.02
    jitter: float = 0.01
    drop: float = 0.1
    planes: str = "both"


@dataclass(frozen=True)
class EveryConfig:
    """Steps between lines of the log, checkpoints, and sample pictures; 0 = never. keep: how many checkpoints stay."""

    log: int = 25
    save: int = 200
    sample: int = 0
    keep: int = 2


@dataclass(frozen=True)
class Config:
    """One run. batch is per process; the effective batch is batch * accumulate * processes. minutes 0 = no time
    limit; threads: of each process (0 = all), and of the stage `scenes` the number of processes; shard divides the
    transformer among the processes (FSDP) instead of copying it to each."""

    stage: str
    output: str
    steps: int = 1000
    batch: int = 16
    accumulate: int = 1
    seed: int = 0
    minutes: float = 0.0
    precision: str = "fp32"
    ema: float = 0.0
    threads: int = 0
    shard: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    data: DataConfig = field(default_factory=DataConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    every: EveryConfig = field(default_factory=EveryConfig)

    def __post_init__(self) -> None:
        _choice("stage", self.stage, STAGES)
        _choice("precision", self.precision, ("fp32", "bf16", "fp16"))
        _choice("model.kind", self.model.kind, ("tiny", "pretrained"))
        _choice("optimizer.name", self.optimizer.name, ("adamw", "prodigy", "muon"))
        _choice("dpo.lose", self.dpo.lose, ("composite", "pasted"))
        _choice("data.kind", self.data.kind, ("world", "imig", "sigma_set", "coco"))
        _choice("method.rule", self.method.rule, ("official", "paper", "cla"))
        _choice("method.kernel", self.method.kernel, ("grouped", "batched", "dense"))
        _choice("method.offsets", self.method.offsets, ("cumulative", "overlapping"))
        _choice("method.points", self.method.points, ("grid", "corners"))
        _choice("method.content", self.method.content, ("phrases", "mixed"))
        _choice("method.judged", self.method.judged, CONTENTS)
        subjects_at(self.data.curriculum, 1.0)
        _choice("routing.planes", self.routing.planes, ("both", "one", "unnamed"))
        if self.model.compile:
            _choice("model.compile", self.model.compile, _compilers())
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)} in the training config; give at least 1.")
        if self.lora.rank < 1:
            raise InputError(f"lora.rank is {self.lora.rank} in the training config; give at least 1.")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def subjects_at(curriculum: Mapping[str, float], done: float) -> tuple[int, float]:
    """The least and the most subjects (inf: any number) in the phase that holds when `done` (0..1) of a run is over.
    Raises InputError for a phase that is no range."""
    ends, total, now = 0.0, sum(curriculum.values()), (1, math.inf)
    for phase, length in curriculum.items():
        least, dash, most = phase.partition("-")
        if not least.isdecimal() or not dash or not (most.isdecimal() or not most) or length <= 0:
            raise InputError(f"data.curriculum has {phase!r}: {length:g}; write phases like '1-4': 3 or '5-': 2.")
        now, ends = (int(least), float(most or "inf")), ends + length / total
        if done < ends:
            break
    return now


def _compilers() -> list[str]:
    import torch

    return torch.compiler.list_backends(exclude_tags=())


def _choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r} in the training config; use one of {', '.join(choices)}.")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML config and applies overrides like `optimizer.rate=1e-4`. Raises InputError with one sentence."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The config {str(path)!r} cannot be read ({error.strerror}); give the path of a YAML file."
        ) from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        place = f" at line {where.line + 1}" if where else ""
        raise InputError(f"The config {str(path)!r} is not valid YAML{place}; correct it there.") from error
    if not isinstance(tree, dict):
        raise InputError(f"The config {str(path)!r} holds no settings; start it with 'stage:' and 'output:'.")
    for override in overrides:
        _override(tree, override)
    return from_dict(tree)


def _override(tree: dict[str, Any], override: str) -> None:
    import yaml

    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(
            f"The override {override!r} is not of the form key=value; write for example optimizer.rate=1e-4."
        )
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise InputError(
                f"The override {override!r} reaches into {parent!r}, which is a single value; shorten the key."
            )
    try:
        tree[last] = yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        raise InputError(f"The value of the override {override!r} is not valid YAML; quote it.") from error


def from_dict(tree: Mapping[str, Any]) -> Config:
    """A config from nested mappings; unknown keys and wrong types are errors."""
    for name in ("stage", "output"):
        if name not in tree:
            raise InputError(f"The training config has no {name!r}; add it.")
    return _build(Config, tree, "")


def _build(kind: type, tree: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        if key not in hints:
            known = ", ".join(hints)
            raise InputError(
                f"The training config has an unknown setting {prefix + str(key)!r}; known here are {known}."
            )
        values[key] = _convert(hints[key], value, prefix + str(key))
    return kind(**values)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """A YAML value as the type of its field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(
                f"{name} is {value!r} in the training config; it is a group of settings, indent them below it."
            )
        return _build(typing.cast(type, hint), value, name + ".")
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(arguments[0], value, name)
    if origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(arguments):
        return tuple(_convert(a, v, name) for a, v in zip(arguments, value, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _convert(arguments[1], v, f"{name}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as text
        except ValueError:
            pass
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise InputError(f"{name} is {value!r} in the training config; it takes a value of type {wanted}.")
