"""InstanceAssemble in the real host: what it leaves alone, rows and batches, memory, other patches, both families."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.lora
import comfy.model_management
import comfy.ops
import folder_paths
import numpy as np
import pytest
import tiny_assemble
import tiny_flux
import tiny_sd3
import torch
from contextgen_pack.contextgen_core.backbones.flux import pack
from contextgen_pack.contextgen_core.composite.compose import compose
from contextgen_pack.contextgen_core.composite.references import Reference
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.layout.box import Box
from contextgen_pack.contextgen_core.layout.layout import Instance, Layout
from contextgen_pack.contextgen_core.methods.boundary import CONTENT
from contextgen_pack.contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_pack.contextgen_core.methods.instance_assemble.plan import CONTENTS, PhraseOptions, PhrasePlan, bind
from contextgen_pack.contextgen_core.methods.instance_assemble.step import PHRASES, AssembleSettings
from contextgen_pack.nodes import host
from contextgen_pack.nodes.sockets import to_image

ALWAYS = AssembleSettings(ratio=1.0)
FLUX, SD3 = tiny_flux.POOLED, tiny_sd3.POOLED


@pytest.fixture(scope="module")
def flux() -> Any:
    return tiny_flux.build()


@pytest.fixture(scope="module")
def sd3() -> Any:
    return tiny_sd3.build()


@pytest.fixture
def run_node(pack_nodes: dict[str, Any]) -> Any:
    return lambda name, **inputs: pack_nodes[name].execute(**inputs)


def installed(model: Any, settings: AssembleSettings = ALWAYS) -> Any:
    file = tiny_assemble.weights(host.family_of(model).backbone)
    return host.install(model, INSTANCE_ASSEMBLE, settings, file.build(comfy.ops.manual_cast.Linear))


def positive(**options: Any) -> list[Any]:
    return tiny_assemble.attach(tiny_flux.text(), tiny_assemble.plan(**options), FLUX)


def sd3_text(seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn((1, SD3), generator=generator)
    return [[torch.randn((1, 20, tiny_sd3.TEXT), generator=generator), {"pooled_output": pooled}]]


# --- what it leaves alone -------------------------------------------------------------------------------------------


def test_without_phrases_or_with_scale_0_it_is_the_stock_model(flux: Any, sd3: Any) -> None:
    vanilla = tiny_flux.sample(flux, tiny_flux.text())
    assert torch.equal(tiny_flux.sample(installed(flux), tiny_flux.text()), vanilla)
    assert torch.equal(tiny_flux.sample(installed(flux, AssembleSettings(scale=0.0)), positive()), vanilla)
    assert torch.equal(tiny_flux.sample(installed(flux, AssembleSettings(ratio=0.0)), positive()), vanilla)
    acting = tiny_flux.sample(installed(flux), positive())
    assert (acting - vanilla).abs().max() > 1e-2
    assert torch.equal(tiny_flux.sample(flux, tiny_flux.text()), vanilla)
    vanilla = tiny_flux.sample(sd3, sd3_text())
    assert torch.equal(tiny_flux.sample(installed(sd3), sd3_text()), vanilla)
    tagged = tiny_assemble.attach(sd3_text(), tiny_assemble.plan(), SD3)
    assert torch.equal(tiny_flux.sample(installed(sd3, AssembleSettings(scale=0.0)), tagged), vanilla)
    assert (tiny_flux.sample(installed(sd3), tagged) - vanilla).abs().max() > 1e-2
    assert torch.equal(tiny_flux.sample(sd3, sd3_text()), vanilla)


def style_lora(model: Any) -> Any:
    """A clone with a LoRA on layers that InstanceAssemble's adapter changes, too."""
    width = tiny_flux.CONFIG["num_attention_heads"] * tiny_flux.CONFIG["attention_head_dim"]
    generator, state = torch.Generator().manual_seed(5), {}
    for layer, outputs, inputs in (("attn.to_q", 1, 1), ("norm1.linear", 6, 1), ("ff.net.2", 1, 4)):
        name = f"transformer.transformer_blocks.0.{layer}"
        state[f"{name}.lora_A.weight"] = torch.randn((4, inputs * width), generator=generator) * 0.2
        state[f"{name}.lora_B.weight"] = torch.randn((outputs * width, 4), generator=generator) * 0.2
    patches = comfy.lora.load_lora(state, comfy.lora.model_lora_keys_unet(model.model, {}))
    clone = model.clone()
    assert len(clone.add_patches(patches, 1.0)) == 3
    return clone


