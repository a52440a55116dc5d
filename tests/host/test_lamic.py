"""LAMIC in the real host: a run of the authors through the host's sampler, its text encoder's counts, its sentences."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.latent_formats
import comfy.sd
import comfy.text_encoders.flux
import numpy as np
import pytest
import tiny_flux
import torch
from contextgen_pack.contextgen_core.backbones.flux import pack
from contextgen_pack.contextgen_core.commands.parity import transformer
from contextgen_pack.contextgen_core.composite.compose import Scene, compose
from contextgen_pack.contextgen_core.composite.references import Reference
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.layout.box import Box
from contextgen_pack.contextgen_core.layout.layout import Instance, Layout
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.contextgen_core.methods.lamic import parity
from contextgen_pack.contextgen_core.methods.lamic.method import LAMIC, LamicSettings
from contextgen_pack.nodes import host

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
Nodes = dict[str, Any]


# --- the authors' run -----------------------------------------------------------------------------------------------


def test_a_run_through_the_hosts_sampler_is_the_authors() -> None:
    """Four Euler steps with a first ratio of 0.25; the reference latents travel as a VAE gives them."""
    with np.load(GOLDEN / "lamic" / "lamic_two_refs.npz") as file:
        arrays = dict(file)
    case = parity.golden(arrays, argparse.Namespace(stage="2", overlap="removed", attention="auto"))
    files = (GOLDEN / "contextgen" / "config.json", GOLDEN / "contextgen" / "transformer.safetensors")
    config, weights = transformer(*files, case.config)
    model = host.install(host.build_flux(config, weights, torch.float32), LAMIC, LamicSettings(first_ratio=0.25))
    form = comfy.latent_formats.Flux()
    values = {"pooled_output": case.pooled, "guidance": float(arrays["guidance"][0])}
    latents = [form.process_out(latent) for latent in case.pictures]
    positive = host.attach([[case.text, values]], LAMIC, case.bound.plan, latents)
    steps: list[torch.Tensor] = []
    sigmas = tuple(float(sigma) for sigma in arrays["trajectory_sigmas"])
    tiny_flux.sample(
        model, positive, start=case.noise, sigmas=sigmas, callback=lambda _step, _denoised, x, _total: steps.append(x)
    )
    wanted = torch.from_numpy(arrays["trajectory"])
    for step, x in enumerate(steps[1:]):  # what each step begins with: the result of the one before
        assert float((pack(x)[0] - wanted[step]).abs().max()) < 2e-5, step
    end = tiny_flux.sample(model, positive, start=case.noise, sigmas=sigmas)
    assert float((pack(form.process_in(end))[0] - wanted[-1]).abs().max()) < 2e-5


def test_without_its_layout_the_model_is_the_one_that_came_in() -> None:
    model = tiny_flux.build()
    plain = tiny_flux.text(40)
    patched = host.install(model, LAMIC, LamicSettings())
    assert torch.equal(tiny_flux.sample(patched, plain), tiny_flux.sample(model, plain))


# --- as a user ------------------------------------------------------------------------------------------------------


class SilentEncoder(torch.nn.Module):
    """In the place of CLIP-L and T5: zeros, as many as there are T5 tokens."""

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
        super().__init__()
        self.dtypes = {dtype or torch.float32}
        self.nothing = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def set_clip_options(self, options: Any) -> None:
        pass

    def reset_clip_options(self) -> None:
        pass

    def encode_token_weights(self, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, len(tokens["t5xxl"][0]), tiny_flux.TEXT), torch.zeros(1, tiny_flux.POOLED)


@pytest.fixture(scope="module")
def clip() -> Any:
    """FLUX's own tokenizers, which the host brings along, before an encoder without weights."""
    target = SimpleNamespace(params={}, clip=SilentEncoder, tokenizer=comfy.text_encoders.flux.FluxTokenizer)
    return comfy.sd.CLIP(target, parameters=1)


@pytest.fixture(scope="module")
def tiny(pack_nodes: Nodes) -> tuple[Any, Any, Any]:
    return pack_nodes["ContextGenTinyModel"].execute().args


