"""SIGMA-GEN in the real host: its golden case, the stock forward behind its defaults, and its nodes."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy_extras.nodes_mask as nodes_mask
import folder_paths
import numpy as np
import pytest
import tiny_flux
import torch
from contextgen_pack.contextgen_core.backbones.flux import pack
from contextgen_pack.contextgen_core.composite.compose import Scene, compose
from contextgen_pack.contextgen_core.composite.references import Reference
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.layout.box import Box
from contextgen_pack.contextgen_core.layout.layout import Instance, Layout
from contextgen_pack.contextgen_core.lora.adapter import load_adapter
from contextgen_pack.contextgen_core.lora.switched import SwitchedAdapter
from contextgen_pack.contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from contextgen_pack.contextgen_core.methods.eligen.plan import EliGenPlan, phrase_tokens
from contextgen_pack.contextgen_core.methods.sigma_gen.method import SIGMA_GEN, Plan, Settings, plan_of, position_ids
from contextgen_pack.nodes import host, parity
from contextgen_pack.nodes.adapter import apply_adapter
from contextgen_pack.nodes.host import call
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ADAPTER = GOLDEN / "sigma" / "sigma_lora.safetensors"
PLAN = Plan(8, 6, 3, 6)
APART = Settings(timestep="zero", scope="conditions", cross=False, context=False)

Nodes = dict[str, Any]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_flux.build()


def scene() -> Scene:
    generator = np.random.default_rng(0)
    people = [
        Reference(f"r{n}", generator.integers(0, 256, (48, 40, 3), np.uint8), np.full((48, 40), 255, np.uint8))
        for n in range(2)
    ]
    instances = (Instance("b1", Box(0, 0, 64, 64), 1), Instance("b2", Box(32, 32, 128, 96), 2))
    return compose(Layout(128, 96, instances), people)


def latents() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn((1, 16, 2 * h, 2 * w), generator=generator) for h, w in SIGMA_GEN.sizes(PLAN)[1]]


def sampled(model: Any, settings: Settings | None = None) -> torch.Tensor:
    positive = host.attach(tiny_flux.text(), SIGMA_GEN, PLAN, latents())
    return tiny_flux.sample(host.install(model, SIGMA_GEN, settings or Settings()), positive)


@pytest.mark.parametrize(
    ("timestep", "scope", "cross"), list(product(("current", "zero"), ("all", "conditions"), ("on", "off")))
)
def test_the_golden_velocity(timestep: str, scope: str, cross: str, tmp_path: Path) -> None:
    words = {
        "case": str(GOLDEN / "sigma" / "sigma_two_subjects.npz"),
        "weights": str(GOLDEN / "contextgen" / "transformer.safetensors"),
        "config": str(GOLDEN / "contextgen" / "config.json"),
        "adapter": str(ADAPTER),
        "method": "sigma_gen",
        "timestep": timestep,
        "scope": scope,
        "cross": cross,
        "context": "on",
        "condition_guidance": "automatic",
        "out": str(tmp_path / "velocity.npy"),
    }
    parity.run_case(words)
    velocity = torch.from_numpy(np.load(words["out"]))
    assert (velocity - parity.load(Namespace(**words)).velocity).abs().max() < 2e-5


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "sigma" / "sigma_two_subjects.npz") as stored:
        return {key: stored[key] for key in stored.files}


@pytest.fixture(scope="module")
def golden_model() -> Any:
    config = json.loads((GOLDEN / "contextgen" / "config.json").read_text())["transformer"]
    return host.build_flux(config, load_file(GOLDEN / "contextgen" / "transformer.safetensors"), torch.float32)


def seen_lengths(model: Any) -> tuple[list[int], Any]:
    """Tokens that enter the first single block, call by call; and what ends it."""
    lengths: list[int] = []
    block = model.model.diffusion_model.single_blocks[0]
    return lengths, block.linear1.register_forward_hook(lambda _module, args, _out: lengths.append(args[0].shape[1]))


@pytest.mark.parametrize(("name", "settings"), [("indep", APART), ("nocross", replace(APART, context=True))])
def test_the_golden_trajectory_through_the_sampler(
    golden: dict[str, np.ndarray], golden_model: Any, name: str, settings: Settings
) -> None:
    plan = plan_of(golden["i_s"], golden["i_c"])
    form = golden_model.model.latent_format
    pictures = [form.process_out(torch.from_numpy(golden[f"{one}_latent"])) for one in ("i_s", "i_c")]
    pooled = {"pooled_output": torch.from_numpy(golden["pooled"]), "guidance": float(golden["guidance"][0])}
    positive = host.attach([[torch.from_numpy(golden["text_embeds"]), pooled]], SIGMA_GEN, plan, pictures)
    patched = host.install(golden_model, SIGMA_GEN, settings, SwitchedAdapter(load_adapter(ADAPTER), 3))
    lengths, hook = seen_lengths(golden_model)
    start, sigmas = torch.from_numpy(golden["noise_latent"]), tuple(golden["trajectory_sigmas"].tolist())
    end = tiny_flux.sample(patched, positive, start=start, sigmas=sigmas)
    hook.remove()
    known = torch.from_numpy(golden[f"trajectory_{name}"][-1:])
    assert (pack(form.process_in(end)) - known).abs().max() < 2e-5
    short = 512 + 64 if name == "indep" else 672
    assert [length for length in lengths if length != 672] == ([short] * 3 if name == "indep" else [])
    assert not call.REMEMBERED.held and not len(call.REMEMBERED), "the run is over"


@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
def test_fixed_pictures_are_computed_once_with_the_same_result(model: Any, cross: bool, batch: int) -> None:
    """Also for a negative with other pictures, in one batch with the positive or not, and a batch of pictures."""
    other = [latent.flip(-1) for latent in latents()]
    positive, negative = (
        host.attach(tiny_flux.text(seed=s), SIGMA_GEN, PLAN, p) for s, p in ((0, latents()), (1, other))
    )
    settings = replace(APART, scope="all", cross=cross)
    start = tiny_flux.noise(batch=batch)
    made: list[torch.Tensor] = []
    held: list[int] = []
    for one in (settings, replace(settings, memory=0.0)):
        lengths, hook = seen_lengths(model)
        patched = host.install(model, SIGMA_GEN, one)

        def watch(*_: Any) -> None:
            held.append(call.REMEMBERED.held)

        made.append(tiny_flux.sample(patched, positive, negative, cfg=3.0, start=start, callback=watch))
        hook.remove()
        whole = 40 + 48 + 18 + 48
        assert lengths[0] == whole and set(lengths[len(lengths) // 3 :]) == {whole if one.memory == 0 else 40 + 48}
    assert (made[0] - made[1]).abs().max() < 1e-5
    # Two conditionings, nine blocks, keys and values of 66 tokens, 32 wide: however many pictures are made.
    assert held == [2 * 9 * 2 * 66 * 32 * 4] * 3 + [0] * 3


def test_pictures_with_a_text_each_are_computed_anew(model: Any) -> None:
    """Their pooled texts reach the condition tokens, so one picture's keys and values are not the other's."""
    texts = [tiny_flux.text(seed=seed)[0] for seed in (0, 1)]
    values = {**texts[0][1], "pooled_output": torch.cat([one["pooled_output"] for _, one in texts])}
    positive = host.attach([[torch.cat([words for words, _ in texts]), values]], SIGMA_GEN, PLAN, latents())
    settings, start = replace(APART, scope="all"), tiny_flux.noise(batch=2)
    remembering, anew = (
        tiny_flux.sample(host.install(model, SIGMA_GEN, replace(settings, memory=memory)), positive, start=start)
        for memory in (settings.memory, 0.0)
    )
    assert (remembering - anew).abs().max() < 1e-5


def test_a_foreign_patch_sees_all_tokens_in_every_step(model: Any) -> None:
    settings = replace(APART, scope="all")
    patched = host.install(model, SIGMA_GEN, settings)
    plain = tiny_flux.sample(patched, host.attach(tiny_flux.text(), SIGMA_GEN, PLAN, latents()))
    lengths: list[int] = []

    def passing(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        lengths.append(args["img"].shape[1])
        return extra["original_block"](args)

    patched.set_model_patch_replace(passing, "dit", "single_block", 1)
    again = tiny_flux.sample(patched, host.attach(tiny_flux.text(), SIGMA_GEN, PLAN, latents()))
    assert lengths == [40 + 48 + 18 + 48] * 3 and (again - plain).abs().max() < 1e-5


def test_the_host_plans_for_what_is_remembered(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    load = comfy.model_management.load_models_gpu

    def recording(models: Any, memory_required: float = 0, **rest: Any) -> Any:
        asked.append(memory_required)
        return load(models, memory_required=memory_required, **rest)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", recording)
    monkeypatch.setattr(
        model.model, "memory_usage_factor", 1e-4
    )  # so that the small model's bytes are not rounded away
    phrases = EliGenPlan(8, 6, (phrase_tokens(5, np.ones((6, 8), bool)),))
    vectors = {"phrases": torch.randn((1, 5, tiny_flux.TEXT))}
    for end in (None, 1.0, 0.4):  # alone; joined with a method that drops it in all steps; in the first ones
        for memory in (0.0, 8.0):
            patched = host.install(model, SIGMA_GEN, replace(APART, scope="all", memory=memory))
            given = host.attach(tiny_flux.text(), SIGMA_GEN, PLAN, latents())
            if end is not None:
                patched = host.install(patched, ELIGEN, EliGenSettings(end=end))
                given = host.attach(given, ELIGEN, phrases, [], vectors)
            tiny_flux.sample(patched, given)
    alone, always, first = (after - before for before, after in zip(asked[::2], asked[1::2], strict=True))
    held = 9 * 2 * 66 * 32 * 4
    assert alone == first == pytest.approx(2 * held, rel=0.01)  # of both conditionings
    assert always == 0


def test_the_defaults_equal_the_stock_forward_with_these_ids_to_the_bit(model: Any) -> None:
    """With an adapter that is loaded as any other: it is in the weights that both use."""
    adapted, _ = apply_adapter(model, load_adapter(ADAPTER), "adapter", 1.0)
    stock = adapted.clone()

    def ids(args: dict[str, Any]) -> dict[str, Any]:
        return {**args, "img_ids": position_ids(PLAN)[None].to(args["img"].device)}

    stock.set_model_patch(ids, "post_input")
    [[embedding, values]] = tiny_flux.text()
    positive = [[embedding, {**values, "reference_latents": latents(), "reference_latents_method": "index"}]]
    got = sampled(adapted)
    assert torch.equal(got, tiny_flux.sample(stock, positive))
    assert (got - sampled(model)).abs().max() > 1e-3


@pytest.mark.parametrize("change", [{"timestep": "zero"}, {"guidance": "one"}, {"cross": False}])
def test_switches_act_in_sampling(model: Any, change: dict[str, Any]) -> None:
    assert (sampled(model, Settings(**change)) - sampled(model)).abs().max() > 1e-4


def test_the_nodes_give_one_picture_with_an_adapter_on_the_conditions_alone(
    model: Any, pack_nodes: Nodes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(ADAPTER.parent)], {".safetensors"}))
    stack, control, report, _ = (
        pack_nodes["SigmaGenControlPictures"].execute(scene(), cell_width=64, cell_height=64).args
    )
    assert stack.shape == (1, 128, 64, 3) and control.shape == (1, 96, 128, 3) and "warning" not in report
    levels = (control[0, ..., :2] * 255).round().unique().tolist()
    assert levels == [0, 10, 20]

    class Vae:
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            small = pixels.movedim(-1, 1)[:, :1, ::8, ::8]
            return small.expand(-1, 16, -1, -1).contiguous()

    positive, latent = pack_nodes["SigmaGenConditioning"].execute(tiny_flux.text(), Vae(), stack, control).args
    assert latent["samples"].shape == (1, 16, 12, 16)
    patch = pack_nodes["SigmaGenPatchModel"].execute
    everywhere, loaded = patch(model, ADAPTER.name).args
    conditions, switched = patch(model, ADAPTER.name, scope="conditions").args
    assert "rank 4, alpha 4" in loaded and "rank 4, alpha 4" in switched
    plain = tiny_flux.sample(patch(model).args[0], positive)
    pictures = [plain, tiny_flux.sample(everywhere, positive), tiny_flux.sample(conditions, positive)]
    assert all((a - b).abs().max() > 1e-3 for a, b in ((pictures[0], pictures[1]), (pictures[1], pictures[2])))
    nothing, _ = patch(model, ADAPTER.name, strength=0.0, scope="conditions").args
    assert (tiny_flux.sample(nothing, positive) - plain).abs().max() < 2e-5
    # A later node on the same model takes the place of the earlier one.
    assert torch.equal(tiny_flux.sample(patch(conditions).args[0], positive), plain)
    with pytest.raises(InputError, match=r"SigmaGenPatchModel, adapter: .*condition tokens alone"):
        patch(model, scope="conditions")


def test_what_is_strange_about_the_pictures_stands_on_the_node(pack_nodes: Nodes) -> None:
    out = pack_nodes["SigmaGenControlPictures"].execute(scene(), depth=torch.full((1, 96, 128, 3), 0.5))
    [said] = out.ui["contextgen_warnings"]
    assert "says nothing about pose" in said and said in out.args[2]


def test_a_control_picture_from_a_lossy_file_is_refused(pack_nodes: Nodes) -> None:
    stack, control, _, _ = pack_nodes["SigmaGenControlPictures"].execute(scene(), cell_width=64, cell_height=64).args
    control = control.clone()
    control[0, 0, :3, 0] = 11 / 255
    with pytest.raises(InputError, match=r"SigmaGenConditioning, control: 3 pixels"):
        pack_nodes["SigmaGenConditioning"].execute(tiny_flux.text(), object(), stack, control)


def test_a_black_control_picture_is_refused(pack_nodes: Nodes) -> None:
    stack, control, _, _ = pack_nodes["SigmaGenControlPictures"].execute(scene(), cell_width=64, cell_height=64).args
    with pytest.raises(InputError, match=r"SigmaGenConditioning, control: .* black, so no subject stands anywhere"):
        pack_nodes["SigmaGenConditioning"].execute(tiny_flux.text(), object(), stack, torch.zeros_like(control))


def test_masks_and_depth_reach_the_control_picture(pack_nodes: Nodes) -> None:
    masks = torch.zeros(2, 96, 128)
    masks[0, 10:20, 100:110] = 1
    depth = torch.full((1, 48, 64, 3), 0.2)
    depth[:, :, 32:] = 0.6
    made = pack_nodes["SigmaGenControlPictures"].execute
    _, control, _, _ = made(scene(), masks=masks, depth=depth, depth_near="dark", cell_width=64, cell_height=64).args
    values = (control[0] * 255).round()
    assert values[15, 105].tolist() == [10, 10, 102] and values[50, 40].tolist() == [20, 20, 204]
    assert values[5, 5].tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="SigmaGenControlPictures, layout: there are 1 masks for 2"):
        made(scene(), masks=masks[:1])


def test_shapes_and_depths_of_each_subject_and_their_regions_together(pack_nodes: Nodes) -> None:
    depths = torch.full((2, 96, 128, 3), 0.2)
    depths[1] = 0.4
    depths[:, :40] += 0.1
    made = pack_nodes["SigmaGenControlPictures"].execute
    words = {"shapes": "ellipse, box", "depth": depths, "depth_scale": "nearest white"}
    _, control, report, regions = made(scene(), **words, cell_width=64, cell_height=64).args
    values = (control[0] * 255).round()
    assert not values[1, 1].any() and values[20, 30, 0] == 10, "an ellipse"
    assert values[35, 80, 2] == 255 and values[90, 80, 2] == 203 and values[20, 30, 2] == 151
    assert regions.shape == (1, 96, 128) and torch.equal(regions[0] > 0, values[..., 0] > 0)
    assert "subject 2: 6144 pixels in the ascending plane" in report
    for wrong, said in (
        ({"shapes": "box, star"}, r"SigmaGenControlPictures, shapes: it is 'star'"),
        ({"shapes": "box, box, box"}, r"layout: there are 3 shapes for 2 boxes"),
        ({"depth_scale": "much"}, r"SigmaGenControlPictures, depth_scale"),
        ({"depth": depths * torch.tensor([1.0, 0.5, 0.0])}, r"SigmaGenControlPictures, depth: it has colours"),
        ({"depth": depths[:, :, :96]}, r"depth: a depth picture is 96 x 96 pixels, the layout 128 x 96"),
    ):
        with pytest.raises(InputError, match=said):
            made(scene(), **wrong)


def test_insertion_leaves_the_latent_outside_the_regions_as_it_was(model: Any, pack_nodes: Nodes) -> None:
    """Two subjects that overlap go into a photograph in one pass, as the template does it with the host's nodes."""
    controls = pack_nodes["SigmaGenControlPictures"].execute(
        scene(), shapes="ellipse, box", cell_width=64, cell_height=64
    )
    stack, control, _, regions = controls.args
    both = (control[0, 40, 50] * 255).round().tolist()
    assert both[:2] == [20, 10], "the later one on top in one plane, the earlier one in the other"
    plan = plan_of(*((picture[0] * 255).round().byte().numpy() for picture in (stack, control)))
    pictures = [torch.randn((1, 16, 2 * h, 2 * w)) for h, w in SIGMA_GEN.sizes(plan)[1]]
    positive = host.attach(tiny_flux.text(), SIGMA_GEN, plan, pictures)
    photograph = torch.randn((1, 16, 12, 16), generator=torch.Generator().manual_seed(9))
    guider = comfy.samplers.CFGGuider(host.install(model, SIGMA_GEN, Settings()))
    guider.set_conds(positive, positive)
    euler, sigmas = comfy.samplers.sampler_object("euler"), torch.tensor(tiny_flux.SIGMAS)
    made = guider.sample(tiny_flux.noise(), photograph, euler, sigmas, denoise_mask=regions, disable_pbar=True, seed=0)
    kept = nodes_mask.composite(photograph.clone(), made, 0, 0, regions[:, None], 8, False)
    cells = regions[0].unflatten(0, (12, 8)).unflatten(2, (16, 8)).amax(dim=(1, 3)) > 0
    assert 0 < cells.sum() < cells.numel()
    assert torch.equal(kept[..., ~cells], photograph[..., ~cells])
    middle = regions[0, 4::8, 4::8] > 0
    assert ((kept - photograph)[..., middle].abs().amax(dim=1) > 1e-3).all()