def test_a_style_lora_stays_as_it_is(flux: Any) -> None:
    styled = style_lora(flux)
    alone = tiny_flux.sample(styled, tiny_flux.text())
    assert (alone - tiny_flux.sample(flux, tiny_flux.text())).abs().max() > 1e-2
    off = AssembleSettings(scale=0.0)
    assert torch.equal(tiny_flux.sample(installed(styled, off), positive()), alone)
    before, after = installed(styled), style_lora(installed(flux))
    both = tiny_flux.sample(before, positive())
    assert torch.equal(both, tiny_flux.sample(after, positive()))
    assert (both - tiny_flux.sample(installed(flux), positive())).abs().max() > 1e-2  # it acts under the phrases, too
    assert torch.equal(tiny_flux.sample(styled, tiny_flux.text()), alone)


# --- when and where it acts -----------------------------------------------------------------------------------------


def test_the_grounding_ratio_counts_the_samplers_own_steps(flux: Any) -> None:
    sigmas = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
    seen: list[int] = []
    step = 0

    def stepped(*_: Any) -> None:
        nonlocal step
        step += 1

    model = installed(flux, AssembleSettings(ratio=0.5))
    modules = model.get_additional_models_with_key("contextgen_instance_assemble")[0].model
    forward = modules.block(True, 0).layout_forward.register_forward_hook(lambda *_: seen.append(step))
    tiny_flux.sample(model, positive(), sigmas=sigmas, callback=stepped)
    forward.remove()
    assert seen == [0, 1]  # int(0.5 * 5) steps


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_a_run_is_its_grounded_steps_and_then_the_stock_model(family: str, flux: Any, sd3: Any) -> None:
    model, given, text = (
        (flux, positive(), tiny_flux.text())
        if family == "flux"
        else (sd3, tiny_assemble.attach(sd3_text(), tiny_assemble.plan(), SD3), sd3_text())
    )
    sigmas = (1.0, 0.95, 0.9, 0.82, 0.74, 0.65, 0.55, 0.44, 0.31, 0.17, 0.0)

    def run(ratio: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The picture, and what each step began with."""
        begun: list[torch.Tensor] = []
        patched = installed(model, AssembleSettings(ratio=ratio))
        last = tiny_flux.sample(patched, given, sigmas=sigmas, callback=lambda _s, _d, x, _n: begun.append(x.clone()))
        return last, begun

    whole, every = run(1.0)
    for ratio, active in ((0.1, 1), (0.3, 3), (0.5, 5)):
        last, begun = run(ratio)
        assert all(torch.equal(a, b) for a, b in zip(begun[: active + 1], every, strict=False))
        stock = tiny_flux.sample(model, text, start=begun[active] / sigmas[active], sigmas=sigmas[active:])
        assert (last - stock).abs().max() < 2e-5 * float(stock.abs().max())
        assert (last - whole).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_phrases_are_encoded_once_a_run(family: str, flux: Any, sd3: Any) -> None:
    model, words, pooled = (flux, tiny_flux.text, FLUX) if family == "flux" else (sd3, sd3_text, SD3)
    patched, encoded = installed(model), []
    (patcher,) = patched.get_additional_models_with_key("contextgen_instance_assemble")
    encoder = patcher.model.get_submodule("layout_net")
    encoder.register_forward_hook(lambda *_: encoded.append(1))
    first, other = (tiny_assemble.attach(words(seed=seed), tiny_assemble.plan(), pooled, seed) for seed in (0, 4))
    once = tiny_flux.sample(patched, first)
    assert len(encoded) == 1
    assert not torch.equal(tiny_flux.sample(patched, other), once) and len(encoded) == 2
    assert torch.equal(tiny_flux.sample(patched, first), once) and len(encoded) == 3


def test_pictures_of_a_batch_get_their_boxes_each(flux: Any, sd3: Any) -> None:
    for model, tagged in ((flux, positive()), (sd3, tiny_assemble.attach(sd3_text(), tiny_assemble.plan(), SD3))):
        patched, start = installed(model), tiny_flux.noise(batch=2)
        both = tiny_flux.sample(patched, tagged, start=start)
        for row in range(2):
            alone = tiny_flux.sample(patched, tagged, start=start[row : row + 1])
            assert (both[row : row + 1] - alone).abs().max() < 1e-4


def test_the_negative_gets_no_boxes_but_the_second_mlp(sd3: Any) -> None:
    tagged = tiny_assemble.attach(sd3_text(), tiny_assemble.plan(), SD3)
    negative = tiny_assemble.attach(sd3_text(9), tiny_assemble.plan(), SD3)
    patched = installed(sd3)
    guided = tiny_flux.sample(patched, tagged, negative, cfg=3.0)
    # The same by hand: each conditioning by itself, the negative one without any box.
    nothing = PhrasePlan(6, 8, tuple(box._replace(strength=1e-6) for box in tiny_assemble.plan().boxes))
    x = tiny_flux.noise()
    parts = {}

    def keep(args: dict[str, Any]) -> torch.Tensor:
        parts[round(float(args["sigma"][0]), 3)] = args["cond_denoised"], args["uncond_denoised"], args["input"]
        return args["denoised"]

    watched = patched.clone()
    watched.set_model_sampler_post_cfg_function(keep)
    assert torch.equal(tiny_flux.sample(watched, tagged, negative, cfg=3.0), guided)
    cond, uncond, given = parts[1.0]
    assert torch.allclose(given, x * 1.0, atol=1e-6)
    empty = tiny_assemble.attach(sd3_text(9), nothing, SD3)
    alone: list[torch.Tensor] = []
    tiny_flux.sample(patched, empty, sigmas=(1.0, 0.0), callback=lambda _s, denoised, *_: alone.append(denoised))
    assert (alone[0] - uncond).abs().max() < 1e-4
    stock: list[torch.Tensor] = []
    tiny_flux.sample(sd3, sd3_text(9), sigmas=(1.0, 0.0), callback=lambda _s, denoised, *_: stock.append(denoised))
    assert (stock[0] - uncond).abs().max() > 1e-2  # left out, the negative would be the stock model's


def test_with_contextgen_in_both_orders(flux: Any) -> None:
    layout = tiny_flux.plan()
    pictures = tiny_flux.attach(tiny_flux.text(), layout, tiny_flux.latents(layout))
    both = tiny_assemble.attach(pictures, tiny_assemble.plan(), FLUX)
    first = tiny_flux.install(installed(flux), Settings())
    second = installed(tiny_flux.install(flux, Settings()))
    together = tiny_flux.sample(first, both)
    assert torch.equal(together, tiny_flux.sample(second, both))
    # Pruning what nobody reads stays exact with the layout steps among the blocks.
    unpruned = tiny_flux.sample(host.install(second, CONTEXTGEN, Settings(prune=False)), both)
    assert (together - unpruned).abs().max() < 1e-4
    assert (together - tiny_flux.sample(tiny_flux.install(flux, Settings()), pictures)).abs().max() > 1e-2
    assert (together - tiny_flux.sample(installed(flux), positive())).abs().max() > 1e-2


# --- memory and dtypes ----------------------------------------------------------------------------------------------


def test_the_extra_weights_are_memory_the_host_knows(flux: Any) -> None:
    patched = installed(flux)
    (patcher,) = patched.get_additional_models_with_key("contextgen_instance_assemble")
    wanted = sum(p.numel() * p.element_size() for p in patcher.model.parameters())
    assert patcher.model_size() == wanted
    loaded: list[bool] = []

    def look(*_: Any) -> None:
        loaded.append(any(known.model is patcher for known in comfy.model_management.current_loaded_models))

    tiny_flux.sample(patched, positive(), callback=look)
    assert loaded and all(loaded)


def test_half_precision_is_no_farther_off_than_the_model(flux: Any) -> None:
    exact = tiny_flux.sample(installed(flux), positive())
    half = tiny_flux.build(torch.bfloat16)
    assert torch.isfinite(tiny_flux.sample(installed(half), positive())).all()
    stored = tiny_flux.build(torch.bfloat16, torch.float32)
    off = (tiny_flux.sample(stored, tiny_flux.text()) - tiny_flux.sample(flux, tiny_flux.text())).abs().max()
    assert (tiny_flux.sample(installed(stored), positive()) - exact).abs().max() < 3 * off + 1e-3


class Dequantising(torch.nn.Module):
    """A layer whose weight is stored as eight-bit numbers with a scale for each row and made anew in each call, as the
    layers of GGUF loaders are."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.scale = linear.weight.abs().amax(1, keepdim=True) / 127
        self.stored = (linear.weight / self.scale).round().to(torch.int8)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.stored * self.scale, self.bias)


