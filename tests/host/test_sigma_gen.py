"""SIGMA-GEN in the real host: its golden case, the stock forward behind its defaults, and its nodes."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import comfy.model_management
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
from contextgen_pack.contextgen_core.methods.sigma_gen.method import SIGMA_GEN, Plan, Settings, plan_of, position_ids
from contextgen_pack.nodes import host, parity
from contextgen_pack.nodes.adapter import apply_adapter
from contextgen_pack.nodes.host import call
from safetensors.torch import load_file

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
    start, made, held = tiny_flux.noise(batch=batch), [], []
    for one in (settings, replace(settings, memory=0.0)):
        lengths, hook = seen_lengths(model)
        patched = host.install(model, SIGMA_GEN, one)
        watch = {"callback": lambda *_: held.append(call.REMEMBERED.held)}
        made.append(tiny_flux.sample(patched, positive, negative, cfg=3.0, start=start, **watch))
        hook.remove()
        whole = 40 + 48 + 18 + 48
        assert lengths[0] == whole and set(lengths[len(lengths) // 3 :]) == {whole if one.memory == 0 else 40 + 48}
    assert (made[0] - made[1]).abs().max() < 1e-5
    # Two conditionings, nine blocks, keys and values of 66 tokens, 32 wide: however many pictures are made.
    assert held == [2 * 9 * 2 * 66 * 32 * 4] * 3 + [0] * 3


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
    for memory in (0.0, 8.0):
        sampled(model, replace(APART, scope="all", memory=memory))
    held = 9 * 2 * 66 * 32 * 4
    assert asked[1] - asked[0] == pytest.approx(2 * held, rel=0.01)  # of both conditionings


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
    stack, control, report = pack_nodes["SigmaGenControlPictures"].execute(scene(), cell_width=64, cell_height=64).args
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


def test_a_control_picture_from_a_lossy_file_is_refused(pack_nodes: Nodes) -> None:
    stack, control, _ = pack_nodes["SigmaGenControlPictures"].execute(scene(), cell_width=64, cell_height=64).args
    control = control.clone()
    control[0, 0, :3, 0] = 11 / 255
    with pytest.raises(InputError, match=r"SigmaGenConditioning, control: 3 pixels"):
        pack_nodes["SigmaGenConditioning"].execute(tiny_flux.text(), object(), stack, control)


def test_masks_and_depth_reach_the_control_picture(pack_nodes: Nodes) -> None:
    masks = torch.zeros(2, 96, 128)
    masks[0, 10:20, 100:110] = 1
    depth = torch.full((1, 48, 64, 3), 0.2)
    depth[:, :, 32:] = 0.6
    made = pack_nodes["SigmaGenControlPictures"].execute
    _, control, _ = made(scene(), masks=masks, depth=depth, depth_near="dark", cell_width=64, cell_height=64).args
    values = (control[0] * 255).round()
    assert values[15, 105].tolist() == [10, 10, 102] and values[50, 40].tolist() == [20, 20, 204]
    assert values[5, 5].tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="SigmaGenControlPictures, layout: there are 1 masks for 2"):
        made(scene(), masks=masks[:1])
