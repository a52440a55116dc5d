"""A block's weights as functions on the host's own modules, however they store and move their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comfy.ldm.modules.attention
import comfy.lora
import comfy.model_management
import comfy.patcher_extension
import comfy.sampler_helpers
import pytest
import tiny_flux
import tiny_sd3
import torch
from comfy.ldm.flux.layers import DoubleStreamBlock, SingleStreamBlock
from contextgen_pack.contextgen_core import backbones
from contextgen_pack.contextgen_core.attention.groups import Span
from contextgen_pack.contextgen_core.backbones import LowRank, Stretch, rebuild_double, rebuild_single
from contextgen_pack.contextgen_core.errors import InputError

FLUX_LAYERS = {
    "transformer_blocks": (
        "norm1.linear", "norm1_context.linear", "attn.to_q", "attn.to_k", "attn.to_v", "attn.add_q_proj",
        "attn.add_k_proj", "attn.add_v_proj", "attn.to_out.0", "attn.to_add_out", "ff.net.0.proj", "ff.net.2",
        "ff_context.net.0.proj", "ff_context.net.2",
    ),
    "single_transformer_blocks": ("norm.linear", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out"),
}  # fmt: skip
SIZES = {  # (outputs, inputs) in widths, where they are not (1, 1)
    "norm1.linear": (6, 1), "norm1_context.linear": (6, 1), "ff.net.0.proj": (4, 1), "ff.net.2": (1, 4),
    "ff_context.net.0.proj": (4, 1), "ff_context.net.2": (1, 4),
    "norm.linear": (3, 1), "proj_mlp": (4, 1), "proj_out": (1, 5),
}  # fmt: skip
Additions = dict[str, list[LowRank]]


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attention(transformer_options: dict[str, Any] | None = None) -> Any:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        optimized = comfy.ldm.modules.attention.optimized_attention
        return optimized(q, k, v, q.shape[1], skip_reshape=True, transformer_options=transformer_options or {})

    return attend


def rebuilt(block: Any, arguments: dict[str, Any], **options: Any) -> tuple[torch.Tensor, ...]:
    """(image, text) of a double block or (joint,) of a single one from a block replacement's arguments."""
    functions = backbones.view(block)
    attend = attention(arguments["transformer_options"])
    rest = {"vec": arguments["vec"], "attend": attend, "rope": arguments.get("pe"), **options}
    if isinstance(functions, backbones.SingleBlock):
        return (rebuild_single(functions, arguments["img"], **rest),)
    image, text = rebuild_double(functions, arguments["img"], arguments["txt"], **rest)
    return (image,) if text is None else (image, text)


def forward(model: Any, replace: Callable[[Any, dict[str, Any], Any], dict[str, Any]] | None = None) -> torch.Tensor:
    """One call of the host's model on fixed inputs; ``replace(block, args, original)`` stands in each block's place."""
    network = model.model.diffusion_model
    flux = hasattr(network, "double_blocks")
    doubles = network.double_blocks if flux else network.joint_blocks
    named = {("double_block", i): block for i, block in enumerate(doubles)}
    named |= {("single_block", i): block for i, block in enumerate(network.single_blocks if flux else ())}
    options: dict[str, Any] = {}
    if replace is not None:

        def wrap(block: Any) -> Any:
            return lambda arguments, extra: replace(block, arguments, extra["original_block"])

        options["patches_replace"] = {"dit": {key: wrap(block) for key, block in named.items()}}
    pooled, width = (tiny_flux.POOLED, tiny_flux.TEXT) if flux else (tiny_sd3.POOLED, tiny_sd3.TEXT)
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    with torch.no_grad():
        return network(
            random(2, 16, 12, 16).to(dtype),
            torch.tensor([0.7, 0.7], dtype=dtype),
            context=random(2, 9, width, seed=2).to(dtype),
            y=random(2, pooled, seed=3).to(dtype),
            **({"guidance": torch.tensor([3.5, 3.5], dtype=dtype)} if flux else {}),
            transformer_options=options,
        )


def worst(model: Any) -> float:
    """The largest difference between each block rebuilt and the block itself, on the values of a real forward."""
    differences: list[float] = []

    def compare(block: Any, arguments: dict[str, Any], original: Any) -> dict[str, Any]:
        made = rebuilt(block, arguments)
        out = original(arguments)
        own = [out[name] for name in ("img", "txt") if out.get(name) is not None]
        assert len(made) == len(own)
        for one, other in zip(made, own, strict=True):
            scale = max(1.0, float(other.abs().max()))
            differences.append(float((one.float() - other.float()).abs().max()) / scale)
        return out

    forward(model, compare)
    assert differences
    return max(differences)