def reference(name: str, colour: int, **fields: Any) -> Reference:
    pixels = np.full((64, 64, 3), colour, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :48] = 255
    return Reference(name, pixels, mask, **fields)


def scene(*boxes: tuple[Box, Reference | None, str]) -> Scene:
    references = {ref.name: ref for _, ref, _ in boxes if ref is not None}
    instances = tuple(
        Instance(f"b{n}", box, None if ref is None else ref.name, label) for n, (box, ref, label) in enumerate(boxes, 1)
    )
    return compose(Layout(128, 128, instances), list(references.values()))


def pair() -> Scene:
    left = (Box(0, 0, 80, 128), reference("a red bird", 200), "sitting on a branch")
    return scene(left, (Box(48, 0, 128, 128), reference("an old boat", 90), ""))


def conditioned(nodes: Nodes, clip: Any, vae: Any, layout: Scene, prompt: str = "A lake.", **inputs: Any) -> Any:
    return nodes["LAMICConditioning"].execute(clip, vae, layout, prompt, **inputs)


def plan_of(output: Any) -> Any:
    return host.plan_of(output.args[0][0][1], LAMIC)


def test_phrases_and_prompt_are_joined_counted_and_padded(pack_nodes: Nodes, clip: Any, tiny: Any) -> None:
    made = conditioned(pack_nodes, clip, tiny[2], pair())
    assert made.args[2] == "a red bird,sitting on a branch.an old boat.A lake."
    assert made.args[0][0][0].shape[1] == 512
    tokenizer = clip.tokenizer.t5xxl.tokenizer
    alone = [
        len(tokenizer(text)["input_ids"]) for text in ("a red bird,sitting on a branch.", "an old boat.", "A lake.")
    ]
    official = plan_of(made)
    assert [*(r.text for r in official.references), official.scene_text] == alone
    corrected = plan_of(conditioned(pack_nodes, clip, tiny[2], pair(), text_spans="corrected"))
    whole = len(tokenizer(made.args[2])["input_ids"])
    assert corrected.text_tokens == whole - 1  # without the end token
    assert official.text_tokens == whole + 2  # with three of them
    short = conditioned(pack_nodes, clip, tiny[2], pair(), text_tokens=64)
    assert short.args[0][0][0].shape[1] == 64


def test_overlap_is_shared_in_front_or_as_listed(pack_nodes: Nodes, clip: Any, tiny: Any) -> None:
    def first(**inputs: Any) -> list[int]:
        plan = plan_of(conditioned(pack_nodes, clip, tiny[2], pair(), **inputs))
        assert plan.regions(first=False).sum(axis=1).tolist() == [40, 40]
        return plan.regions(first=True).sum(axis=1).tolist()

    assert first() == [40, 40]
    assert first(overlap="front") == [24, 40]
    assert first(overlap="listed", gives_way="an old boat: 1") == [40, 24]


def test_a_mask_replaces_a_box_and_the_factor_acts_on_the_scaled_latent(
    pack_nodes: Nodes, clip: Any, tiny: Any
) -> None:
    masks = torch.zeros(2, 32, 32)
    masks[0, :8] = 1
    made = conditioned(pack_nodes, clip, tiny[2], pair(), region_masks=masks, enhance="1, 1.5")
    assert plan_of(made).regions(first=False).sum(axis=1).tolist() == [16, 40]
    plain = conditioned(pack_nodes, clip, tiny[2], pair())
    form = comfy.latent_formats.Flux()
    for gain, one, other in zip(
        (1, 1.5), made.args[0][0][1]["reference_latents"], plain.args[0][0][1]["reference_latents"], strict=True
    ):
        assert torch.allclose(form.process_in(one), gain * form.process_in(other), atol=1e-5)


def test_the_background_is_grey_or_as_given(pack_nodes: Nodes, clip: Any, tiny: Any) -> None:
    grey, given = (
        conditioned(pack_nodes, clip, tiny[2], pair(), background=word).args[0][0][1]["reference_latents"]
        for word in ("grey", "as given")
    )
    assert not torch.equal(grey[0], given[0])


