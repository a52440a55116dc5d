"""InstanceAssemble's files: the authors' two, and one that holds both.

The authors ship the layout weights as ``layout.pth`` (a plain tensor dictionary) and low-rank pairs as
``pytorch_lora_weights.safetensors``; their loaders drop what they cannot place without a word. Here such a file is
refused in one sentence, and pairs on layers that the authors' code never switches on are listed. A file written by
:func:`write_file` holds both under the same names, and the encoder of pictures (``picture_net.*``), which is this
pack's, where there is one.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...backbones.layers import FLUX_DOUBLE, FLUX_SINGLE, SD3_JOINT, Layer
from ...backbones.record import Backbone
from ...errors import InputError
from ...input.checkpoint_file import read_checkpoint
from ...lora.header import read_tensors
from .encoder import CHANNELS, PLACE, POSITION, AssembleWeights, MakeLinear, PairSize, parameter_name

FORMAT_KEY, FORMAT = "instance_assemble", "1"
FLUX, SD3 = "FLUX.1", "Stable Diffusion 3"
NEVER_SWITCHED = ("ff.net.0.proj", "ff_context.net.0.proj")  # in a block with a layout step
ENDING = ("attn.to_add_out", "ff_context.net.2")  # what Stable Diffusion 3's last block does not have

_ENCODER, _PICTURES = (
    tuple(f"{part}.linear_{n}.{kind}" for part in parts for n in (1, 2) for kind in ("weight", "bias"))
    for parts in (("layout_net.text_embedder", "layout_net.linears"), ("picture_net.embedder", "picture_net.linears"))
)
_FORWARD = re.compile(r"(?P<block>(?:single_)?transformer_blocks\.\d{1,3})\.layout_forward\.(?:weight|bias)")
_PAIR = re.compile(r"(?P<layer>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|alpha)")
_PREFIX = "transformer."


@dataclass(frozen=True, eq=False)
class AssembleFile:
    """An adapter as read.

    name     of the file, for sentences
    family   of models that it is for
    width, pooled  of the model's tokens and its pooled text vector
    blocks   low-rank pairs of each block with a layout step
    tensors  by the names of :class:`.encoder.AssembleWeights`
    ignored  names in the file that have no effect, as in the authors' code
    """

    name: str
    family: str
    width: int
    pooled: int
    blocks: Mapping[str, tuple[PairSize, ...]]
    tensors: Mapping[str, Tensor]
    ignored: tuple[str, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur."""
        return tuple(sorted({pair.rank for pairs in self.blocks.values() for pair in pairs}))

    @property
    def pictures(self) -> bool:
        """Whether it knows pictures as content."""
        return _PICTURES[0] in self.tensors

    def build(self, linear: MakeLinear = nn.Linear, dtype: torch.dtype | None = None) -> AssembleWeights:
        """The weights as modules, sharing the file's tensors where ``dtype`` is theirs or None."""
        meta = torch.device("meta")
        weights = AssembleWeights(self.width, self.pooled, self.blocks, linear, pictures=self.pictures, device=meta)
        weights.load_state_dict({k: v if dtype is None else v.to(dtype) for k, v in self.tensors.items()}, assign=True)
        return weights.eval().requires_grad_(False)


def read_files(layout: str | os.PathLike[str], lora: str | os.PathLike[str] | None = None) -> AssembleFile:
    """Reads an adapter.

    layout  the layout weights, ``.pth`` or ``.safetensors``, or one file with everything
    lora    the low-rank pairs, ``.safetensors``; None: they are in the first file

    Raises InputError, naming the file, for one that is missing, damaged, of another kind or another model's, or that
    holds code.
    """
    path = Path(layout)
    tensors, metadata = _read(path)
    for key in tensors:
        if not _PAIR.fullmatch(key) and not tensors[key].is_floating_point():
            raise InputError(
                f"{path.name} stores {key} as {tensors[key].dtype}; an adapter's tensors must be floating."
            )
    pairs = {key: value for key, value in tensors.items() if _PAIR.fullmatch(key)}
    rest = {key: value for key, value in tensors.items() if key not in pairs}
    if not any(key.startswith("layout_net.") for key in rest):
        what = "holds low-rank pairs but no layout weights" if pairs else "holds no layout weights"
        raise InputError(f"{path.name} {what} (layout_net.*); choose the authors' layout.pth, or a converted file.")
    source = path.name
    if lora is not None:
        if pairs:
            raise InputError(f"{path.name} holds low-rank pairs already; leave the LoRA file out.")
        read, metadata = _read(Path(lora))
        source = Path(lora).name
        pairs = {key: value for key, value in read.items() if _PAIR.fullmatch(key)}
        unknown = tuple(key for key in read if key not in pairs)
        if not pairs:
            raise InputError(f"{source} holds no low-rank pairs; choose the authors' pytorch_lora_weights.safetensors.")
    elif not pairs:
        raise InputError(
            f"{path.name} holds the layout weights alone; choose pytorch_lora_weights.safetensors as the LoRA file."
        )
    else:
        unknown = ()
    family, width, pooled, names, unused = _layout(path.name, rest)
    ours = metadata.get(FORMAT_KEY) == FORMAT
    blocks, chosen, ignored = _pairs(source, pairs, family, width, names, with_alpha=ours or family == FLUX)
    state = {parameter_name(key): value for key, value in rest.items() if key not in unused}
    for name, tensor in (state | chosen).items():
        wide = tensor if tensor.element_size() > 1 else tensor.to(torch.float16)  # float8 has no isfinite
        if not bool(torch.isfinite(wide).all()):
            raise InputError(f"{path.name} holds numbers that are not finite in {name}; download it again.")
    return AssembleFile(path.name, family, width, pooled, blocks, state | chosen, (*unused, *ignored, *unknown))


