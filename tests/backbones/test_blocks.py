"""A block's weights as functions on diffusers: a block computed from them is the model's own block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.transformers.transformer_flux import (
    FluxPosEmbed,
    FluxSingleTransformerBlock,
    FluxTransformer2DModel,
    FluxTransformerBlock,
)
from diffusers.models.transformers.transformer_qwenimage import (
    QwenDoubleStreamAttnProcessor2_0,
    QwenImageTransformer2DModel,
    QwenImageTransformerBlock,
)
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import Tensor, nn

from contextgen_core.attention.groups import Group, KeyPart, Span
from contextgen_core.attention.run import sdpa
from contextgen_core.backbones import (
    DoubleBlock,
    LowRank,
    SingleBlock,
    Stretch,
    backbone,
    rebuild_double,
    rebuild_single,
    rotate,
    view,
)
from contextgen_core.backbones.layers import FLUX_DOUBLE, FLUX_SINGLE, QWEN
from contextgen_core.backbones.qwen import DIFFUSERS
from contextgen_core.errors import InputError

WIDTH, HEADS, TEXT, IMAGE = 32, 2, 5, 7
torch.set_num_threads(1)


def seeded(block: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.ndim == 1) * 0.3)
    return block.eval().requires_grad_(False)


def random(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def flux_double() -> Any:
    return seeded(FluxTransformerBlock(WIDTH, HEADS, WIDTH // HEADS))


def flux_single() -> Any:
    return seeded(FluxSingleTransformerBlock(WIDTH, HEADS, WIDTH // HEADS))


def sd3_joint(last: bool = False, qk_norm: str | None = None) -> Any:
    return seeded(JointTransformerBlock(WIDTH, HEADS, WIDTH // HEADS, context_pre_only=last, qk_norm=qk_norm))


def qwen() -> Any:
    return seeded(QwenImageTransformerBlock(WIDTH, HEADS, WIDTH // HEADS))


def own_qwen(block: Any, image: Tensor, text: Tensor, vec: Tensor, table: Any) -> tuple[Tensor, Tensor]:
    """(text, image) of diffusers' block, which takes its rope as complex numbers of image and text."""
    cos, sin = (part[:, ::2] for part in table)
    turns = torch.complex(cos.float(), sin.float())
    return block(image, text, None, vec, (turns[TEXT:], turns[:TEXT]))