def linears(model: Any) -> list[tuple[Any, str, Any]]:
    blocks = [
        module
        for name, module in model.model.diffusion_model.named_modules()
        if name.startswith(("double_blocks", "single_blocks", "joint_blocks"))
    ]
    return [
        (module, name, child)
        for module in blocks
        for name, child in module.named_children()
        if isinstance(child, torch.nn.Linear)
    ]


@pytest.mark.parametrize("family", ["flux", "sd3"])
@pytest.mark.parametrize("stored", ["fp8", "dequantising"])
def test_over_weights_that_are_stored_otherwise(family: str, stored: str) -> None:
    """What the step adds is the same over eight-bit weights as over the full ones that they stand for."""
    build = tiny_flux.build if family == "flux" else tiny_sd3.build
    given = positive() if family == "flux" else tiny_assemble.attach(sd3_text(), tiny_assemble.plan(), SD3)
    model, plain = build(), build()
    for (parent, name, layer), (_, _, same) in zip(linears(model), linears(plain), strict=True):
        with torch.no_grad():
            if stored == "fp8":
                small = layer.weight.to(torch.float8_e4m3fn)
                same.weight.copy_(small.float())
                cast = comfy.ops.manual_cast.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
                cast.weight = torch.nn.Parameter(small, requires_grad=False)
                cast.bias = layer.bias
                setattr(parent, name, cast)
            else:
                quantised = Dequantising(layer)
                same.weight.copy_(quantised.stored * quantised.scale)
                setattr(parent, name, quantised)
    got = tiny_flux.sample(installed(model), given)
    wanted = tiny_flux.sample(installed(plain), given)
    assert (got - wanted).abs().max() < 2e-5 * max(1.0, float(wanted.abs().max()))
    text = tiny_flux.text() if family == "flux" else sd3_text()
    assert (got - tiny_flux.sample(model, text)).abs().max() > 1e-2