def check_fits(file: AssembleFile, backbone: Backbone) -> None:
    """Raises InputError where the adapter is for another model."""
    double = [name for name in file.blocks if not name.startswith("single")]
    expected = _expected(file.family, backbone.double)
    if file.family != backbone.name:
        raise InputError(
            f"{file.name} is for {file.family}, the model is {backbone.name}; choose the adapter of that family."
        )
    if (file.width, file.pooled) != (backbone.width, backbone.pooled) or double != expected:
        raise InputError(
            f"{file.name} is for a {file.family} with tokens of width {file.width}, pooled text of {file.pooled} and"
            f" layout steps up to block {double[-1].split('.')[1]}; this model has {backbone.width}, {backbone.pooled}"
            f" and {backbone.double} blocks."
        )


def write_file(path: str | os.PathLike[str], file: AssembleFile) -> None:
    """Writes an adapter as one safetensors file. It appears whole or not at all."""
    state: dict[str, Tensor] = {}
    for key in (*_ENCODER, *(_PICTURES if file.pictures else ())):
        state[key] = file.tensors[key]
    for block, pairs in file.blocks.items():
        for kind in ("weight", "bias"):
            key = f"{block}.layout_forward.{kind}"
            state[key] = file.tensors[parameter_name(key)]
        for pair in pairs:
            down, up = _pair_names(block, pair.layer)
            stem = f"{_PREFIX}{block}.{pair.layer}"
            state[f"{stem}.lora_A.weight"], state[f"{stem}.lora_B.weight"] = file.tensors[down], file.tensors[up]
            state[f"{stem}.alpha"] = torch.tensor(pair.scale * pair.rank)
    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        save_file({k: v.contiguous() for k, v in state.items()}, str(partial), {FORMAT_KEY: FORMAT, "format": "pt"})
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


# --- reading --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, and its metadata."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read ({error.strerror or error}); choose a file that exists."
        ) from None
    if head.startswith((b"PK", b"\x80")):
        return read_checkpoint(path, "the authors' layout.pth"), {}
    return read_tensors(path)