def rope(batched: bool = False) -> Any:
    ids = random(TEXT + IMAGE, 3) * 9
    cos, sin = FluxPosEmbed(10000, [4, 6, 6])(ids)
    return (cos[None], sin[None]) if batched else (cos, sin)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Image, text and conditioning vector of two pictures."""
    image, text = random(2, IMAGE, WIDTH, seed=2, dtype=dtype), random(2, TEXT, WIDTH, seed=3, dtype=dtype)
    return image, text, random(2, WIDTH, seed=4, dtype=dtype)


def of_double(block: Any) -> DoubleBlock:
    functions = view(block)
    assert isinstance(functions, DoubleBlock)
    return functions


def of_single(block: Any) -> SingleBlock:
    functions = view(block)
    assert isinstance(functions, SingleBlock)
    return functions


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return sdpa(q, k, v)


def image_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Diffusers' order in SD3: another order of the keys, and so of the rounding."""
    turned = (torch.cat([x[:, :, TEXT:], x[:, :, :TEXT]], 2) for x in (q, k, v))
    out = sdpa(*turned)
    return torch.cat([out[:, IMAGE:], out[:, :IMAGE]], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batched", [False, True])
def test_a_rebuilt_flux_double_block_is_the_models_own(dtype: torch.dtype, batched: bool) -> None:
    block = flux_double().to(dtype)
    image, text, vec = inputs(dtype)
    before = image.clone(), text.clone()
    made_image, made_text = rebuild_double(of_double(block), image, text, vec, attend, rope(batched))
    own_text, own_image = block(image, text, vec, rope())
    assert torch.equal(made_image, own_image) and made_text is not None and torch.equal(made_text, own_text)
    assert torch.equal(image, before[0]) and torch.equal(text, before[1]), "inputs stay as they are"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rebuilt_flux_single_block_is_the_models_own(dtype: torch.dtype) -> None:
    block = flux_single().to(dtype)
    image, text, vec = inputs(dtype)
    made = rebuild_single(of_single(block), torch.cat([text, image], 1), vec, attend, rope())
    assert torch.equal(made, torch.cat(block(image, text, vec, rope()), 1))


@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
@pytest.mark.parametrize("last", [False, True])
def test_a_rebuilt_sd3_block_is_the_models_own(last: bool, qk_norm: str | None) -> None:
    block = sd3_joint(last, qk_norm)
    image, text, vec = inputs()
    own_text, own_image = block(image, text, vec)
    for attention, exact in ((image_first, True), (attend, False)):
        made_image, made_text = rebuild_double(of_double(block), image, text, vec, attention)
        limit = 0 if exact else 1e-6 * float(own_image.abs().max())
        torch.testing.assert_close(made_image, own_image, rtol=0, atol=limit)
        if last:
            assert made_text is None and own_text is None and of_double(block).text.ends
        else:
            torch.testing.assert_close(made_text, own_text, rtol=0, atol=limit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rebuilt_qwen_block_is_the_models_own(dtype: torch.dtype) -> None:
    block = qwen().to(dtype)
    assert isinstance(block.attn.processor, QwenDoubleStreamAttnProcessor2_0)
    image, text, vec = inputs(dtype)
    made_image, made_text = rebuild_double(of_double(block), image, text, vec, attend, rope())
    own_text, own_image = own_qwen(block, image, text, vec, rope())
    limit = 1e-6 if dtype == torch.float32 else 0.0
    torch.testing.assert_close(made_image, own_image, rtol=limit, atol=limit)
    torch.testing.assert_close(made_text, own_text, rtol=limit, atol=limit)


@pytest.mark.parametrize("name", [layer.name for layer in QWEN])
def test_each_layer_of_a_qwen_block_takes_its_own_addition(name: str) -> None:
    image, text, vec = inputs()
    block = qwen()
    additions = pairs(block, [name])
    made = rebuild_double(of_double(block), image, text, vec, attend, rope(), additions=additions)
    own_text, own_image = own_qwen(merged(qwen(), additions), image, text, vec, rope())
    close(made[0], own_image)
    close(made[1], own_text)
    plain = rebuild_double(of_double(block), image, text, vec, attend, rope())
    assert any((m - p).abs().max() > 1e-3 for m, p in zip(made, plain, strict=True) if m is not None and p is not None)


def test_float16_stays_finite_as_in_the_models_own_block() -> None:
    block = flux_single().to(torch.float16)
    functions = of_single(block)
    huge = torch.tensor([[[1e5, -1e5, 1.0]]], dtype=torch.float16)
    assert functions.clamp(huge).tolist() == [[[65504.0, -65504.0, 1.0]]]
    assert of_double(flux_double()).text.clamp(huge).isfinite().all()
    assert torch.equal(of_double(flux_double()).image.clamp(huge), huge), "the model leaves its image stream alone"


# --- low-rank additions ---------------------------------------------------------------------------------------------


def pairs(block: nn.Module, names: list[str], seed: int = 7, rank: int = 3) -> dict[str, list[LowRank]]:
    """Low-rank additions for layers of a diffusers block, as tensors and as modules in turn."""
    out: dict[str, list[LowRank]] = {}
    for number, name in enumerate(names):
        outputs, width = block.get_submodule(name).weight.shape  # pyright: ignore
        down, up = random(rank, int(width), seed=seed + number), random(int(outputs), rank, seed=seed + 50 + number)
        layers = nn.Linear(int(width), rank, bias=False), nn.Linear(rank, int(outputs), bias=False)
        for layer, weight in zip(layers, (down, up), strict=True):
            layer.requires_grad_(False).weight.copy_(weight)
        out[name] = [LowRank(*layers, 0.1) if number % 2 else LowRank(down, up, 0.1)]
    return out


def merged(block: Any, additions: dict[str, list[LowRank]]) -> Any:
    """The block with the additions in its weights."""
    with torch.no_grad():
        for name, listed in additions.items():
            for down, up, scale in listed:
                a, b = (layer if isinstance(layer, Tensor) else layer.weight for layer in (down, up))  # pyright: ignore
                block.get_submodule(name).weight += scale * b @ a
    return block


DOUBLE_NAMES = [layer.name for layer in FLUX_DOUBLE]
SINGLE_NAMES = [layer.name for layer in FLUX_SINGLE]
ENDING_NAMES = [n for n in DOUBLE_NAMES if n != "attn.to_add_out" and not n.startswith("ff_context")]


def close(made: Tensor | None, wanted: Tensor | None) -> None:
    assert made is not None and wanted is not None
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [flux_double, sd3_joint])
def test_additions_equal_merged_weights_in_a_double_block(make: Callable[[], Any]) -> None:
    image, text, vec = inputs()
    block = make()
    additions = pairs(block, DOUBLE_NAMES)
    made = rebuild_double(of_double(block), image, text, vec, attend, additions=additions)
    wanted = rebuild_double(of_double(merged(make(), additions)), image, text, vec, attend)
    close(made[0], wanted[0])
    close(made[1], wanted[1])
    plain = rebuild_double(of_double(block), image, text, vec, attend)
    assert (made[0] - plain[0]).abs().max() > 0.05


@pytest.mark.parametrize("name", DOUBLE_NAMES)
def test_each_layer_of_a_double_block_takes_its_own_addition(name: str) -> None:
    image, text, vec = inputs()
    block = flux_double()
    additions = pairs(block, [name])
    made = rebuild_double(of_double(block), image, text, vec, attend, rope(), additions=additions)
    own_text, own_image = merged(flux_double(), additions)(image, text, vec, rope())
    close(made[0], own_image)
    close(made[1], own_text)
    plain = rebuild_double(of_double(block), image, text, vec, attend, rope())
    assert any((m - p).abs().max() > 1e-3 for m, p in zip(made, plain, strict=True) if m is not None and p is not None)


@pytest.mark.parametrize("name", SINGLE_NAMES)
def test_each_layer_of_a_single_block_takes_its_own_addition(name: str) -> None:
    image, text, vec = inputs()
    block = flux_single()
    additions = pairs(block, [name])
    made = rebuild_single(of_single(block), torch.cat([text, image], 1), vec, attend, rope(), additions=additions)
    close(made, torch.cat(merged(flux_single(), additions)(image, text, vec, rope()), 1))


def test_additions_in_the_block_that_ends_the_text_stream() -> None:
    image, text, vec = inputs()
    block = sd3_joint(last=True)
    additions = pairs(block, ENDING_NAMES)
    made = rebuild_double(of_double(block), image, text, vec, attend, additions=additions)
    own_text, own_image = merged(sd3_joint(last=True), additions)(image, text, vec)
    close(made[0], own_image)
    assert made[1] is None and own_text is None


def test_without_additions_a_function_is_the_module_itself() -> None:
    block = flux_double()
    functions = of_double(block)
    x = random(2, IMAGE, WIDTH)
    for additions in (None, {}, {"proj_mlp": [LowRank(random(2, WIDTH), random(WIDTH, 2))]}):
        assert torch.equal(functions.image.out(x, additions), block.attn.to_out[0](x))
        assert torch.equal(functions.image.mlp(x, additions), block.ff(x))
    acting = pairs(block, DOUBLE_NAMES)
    assert torch.equal(functions.image.mlp(x, acting, ()), block.ff(x)), "on no token is off"


@given(start=st.integers(0, IMAGE), size=st.integers(0, IMAGE))
@settings(max_examples=20)
def test_additions_on_some_tokens_touch_no_others(start: int, size: int) -> None:
    span = Span(start, min(IMAGE, start + size))
    block = flux_double()
    additions = pairs(block, DOUBLE_NAMES)
    image, x = of_double(block).image, random(2, IMAGE, WIDTH)
    inside = slice(*span)
    for function in (image.out, image.mlp, lambda *a: torch.cat(image.qkv(*a), 1).transpose(1, 2)):
        some, everywhere, nowhere = function(x, additions, (span,)), function(x, additions), function(x)
        close(some[:, inside], everywhere[:, inside])
        rest = torch.ones(IMAGE, dtype=torch.bool)
        rest[inside] = False
        assert torch.equal(some[:, rest], nowhere[:, rest])


def test_pefts_layers_go_on_acting() -> None:
    config: dict[str, Any] = {
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
    }
    model = FluxTransformer2DModel(
        in_channels=4, joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6), **config
    )
    targets = r".*(norm1?\.linear|to_[qkv]|to_out\.0|add_q_proj|proj_mlp|proj_out|net\.0\.proj|net\.2)"
    plain = of_double(seeded(model).transformer_blocks[0]).image.mlp(random(2, IMAGE, WIDTH))
    model.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    seeded(model)
    double, single = model.transformer_blocks[0], model.single_transformer_blocks[0]
    image, text, vec = inputs()
    made_image, made_text = rebuild_double(of_double(double), image, text, vec, attend, rope())
    own_text, own_image = double(image, text, vec, rope())
    assert torch.equal(made_image, own_image) and made_text is not None and torch.equal(made_text, own_text)
    joint = torch.cat([text, image], 1)
    made = rebuild_single(of_single(single), joint, vec, attend, rope())
    assert torch.equal(made, torch.cat(single(image, text, vec, rope()), 1))
    assert not torch.equal(of_double(double).image.mlp(random(2, IMAGE, WIDTH)), plain)


