"""Adapter files: reading and checking them, naming their layers alike, mixing two, writing one.

An adapter changes the weight of a layer by ``up @ down * alpha / rank``. Files spell the layers in many ways
(keys.py); here each has one name, and a file that is not a plain LoRA on FLUX.1 or Qwen-Image is refused in one
sentence.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..backbones.layers import QWEN as QWEN_BLOCK
from ..errors import InputError
from .header import FLOAT_DTYPES, INT_DTYPES, Header, TensorInfo, read_header
from .keys import (
    BLOCKS,
    FLUX,
    block_of,
    fused_parts,
    is_text_encoder,
    normalise_key,
    other_kind,
    other_model,
    split_key,
    width_multiples,
)

__all__ = [
    "Adapter",
    "LowRank",
    "MatchReport",
    "flux_shapes",
    "host_state_dict",
    "interpolate",
    "load_adapter",
    "match",
    "normalise_key",
    "qwen_shapes",
    "read_header",
    "to_diffusers",
    "write_adapter",
]

_ADALN = "final_layer.adaLN_modulation.1"


@dataclass(frozen=True, eq=False)
class LowRank:
    """The change of one layer: ``module`` (canonical path), ``down`` (rank, in), ``up`` (out, rank), ``alpha``."""

    module: str
    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """What ``up @ down`` is multiplied by; 1.0 when the file names no alpha."""
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the layer that it changes."""
        return self.up.shape[0], self.down.shape[1]

    def delta(self) -> torch.Tensor:
        """The change of the layer's weight, float32 (out, in)."""
        return (self.up.float() @ self.down.float()) * self.scale


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA: pairs sorted by module, the file's metadata, and keys of the file that it does not use."""

    pairs: tuple[LowRank, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(pair.module for pair in self.pairs)

    @property
    def rank(self) -> int:
        """The largest rank of its pairs."""
        return max(pair.rank for pair in self.pairs)

    @property
    def alpha(self) -> float:
        """The alpha of the pair with the largest rank."""
        return max(self.pairs, key=lambda pair: pair.rank).alpha


class MatchReport(NamedTuple):
    """Which of an adapter's modules a model has, with the right shape, and which it lacks."""

    matched: tuple[str, ...]
    unmatched: tuple[str, ...]
    rank: int
    alpha: float


def load_adapter(path: str | os.PathLike[str], model: str = FLUX) -> Adapter:
    """Reads a LoRA on ``model`` (a family's name: FLUX.1, Qwen-Image) from a safetensors file, in any known spelling.

    A pair's alpha is the file's own tensor for it, else the PEFT configuration or the rank/alpha in the metadata, else
    its rank (scale 1). Raises InputError for a file that is damaged, of another kind, for another model, or holds
    numbers that are not finite.
    """
    header = read_header(path)
    name = header.path.name
    entries, ignored = _sort_out(header, model)
    _check_model(name, entries, model)
    try:
        with safe_open(str(header.path), framework="pt", device="cpu") as file:
            pairs = tuple(_load_pair(header, module, parts, file) for module, parts in sorted(entries.items()))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{name} cannot be read ({str(error)[:120]}); download it again.") from None
    return Adapter(pairs, header.metadata, ignored)


def _sort_out(header: Header, model: str) -> tuple[dict[str, dict[str, TensorInfo]], tuple[str, ...]]:
    """Groups the tensors by module and part, and refuses what is no plain LoRA on the model; also the unused keys."""
    name = header.path.name
    keys = [info.name for info in header.tensors]
    other = other_model(keys, model)
    entries: dict[str, dict[str, TensorInfo]] = {}
    unused: list[str] = []
    for info in header.tensors:
        found = split_key(info.name, model)
        if found is None or is_text_encoder(info.name):
            unused.append(info.name)
        elif found.part in entries.setdefault(found.module, {}):
            raise InputError(f"{name} holds {found.module} twice, in two spellings; keep one of them.")
        else:
            entries[found.module][found.part] = info
    if other:
        raise InputError(f"{name} is for {other}, not for {model}; choose a {model} adapter.")
    kind = other_kind(key for key in keys if not is_text_encoder(key))
    if kind:
        raise InputError(f"{name} is {kind}, not a plain LoRA; load it with ComfyUI's own LoRA loader.")
    if not any({"down", "up"} & parts.keys() for parts in entries.values()):
        whole = _is_model(keys, model)
        what = "whole weights, not an adapter" if whole else f"no low-rank pair on a layer of {model}"
        raise InputError(f"{name} holds {what}; choose a {model} LoRA.")
    return entries, tuple(unused)


def _is_model(keys: Sequence[str], model: str) -> bool:
    stems = (key.removesuffix("weight") for key in keys if key.endswith(".weight"))
    return any(normalise_key(stem + "lora_A.weight", model) for stem in stems)


def _check_model(name: str, entries: Mapping[str, Mapping[str, TensorInfo]], model: str) -> None:
    """Checks that every pair is whole and that names and shapes together can belong to one such model."""
    width: int | None = None
    for module, parts in sorted(entries.items()):
        for part, factor in (("down", "lora_A"), ("up", "lora_B")):
            if part not in parts:
                raise InputError(f"{name} lacks the {factor} factor of {module}; download it again.")
        out_size, in_size = _check_pair(name, module, parts)
        block = block_of(module)
        counts = BLOCKS[model]
        if block and block[1] >= counts[block[0]]:
            count = " and ".join(f"{number} {kind}" for kind, number in counts.items())
            raise InputError(f"{name} is for another model: it has {module}, and {model} has {count} blocks.")
        for size, multiple in zip((out_size, in_size), width_multiples(module), strict=True):
            if multiple is None:
                continue
            width = width or size // multiple
            if size != width * multiple:
                shape = f"{out_size}x{in_size}"
                raise InputError(f"{name} is not for {model}: {module} of {shape} does not fit a width of {width}.")


def _check_pair(name: str, module: str, parts: Mapping[str, TensorInfo]) -> tuple[int, int]:
    """Checks one pair's shapes and dtypes; returns the layer's (out, in)."""
    down, up, alpha = parts["down"], parts["up"], parts.get("alpha")
    for part, info in parts.items():
        whole = part == "alpha" and info.dtype in INT_DTYPES  # EliGen's export writes the rank as it is
        if info.dtype not in FLOAT_DTYPES and not whole:
            raise InputError(f"{name} stores {info.name} as {info.dtype}; an adapter's tensors must be floating.")
    if len(down.shape) != 2 or len(up.shape) != 2 or 0 in (*down.shape, *up.shape):
        raise InputError(f"{name} has factors of shape {down.shape} and {up.shape} for {module}, not two matrices.")
    if down.shape[0] != up.shape[1]:
        raise InputError(f"{name} has factors of rank {down.shape[0]} and {up.shape[1]} for {module}; they must agree.")
    if alpha is not None and math.prod(alpha.shape) != 1:
        raise InputError(f"{name} has an alpha of shape {alpha.shape} for {module}; it must be one number.")
    return up.shape[0], down.shape[1]


def _load_pair(header: Header, module: str, parts: Mapping[str, TensorInfo], file: safe_open) -> LowRank:
    down, up = (file.get_tensor(parts[part].name) for part in ("down", "up"))
    for tensor in (down, up):
        finite = tensor if tensor.element_size() > 1 else tensor.to(torch.float16)  # float8 has no isfinite
        if not bool(torch.isfinite(finite).all()):
            raise InputError(f"{header.path.name} holds numbers that are not finite in {module}; download it again.")
    if "alpha" in parts:
        alpha = float(file.get_tensor(parts["alpha"].name).item())
    else:
        alpha = _metadata_alpha(header, module, down.shape[0])
    if not math.isfinite(alpha):
        raise InputError(f"{header.path.name} has an alpha of {alpha} for {module}; it must be a finite number.")
    return LowRank(module, down, up, alpha)


def _metadata_alpha(header: Header, module: str, rank: int) -> float:
    """The alpha that the metadata give for a module: PEFT's configuration, or plain rank/alpha; else the rank."""
    config = _peft_config(header)
    alpha = config.get("lora_alpha")
    patterns = config.get("alpha_pattern")
    if isinstance(patterns, dict):
        # PEFT's keys are regular expressions; from a file they are only ever compared as text.
        hits = [v for k, v in patterns.items() if f".{module}".endswith("." + k.strip("^$").removeprefix("."))]
        alpha = hits[0] if hits else alpha
    if alpha is None:
        given = header.meta("lora_alpha") or header.meta("alpha")
        own_rank = header.meta("rank") or header.meta("lora_rank") or header.meta("r")
        # The two are meant as a ratio: a pair may have another rank than the file's.
        alpha = _number(header, given) * rank / _number(header, own_rank or str(rank)) if given else float(rank)
        return alpha
    value = _number(header, alpha)
    return value * math.sqrt(rank) if config.get("use_rslora") is True else value


def _peft_config(header: Header) -> Mapping[str, object]:
    """The PEFT configuration in the metadata, without the component prefix that diffusers puts before its keys."""
    text = header.meta("lora_adapter_metadata")
    if not text:
        return {}
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        name = header.path.name
        raise InputError(f"{name} has adapter metadata that is no JSON object; remove it or download it again.")
    return {key.removeprefix("transformer."): value for key, value in config.items()}


def _number(header: Header, value: object) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
        if math.isfinite(number) and number > 0:
            return number
    raise InputError(f"{header.path.name} names an alpha or rank of {str(value)[:40]!r}; it must be a positive number.")


def to_diffusers(adapter: Adapter) -> Adapter:
    """The same adapter with every module under diffusers' name; exact.

    A fused layer's rows are divided among its parts, which share its down factor; the two halves (shift, scale) of
    the last modulation change places.
    """
    pairs: list[LowRank] = []
    for pair in adapter.pairs:
        if pair.module == _ADALN:
            shift, scale = pair.up.chunk(2)
            pairs.append(replace(pair, module="norm_out.linear", up=torch.cat([scale, shift])))
            continue
        parts = fused_parts(pair.module)
        width, row = pair.shape[1], 0
        for module, widths in parts:
            pairs.append(replace(pair, module=module, up=pair.up[row : row + widths * width]))
            row += widths * width
        if not parts:
            pairs.append(pair)
    names = [pair.module for pair in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The adapter changes {twice} both alone and within a fused layer; keep one of them.")
    return replace(adapter, pairs=tuple(sorted(pairs, key=lambda pair: pair.module)))


def match(adapter: Adapter, module_shapes: Mapping[str, tuple[int, int]]) -> MatchReport:
    """Compares an adapter with a model's layers: diffusers' module paths and their (out, in).

    Unmatched are modules that the model lacks or has in another shape, and keys of the file that are not used.
    """
    matched: list[str] = []
    unmatched: list[str] = []
    for pair in to_diffusers(adapter).pairs:
        shape = module_shapes.get(pair.module)
        fits = shape is not None and tuple(shape) == pair.shape
        (matched if fits else unmatched).append(pair.module)
    return MatchReport(tuple(matched), (*unmatched, *adapter.ignored), adapter.rank, adapter.alpha)


def flux_shapes(
    width: int, double: int, single: int, *, channels: int = 64, text: int = 4096, pooled: int = 768
) -> dict[str, tuple[int, int]]:
    """Diffusers' module paths of a FLUX.1 with their (out, in).

    ``width`` of its tokens, ``double`` and ``single`` blocks, ``channels`` of an image token, ``text`` and ``pooled``
    sizes of the text features.
    """
    shapes: dict[str, tuple[int, int]] = {
        "x_embedder": (width, channels),
        "context_embedder": (width, text),
        "proj_out": (channels, width),
        "norm_out.linear": (2 * width, width),
    }
    for name, size in (("timestep_embedder", 256), ("guidance_embedder", 256), ("text_embedder", pooled)):
        shapes[f"time_text_embed.{name}.linear_1"] = (width, size)
        shapes[f"time_text_embed.{name}.linear_2"] = (width, width)
    attention = ("attn.to_q", "attn.to_k", "attn.to_v")
    added = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_out.0", "attn.to_add_out")
    norms, feed = ("norm1.linear", "norm1_context.linear"), ("net.0.proj", "net.2")
    in_double = (*attention, *added, *norms, *(f"{ff}.{part}" for ff in ("ff", "ff_context") for part in feed))
    blocks = [f"transformer_blocks.{i}.{layer}" for i in range(double) for layer in in_double]
    in_single = (*attention, "norm.linear", "proj_mlp", "proj_out")
    blocks += [f"single_transformer_blocks.{i}.{layer}" for i in range(single) for layer in in_single]
    for module in blocks:
        rows, columns = width_multiples(module)
        shapes[module] = ((rows or 0) * width, (columns or 0) * width)
    return shapes


def qwen_shapes(width: int, blocks: int, *, channels: int = 64, text: int = 3584) -> dict[str, tuple[int, int]]:
    """The same of a Qwen-Image with so many ``blocks``."""
    shapes: dict[str, tuple[int, int]] = {
        "img_in": (width, channels),
        "txt_in": (width, text),
        "proj_out": (channels, width),
        "norm_out.linear": (2 * width, width),
        "time_text_embed.timestep_embedder.linear_1": (width, 256),
        "time_text_embed.timestep_embedder.linear_2": (width, width),
    }
    for number in range(blocks):
        for layer in QWEN_BLOCK:
            shapes[f"transformer_blocks.{number}.{layer.name}"] = (layer.outputs * width, layer.inputs * width)
    return shapes


def interpolate(sft: Adapter, dpo: Adapter, flexibility: float) -> Adapter:
    """The adapter that changes each weight by (1 - flexibility) of the first's change plus flexibility of the second's.

    The factors are put side by side, so the ranks add up and nothing is approximated; at 0 and 1 it is the one adapter
    itself. Half precision is widened to float32 in the up factors alone, where it is scaled. Raises InputError unless
    flexibility is within 0..1 and both change the same modules in the same shapes.
    """
    if not (isinstance(flexibility, (int, float)) and 0.0 <= flexibility <= 1.0):
        raise InputError(
            f"Flexibility is {flexibility}; it must be between 0 (the SFT adapter) and 1 (the DPO adapter)."
        )
    first, second = to_diffusers(sft), to_diffusers(dpo)
    differing = sorted(_targets(first) ^ _targets(second))
    if differing:
        raise InputError(
            f"The two adapters change different layers (for example {differing[0][0]}, {len(differing)} in all); "
            "choose two stages of one training."
        )
    if flexibility in (0.0, 1.0):
        return dpo if flexibility else sft
    pairs = tuple(
        _side_by_side(a, b, 1.0 - flexibility, flexibility) for a, b in zip(first.pairs, second.pairs, strict=True)
    )
    return Adapter(pairs, (), tuple(dict.fromkeys((*sft.ignored, *dpo.ignored))))


def _targets(adapter: Adapter) -> set[tuple[str, tuple[int, int]]]:
    return {(pair.module, pair.shape) for pair in adapter.pairs}


def _side_by_side(a: LowRank, b: LowRank, weight_a: float, weight_b: float) -> LowRank:
    up = torch.cat([_wide(a.up) * (weight_a * a.scale), _wide(b.up) * (weight_b * b.scale)], dim=1)
    kind = (
        a.down.dtype if a.down.dtype == b.down.dtype else torch.promote_types(_wide(a.down).dtype, _wide(b.down).dtype)
    )
    down = torch.cat([a.down.to(kind), b.down.to(kind)], dim=0)
    return LowRank(a.module, down, up, float(down.shape[0]))


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def host_state_dict(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The adapter as a state dict that ComfyUI's own ``comfy.lora`` accepts, from 0.3.64 on.

    Diffusers' modules under ``transformer.``, fused layers under ``diffusion_model.``; an alpha tensor where the
    scale is not 1.
    """
    state: dict[str, torch.Tensor] = {}
    for pair in adapter.pairs:
        original = pair.module == _ADALN or fused_parts(pair.module)
        stem = ("diffusion_model." if original else "transformer.") + pair.module
        state[f"{stem}.lora_A.weight"] = pair.down
        state[f"{stem}.lora_B.weight"] = pair.up
        if pair.scale != 1.0:
            state[f"{stem}.alpha"] = torch.tensor(pair.alpha)
    return state


def write_adapter(
    path: str | os.PathLike[str],
    pairs: Iterable[LowRank],
    rank: int | None = None,
    alpha: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes pairs in the official key format, ``transformer.<module>.lora_A.weight`` and ``.lora_B.weight``.

    The format has no alpha and its readers take the scale for 1, so a pair's scale is multiplied into lora_B.
    ``rank`` and ``alpha`` of the training (default: the pairs' own) are recorded in the metadata as ``rank``,
    ``lora_alpha`` (= rank, what the file now holds) and ``trained_alpha``. The file appears whole or not at all.
    """
    adapter = to_diffusers(Adapter(tuple(sorted(pairs, key=lambda pair: pair.module))))
    if not adapter.pairs:
        raise InputError("An adapter needs at least one pair of factors; none was given to write.")
    state: dict[str, torch.Tensor] = {}
    for pair in adapter.pairs:
        up = pair.up if pair.scale == 1.0 else (_wide(pair.up) * pair.scale).to(pair.up.dtype)
        state[f"transformer.{pair.module}.lora_A.weight"] = pair.down.detach().cpu().clone().contiguous()
        state[f"transformer.{pair.module}.lora_B.weight"] = up.detach().cpu().clone().contiguous()
    rank = rank or adapter.rank
    recorded = {"rank": str(rank), "lora_alpha": str(rank), "trained_alpha": f"{alpha or adapter.alpha:g}"}
    target = Path(path)
    partial = target.with_name(target.name + f".{os.getpid()}.part")
    try:
        save_file(state, str(partial), {**(metadata or {}), "format": "pt", **recorded})
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