def _layout(name: str, tensors: Mapping[str, Tensor]) -> tuple[str, int, int, tuple[str, ...], tuple[str, ...]]:
    """Family, width, pooled width, blocks with a layout step, and unused names, of layout weights."""
    present = {match["block"] for key in tensors if (match := _FORWARD.fullmatch(key))}
    pictures = any(key in tensors for key in _PICTURES)
    encoders = (*_ENCODER, *(_PICTURES if pictures else ()))
    unused = tuple(key for key in tensors if key not in encoders and not _FORWARD.fullmatch(key))
    family = FLUX if any(block.startswith("single") for block in present) else SD3
    last = max((int(b.split(".")[1]) for b in present if not b.startswith("single")), default=-1)
    blocks = _expected(family, last + 1) + (["single_transformer_blocks.0"] if family == FLUX else [])
    wanted = [*encoders, *(f"{block}.layout_forward.{kind}" for block in blocks for kind in ("weight", "bias"))]
    missing = [key for key in wanted if key not in tensors]
    if missing or set(blocks) != present or last < 0:
        lacking = missing[0] if missing else "the layout_forward of each layout block"
        instead = f" but has {unused[0]}" if unused else ""
        raise InputError(
            f"{name} lacks {lacking}{instead} ({len(missing)} of {len(wanted)} names); download the authors' layout.pth"
            " again."
        )
    width, pooled = tensors["layout_net.text_embedder.linear_1.weight"].shape
    shapes = {
        "layout_net.text_embedder.linear_2": (width, width),
        "layout_net.linears.linear_1": (width // 2, width + POSITION),
        "layout_net.linears.linear_2": (width, width // 2),
        **{f"{block}.layout_forward": (width, width) for block in blocks},
    }
    if pictures:
        shapes["picture_net.embedder.linear_1"] = (width, CHANNELS + PLACE)
        shapes["picture_net.embedder.linear_2"] = (width, width)
        shapes |= {f"picture_net.linears.linear_{n}": shapes[f"layout_net.linears.linear_{n}"] for n in (1, 2)}
    for stem, shape in {"layout_net.text_embedder.linear_1": (width, pooled), **shapes}.items():
        for kind, size in (("weight", shape), ("bias", shape[:1])):
            has = tuple(tensors[f"{stem}.{kind}"].shape)
            if has != size:
                raise InputError(f"{name} has {stem}.{kind} of shape {has} where {size} belongs; download it again.")
    return family, width, pooled, tuple(blocks), unused


def _expected(family: str, doubles: int) -> list[str]:
    """The double blocks with a layout step of a model with so many."""
    return [f"transformer_blocks.{index}" for index in range(0, doubles, 3 if family == FLUX else 1)]


def _pairs(
    name: str, tensors: Mapping[str, Tensor], family: str, width: int, blocks: Sequence[str], with_alpha: bool
) -> tuple[dict[str, tuple[PairSize, ...]], dict[str, Tensor], tuple[str, ...]]:
    """The pairs of each block, their tensors, and the names of those that are never switched on."""
    if not any(key.startswith(_PREFIX) for key in tensors):
        raise InputError(
            f"{name} names its layers without {_PREFIX!r} in front (like {min(tensors)}), and so would have no effect;"
            " choose the authors' pytorch_lora_weights.safetensors."
        )
    parts: dict[str, dict[str, Tensor]] = {}
    ignored: list[str] = []
    for key, tensor in tensors.items():
        match = _PAIR.fullmatch(key)
        if match is None or not key.startswith(_PREFIX):
            ignored.append(key)
        else:
            parts.setdefault(match["layer"].removeprefix(_PREFIX), {})[match["part"]] = tensor
    ranks = {layer: _rank(name, layer, its) for layer, its in parts.items()}
    first = ranks[min(ranks)]
    sized: dict[str, tuple[PairSize, ...]] = {}
    chosen: dict[str, Tensor] = {}
    for block in blocks:
        sizes = []
        for layer, outputs, inputs in switched_layers(family, block, ends=family == SD3 and block == blocks[-1]):
            its = parts.pop(f"{block}.{layer}", None)
            if its is None:
                continue
            down, up, rank = its["lora_A.weight"], its["lora_B.weight"], ranks[f"{block}.{layer}"]
            if (up.shape[0], down.shape[1]) != (outputs * width, inputs * width):
                raise InputError(
                    f"{name} changes {block}.{layer} by {up.shape[0]} x {down.shape[1]}, which does not fit layout"
                    f" weights of width {width}; choose the two files of one model."
                )
            alpha = its.get("alpha") if with_alpha else None
            scale = (first if alpha is None else float(alpha)) / rank
            if not math.isfinite(scale):
                raise InputError(f"{name} has an alpha of {scale * rank} for {block}.{layer}; it must be finite.")
            sizes.append(PairSize(layer, down.shape[1], rank, up.shape[0], scale))
            names = _pair_names(block, layer)
            chosen[names[0]], chosen[names[1]] = down, up
        sized[block] = tuple(sizes)
    if not chosen:
        raise InputError(
            f"{name} changes none of the layers that InstanceAssemble uses (but {min(ranks)}, for example); choose the"
            " authors' pytorch_lora_weights.safetensors."
        )
    return sized, chosen, (*sorted(parts), *ignored)


def switched_layers(family: str, block: str, ends: bool) -> list[tuple[str, int, int]]:
    """Layers of a block that the authors' code switches on, with outputs and inputs in widths of a token."""
    table: tuple[Layer, ...] = (
        SD3_JOINT if family == SD3 else FLUX_SINGLE if block.startswith("single") else FLUX_DOUBLE
    )
    return [
        (layer.name, 2 if ends and layer.name == "norm1_context.linear" else layer.outputs, layer.inputs)
        for layer in table
        if layer.name not in NEVER_SWITCHED and not (ends and layer.name in ENDING)
    ]


def _rank(name: str, layer: str, parts: Mapping[str, Tensor]) -> int:
    """The rank of a pair, which must be whole."""
    for part in ("lora_A.weight", "lora_B.weight"):
        if part not in parts:
            raise InputError(f"{name} lacks {part} of {layer}; download it again.")
    down, up = parts["lora_A.weight"], parts["lora_B.weight"]
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise InputError(
            f"{name} has factors of shape {tuple(down.shape)} and {tuple(up.shape)} for {layer}; they differ."
        )
    if not down.is_floating_point() or not up.is_floating_point():
        raise InputError(f"{name} stores {layer} as {down.dtype}; an adapter's tensors must be floating.")
    if "alpha" in parts and parts["alpha"].numel() != 1:
        raise InputError(
            f"{name} has an alpha of shape {tuple(parts['alpha'].shape)} for {layer}; it must be one number."
        )
    return down.shape[0]


def _pair_names(block: str, layer: str) -> tuple[str, str]:
    """Names of a pair's two weights in :class:`.encoder.AssembleWeights`."""
    stem = parameter_name(f"{block}.pairs") + "." + layer.replace(".", "/")
    return f"{stem}.down.weight", f"{stem}.up.weight"
