"""Names of adapter tensors: every spelling in use, brought to one module path; and whose adapter a file is.

Canonical is diffusers' module path on ``FluxTransformer2DModel`` (``transformer_blocks.0.attn.to_q``). Layers that the
original FLUX code fuses or orders otherwise have no such path and keep that code's: ``double_blocks.N.img_attn.qkv``
and ``txt_attn.qkv``, ``single_blocks.N.linear1`` (also ``linear1_qkv``), ``final_layer.adaLN_modulation.1``.

Qwen-Image's layers have the same names everywhere, those of ``QwenImageTransformer2DModel``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

FLUX, QWEN = "FLUX.1", "Qwen-Image"
BLOCKS = {FLUX: {"double": 19, "single": 38}, QWEN: {"double": 60}}

_DOTTED_PREFIXES = (
    "base_model.model.",
    "pipe.dit.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "unet.",
    "dit.",
    "module.",
    "model.",
)
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
_TEXT_ENCODER = re.compile(r"^(base_model\.model\.)?(lora_te\d?_|text_encoders?[._]|te\d?\.)")

# Multiples (out, in) of the model's width for the layers whose shape follows from it; None: free.
_DOUBLE: dict[str, tuple[int, int]] = {
    "attn.to_q": (1, 1), "attn.to_k": (1, 1), "attn.to_v": (1, 1), "attn.to_out.0": (1, 1),
    "attn.add_q_proj": (1, 1), "attn.add_k_proj": (1, 1), "attn.add_v_proj": (1, 1), "attn.to_add_out": (1, 1),
    "norm1.linear": (6, 1), "norm1_context.linear": (6, 1),
    "ff.net.0.proj": (4, 1), "ff.net.2": (1, 4), "ff_context.net.0.proj": (4, 1), "ff_context.net.2": (1, 4),
}  # fmt: skip
_QWEN: dict[str, tuple[int, int]] = {
    **{name: shape for name, shape in _DOUBLE.items() if name.startswith("attn.")},
    "img_mod.1": (6, 1), "txt_mod.1": (6, 1),
    "img_mlp.net.0.proj": (4, 1), "img_mlp.net.2": (1, 4), "txt_mlp.net.0.proj": (4, 1), "txt_mlp.net.2": (1, 4),
}  # fmt: skip
_SINGLE: dict[str, tuple[int, int]] = {
    "attn.to_q": (1, 1), "attn.to_k": (1, 1), "attn.to_v": (1, 1),
    "norm.linear": (3, 1), "proj_mlp": (4, 1), "proj_out": (1, 5),
}  # fmt: skip
_EMBEDDERS = ("timestep_embedder", "guidance_embedder", "text_embedder")
_ROOT: dict[str, tuple[int | None, int | None]] = {
    "x_embedder": (1, None),
    "context_embedder": (1, None),
    "proj_out": (None, 1),
    "norm_out.linear": (2, 1),
    **{f"time_text_embed.{name}.linear_1": (1, None) for name in _EMBEDDERS},
    **{f"time_text_embed.{name}.linear_2": (1, 1) for name in _EMBEDDERS},
}
_QWEN_ROOT: dict[str, tuple[int | None, int | None]] = {
    "img_in": (1, None),
    "txt_in": (1, None),
    "proj_out": (None, 1),
    "norm_out.linear": (2, 1),
    "time_text_embed.timestep_embedder.linear_1": (1, None),
    "time_text_embed.timestep_embedder.linear_2": (1, 1),
}
_FUSED: dict[str, tuple[int, int]] = {
    "img_attn.qkv": (3, 1), "txt_attn.qkv": (3, 1), "linear1": (7, 1), "linear1_qkv": (3, 1),
    "final_layer.adaLN_modulation.1": (2, 1),
}  # fmt: skip

# The original FLUX code's layer names, and diffusers' for the same layer; None: it has no single counterpart.
_BFL_DOUBLE: dict[str, str | None] = {
    "img_attn.qkv": None, "txt_attn.qkv": None,
    "img_attn.proj": "attn.to_out.0", "txt_attn.proj": "attn.to_add_out",
    "img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear",
    "img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj", "txt_mlp.2": "ff_context.net.2",
}  # fmt: skip
_BFL_SINGLE: dict[str, str | None] = {
    "linear1": None, "linear1_qkv": None, "linear2": "proj_out", "modulation.lin": "norm.linear",
}  # fmt: skip
# DiffSynth's names for the same layers (EliGen was trained there); its double blocks are called blocks.
_DIFFSYNTH_DOUBLE: dict[str, str | None] = {
    "attn.a_to_qkv": "img_attn.qkv", "attn.b_to_qkv": "txt_attn.qkv",
    "attn.a_to_out": "attn.to_out.0", "attn.b_to_out": "attn.to_add_out",
    "norm1_a.linear": "norm1.linear", "norm1_b.linear": "norm1_context.linear",
    "ff_a.0": "ff.net.0.proj", "ff_a.2": "ff.net.2", "ff_b.0": "ff_context.net.0.proj", "ff_b.2": "ff_context.net.2",
}  # fmt: skip
_DIFFSYNTH_SINGLE: dict[str, str | None] = {
    "to_qkv_mlp": "linear1", "proj_out": "proj_out", "norm.linear": "norm.linear",
}  # fmt: skip
_BFL_EMBEDDERS = {"time_in": _EMBEDDERS[0], "guidance_in": _EMBEDDERS[1], "vector_in": _EMBEDDERS[2]}
_BFL_ROOT: dict[str, str | None] = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": None,
    **{f"{bfl}.in_layer": f"time_text_embed.{name}.linear_1" for bfl, name in _BFL_EMBEDDERS.items()},
    **{f"{bfl}.out_layer": f"time_text_embed.{name}.linear_2" for bfl, name in _BFL_EMBEDDERS.items()},
}

_BLOCK = re.compile(
    r"(?P<kind>transformer_blocks|single_transformer_blocks|double_blocks|single_blocks|blocks)"
    r"[._](?P<index>0|[1-9]\d{0,3})[._](?P<layer>.+)"
)
_DOWN = re.compile(r"(?P<stem>.+?)\.(?:lora_A|lora_down|lora\.down|lora_linear_layer\.down)(?:\.[\w-]+)?\.weight")
_UP = re.compile(r"(?P<stem>.+?)\.(?:lora_B|lora_up|lora\.up|lora_linear_layer\.up)(?:\.[\w-]+)?\.weight")
_ALPHA = re.compile(r"(?P<stem>.+?)\.(?:lora_)?alpha")
# Parts that change the result and that a plain low-rank pair does not have.
_OTHER_KINDS = (
    ("DoRA", re.compile(r"\.dora_scale$|\.lora_magnitude_vector")),
    ("LoHa", re.compile(r"\.hada_w[12]")),
    ("LoKr", re.compile(r"\.lokr_w[12]")),
    ("a LoRA with biases", re.compile(r"\.lora_[AB](\.[\w-]+)?\.bias$|\.lora_(up|down)\.bias$")),
    ("a LoRA with a middle factor", re.compile(r"\.lora_mid\.")),
    ("OFT or BOFT", re.compile(r"\.oft_(blocks|diag)|\.oft_R")),
    ("a weight difference", re.compile(r"\.(diff|diff_b|set_weight|reshape_weight)$")),
)
# Layer names that only other models have. The first match names the model.
_OTHER_MODELS = (
    ("FLUX.2", r"stream_modulation|to_qkv_mlp_proj|ff(_context)?[._]linear_(in|out)\b|single_blocks[._]4\d[._]"),
    ("Chroma", r"distilled_guidance_layer"),
    (QWEN, r"transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)[._]"),
    ("SDXL", r"\blora_te2_|(down|up)_blocks[._]\d[._]attentions[._]\d[._]transformer_blocks[._][1-9]"),
    ("SDXL", r"(in|out)put_blocks[._]\d[._]1[._]transformer_blocks"),
    ("Stable Diffusion", r"(down|up|input|output)_blocks[._]\d|mid_block[._]|middle_block[._]"),
    ("LTX-Video or PixArt", r"(?<!single_)transformer_blocks[._]\d+[._]attn1[._]"),
    ("Stable Diffusion 3", r"joint_(transformer_)?blocks|transformer_blocks[._]\d+[._]attn2[._]"),
    ("HunyuanVideo", r"(double|single)_blocks\.\d+\.(img|txt)_attn_(qkv|proj)"),
    ("Wan", r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn|attn1|ffn)"),
    ("Z-Image or Lumina", r"(^|[._])layers[._]\d+[._](attention|feed_forward|adaLN_modulation)"),
)
_FLUX_RE = re.compile(r"single_transformer_blocks|(double|single)_blocks|transformer_blocks[._]\d+[._](ff|norm1)")
_OTHER_MODELS_RE = tuple((name, re.compile(pattern)) for name, pattern in _OTHER_MODELS)


class AdapterKey(NamedTuple):
    """A tensor's module path (canonical, see above) and its part: ``down``, ``up`` or ``alpha``."""

    module: str
    part: str


