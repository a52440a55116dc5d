"""The low-rank adapter under training: PEFT's layers on a diffusers transformer, and its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..lora.adapter import LowRank, load_adapter, write_adapter
from .config import Config
from .shard import alike

# The authors' list (also OminiControl's): image stream of the double blocks, all of the single blocks, and x_embedder.
TARGETS = (
    r"x_embedder"
    r"|transformer_blocks\.\d+\.(norm1\.linear|attn\.to_[qkv]|attn\.to_out\.0|ff\.net\.2)"
    r"|single_transformer_blocks\.\d+\.(norm\.linear|attn\.to_[qkv]|proj_mlp|proj_out)"
)


@dataclass(frozen=True)
class Adapter:
    """rank and alpha of the LoRA; `folded` multiplies A and B together before they meet the tokens: the same
    function, cheaper where tokens are many and the width is small, dearer in memory where the width is large.
    `one_sided` fixes one factor of a module to the identity where the rank is no smaller than one of its sides: B
    A is then any matrix at all, and trains as plainly."""

    rank: int
    alpha: float
    folded: bool = False
    one_sided: bool = False


def add_adapter(transformer: Any, adapter: Adapter, seed: int, targets: str = TARGETS) -> list[nn.Parameter]:
    """Freezes a diffusers transformer and gives the modules whose names match `targets` a PEFT LoRA (Gaussian A, zero
    B); returns what trains."""
    from peft import LoraConfig

    transformer.requires_grad_(False)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # pyright: ignore[reportArgumentType]
        init_lora_weights="gaussian",
        target_modules=rf"^({targets})$",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer.add_adapter(config, adapter_name="contextgen")
    if adapter.one_sided:
        fix_one_side(transformer)
    if adapter.folded:
        fold(transformer)
    return [p for p in transformer.parameters() if p.requires_grad]


@torch.no_grad()
def fix_one_side(transformer: nn.Module) -> None:
    """Sets A (or B) to the identity and freezes it where the rank reaches the module's inputs (or outputs). B A
    stays as it is."""
    from peft.tuners.lora import Linear

    for module in transformer.modules():
        if not isinstance(module, Linear):
            continue
        layer: Any = module
        down: Tensor = layer.lora_A["contextgen"].weight  # (r, in)
        up: Tensor = layer.lora_B["contextgen"].weight  # (out, r)
        rank, inputs = down.shape
        outputs = up.shape[0]
        with torch.autocast(up.device.type, enabled=False):  # DPO comes here in the middle of a step
            change = up @ down
        if inputs <= rank:
            down.copy_(torch.eye(rank, inputs))
            up.zero_()
            up[:, :inputs] = change
            down.requires_grad_(False)
        elif outputs <= rank:
            up.copy_(torch.eye(outputs, rank))
            down.zero_()
            down[:outputs] = change
            up.requires_grad_(False)


def fold(transformer: nn.Module) -> None:
    """Computes W + scale * B A once per call instead of two thin products per token. Same function, same parameters."""
    from peft.tuners.lora import Linear

    for module in transformer.modules():
        if isinstance(module, Linear):
            module.forward = _folded(module)  # type: ignore[method-assign]


def _folded(module: Any) -> Callable[..., Tensor]:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        base = module.get_base_layer()
        if module.disable_adapters:
            return functional.linear(x, base.weight, base.bias)
        name = module.active_adapters[0]
        change = module.lora_B[name].weight @ module.lora_A[name].weight
        return functional.linear(x, base.weight + module.scaling[name] * change, base.bias)

    return forward


def adapter_state(transformer: Any) -> dict[str, Tensor]:
    """The adapter in the authors' keys: transformer.<module>.lora_A.weight and .lora_B.weight."""
    out = {}
    for name, value in transformer.state_dict().items():
        if ".contextgen." in name and "lora_" in name:
            out["transformer." + name.replace(".contextgen.", ".")] = value.detach()
    return out


def load_adapter_state(transformer: Any, state: Mapping[str, Tensor]) -> None:
    """Fills an adapter made by `add_adapter` from the authors' keys. Raises InputError for a file of another shape."""
    own = {
        "transformer." + n.replace(".contextgen.", "."): p for n, p in transformer.named_parameters() if "lora_" in n
    }
    if set(own) != set(state):
        raise InputError(
            f"The adapter holds {len(state)} tensors where this model needs {len(own)}; choose an adapter of this"
            " model."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != state[name].shape:
                raise InputError(
                    f"The adapter's {name} has shape {tuple(state[name].shape)}, not {tuple(parameter.shape)};"
                    " set lora.rank to the adapter's rank."
                )
            parameter.copy_(alike(state[name], parameter))
    if any(not p.requires_grad for p in own.values()) and any(p.requires_grad for p in own.values()):
        fix_one_side(transformer)  # the file's factors need not be one-sided


def cut_rank(state: Mapping[str, Tensor], rank: int, scale: float = 1.0) -> dict[str, Tensor]:
    """The adapter (the authors' keys, B A times `scale`) of at most `rank` that is nearest to a given one, module by
    module: the largest singular values stay, shared evenly by both factors. Its own scale is 1."""
    out = {}
    for name in sorted(state):
        if not name.endswith(".lora_A.weight"):
            continue
        other = name.replace(".lora_A.", ".lora_B.")
        left, values, right = torch.linalg.svd(
            scale * state[other].double() @ state[name].double(), full_matrices=False
        )
        root = values[:rank].sqrt()
        short = (0, 0, 0, max(0, rank - len(root)))  # a side smaller than the rank: zeros, so that all ranks are equal
        out[name] = functional.pad(root[:, None] * right[:rank], short).float()
        out[other] = functional.pad((left[:, :rank] * root).T, short).T.contiguous().float()
    return out


# ---- the file ------------------------------------------------------------------------------------


def save_adapter(path: Path, state: Mapping[str, Tensor], config: Config) -> None:
    """Writes :func:`adapter_state` in half precision, as the authors store it: alpha / rank multiplied into lora_B; cut
    to `lora.keep`, where that is given."""
    lora = config.lora
    alpha = lora.alpha or lora.rank
    if lora.keep:
        state, alpha = cut_rank(state, lora.keep, alpha / lora.rank), lora.keep
    pairs = [
        LowRank(
            key.removeprefix("transformer.").removesuffix(".lora_A.weight"),
            down.half(),
            state[key.replace("lora_A", "lora_B")].half(),
            alpha,
        )
        for key, down in state.items()
        if key.endswith("lora_A.weight")
    ]
    write_adapter(path, pairs, metadata={"stage": config.stage})


def read_adapter(path: Path, config: Config) -> dict[str, Tensor]:
    """An adapter file for :func:`load_adapter_state`, its scale taken out of alpha / rank of this run."""
    own = (config.lora.alpha or config.lora.rank) / config.lora.rank
    state = {}
    for pair in load_adapter(path).pairs:
        state[f"transformer.{pair.module}.lora_A.weight"] = pair.down.float()
        state[f"transformer.{pair.module}.lora_B.weight"] = pair.up.float() * (pair.scale / own)
    return state
