"""EliGen on Qwen-Image, as diffusers runs it, against the authors' program with the tanh GELU."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import ELIGEN, ELIGEN_ADAPTER, ELIGEN_QWEN_ADAPTER, ELIGEN_QWEN_CASE, ELIGEN_QWEN_WEIGHTS
from safetensors.torch import load_file, save_file

from contextgen_core.backbones.flux import pack
from contextgen_core.backbones.qwen import COMFYUI, DIFFUSERS
from contextgen_core.commands import parity
from contextgen_core.errors import InputError
from contextgen_core.hosts.comfy_process import find_comfy
from contextgen_core.hosts.diffusers_qwen import QwenHost, load_qwen
from contextgen_core.lora.adapter import load_adapter, match, qwen_shapes
from contextgen_core.lora.keys import QWEN
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.eligen.method import ELIGEN as METHOD
from contextgen_core.methods.eligen.method import EliGenSettings
from contextgen_core.methods.eligen.parity import phrase_vectors, plan_of
from contextgen_core.methods.eligen.plan import EliGenPlan
from contextgen_core.methods.eligen.visibility import PhraseSequence, dense_mask
from contextgen_core.methods.registry import method

FILES = ["--weights", str(ELIGEN_QWEN_WEIGHTS), "--config", str(ELIGEN / "config.json"), "--method", "eligen"]
ADAPTER = ["--adapter", str(ELIGEN_QWEN_ADAPTER)]
TOLERANCE = 6e-5


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    status = parity.main([str(ELIGEN_QWEN_CASE), *FILES, *words])
    result = json.loads(capsys.readouterr().out)
    assert (status == 0) is result["ok"]
    return result


@pytest.mark.parametrize("attention", ["auto", "grouped", "merge", "dense"])
@pytest.mark.parametrize("adapter", [[], ADAPTER], ids=["plain", "adapter"])
def test_diffusers(attention: str, adapter: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "--host", "diffusers", "--attention", attention, *adapter)
    assert result["ok"] and result["ids_max_abs_diff"] == 0, result


@pytest.mark.skipif(find_comfy() is None, reason="no ComfyUI found")
@pytest.mark.parametrize("adapter", [[], ADAPTER], ids=["plain", "adapter"])
def test_comfy(adapter: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "--host", "comfy", *adapter)
    assert result["ok"], result


# --- beyond one velocity --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(ELIGEN_QWEN_CASE, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def host() -> Iterator[QwenHost]:
    model = load_qwen(*parity.transformer(ELIGEN / "config.json", ELIGEN_QWEN_WEIGHTS, "qwen"))
    with QwenHost(model) as made:
        yield made


@torch.no_grad()
def velocity(
    host: QwenHost, arrays: dict[str, np.ndarray], plan: EliGenPlan | None = None, batch: int = 1, **changes: Any
) -> torch.Tensor:
    plan = plan_of(arrays) if plan is None else plan
    words: dict[str, Any] = {
        "latent": torch.from_numpy(arrays["noise_latent"]),
        "text": torch.from_numpy(arrays["text_embeds"]),
        "timestep": torch.from_numpy(arrays["timestep"]),
        **changes,
    }
    for name in ("latent", "text", "timestep"):
        words[name] = words[name].expand(batch, *words[name].shape[1:])
    kernel = words.pop("kernel", "auto")
    vectors = {"phrases": words.pop("phrases", phrase_vectors(arrays))}
    return host.velocity(Bound(METHOD, plan, EliGenSettings(kernel=kernel)), vectors=vectors, **words)


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    return float((a - b).abs().max()) <= tolerance


def test_without_phrases_it_is_the_plain_model(host: QwenHost, arrays: dict[str, np.ndarray]) -> None:
    plain = pack(velocity(host, arrays, EliGenPlan(8, 6)))
    assert near(plain, torch.from_numpy(arrays["velocity_own_tanh_gelu_no_entities"]))
    model = host.transformer
    host.remove()
    try:
        stock = model(
            hidden_states=pack(torch.from_numpy(arrays["noise_latent"])),
            encoder_hidden_states=torch.from_numpy(arrays["text_embeds"]),
            timestep=torch.from_numpy(arrays["timestep"]),
            img_shapes=[[(1, 6, 8)]],
            return_dict=False,
        )[0]
    finally:
        host.__init__(model)
    assert near(plain, stock, 5e-6)


def test_all_pictures_of_a_batch_follow_the_phrases(host: QwenHost, arrays: dict[str, np.ndarray]) -> None:
    three = velocity(host, arrays, batch=3)
    assert all(near(row[None], velocity(host, arrays), 5e-6) for row in three)


def test_each_phrase_counts_from_its_own_start(host: QwenHost, arrays: dict[str, np.ndarray]) -> None:
    """So the order of the phrases is of no account; numbered on, they would differ."""
    plan, vectors = plan_of(arrays), phrase_vectors(arrays)
    first = plan.phrases[0].tokens
    turned = EliGenPlan(8, 6, plan.phrases[::-1])
    other = velocity(host, arrays, turned, phrases=torch.cat([vectors[:, first:], vectors[:, :first]], dim=1))
    assert near(other, velocity(host, arrays), 2e-5)


def test_a_reference_of_the_pictures_size_is_bound_in_the_same_place(
    host: QwenHost, arrays: dict[str, np.ndarray]
) -> None:
    generator = torch.Generator().manual_seed(3)
    same = torch.randn((1, 16, 12, 16), generator=generator)
    other = torch.randn((1, 16, 10, 14), generator=generator)
    for references in ([same], [other], [other, same]):
        dense = velocity(host, arrays, references=references, kernel="dense")
        assert near(velocity(host, arrays, references=references), dense, 2e-5)
        plain = velocity(host, arrays, EliGenPlan(8, 6), references=references)
        assert not near(dense, plain, 1e-2)


def test_phrases_hold_the_same_place_of_references_of_the_pictures_size_alone(arrays: dict[str, np.ndarray]) -> None:
    """The authors repeat each mask over each further grid, which has a meaning for grids of one size alone."""
    sequence = PhraseSequence(plan_of(arrays), 18, (0, 1), references=((4, 4), (6, 8)))
    mask, tokens = dense_mask(sequence), arrays["tokmask"]
    for number, span in enumerate(sequence.phrase_spans):
        noise, other, same = np.split(mask[span.start, sequence.picture_span.start :], [48, 64])
        assert np.array_equal(noise, tokens[number]) and np.array_equal(same, tokens[number]) and not other.any()
    assert np.array_equal(mask, mask.T)


def test_ids_of_odd_grids_and_several_pictures() -> None:
    grids = ((3, 4), (2, 5))
    assert DIFFUSERS.image(grids[:1])[::4, 1].tolist() == [-2, -1, 0]
    assert COMFYUI.image(grids[:1])[::4, 1].tolist() == [-1, 0, 1]
    assert DIFFUSERS.image(grids)[12:17].tolist() == [[1, -1, column] for column in (-3, -2, -1, 0, 1)]
    assert COMFYUI.text((2, 3), ((3, 4), (9, 9)))[:, 0].tolist() == [2, 3, 2, 3, 4]
    assert DIFFUSERS.text((2, 3), ((3, 4), (9, 9)))[:, 2].tolist() == [4, 5, 4, 5, 6]


@pytest.mark.parametrize("name", ["contextgen", "lamic", "sigma_gen", "instance_assemble"])
def test_methods_of_other_families_say_what_to_load(name: str, host: QwenHost) -> None:
    one = method(name)
    with pytest.raises(InputError, match="Qwen-Image.*; load"):
        one.check(None, one.default_settings(), host.backbone)


SPELLINGS = {
    "official": lambda key: key,
    "without .default": lambda key: key.replace(".default.", "."),
    "diffusers": lambda key: "transformer." + key.replace(".default.", "."),
    "ComfyUI": lambda key: "diffusion_model." + key.replace(".default.", "."),
    "DiffSynth": lambda key: "pipe.dit." + key,
    "kohya": lambda key: (
        "lora_unet_"
        + re.sub(r"\.lora_[AB]\..*", "", key).replace(".", "_")
        + (".lora_down.weight" if ".lora_A." in key else ".lora_up.weight")
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_adapter_is_the_same_in_each_spelling(spelling: str, tmp_path: Path) -> None:
    state = {SPELLINGS[spelling](key): value for key, value in load_file(ELIGEN_QWEN_ADAPTER).items()}
    save_file(state, tmp_path / "one.safetensors")
    read, official = load_adapter(tmp_path / "one.safetensors", QWEN), load_adapter(ELIGEN_QWEN_ADAPTER, QWEN)
    assert read.modules == official.modules and not read.ignored
    assert len(read.pairs) == 4 * 12 and all(pair.scale == 1 for pair in read.pairs)
    assert all(torch.equal(a.delta(), b.delta()) for a, b in zip(read.pairs, official.pairs, strict=True))
    report = match(read, qwen_shapes(32, 4, text=48))
    assert len(report.matched) == 48 and not report.unmatched


def test_adapters_of_the_other_family_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is for Qwen-Image, not for FLUX.1; choose a FLUX.1 adapter"):
        load_adapter(ELIGEN_QWEN_ADAPTER)
    with pytest.raises(InputError, match="is for FLUX.1, not for Qwen-Image; choose a Qwen-Image adapter"):
        load_adapter(ELIGEN_ADAPTER, QWEN)
    deep = {key.replace("blocks.0.", "blocks.60."): value for key, value in load_file(ELIGEN_QWEN_ADAPTER).items()}
    save_file(deep, tmp_path / "deep.safetensors")
    with pytest.raises(InputError, match="transformer_blocks.60.* Qwen-Image has 60 double blocks"):
        load_adapter(tmp_path / "deep.safetensors", QWEN)


def test_a_case_without_the_answer_of_this_host_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(ELIGEN_QWEN_CASE, allow_pickle=False) as file:
        left = {key: file[key] for key in file.files if not key.endswith("_lora")}
    np.savez(tmp_path / "case.npz", **left)
    assert parity.main([str(tmp_path / "case.npz"), *FILES, *ADAPTER, "--host", "diffusers"]) == 2
    assert "has no velocity_own_tanh_gelu_lora" in capsys.readouterr().err