_TABLES: dict[str, dict[str, dict[str, str | None]]] = {  # by model and kind of naming; "" is outside of the blocks
    FLUX: {
        "transformer_blocks": {name: name for name in _DOUBLE},
        "single_transformer_blocks": {name: name for name in _SINGLE},
        "double_blocks": _BFL_DOUBLE,
        "single_blocks": {**_BFL_SINGLE, **_DIFFSYNTH_SINGLE},
        "blocks": _DIFFSYNTH_DOUBLE,
        "": {**{name: name for name in _ROOT}, **_BFL_ROOT},
    },
    QWEN: {"transformer_blocks": {name: name for name in _QWEN}, "": {name: name for name in _QWEN_ROOT}},
}


def _canonical(layer: str, kind: str, dotted: bool, model: str) -> str | None:
    """The canonical layer name below a block (or below the root) of the given kind of naming."""
    for name, target in _TABLES[model].get(kind, {}).items():
        if layer == (name if dotted else name.replace(".", "_")):
            return target or name
    return None


def module_path(stem: str, model: str = FLUX) -> str | None:
    """The canonical module path of a layer of ``model`` spelt in any of the known ways, or None.

    ``stem`` is a tensor's key without its last part, e.g. ``lora_unet_double_blocks_0_img_attn_proj``.
    """
    for _ in _DOTTED_PREFIXES:  # prefixes nest, as in base_model.model.transformer.
        stem = next((stem[len(p) :] for p in _DOTTED_PREFIXES if stem.startswith(p)), stem)
    dotted = True
    for prefix in _FLAT_PREFIXES:
        if stem.startswith(prefix):
            stem, dotted = stem[len(prefix) :], False
            break
    block = _BLOCK.fullmatch(stem)
    if block is None:
        return _canonical(stem, "", dotted, model)
    kind, index = block["kind"], block["index"]
    separators = stem[len(kind)] + stem[len(kind) + 1 + len(index)]
    if separators != (".." if dotted else "__"):
        return None
    layer = _canonical(block["layer"], kind, dotted, model)
    if layer is None:
        return None
    kind = "double_blocks" if kind == "blocks" else kind
    family = kind if layer in _FUSED else {"double_blocks": "transformer_blocks"}.get(kind, kind)
    if family == "single_blocks" and layer not in _FUSED:
        family = "single_transformer_blocks"
    return f"{family}.{index}.{layer}"