# --- tokens of their own --------------------------------------------------------------------------------------------


def test_stretches_that_change_nothing_change_nothing() -> None:
    image, text, vec = inputs()
    block = of_double(flux_double())
    stretches = [Stretch(Span(TEXT + 2, TEXT + 4), vec.clone()), Stretch(Span(1, 3), vec)]
    made = rebuild_double(block, image, text, vec, attend, rope(), stretches)
    wanted = rebuild_double(block, image, text, vec, attend, rope())
    close(made[0], wanted[0])
    close(made[1], wanted[1])


def per_token(vec: Tensor, other: Tensor, changed: slice, length: int) -> Tensor:
    """One conditioning vector for each token (B, S, D)."""
    out = vec[:, None].expand(-1, length, -1).clone()
    out[:, changed] = other[:, None]
    return out


def test_a_stretch_with_its_own_vector_equals_a_vector_per_token() -> None:
    image, text, vec = inputs()
    other = random(2, WIDTH, seed=9)
    span = Span(TEXT + 2, TEXT + 6)
    stretches = [Stretch(span, other)]

    single = of_single(flux_single())
    x = torch.cat([text, image], 1)
    wanted = rebuild_single(single, x, per_token(vec, other, slice(*span), x.shape[1]), attend, rope())
    close(rebuild_single(single, x, vec, attend, rope(), stretches), wanted)

    double = of_double(flux_double())
    made = rebuild_double(double, image, text, vec, attend, rope(), stretches)
    tokens = per_token(vec, other, slice(2, 6), IMAGE)
    whole = rebuild_double(double, image, text, vec, attend, rope())
    (first, second), q = double.image.modulation(tokens), []
    q = double.image.qkv(double.image.modulate(double.image.norm1(image), first))
    text_first, _ = double.text.modulation(vec)
    text_q = double.text.qkv(double.text.modulate(double.text.norm1(text), text_first))
    joint = [torch.cat(pair, 2) for pair in zip(text_q, q, strict=True)]
    attended = attend(rotate(joint[0], rope()), rotate(joint[1], rope()), joint[2])[:, TEXT:]
    assert first.gate is not None and second.gate is not None
    by_hand = image + first.gate * double.image.out(attended)
    by_hand = by_hand + second.gate * double.image.mlp(double.image.modulate(double.image.norm2(by_hand), second))  # pyright: ignore
    close(made[0], by_hand)
    assert (made[0] - whole[0]).abs().max() > 0.05