@pytest.mark.parametrize("memory", [-1.0, float("nan"), 5000.0])
def test_memory_out_of_range_is_refused(model: Any, pack_nodes: Nodes, memory: float) -> None:
    with pytest.raises(InputError, match="SigmaGenPatchModel, memory"):
        pack_nodes["SigmaGenPatchModel"].execute(model, memory=memory)


FORMS = {
    "diffusers": "transformer.{}.lora_A.weight",
    "peft": "transformer.{}.lora_A.default.weight",
    "bare": "{}.lora_A.weight",
    "kohya": "lora_transformer_{}.lora_down.weight",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scope", ["all", "conditions"])
def test_adapters_in_any_spelling_give_the_same_picture(
    model: Any, pack_nodes: Nodes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, scope: str
) -> None:
    state: dict[str, torch.Tensor] = {}
    for pair in load_adapter(ADAPTER).pairs:
        name = FORMS[form].format(pair.module.replace(".", "_") if form == "kohya" else pair.module)
        state |= {name: pair.down, name.replace("lora_A", "lora_B").replace("down", "up"): pair.up}
        if form == "kohya":
            state[name.replace("lora_down.weight", "alpha")] = torch.tensor(len(pair.down) * pair.scale)
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "respelt.safetensors")
    folders = [str(tmp_path), str(ADAPTER.parent)]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", (folders, {".safetensors"}))
    positive = host.attach(tiny_flux.text(), SIGMA_GEN, PLAN, latents())
    patch = pack_nodes["SigmaGenPatchModel"].execute
    made, said = patch(model, "respelt.safetensors", scope=scope).args
    known, _ = patch(model, ADAPTER.name, scope=scope).args
    assert "rank 4, alpha 4" in said and "matched 55 modules" in said and "x_embedder" in said.splitlines()[-1]
    assert (tiny_flux.sample(made, positive) - tiny_flux.sample(known, positive)).abs().max() < 1e-5


def test_the_report_reads_the_plan_in_the_conditioning(model: Any, pack_nodes: Nodes) -> None:
    nested = [(0, 0, 128, 96), (32, 32, 64, 64), (16, 16, 96, 80)]
    people = [Reference(f"r{n}", np.zeros((16, 16, 3), np.uint8), np.full((16, 16), 255, np.uint8)) for n in range(3)]
    boxes = tuple(Instance(f"b{n}", Box(*map(float, box)), n + 1) for n, box in enumerate(nested))
    layout = compose(Layout(128, 96, boxes), people)
    patched = host.install(model, SIGMA_GEN, replace(APART, scope="all"))
    for order, hidden in (("layout", True), ("all visible", False)):
        controls = pack_nodes["SigmaGenControlPictures"].execute(layout, order=order, cell_width=64, cell_height=64)
        stack, control = ((picture[0] * 255).round().byte().numpy() for picture in controls.args[:2])
        positive = host.attach(tiny_flux.text(), SIGMA_GEN, plan_of(stack, control), latents())
        told = pack_nodes["ContextGenReport"].execute(layout, patched, positive).args[1]
        assert ("subject 2 of the stack" in told) == hidden
        assert "after the first step" in told and "identities" in told