def split_key(key: str, model: str = FLUX) -> AdapterKey | None:
    """The module and part of a tensor's key, or None when it is no part of a low-rank pair on a layer of ``model``."""
    for part, pattern in (("down", _DOWN), ("up", _UP), ("alpha", _ALPHA)):
        found = pattern.fullmatch(key)
        if found:
            module = module_path(found["stem"], model)
            return AdapterKey(module, part) if module else None
    return None


def normalise_key(key: str, model: str = FLUX) -> str | None:
    """The canonical module path of an adapter tensor's key, or None when it belongs to no layer of ``model``."""
    found = split_key(key, model)
    return found.module if found else None


def is_text_encoder(key: str) -> bool:
    """Whether a key belongs to a text encoder, which some FLUX adapters carry and this pack does not use."""
    return _TEXT_ENCODER.match(key) is not None


def other_kind(keys: Iterable[str]) -> str | None:
    """The kind of adapter when it is not a plain LoRA, for a refusal; None otherwise."""
    return _first(keys, _OTHER_KINDS)


def other_model(keys: Iterable[str], model: str = FLUX) -> str | None:
    """The model whose layer names these are, when it is recognisably not ``model``; None otherwise."""
    names = [key for key in keys if not is_text_encoder(key) or "lora_te2_" in key]
    others = [(name, pattern) for name, pattern in _OTHER_MODELS_RE if name != model]
    return _first(names, others if model == FLUX else [*others, (FLUX, _FLUX_RE)])


def _first(keys: Iterable[str], patterns: Iterable[tuple[str, re.Pattern[str]]]) -> str | None:
    names = list(keys)
    return next((name for name, pattern in patterns if any(pattern.search(key) for key in names)), None)


def block_of(module: str) -> tuple[str, int] | None:
    """``("double" | "single", index)`` of a canonical module path; None for a layer outside the blocks."""
    found = _BLOCK.fullmatch(module)
    if found is None:
        return None
    return ("single" if found["kind"].startswith("single") else "double"), int(found["index"])


def width_multiples(module: str) -> tuple[int | None, int | None]:
    """(out, in) of a canonical module as multiples of the model's width; None where they do not follow from it."""
    found = _BLOCK.fullmatch(module)
    if found is None:
        return _FUSED.get(module) or {**_ROOT, **_QWEN_ROOT}.get(module, (None, None))
    layer = found["layer"]
    return _FUSED.get(layer) or (_SINGLE if found["kind"].startswith("single") else {**_DOUBLE, **_QWEN})[layer]


def fused_parts(module: str) -> tuple[tuple[str, int], ...]:
    """The diffusers modules that a fused layer stands for, in row order, each with its rows in widths.

    Empty for a layer that is not fused. ``final_layer.adaLN_modulation.1`` is not split but reordered: see
    ``adapter.to_diffusers``.
    """
    found = _BLOCK.fullmatch(module)
    if found is None or found["layer"] not in _FUSED:
        return ()
    index, layer = found["index"], found["layer"]
    if found["kind"] == "double_blocks":
        names = ("to_q", "to_k", "to_v") if layer == "img_attn.qkv" else ("add_q_proj", "add_k_proj", "add_v_proj")
        return tuple((f"transformer_blocks.{index}.attn.{name}", 1) for name in names)
    base = f"single_transformer_blocks.{index}"
    parts = tuple((f"{base}.attn.{name}", 1) for name in ("to_q", "to_k", "to_v"))
    return (*parts, (f"{base}.proj_mlp", 4)) if layer == "linear1" else parts