def in_place(additions: dict[int, Additions] | None = None) -> Callable[[Any, dict[str, Any], Any], dict[str, Any]]:
    """A replacement that computes each block from its functions; ``additions`` by ``id`` of the block."""

    def replace(block: Any, arguments: dict[str, Any], _original: Any) -> dict[str, Any]:
        made = rebuilt(block, arguments, additions=(additions or {}).get(id(block)))
        return {"img": made[0], "txt": made[1] if len(made) > 1 else None}

    return replace


@pytest.fixture(params=["flux", "sd3", "sd3_qk_norm"])
def family(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    builders = {
        "flux": tiny_flux.build,
        "sd3": tiny_sd3.build,
        "sd3_qk_norm": lambda *args: tiny_sd3.build(*args, qk_norm="rms"),
    }
    yield builders[request.param]


def test_a_rebuilt_block_is_the_hosts_own(family: Callable[..., Any]) -> None:
    model = family()
    assert worst(model) <= 1e-6
    plain = forward(model)
    torch.testing.assert_close(forward(model, in_place()), plain, rtol=0, atol=2e-6 * float(plain.abs().max()))


def test_a_rebuilt_block_in_bfloat16_rounds_as_the_hosts_own(family: Callable[..., Any]) -> None:
    assert worst(family(torch.bfloat16)) <= 1e-6


def test_weights_stored_in_eight_bits(family: Callable[..., Any]) -> None:
    assert worst(family(torch.float8_e4m3fn, torch.float32)) <= 1e-6


class Quantised(torch.nn.Module):
    """A linear whose weight is packed bytes of another shape, unpacked when it is called: GGUF's way."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self.rows, self.scale = weight.shape[0], weight.abs().max() / 127
        self.weight = torch.nn.Parameter((weight / self.scale).round().to(torch.int8).flatten(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.unflatten(0, (self.rows, -1)).to(x) * self.scale
        return torch.nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x))


def test_linears_that_unpack_their_weights_when_called(family: Callable[..., Any]) -> None:
    model = family()
    network = model.model.diffusion_model
    blocks = [*getattr(network, "double_blocks", ()), *getattr(network, "single_blocks", ())]
    for block in blocks or network.joint_blocks:
        for name, module in list(block.named_modules()):
            if isinstance(module, torch.nn.Linear):
                parent, _, leaf = name.rpartition(".")
                setattr(block.get_submodule(parent), leaf, Quantised(module))
    assert worst(model) <= 1e-6


# --- low-rank additions ---------------------------------------------------------------------------------------------


def adapter(model: Any, rank: int = 2) -> tuple[dict[str, torch.Tensor], dict[int, Additions]]:
    """A LoRA for each layer of each block in diffusers' spelling, and the same as additions by ``id`` of the block."""
    network = model.model.diffusion_model
    flux = hasattr(network, "double_blocks")
    kinds = [("transformer_blocks", network.double_blocks if flux else network.joint_blocks)]
    if flux:
        kinds.append(("single_transformer_blocks", network.single_blocks))
    width = network.hidden_size
    state: dict[str, torch.Tensor] = {}
    by_block: dict[int, Additions] = {}
    for kind, blocks in kinds:
        for number, block in enumerate(blocks):
            ends = not flux and number == len(blocks) - 1
            additions = by_block.setdefault(id(block), {})
            for name in FLUX_LAYERS[kind]:
                if ends and (name == "attn.to_add_out" or name.startswith("ff_context")):
                    continue
                outputs, inputs = SIZES.get(name, (1, 1))
                if ends and name == "norm1_context.linear":
                    outputs = 2
                down = random(rank, inputs * width, seed=len(state)) * 0.1
                up = random(outputs * width, rank, seed=1000 + len(state)) * 0.3
                state[f"transformer.{kind}.{number}.{name}.lora_A.weight"] = down
                state[f"transformer.{kind}.{number}.{name}.lora_B.weight"] = up
                additions[name] = [LowRank(down, up)]
    return state, by_block


def with_lora(model: Any, state: dict[str, torch.Tensor]) -> Any:
    """The model with the adapter by the host's own loader, not yet in its weights."""
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(state, keys)
    clone = model.clone()
    assert len(patches) == len(state) // 2 == len(clone.add_patches(patches, 1.0))
    return clone


def test_additions_equal_the_hosts_own_adapter(family: Callable[..., Any]) -> None:
    """The host's loader knows by itself which rows of its fused layers an adapter's layers are."""
    state, additions = adapter(family())
    patched = with_lora(family(), state)
    patched.patch_model()
    wanted = forward(patched)
    model = family()
    by_block = dict(zip([id(b) for b in blocks_of(model)], additions.values(), strict=True))
    made, plain = forward(model, in_place(by_block)), forward(model)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-5 * scale)
    assert (made - plain).abs().max() > 0.05 * scale


def blocks_of(model: Any) -> list[Any]:
    network = model.model.diffusion_model
    if hasattr(network, "joint_blocks"):
        return list(network.joint_blocks)
    return [*network.double_blocks, *network.single_blocks]