def test_freeing_the_model_frees_the_extra_weights(flux: Any) -> None:
    patched = installed(flux)
    (patcher,) = patched.get_additional_models_with_key("contextgen_instance_assemble")
    management = comfy.model_management
    management.unload_all_models()
    before = sum(known.model_memory() for known in management.current_loaded_models)
    tiny_flux.sample(patched, positive())
    held = [known.model for known in management.current_loaded_models]
    assert patcher in held and before == 0
    assert sum(known.model_memory() for known in management.current_loaded_models) >= patcher.model_size()
    management.unload_all_models()
    assert not any(known.model is patcher for known in management.current_loaded_models)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused_before_sampling(flux: Any, sd3: Any) -> None:
    def said(model: Any, conditioning: list[Any]) -> str:
        steps: list[int] = []
        with pytest.raises(InputError) as caught:
            tiny_flux.sample(model, conditioning, callback=lambda *_: steps.append(1))
        assert not steps
        return str(caught.value)

    wrong = tiny_assemble.attach(tiny_flux.text(), tiny_assemble.plan(pooled=2048), 2048)
    assert "InstanceAssembleConditioning, clip: the phrases were encoded to 2048" in said(installed(flux), wrong)
    only = tiny_flux.install(flux, Settings())
    assert "put the model through InstanceAssemblePatchModel" in said(only, positive())
    other = tiny_assemble.attach(tiny_flux.text(), tiny_assemble.plan(width=256), FLUX)
    assert "the layout is 256x96" in said(installed(flux), other)
    layout = tiny_flux.plan()
    pictures = tiny_flux.attach(sd3_text(), layout, tiny_flux.latents(layout))
    assert "ContextGen" in said(host.install(sd3, CONTEXTGEN, Settings()), pictures)


