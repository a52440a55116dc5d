"""Adapter files in every spelling give one and the same change of the weights; what is no FLUX.1 LoRA is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden import CONTEXTGEN_ADAPTER
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from contextgen_core.errors import InputError
from contextgen_core.lora import adapter as adapters
from contextgen_core.lora.adapter import Adapter, LowRank

WIDTH = 8
SHAPES = adapters.flux_shapes(WIDTH, 2, 2, channels=4, text=6, pooled=5)

# The same layer as the original FLUX code calls it.
ORIGINAL = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "proj_out": "final_layer.linear",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "transformer_blocks.1.attn.to_out.0": "double_blocks.1.img_attn.proj",
    "transformer_blocks.1.attn.to_add_out": "double_blocks.1.txt_attn.proj",
    "transformer_blocks.0.norm1.linear": "double_blocks.0.img_mod.lin",
    "transformer_blocks.0.norm1_context.linear": "double_blocks.0.txt_mod.lin",
    "transformer_blocks.0.ff.net.0.proj": "double_blocks.0.img_mlp.0",
    "transformer_blocks.0.ff.net.2": "double_blocks.0.img_mlp.2",
    "transformer_blocks.1.ff_context.net.0.proj": "double_blocks.1.txt_mlp.0",
    "transformer_blocks.1.ff_context.net.2": "double_blocks.1.txt_mlp.2",
    "single_transformer_blocks.1.norm.linear": "single_blocks.1.modulation.lin",
    "single_transformer_blocks.0.proj_out": "single_blocks.0.linear2",
}

Spelling = Callable[[str], tuple[str, str, str]]


def _ab(prefix: str, name: str = "") -> Spelling:
    return lambda m: (f"{prefix}{m}.lora_A{name}.weight", f"{prefix}{m}.lora_B{name}.weight", f"{prefix}{m}.alpha")


def _down_up(
    prefix: str, flat: bool, original: bool = False, parts: tuple[str, str] = ("lora_down", "lora_up")
) -> Spelling:
    def spell(module: str) -> tuple[str, str, str]:
        name = ORIGINAL[module] if original else module
        stem = prefix + (name.replace(".", "_") if flat else name)
        return f"{stem}.{parts[0]}.weight", f"{stem}.{parts[1]}.weight", f"{stem}.alpha"

    return spell


SPELLINGS: dict[str, Spelling] = {
    "diffusers": _ab("transformer."),
    "diffusers, named": _ab("transformer.", ".default"),
    "bare": _ab(""),
    "PEFT": _ab("base_model.model."),
    "PEFT, named": _ab("base_model.model.", ".flux_mig"),
    "PEFT around a pipeline": _ab("base_model.model.transformer."),
    "unet": _ab("unet."),
    "DiffSynth": _ab("pipe.dit."),
    "diffusion_model": _ab("diffusion_model."),
    "early diffusers": _down_up("transformer.", False, parts=("lora.down", "lora.up")),
    "dotted, down and up": _down_up("transformer.", False),
    "OneTrainer": _down_up("lora_transformer_", True),
    "LyCORIS": _down_up("lycoris_", True),
    "kohya, diffusers names": _down_up("lora_unet_", True),
}
ORIGINAL_SPELLINGS: dict[str, Spelling] = {
    "kohya": _down_up("lora_unet_", True, original=True),
    "original code": _down_up("diffusion_model.", False, original=True),
    "original code, bare": _down_up("", False, original=True),
}


def pair(module: str, rank: int = 2, alpha: float | None = None, seed: int = 0) -> LowRank:
    out_size, in_size = SHAPES[module]
    made = torch.Generator().manual_seed(seed + sum(map(ord, module)))
    down, up = torch.randn(rank, in_size, generator=made), torch.randn(out_size, rank, generator=made)
    return LowRank(module, down, up, float(rank if alpha is None else alpha))


def official(rank: int = 2, alpha: float | None = None, seed: int = 0) -> Adapter:
    """Every layer of the small FLUX that a LoRA can change."""
    return Adapter(tuple(pair(module, rank, alpha, seed) for module in sorted(SHAPES)))


def deltas(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {one.module: one.delta() for one in adapters.to_diffusers(adapter).pairs}


def assert_same_change(one: Adapter, other: Adapter, tolerance: float = 0.0) -> None:
    first, second = deltas(one), deltas(other)
    assert first.keys() == second.keys()
    for module, delta in first.items():
        torch.testing.assert_close(delta, second[module], atol=tolerance, rtol=tolerance)


def save(path: Path, state: dict[str, torch.Tensor], **metadata: str) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, str(path), metadata)
    return path


def refused(path: Path, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        adapters.load_adapter(path)
    message = str(caught.value)
    assert reason in message and path.name in message and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_are_the_same_adapter(tmp_path: Path, name: str) -> None:
    expected = official(rank=2, alpha=3.0)
    state: dict[str, torch.Tensor] = {}
    for one in expected.pairs:
        down, up, alpha = SPELLINGS[name](one.module)
        state |= {down: one.down, up: one.up, alpha: torch.tensor(one.alpha)}
        assert adapters.normalise_key(down) == adapters.normalise_key(up) == one.module
    assert_same_change(adapters.load_adapter(save(tmp_path / "a.safetensors", state)), expected)


@pytest.mark.parametrize("name", ORIGINAL_SPELLINGS)
def test_names_of_the_original_code(tmp_path: Path, name: str) -> None:
    expected = Adapter(tuple(pair(module) for module in sorted(ORIGINAL)))
    state: dict[str, torch.Tensor] = {}
    for one in expected.pairs:
        down, up, _ = ORIGINAL_SPELLINGS[name](one.module)
        state |= {down: one.down, up: one.up}
    assert_same_change(adapters.load_adapter(save(tmp_path / "a.safetensors", state)), expected)


@pytest.mark.parametrize(
    ("fused", "parts"),
    [
        ("double_blocks.1.img_attn.qkv", ["transformer_blocks.1.attn.to_" + x for x in "qkv"]),
        ("double_blocks.0.txt_attn.qkv", [f"transformer_blocks.0.attn.add_{x}_proj" for x in "qkv"]),
        ("single_blocks.1.linear1_qkv", ["single_transformer_blocks.1.attn.to_" + x for x in "qkv"]),
        (
            "single_blocks.0.linear1",
            [*["single_transformer_blocks.0.attn.to_" + x for x in "qkv"], "single_transformer_blocks.0.proj_mlp"],
        ),
    ],
)
def test_fused_layers_are_kept_and_divide_exactly(tmp_path: Path, fused: str, parts: list[str]) -> None:
    rows = sum(SHAPES[part][0] for part in parts)
    down, up = torch.randn(3, WIDTH), torch.randn(rows, 3)
    for stem in ("lora_unet_" + fused.replace(".", "_"), "diffusion_model." + fused):
        state = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.5)}
        loaded = adapters.load_adapter(save(tmp_path / "a.safetensors", state))
        assert loaded.modules == (fused,)
        split = deltas(loaded)
        assert sorted(split) == sorted(parts)
        torch.testing.assert_close(torch.cat([split[part] for part in parts]), up @ down * 0.5)
        assert sorted(adapters.match(loaded, SHAPES).matched) == sorted(parts)


def test_last_modulation_changes_its_halves(tmp_path: Path) -> None:
    down, up = torch.randn(1, WIDTH), torch.randn(2 * WIDTH, 1)
    stem = "diffusion_model.final_layer.adaLN_modulation.1"
    loaded = adapters.load_adapter(
        save(tmp_path / "a.safetensors", {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up})
    )
    torch.testing.assert_close(deltas(loaded)["norm_out.linear"], torch.cat([up[WIDTH:], up[:WIDTH]]) @ down)


@pytest.mark.parametrize(
    "key",
    [
        "transformer.pos_embed.proj.lora_A.weight",
        "transformer.transformer_blocks.0.attn.to_q.weight",
        "transformer.transformer_blocks.00.attn.to_q.lora_A.weight",
        "transformer.transformer_blocks.-1.attn.to_q.lora_A.weight",
        "transformer.transformer_blocks.0.attn_to_q.lora_A.weight",
        "transformer.transformer_blocks.0.proj_mlp.lora_A.weight",
        "lora_unet_double_blocks.0_img_attn_proj.lora_down.weight",
        "text_encoder.x_embedder.lora_A.weight",
        "",
        ".lora_A.weight",
    ],
)
def test_other_names_are_no_flux_layers(key: str) -> None:
    assert adapters.normalise_key(key) is None


def test_official_file() -> None:
    loaded = adapters.load_adapter(CONTEXTGEN_ADAPTER)
    shapes = adapters.flux_shapes(32, 3, 6, text=32, pooled=24)
    report = adapters.match(loaded, shapes)
    assert (len(report.matched), report.unmatched, report.rank, report.alpha) == (55, (), 4, 4.0)
    state = load_file(str(CONTEXTGEN_ADAPTER))
    assert adapters.host_state_dict(loaded).keys() == state.keys()
    assert all(one.scale == 1.0 for one in loaded.pairs)


def test_official_modules_of_the_full_model_all_exist() -> None:
    shapes = adapters.flux_shapes(3072, 19, 38)
    double = ("norm1.linear", "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.2")
    single = ("norm.linear", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")
    names = ["x_embedder", *(f"transformer_blocks.{i}.{n}" for i in range(19) for n in double)]
    names += [f"single_transformer_blocks.{i}.{n}" for i in range(38) for n in single]
    assert len(names) == 343
    assert set(names) <= shapes.keys()
    assert shapes["single_transformer_blocks.37.proj_out"] == (3072, 15360)


def test_alpha_comes_from_the_tensor_then_the_metadata_then_the_rank(tmp_path: Path) -> None:
    one = pair("x_embedder", rank=4)
    key = "transformer.x_embedder"
    factors = {f"{key}.lora_A.weight": one.down, f"{key}.lora_B.weight": one.up}
    peft = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {}}
    pattern = {**peft, "transformer.alpha_pattern": {"x_embedder": 2}}
    stabilised = {**peft, "transformer.use_rslora": True}
    cases: list[tuple[float, dict[str, torch.Tensor], dict[str, str]]] = [
        (4.0, {}, {"format": "pt"}),
        (6.0, {f"{key}.alpha": torch.tensor([6.0])}, {"lora_alpha": "9"}),
        (8.0, {}, {"lora_adapter_metadata": json.dumps(peft)}),
        (2.0, {}, {"lora_adapter_metadata": json.dumps(pattern)}),
        (8.0 * math.sqrt(4), {}, {"lora_adapter_metadata": json.dumps(stabilised)}),
        (2.0, {}, {"rank": "16", "lora_alpha": "8"}),
        (8.0, {}, {"lora_alpha": "8"}),
    ]
    for alpha, extra, metadata in cases:
        loaded = adapters.load_adapter(save(tmp_path / "a.safetensors", {**factors, **extra}, **metadata))
        assert (loaded.rank, loaded.alpha) == (4, pytest.approx(alpha)), metadata
    for text in (
        "[]",
        "{",
        '{"lora_alpha": "nan"}',
        '{"lora_alpha": -1}',
        '{"lora_alpha": {}}',
        '{"lora_alpha": 1e999}',
    ):
        refused(save(tmp_path / "a.safetensors", factors, lora_adapter_metadata=text), "a.safetensors")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight"], "FLUX.2"),
        (["lora_unet_single_blocks_47_linear1.lora_down.weight"], "FLUX.2"),
        (["lora_unet_double_stream_modulation_img_lin.lora_down.weight"], "FLUX.2"),
        (["transformer.transformer_blocks.3.img_mlp.net.2.lora_A.weight"], "Qwen-Image"),
        (["lora_unet_transformer_blocks_59_txt_mod_1.lora_down.weight"], "Qwen-Image"),
        (["lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.lora_down.weight"], "SDXL"),
        (["unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_k.lora_A.weight"], "SDXL"),
        (["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k.lora_down.weight"], "Stable Diffusion"),
        (["diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight"], "Stable Diffusion 3"),
        (["diffusion_model.blocks.0.self_attn.q.lora_A.weight"], "Wan"),
        (["diffusion_model.layers.0.attention.qkv.lora_A.weight"], "Z-Image"),
        (["diffusion_model.distilled_guidance_layer.in_proj.lora_A.weight"], "Chroma"),
        (["transformer.x_embedder.lokr_w1", "transformer.x_embedder.lokr_w2"], "LoKr"),
        (["lora_unet_img_in.hada_w1_a"], "LoHa"),
        ([f"transformer.x_embedder.{x}" for x in ("lora_A.weight", "lora_B.weight", "dora_scale")], "DoRA"),
        (["transformer_blocks.0.attn.to_q.weight"], "whole weights"),
        (["double_blocks.0.img_attn.qkv.weight"], "whole weights"),
        (["decoder.conv_in.weight"], "no low-rank pair"),
    ],
)  # fmt: skip
def test_what_is_no_flux_lora_is_refused_by_name(tmp_path: Path, keys: list[str], reason: str) -> None:
    refused(save(tmp_path / "other.safetensors", {key: torch.ones(WIDTH, WIDTH) for key in keys}), reason)


def _with(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    stem = "transformer.transformer_blocks.0.attn.to_q."
    parts = {"lora_A": torch.ones(2, 8), "lora_B": torch.ones(8, 2), **changes}
    named = {stem + (name if name == "alpha" else name + ".weight"): value for name, value in parts.items()}
    return {name: value for name, value in named.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (_with(lora_B=None), "lacks the lora_B factor"),
        (_with(lora_A=None), "lacks the lora_A factor"),
        (_with(lora_B=torch.ones(8, 3)), "rank 2 and 3"),
        (_with(lora_A=torch.ones(2, 8, 1)), "not two matrices"),
        (_with(lora_A=torch.ones(0, 8), lora_B=torch.ones(8, 0)), "not two matrices"),
        (_with(lora_A=torch.ones(2, 8, dtype=torch.int32)), "must be floating"),
        (_with(lora_A=torch.full((2, 8), math.nan)), "not finite"),
        (_with(lora_B=torch.full((8, 2), math.inf)), "not finite"),
        (_with(alpha=torch.tensor(math.nan)), "must be a finite number"),
        (_with(alpha=torch.ones(2)), "must be one number"),
        (_with(lora_B=torch.ones(12, 2)), "does not fit a width"),
        (
            {**_with(), **{f"unet.transformer_blocks.0.attn.to_q.lora_{x}.weight": torch.ones(8, 8) for x in "AB"}},
            "twice",
        ),
        (
            {f"transformer_blocks.19.attn.to_q.lora_{x}.weight": torch.ones(8, 8) for x in "AB"},
            "19 double and 38 single",
        ),
        ({f"single_blocks.0.linear1.lora_{x}.weight": torch.ones(72 if x == "B" else 8, 8) for x in "AB"}, "FLUX.1"),
    ],
)
def test_damaged_pairs_are_refused(tmp_path: Path, state: dict[str, torch.Tensor], reason: str) -> None:
    refused(save(tmp_path / "bad.safetensors", state), reason)


def test_an_alpha_may_be_a_whole_number(tmp_path: Path) -> None:
    loaded = adapters.load_adapter(save(tmp_path / "a.safetensors", _with(alpha=torch.tensor(4))))
    assert loaded.alpha == 4.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_stored_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in _with().items()}
    loaded = adapters.load_adapter(save(tmp_path / "a.safetensors", state))
    torch.testing.assert_close(loaded.pairs[0].delta(), torch.full((8, 8), 2.0))


def test_text_encoder_parts_are_reported_and_left_alone(tmp_path: Path) -> None:
    extra = "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"
    loaded = adapters.load_adapter(save(tmp_path / "a.safetensors", {**_with(), extra: torch.ones(1, 1)}))
    assert loaded.ignored == (extra,)
    assert adapters.match(loaded, SHAPES).unmatched == (extra,)


def test_match_reports_what_the_model_lacks_and_what_differs_in_shape() -> None:
    given_shapes = dict(SHAPES)
    del given_shapes["transformer_blocks.0.attn.to_q"]
    given_shapes["x_embedder"] = (WIDTH, 7)
    report = adapters.match(official(rank=3), given_shapes)
    assert report.unmatched == ("transformer_blocks.0.attn.to_q", "x_embedder")
    assert len(report.matched) == len(SHAPES) - 2
    assert report.rank == 3


rank_and_alpha = st.tuples(st.integers(1, 5), st.floats(0.25, 16))


@settings(max_examples=40, deadline=None)
@given(first=rank_and_alpha, second=rank_and_alpha, flexibility=st.floats(0, 1))
def test_interpolation_mixes_the_changes_exactly(
    first: tuple[int, float], second: tuple[int, float], flexibility: float
) -> None:
    sft, dpo = official(*first, seed=1), official(*second, seed=2)
    mixed, other = deltas(adapters.interpolate(sft, dpo, flexibility)), deltas(dpo)
    for module, delta in deltas(sft).items():
        expected = (1 - flexibility) * delta + flexibility * other[module]
        torch.testing.assert_close(mixed[module], expected, atol=1e-4, rtol=1e-5)
    assert mixed.keys() == SHAPES.keys()


def test_interpolation_ends_are_the_adapters_themselves_and_ranks_add() -> None:
    sft, dpo = official(2, seed=1), official(3, seed=2)
    assert adapters.interpolate(sft, dpo, 0.0) is sft
    assert adapters.interpolate(sft, dpo, 1.0) is dpo
    assert adapters.interpolate(sft, dpo, 0.5).rank == 5


def test_interpolation_of_half_precision_loses_nothing_and_widens_what_it_must() -> None:
    def halved(adapter: Adapter) -> Adapter:
        pairs = [replace(one, down=one.down.bfloat16(), up=one.up.bfloat16()) for one in adapter.pairs]
        return Adapter(tuple(pairs))

    sft, dpo = halved(official(2, seed=1)), halved(official(3, seed=2))
    mixed = adapters.interpolate(sft, dpo, 0.3)
    assert (mixed.pairs[0].down.dtype, mixed.pairs[0].up.dtype) == (torch.bfloat16, torch.float32)
    first, second = deltas(sft), deltas(dpo)
    for module, delta in deltas(mixed).items():
        torch.testing.assert_close(delta, 0.7 * first[module] + 0.3 * second[module], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flexibility", [-0.1, 1.1, math.nan, math.inf])
def test_interpolation_refuses_a_factor_outside(flexibility: float) -> None:
    with pytest.raises(InputError, match="between 0"):
        adapters.interpolate(official(), official(), flexibility)


def test_interpolation_refuses_different_targets() -> None:
    sft = official()
    with pytest.raises(InputError, match="different layers"):
        adapters.interpolate(sft, Adapter(sft.pairs[:-1]), 0.5)
    with pytest.raises(InputError, match="different layers"):
        adapters.interpolate(sft, Adapter(sft.pairs[:-1]), 1.0)


def test_written_file_reads_back_and_has_scale_one(tmp_path: Path) -> None:
    file = tmp_path / "out.safetensors"
    given_adapter = official(rank=2, alpha=6.0)
    adapters.write_adapter(file, given_adapter.pairs, metadata={"step": "7"})
    state = load_file(str(file))
    assert "transformer.single_transformer_blocks.1.attn.to_q.lora_A.weight" in state
    assert len(state) == 2 * len(SHAPES)
    loaded = adapters.load_adapter(file)
    assert all(one.scale == 1.0 for one in loaded.pairs)
    metadata = dict(loaded.metadata)
    assert (metadata["rank"], metadata["trained_alpha"], metadata["step"]) == ("2", "6", "7")
    assert_same_change(loaded, given_adapter, 1e-5)
    assert list(tmp_path.iterdir()) == [file]


def test_writing_changes_no_bit_when_alpha_is_the_rank(tmp_path: Path) -> None:
    file = tmp_path / "out.safetensors"
    made = official(rank=2)
    adapters.write_adapter(file, made.pairs, rank=2, alpha=2.0)
    for one, other in zip(adapters.load_adapter(file).pairs, made.pairs, strict=True):
        assert torch.equal(one.down, other.down) and torch.equal(one.up, other.up)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one pair"):
        adapters.write_adapter(tmp_path / "out.safetensors", [])
    assert not list(tmp_path.iterdir())