def test_an_adapter_that_waits_for_offloaded_weights_acts(family: Callable[..., Any]) -> None:
    """Partly loaded, the host adds an adapter to a weight when the module is called; the functions get it, too."""
    model = family()
    state, _ = adapter(model)
    plain = forward(model)
    waiting = with_lora(model, state)
    waiting.load(torch.device("cpu"), lowvram_model_memory=1)
    stored = blocks_of(model)[0].state_dict()
    untouched = blocks_of(family())[0].state_dict()
    assert all(torch.equal(stored[name], untouched[name]) for name in stored), "the weights themselves wait"
    assert worst(waiting) <= 1e-6
    made = forward(waiting, in_place())
    merged = with_lora(family(), state)
    merged.patch_model()
    torch.testing.assert_close(made, forward(merged), rtol=0, atol=1e-5 * float(made.abs().max()))
    assert (made - plain).abs().max() > 0.05 * float(made.abs().max())


def test_off_is_the_hosts_module() -> None:
    model = tiny_flux.build()
    double, single = model.model.diffusion_model.double_blocks[0], model.model.diffusion_model.single_blocks[0]
    x = random(2, 5, model.model.diffusion_model.hidden_size)
    state, additions = adapter(model)
    assert state
    image = backbones.view(double).image
    with torch.no_grad():
        for chosen, tokens in ((None, None), ({}, None), (additions[id(double)], ())):
            assert torch.equal(image.out(x, chosen, tokens), double.img_attn.proj(x))
            assert torch.equal(image.mlp(x, chosen, tokens), double.img_mlp(x))
            mlp = backbones.view(single).qkv_mlp(x, chosen, tokens)[3]
            assert torch.equal(mlp, single.linear1(x)[..., 3 * x.shape[-1] :])


def test_tokens_of_their_own_vector_and_without_the_adapter() -> None:
    """The host's single block takes a vector per token; a rebuilt one reaches the same by stretches."""
    model = tiny_flux.build()
    network = model.model.diffusion_model
    block, width = network.single_blocks[0], network.hidden_size
    x, vec, other = random(2, 12, width), random(2, width, seed=5), random(2, width, seed=6)
    pe = network.pe_embedder(random(1, 12, 3, seed=7) * 5)
    per_token = torch.cat([vec[:, None].expand(-1, 8, -1), other[:, None].expand(-1, 4, -1)], 1)
    with torch.no_grad():
        wanted = block(x.clone(), per_token, pe)
        functions = backbones.view(block)
        stretches = [Stretch(Span(8, 12), other)]
        made = rebuild_single(functions, x, vec, attention(), pe, stretches)
        torch.testing.assert_close(made, wanted, rtol=0, atol=5e-6)
        _, additions = adapter(model)
        alone = [Stretch(Span(8, 12), other, additions=False), Stretch(Span(0, 8), additions=False)]
        off = rebuild_single(functions, x, vec, attention(), pe, alone, additions[id(block)])
        assert torch.equal(off, made)


# --- families -------------------------------------------------------------------------------------------------------


def test_what_is_known_of_the_hosts_models() -> None:
    flux = backbones.backbone(tiny_flux.build().model.diffusion_model)
    assert (flux.name, flux.double, flux.single) == ("FLUX.1", tiny_flux.DOUBLE, tiny_flux.SINGLE)
    assert (flux.width, flux.axes, flux.channels, flux.pooled) == (32, 3, 16, tiny_flux.POOLED)
    sd3 = backbones.backbone(tiny_sd3.build().model.diffusion_model)
    assert (sd3.name, sd3.double, sd3.single) == ("Stable Diffusion 3", tiny_sd3.HEADS, 0)
    assert (sd3.width, sd3.axes, sd3.channels, sd3.pooled) == (32, 0, 16, tiny_sd3.POOLED)


def test_blocks_that_get_ready_modulations_are_refused(host_version: tuple[int, ...]) -> None:
    import comfy.ops

    if host_version < (0, 4):
        from comfy.ldm.chroma.layers import DoubleStreamBlock as Ready

        block = Ready(32, 2, 4.0, operations=comfy.ops.manual_cast)
    else:
        block = DoubleStreamBlock(32, 2, 4.0, modulation=False, operations=comfy.ops.manual_cast)
        single = SingleStreamBlock(32, 2, modulation=False, operations=comfy.ops.manual_cast)
        with pytest.raises(InputError, match="SingleStreamBlock"):
            backbones.view(single)
    with pytest.raises(InputError, match="DoubleStreamBlock"):
        backbones.view(block)


def test_sd35s_second_attention_is_refused() -> None:
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import JointBlock

    block = JointBlock(32, 2, pre_only=False, x_block_self_attn=True, operations=comfy.ops.manual_cast)
    with pytest.raises(InputError, match="second attention"):
        backbones.view(block)