# --- nodes ----------------------------------------------------------------------------------------------------------


def scene(*labels: str) -> Any:
    boxes = [Instance(f"b{n}", Box(16 * n, 0, 16 * n + 64, 64), label=label) for n, label in enumerate(labels)]
    return compose(Layout(128, 128, tuple(boxes)), ())


def test_from_files_to_a_picture_through_the_nodes(tmp_path: Path, run_node: Any) -> None:
    model, clip, _vae = run_node("ContextGenTinyModel").args
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    tiny_assemble.write(folder / "assemble.safetensors", host.family_of(model).backbone)
    weights, report = run_node("InstanceAssembleLoader", layout_weights="assemble.safetensors").args
    assert "FLUX.1, width 128" in report
    patched = run_node("InstanceAssemblePatchModel", model=model, weights=weights, grounding_ratio=1.0).args[0]
    prompt = clip.encode_from_tokens_scheduled(clip.tokenize("a meadow at noon"))
    words = {"conditioning": prompt, "clip": clip, "layout": scene("desert at night", "snow, misty")}
    given, negative, latent = run_node("InstanceAssembleConditioning", **words, batch_size=2).args
    assert latent["samples"].shape == (2, 16, 16, 16)
    assert not negative[0][0].any()
    start = torch.randn((2, 16, 16, 16), generator=torch.Generator().manual_seed(1))
    drawn = tiny_flux.sample(patched, given, start=start)
    others = {**words, "layout": scene("snow, misty", "desert at night")}
    swapped = run_node("InstanceAssembleConditioning", **others).args[0]
    assert (drawn - tiny_flux.sample(patched, swapped, start=start)).abs().max() > 1e-3
    assert (drawn - tiny_flux.sample(model, prompt, start=start)).abs().max() > 1e-3
    told = run_node("ContextGenReport", layout=words["layout"], model=patched, conditioning=given).args[1]
    assert "InstanceAssemble: 2 instances" in told and "16 tokens  desert at night" in told
    assert "of a step" in told and "warning" not in told[told.index("InstanceAssemble:") :]


def pictured() -> Any:
    """A box with a picture, one with both, and one with words."""
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (64, 48, 3), np.uint8) for _ in range(2)]
    bundle = [Reference(f"r{n}", pixels, np.full((64, 48), 255, np.uint8)) for n, pixels in enumerate(pictures)]
    boxes = (
        Instance("a", Box(0, 0, 64, 64), reference=1),
        Instance("b", Box(48, 32, 128, 96), reference=2, label="red disc", rotation=20.0, flip="h"),
        Instance("c", Box(16, 80, 80, 128), label="desert at night"),
    )
    return compose(Layout(128, 128, boxes), bundle)


