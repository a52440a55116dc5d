"""EliGen against what the authors' program computes: velocities, guidance and a whole run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import CONTEXTGEN, ELIGEN_ADAPTER, ELIGEN_CASE
from safetensors.torch import load_file, save_file

from contextgen_core.backbones.flux import pack
from contextgen_core.commands import parity
from contextgen_core.hosts.comfy_process import find_comfy
from contextgen_core.hosts.diffusers import FluxHost, load_transformer
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from contextgen_core.methods.eligen.parity import plan_of
from contextgen_core.methods.eligen.plan import EliGenPlan

FILES = ["--weights", str(CONTEXTGEN / "transformer.safetensors"), "--config", str(CONTEXTGEN / "config.json")]
TOLERANCE = 2e-5


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    status = parity.main([str(ELIGEN_CASE), *FILES, "--method", "eligen", *words])
    result = json.loads(capsys.readouterr().out)
    assert (status == 0) is result["ok"]
    return result


@pytest.mark.parametrize("attention", ["auto", "grouped", "merge", "dense"])
@pytest.mark.parametrize("adapter", [(), ("--adapter", str(ELIGEN_ADAPTER))], ids=["plain", "adapter"])
def test_diffusers(attention: str, adapter: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "--host", "diffusers", "--attention", attention, *adapter)
    assert result["ok"], result


@pytest.mark.skipif(find_comfy() is None, reason="no ComfyUI found")
@pytest.mark.parametrize("adapter", [(), ("--adapter", str(ELIGEN_ADAPTER))], ids=["plain", "adapter"])
def test_comfy(adapter: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "--host", "comfy", *adapter)
    assert result["ok"], result


# --- beyond one velocity --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(ELIGEN_CASE, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def host() -> Iterator[FluxHost]:
    config, weights = CONTEXTGEN / "config.json", CONTEXTGEN / "transformer.safetensors"
    with FluxHost(load_transformer(*parity.transformer(config, weights, "transformer"))) as made:
        yield made


def tensors(arrays: dict[str, np.ndarray], **names: str) -> dict[str, Any]:
    return {name: torch.from_numpy(arrays[key]) for name, key in names.items()}


@torch.no_grad()
def velocity(
    host: FluxHost,
    arrays: dict[str, np.ndarray],
    plan: EliGenPlan,
    phrases: Any,
    batch: int = 1,
    kernel: str = "auto",
    **changes: Any,
) -> torch.Tensor:
    usual = {
        **tensors(arrays, text="text_embeds", pooled="pooled", timestep="timestep"),
        "guidance": torch.from_numpy(arrays["guidance"]).reshape(1),
        "noise": pack(torch.from_numpy(arrays["noise_latent"])),
        **changes,
    }
    given = {key: value.repeat(batch, *[1] * (value.ndim - 1)) for key, value in usual.items()}
    vectors = {"phrases": torch.as_tensor(phrases).reshape(1, plan.phrase_tokens, 32)}
    return host.velocity(Bound(ELIGEN, plan, EliGenSettings(kernel=kernel)), vectors=vectors, **given)


def near(got: torch.Tensor, arrays: dict[str, np.ndarray], key: str, tolerance: float = TOLERANCE) -> bool:
    return float((got - torch.from_numpy(arrays[key])).abs().max()) <= tolerance


def test_without_phrases_it_is_the_plain_model(host: FluxHost, arrays: dict[str, np.ndarray]) -> None:
    plan = EliGenPlan(8, 8)
    assert near(velocity(host, arrays, plan, torch.zeros(1, 0, 32)), arrays, "velocity_no_entities")


@pytest.mark.parametrize(("kernel", "tolerance"), [("dense", TOLERANCE), ("auto", 1.5 * TOLERANCE)])
def test_guidance_with_a_plain_negative_and_with_phrases_on_it(
    host: FluxHost, arrays: dict[str, np.ndarray], kernel: str, tolerance: float
) -> None:
    """Guidance 3 triples what a single velocity is off by: values reach 38, and dense itself is at 1.9e-5."""
    plan = plan_of(arrays)
    positive = tensors(arrays, text="cfg_text_embeds", pooled="cfg_pooled")
    negative = tensors(arrays, text="cfg_neg_embeds", pooled="cfg_neg_pooled")
    wanted = velocity(host, arrays, plan, arrays["cfg_entity_embeds"], kernel=kernel, **positive)
    plain = velocity(host, arrays, EliGenPlan(8, 8), torch.zeros(1, 0, 32), **negative)
    assert near(plain + 3 * (wanted - plain), arrays, "velocity_cfg3", tolerance)
    # In every phrase's place stands the negative prompt.
    repeated = negative["text"].repeat(1, len(plan.phrases), 1)
    bound = velocity(host, arrays, plan, repeated, kernel=kernel, **negative)
    assert near(bound + 3 * (wanted - bound), arrays, "velocity_cfg3_on_negative", tolerance)


def test_four_steps_of_the_authors_pipeline(host: FluxHost, arrays: dict[str, np.ndarray]) -> None:
    plan, steps = plan_of(arrays), torch.from_numpy(arrays["euler_timesteps"]) / 1000
    x = pack(torch.from_numpy(arrays["noise_latent"]))
    for now, after in zip(steps, torch.cat([steps[1:], torch.zeros(1)]), strict=True):
        x = x + (after - now) * velocity(host, arrays, plan, arrays["entity_embeds"], noise=x, timestep=now.reshape(1))
    difference = (x - pack(torch.from_numpy(arrays["latent_after_4_steps"]))).abs().max()
    assert float(difference) <= TOLERANCE


def test_all_pictures_of_a_batch_follow_the_phrases(host: FluxHost, arrays: dict[str, np.ndarray]) -> None:
    three = velocity(host, arrays, plan_of(arrays), arrays["entity_embeds"], batch=3)
    assert all(near(row[None], arrays, "velocity") for row in three)


def test_a_phrase_that_holds_no_token_may_be_left_out(host: FluxHost, arrays: dict[str, np.ndarray]) -> None:
    first = plan_of(arrays).phrases[0]
    nowhere = first._replace(inside=bytes(64))
    phrases = arrays["entity_embeds"]
    with_it = velocity(host, arrays, EliGenPlan(8, 8, (first, nowhere)), phrases)
    without = velocity(host, arrays, EliGenPlan(8, 8, (first,)), phrases[:1])
    assert torch.allclose(with_it, without, atol=1e-5)
    assert not torch.allclose(with_it, velocity(host, arrays, plan_of(arrays), phrases), atol=1e-2)


DIFFSYNTH = {
    "img_attn_qkv": "attn.a_to_qkv", "txt_attn_qkv": "attn.b_to_qkv",
    "img_attn_proj": "attn.a_to_out", "txt_attn_proj": "attn.b_to_out",
    "img_mod_lin": "norm1_a.linear", "txt_mod_lin": "norm1_b.linear",
    "img_mlp_0": "ff_a.0", "img_mlp_2": "ff_a.2", "txt_mlp_0": "ff_b.0", "txt_mlp_2": "ff_b.2",
    "linear1": "to_qkv_mlp", "linear2": "proj_out", "modulation_lin": "norm.linear",
}  # fmt: skip


def test_the_trainers_own_names_are_the_same_adapter(tmp_path: Path) -> None:
    state, named = load_file(ELIGEN_ADAPTER), {}
    for key, value in state.items():
        stem, part = key.removeprefix("lora_unet_").split(".", 1)
        kind, number, layer = re.fullmatch(r"(double|single)_blocks_(\d+)_(.+)", stem).groups()  # type: ignore[union-attr]
        factor = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}.get(part)
        if factor:  # the alpha is the rank, which is what a file without one means
            named[f"{'single_' * (kind == 'single')}blocks.{number}.{DIFFSYNTH[layer]}.{factor}"] = value
    save_file(named, tmp_path / "own.safetensors")
    ours, theirs = load_adapter(tmp_path / "own.safetensors"), load_adapter(ELIGEN_ADAPTER)
    assert ours.modules == theirs.modules and not ours.ignored
    assert all(torch.equal(a.delta(), b.delta()) for a, b in zip(ours.pairs, theirs.pairs, strict=True))


def test_the_adapter_names_every_layer_of_the_official_list() -> None:
    adapter = load_adapter(ELIGEN_ADAPTER)
    assert adapter.rank == 4 and adapter.alpha == 4.0 and not adapter.ignored
    assert len(adapter.pairs) == 3 * 10 + 6 * 3  # as the official targets: ten layers a double block, three a single