def test_a_layout_without_boxes_is_the_prompt_alone(pack_nodes: Nodes, clip: Any, tiny: Any) -> None:
    made = conditioned(pack_nodes, clip, tiny[2], scene())
    assert made.args[2] == "A lake." and plan_of(made) is None


class ThinVae:
    latent_channels = 4


def many_words(count: int) -> str:
    return " ".join(["branch"] * count)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"layout": scene((Box(0, 0, 64, 64), None, ""))}, "layout: no box of the layout is bound"),
        ({"prompt": many_words(600)}, r"prompt: the phrases .* take \d+ tokens together, there is room for 512"),
        ({"text_tokens": 16}, "prompt: .* there is room for 16"),
        ({"vae": ThinVae()}, "vae: this VAE makes latents of 4 channels"),
        ({"vae": None}, "vae: there is no VAE"),
        ({"clip": None}, "clip: there is no text encoder"),
        (
            {"overlap": "listed", "gives_way": "a red bird: an old boat; 2: 1"},
            "gives_way: box 1 .* and box 2 .* give way to each other, so 16 tokens",
        ),
        ({"overlap": "listed", "gives_way": "a red bird"}, "gives_way: the line .* no one after a colon"),
        ({"overlap": "listed", "gives_way": "3: 1"}, "gives_way: no box with a reference is called '3'"),
        ({"overlap": "listed", "gives_way": "1: 1"}, "gives_way: '1' gives way to itself"),
        ({"overlap": "both"}, "overlap: it is 'both'"),
        ({"region_masks": torch.ones(3, 8, 8)}, "region_masks: there are 3 masks for 2 boxes"),
        ({"enhance": "strong"}, "enhance: it is 'strong'"),
        ({"enhance": "1, 2, 3"}, "enhance: there are 3 numbers for 2 boxes"),
        ({"enhance": "nan"}, "enhance: it is 'nan'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_in_one_sentence(
    pack_nodes: Nodes, clip: Any, tiny: Any, inputs: dict[str, Any], sentence: str
) -> None:
    values = {"clip": clip, "vae": tiny[2], "layout": pair(), "prompt": "A lake.", **inputs}
    with pytest.raises(InputError, match=f"LAMICConditioning, {sentence}"):
        pack_nodes["LAMICConditioning"].execute(**values)


def test_a_model_that_follows_another_method_alone_is_refused(pack_nodes: Nodes, clip: Any, tiny: Any) -> None:
    positive = conditioned(pack_nodes, clip, tiny[2], pair()).args[0]
    other = tiny_flux.install(tiny_flux.build(), Settings())
    with pytest.raises(InputError, match="LAMICConditioning, conditioning: .* put the model through LAMICPatchModel"):
        tiny_flux.sample(other, positive, start=tiny_flux.noise(8, 8))


def test_both_methods_may_be_on_one_model(pack_nodes: Nodes, clip: Any, tiny: Any) -> None:
    """Each picture follows the method in its conditioning, whatever else is on the model."""
    model = tiny_flux.build()
    positive = conditioned(pack_nodes, clip, tiny[2], pair(), text_tokens=40).args[0]
    alone = pack_nodes["LAMICPatchModel"].execute(model, first_ratio=0.4).args[0]
    both = tiny_flux.install(alone, Settings())
    start = tiny_flux.noise(8, 8)
    pictures = [tiny_flux.sample(one, positive, start=start) for one in (alone, both)]
    assert torch.equal(*pictures)
    unmasked = pack_nodes["LAMICPatchModel"].execute(model, masked=False).args[0]
    assert float((tiny_flux.sample(unmasked, positive, start=start) - pictures[0]).abs().max()) > 1e-3


def test_the_report_measures_what_the_conditioning_says(pack_nodes: Nodes, clip: Any, tiny: Any) -> None:
    patched, report = host.install(tiny[0], LAMIC, LamicSettings()), pack_nodes["ContextGenReport"]
    assert "connect what comes out of LAMICConditioning" in report.execute(pair(), model=patched).args[1]
    positive = conditioned(pack_nodes, clip, tiny[2], pair()).args[0]
    told = report.execute(pair(), model=patched, conditioning=positive).args[1]
    assert "picture 2" in told and "whole step" in told