@pytest.mark.parametrize("on", [Span(0, TEXT + 3), Span(TEXT + 3, TEXT + IMAGE), Span(0, TEXT + IMAGE), Span(0, 0)])
def test_a_stretch_without_the_adapter_is_computed_without_it(on: Span) -> None:
    """Where nothing mixes the tokens, those outside the adapter are bit for bit the plain ones, the rest merged."""
    image, text, vec = inputs()
    block = flux_single()
    additions = pairs(block, SINGLE_NAMES)
    x = torch.cat([text, image], 1)

    def alone(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v.transpose(1, 2).flatten(2)

    end = TEXT + IMAGE
    stretches = [Stretch(Span(0, on.start), additions=False), Stretch(Span(on.stop, end), additions=False)]
    made = rebuild_single(of_single(block), x, vec, alone, rope(), stretches, additions)
    plain = rebuild_single(of_single(block), x, vec, alone, rope())
    merged_in = rebuild_single(of_single(merged(flux_single(), additions)), x, vec, alone, rope())
    off = torch.ones(end, dtype=torch.bool)
    off[slice(*on)] = False
    close(made[:, ~off], merged_in[:, ~off])
    torch.testing.assert_close(made[:, off], plain[:, off], rtol=0, atol=1e-6)


def test_overlapping_stretches_are_a_mistake() -> None:
    image, text, vec = inputs()
    stretches = [Stretch(Span(0, 4), vec), Stretch(Span(3, 6), vec)]
    with pytest.raises(ValueError, match="overlap at token 3"):
        rebuild_single(of_single(flux_single()), torch.cat([text, image], 1), vec, attend, rope(), stretches)


def test_the_caller_decides_who_sees_whom() -> None:
    """Attention groups reach a rebuilt block: what image tokens read no longer depends on unread text."""
    image, text, vec = inputs()
    block = of_double(flux_double())
    group = Group(Span(TEXT, TEXT + IMAGE), (KeyPart(Span(TEXT, TEXT + IMAGE)),))

    def apart(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = attend(q, k, v)
        rows = slice(*group.queries)  # pyright: ignore
        out[:, rows] = attend(q[:, :, rows], k[:, :, rows], v[:, :, rows])
        return out

    made, _ = rebuild_double(block, image, text, vec, apart, rope())
    again, _ = rebuild_double(block, image, text + 1 + random(2, TEXT, WIDTH, seed=8), vec, apart, rope())
    assert torch.equal(made, again)


def test_gradients_reach_additions_and_tokens() -> None:
    image, text, vec = inputs()
    block = flux_double()
    down, up = random(2, WIDTH).requires_grad_(), random(WIDTH, 2).requires_grad_()
    image.requires_grad_()
    additions = {"attn.to_k": [LowRank(down, up)]}
    span = [Stretch(Span(0, TEXT + 2), additions=False)]
    made, _ = rebuild_double(of_double(block), image, text, vec, attend, rope(), span, additions)
    made.sum().backward()
    for tensor in (down, up, image):
        assert tensor.grad is not None and tensor.grad.abs().sum() > 0


# --- rope, families and refusals ------------------------------------------------------------------------------------


def test_both_hosts_forms_of_rope_turn_alike() -> None:
    q = random(2, HEADS, 4, 16)
    cos, sin = (table[:4] for table in rope())
    c, s = cos[:, ::2], sin[:, ::2]
    matrices = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)[None, None]
    torch.testing.assert_close(rotate(q, matrices), rotate(q, (cos, sin)), rtol=0, atol=1e-6)
    assert torch.equal(rotate(q, rope()), rotate(q, (cos, sin))), "a longer table serves its first tokens"
    assert torch.equal(rotate(q, matrices.transpose(1, 2)), rotate(q, matrices)), "an older ComfyUI's Qwen-Image"
    assert torch.equal(rotate(q, None), q)


def test_what_is_known_of_a_model() -> None:
    flux = FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=3, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=12, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    record = backbone(flux)
    assert (record.name, record.double, record.single, record.width) == ("FLUX.1", 2, 3, 32)
    assert (record.axes, record.channels, record.pooled) == (3, 4, 12)
    sd3 = SD3Transformer2DModel(
        sample_size=8, num_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=8,
        caption_projection_dim=32, pooled_projection_dim=12, pos_embed_max_size=8,
    )  # fmt: skip
    record = backbone(sd3)
    assert (record.double, record.single, record.width, record.axes) == (2, 0, 32, 0)
    assert record.pooled == 12 and record.channels == 16 and not record.references
    made = QwenImageTransformer2DModel(
        num_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=8, axes_dims_rope=(4, 6, 6)
    )
    record = backbone(made)
    assert (record.name, record.double, record.single, record.width) == ("Qwen-Image", 2, 0, 32)
    assert (record.text, record.positions, record.references, record.segments) == (8, DIFFUSERS, False, False)
    assert of_double(sd3.transformer_blocks[1]).text.ends and not of_double(sd3.transformer_blocks[0]).text.ends


def test_unknown_blocks_and_models_are_refused_by_name() -> None:
    class Flux2TransformerBlock(nn.Module):
        pass

    with pytest.raises(InputError, match="Flux2TransformerBlock"):
        view(Flux2TransformerBlock())
    with pytest.raises(InputError, match="Linear"):
        backbone(nn.Linear(2, 2))
    with pytest.raises(InputError, match="second attention"):
        view(JointTransformerBlock(WIDTH, HEADS, WIDTH // HEADS, use_dual_attention=True))