def test_pictures_fill_boxes_where_the_weights_know_them(run_node: Any) -> None:
    model, clip, vae = run_node("ContextGenTinyModel").args
    backbone = host.family_of(model).backbone
    plain, knowing = (tiny_assemble.weights(backbone, pictures=pictures) for pictures in (False, True))
    patched, simple = (
        run_node("InstanceAssemblePatchModel", model=model, weights=file, grounding_ratio=1.0).args[0]
        for file in (knowing, plain)
    )
    prompt = clip.encode_from_tokens_scheduled(clip.tokenize("a meadow at noon"))
    words = {"conditioning": prompt, "clip": clip, "layout": pictured(), "vae": vae}
    given = {c: run_node("InstanceAssembleConditioning", **words, content=c).args[0] for c in CONTENTS}
    start = torch.randn((2, 16, 16, 16), generator=torch.Generator().manual_seed(1))
    drawn = {content: tiny_flux.sample(patched, given[content], start=start) for content in CONTENTS}
    assert (drawn["both"] - drawn["phrases"]).abs().max() > 1e-3
    assert (drawn["both"] - drawn["pictures"]).abs().max() > 1e-3
    # Phrases alone give what weights without pictures give, bit for bit.
    assert torch.equal(drawn["phrases"], tiny_flux.sample(simple, given["phrases"], start=start))
    # The model sees latents in its own scale.
    plan = host.plan_of(given["both"][0][1], INSTANCE_ASSEMBLE)
    latents = torch.cat([pack(vae.encode(to_image(picture))) for picture in bind_both(words["layout"]).pictures], 1)
    seen: list[torch.Tensor] = []
    modules = patched.get_additional_models_with_key("contextgen_instance_assemble")[0].model
    hook = modules.picture_net.register_forward_pre_hook(lambda _m, args: seen.append(args[1]))
    tiny_flux.sample(patched, given["both"], start=start)
    hook.remove()
    wanted = (latents - vae_format().shift_factor) * vae_format().scale_factor
    assert len(seen) == 1 and torch.allclose(seen[0], wanted.expand(2, -1, -1), atol=1e-6)
    assert [box.picture and box.picture.size for box in plan.boxes] == [15, 36, None]
    told = run_node("ContextGenReport", layout=words["layout"], model=patched, conditioning=given["both"]).args[1]
    assert "red disc + picture of 6 x 6 tokens" in told
    assert "words used by InstanceAssemble: box 2 ('b'), box 3 ('c')" in told and "not used" not in told
    told = run_node("ContextGenReport", layout=words["layout"], model=patched, conditioning=given["pictures"]).args[1]
    assert "words used by InstanceAssemble: box 3 ('c')" in told
    assert "words not used (for the eye alone): box 2 ('b')" in told
    with pytest.raises(InputError, match="know no pictures"):
        tiny_flux.sample(simple, given["both"], start=start)
    with pytest.raises(InputError, match="InstanceAssembleConditioning, vae: there is no VAE"):
        run_node("InstanceAssembleConditioning", **{**words, "vae": None}, content="both")


def test_pictures_fill_boxes_of_stable_diffusion_3(sd3: Any) -> None:
    plan = bind_both(pictured()).plan
    generator = torch.Generator().manual_seed(8)
    vectors = {
        PHRASES: torch.randn((1, 2, SD3), generator=generator),
        CONTENT: torch.randn((1, 51, 64), generator=generator),
    }
    file = tiny_assemble.weights(host.family_of(sd3).backbone, pictures=True)
    patched = host.install(sd3, INSTANCE_ASSEMBLE, ALWAYS, file.build(comfy.ops.manual_cast.Linear))
    start = tiny_flux.noise(width=8, height=8)
    drawn = []
    for change in (0.0, 1.0):
        vectors[CONTENT] = vectors[CONTENT] + change
        given, negative = (host.attach(sd3_text(seed), INSTANCE_ASSEMBLE, plan, [], dict(vectors)) for seed in (0, 9))
        drawn.append(tiny_flux.sample(patched, given, negative, cfg=3.0, start=start))
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3


def bind_both(scene: Any) -> Any:
    return bind(scene, PhraseOptions(content="both"))


def vae_format() -> Any:
    return comfy.latent_formats.Flux()


@pytest.mark.parametrize(
    ("node", "words", "sentence"),
    [
        ("InstanceAssembleConditioning", {"layout": ("cat", "")}, "box 2 ('b1') has no words"),
        ("InstanceAssembleConditioning", {"box_options": "1 0.5"}, "line 1 is '1 0.5'"),
        ("InstanceAssembleConditioning", {"box_options": "7: 0.5"}, "box_options: the options speak of box 7"),
        ("InstanceAssembleConditioning", {"box_options": "1: nan"}, "line 1 is '1: nan'"),
        ("InstanceAssembleConditioning", {"masks": torch.ones(3, 8, 8)}, "there are 3 masks for 1 boxes"),
        ("InstanceAssembleConditioning", {"clip": None}, "there is no CLIP"),
        ("InstanceAssembleConditioning", {"layout": ("  ",)}, "box 1 ('b0') has no words"),
        ("InstanceAssembleConditioning", {"content": "video"}, "it is 'video'; choose one of phrases"),
        ("InstanceAssemblePatchModel", {"scale": 7.0}, "it is 7; give a number from 0 to 3"),
        ("InstanceAssemblePatchModel", {"scale": float("nan")}, "NaN"),
        ("InstanceAssemblePatchModel", {"weights": None}, "weights: there are no weights; connect"),
        ("InstanceAssembleLoader", {"layout_weights": "nowhere.pth"}, "there is no file 'nowhere.pth'"),
    ],
)
def test_bad_input_gives_one_sentence_that_names_the_node(
    node: str, words: dict[str, Any], sentence: str, run_node: Any, flux: Any
) -> None:
    _model, clip, _vae = run_node("ContextGenTinyModel").args
    good = {
        "InstanceAssembleConditioning": {"conditioning": tiny_flux.text(), "clip": clip, "layout": ("cat",)},
        "InstanceAssemblePatchModel": {"model": flux, "weights": tiny_assemble.weights(host.family_of(flux).backbone)},
        "InstanceAssembleLoader": {},
    }[node]
    given = {**good, **words}
    if "layout" in given and node == "InstanceAssembleConditioning":
        given["layout"] = scene(*given["layout"])
    with pytest.raises(InputError) as caught:
        run_node(node, **given)
    assert str(caught.value).startswith(f"{node}, ") and sentence in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        (
            [{"id": f"b{n}", "x": 0, "y": 0, "w": 9, "h": 9, "label": "cat"} for n in range(100)],
            "100 boxes, the limit is 50",
        ),
        ([{"id": "b", "x": 0, "y": 0, "w": 9, "h": 9, "label": "cat " * 2500}], "label of 10000 characters"),
        ([{"id": "b", "x": 900, "y": 0, "w": 9, "h": 9, "label": "cat"}], "wholly outside the canvas"),
        ([{"id": "b", "x": float("nan"), "y": 0, "w": 9, "h": 9, "label": "cat"}], "NaN"),
    ],
)
def test_boxes_that_no_layout_may_have(boxes: list[Any], sentence: str, run_node: Any) -> None:
    layout = json.dumps({"v": 1, "canvas": {"w": 128, "h": 128}, "boxes": boxes})
    with pytest.raises(InputError) as caught:
        run_node("LayoutComposer", width=128, height=128, layout=layout)
    assert str(caught.value).startswith("LayoutComposer, layout: ") and sentence in str(caught.value)
    assert str(caught.value).endswith(".")


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never run",))


def test_a_file_with_code_in_it_is_not_read(run_node: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"layout_net.x": Code()}, folder / "code.pth")
    with pytest.raises(InputError, match="InstanceAssembleLoader, layout_weights: code.pth holds more than tensors"):
        run_node("InstanceAssembleLoader", layout_weights="code.pth")
    assert "never" not in capsys.readouterr().out


def test_the_authors_file_opens_as_boxes_with_phrases(run_node: Any) -> None:
    annos = [
        {"bbox": [0, 0, 64, 128], "category_name": "cat", "caption": "grey"},
        {"bbox": [64, 0, 128, 64], "category_name": "dog"},
    ]
    for words in ({"prompt": "a room"}, {"caption": "a room"}):  # the second is what their demo saves
        text = json.dumps({**words, "width": 128, "height": 128, "annos": annos})
        layout = run_node("LayoutComposer", width=256, height=256, layout="", boxes=text).args[0].layout
        assert [(i.label, i.box) for i in layout.instances] == [
            ("cat, grey", Box(0, 0, 128, 256)),
            ("dog", Box(128, 0, 256, 128)),
        ]


def test_weights_of_another_model_are_refused(flux: Any, sd3: Any, run_node: Any) -> None:
    file = tiny_assemble.weights(host.family_of(sd3).backbone)
    with pytest.raises(InputError, match="is for Stable Diffusion 3, the model is FLUX"):
        run_node("InstanceAssemblePatchModel", model=flux, weights=file)
