"""EliGen in the real host: whole runs, the nodes that bind phrases, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.patcher_extension
import numpy as np
import pytest
import tiny_flux
import torch
from contextgen_pack.contextgen_core.commands.parity import transformer
from contextgen_pack.contextgen_core.composite.compose import compose
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.layout.box import Box
from contextgen_pack.contextgen_core.layout.layout import Instance, Layout
from contextgen_pack.contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from contextgen_pack.contextgen_core.methods.eligen.parity import plan_of
from contextgen_pack.contextgen_core.methods.eligen.plan import EliGenPlan, phrase_tokens
from contextgen_pack.nodes import host
from contextgen_pack.nodes.host import models
from contextgen_pack.nodes.host.conditioning import plan_of as plan_in
from tiny_flux import noise, sample, text

GOLDEN = Path(__file__).parents[1] / "golden"
WIDTH, HEIGHT = 8, 6  # tokens
Nodes = dict[str, Any]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_flux.build()


def held(left: int, right: int) -> np.ndarray:
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[1:5, left:right] = True
    return inside


PLAN = EliGenPlan(WIDTH, HEIGHT, (phrase_tokens(7, held(0, 5)), phrase_tokens(4, held(3, 8))))


def vectors(plan: EliGenPlan = PLAN, seed: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"phrases": torch.randn((1, plan.phrase_tokens, tiny_flux.TEXT), generator=generator)}


def bound(plan: EliGenPlan = PLAN, seed: int = 0, **values: Any) -> list[Any]:
    return host.attach(text(seed=seed, **values), ELIGEN, plan, [], vectors(plan))


def patched(model: Any, **settings: Any) -> Any:
    return host.install(model, ELIGEN, EliGenSettings(**settings))


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 2e-5) -> bool:
    return float((a - b).abs().max()) <= tolerance


# --- runs -----------------------------------------------------------------------------------------------------------


def test_the_authors_run_through_the_hosts_own_sampler() -> None:
    with np.load(GOLDEN / "eligen" / "eligen_two_boxes.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    files = (GOLDEN / "contextgen" / name for name in ("config.json", "transformer.safetensors"))
    golden = models.build_flux(*transformer(*files, "transformer"), torch.float32)
    plan = plan_of(arrays)
    phrases = torch.from_numpy(arrays["entity_embeds"]).reshape(1, plan.phrase_tokens, -1)
    pooled = {"pooled_output": torch.from_numpy(arrays["pooled"]), "guidance": float(arrays["guidance"].reshape(-1)[0])}
    scene = [[torch.from_numpy(arrays["text_embeds"]), pooled]]
    positive = host.attach(scene, ELIGEN, plan, [], {"phrases": phrases})
    sigmas = (*(arrays["euler_timesteps"] / 1000).tolist(), 0.0)
    start = torch.from_numpy(arrays["noise_latent"])
    latent = sample(patched(golden), positive, start=start, sigmas=sigmas)
    latent = golden.model.latent_format.process_in(latent)
    assert near(latent, torch.from_numpy(arrays["latent_after_4_steps"]))


@pytest.mark.parametrize("kernel", ["auto", "merge"])
def test_groups_give_the_run_of_the_dense_mask(model: Any, kernel: str) -> None:
    assert near(sample(patched(model, kernel=kernel), bound()), sample(patched(model, kernel="dense"), bound()))


def test_off_is_the_model_that_came_in(model: Any) -> None:
    plain = sample(model, text())
    assert torch.equal(sample(patched(model), text()), plain)
    assert torch.equal(sample(patched(model, strength=0.0), bound()), plain)
    with_phrases = sample(patched(model), bound())
    assert not near(with_phrases, plain, 1e-2)
    assert torch.equal(sample(patched(model), bound()), with_phrases)


def test_strength_and_window_act(model: Any) -> None:
    usual = sample(patched(model), bound())
    results = [sample(patched(model, **one), bound()) for one in ({"strength": 3.0}, {"end": 0.4}, {"start": 0.6})]
    assert all(not near(one, usual, 1e-3) for one in (*results, sample(model, text())))
    weaker = EliGenPlan(WIDTH, HEIGHT, tuple(phrase._replace(strength=0.5) for phrase in PLAN.phrases))
    assert near(sample(patched(model, strength=2.0), bound(weaker)), usual)


def test_all_rows_of_a_batch_and_a_batch_of_texts_read_their_phrases(model: Any) -> None:
    start = torch.cat([noise(seed=seed) for seed in range(3)])
    together = sample(patched(model), bound(), start=start)
    for row in range(3):
        assert near(together[row], sample(patched(model), bound(), start=start[row : row + 1])[0])
    (first, values), (second, others) = text()[0], text(seed=9)[0]
    pooled = torch.cat([values["pooled_output"], others["pooled_output"]])
    texts = [[torch.cat([first, second]), {**values, "pooled_output": pooled}]]
    both = sample(patched(model), host.attach(texts, ELIGEN, PLAN, [], vectors()), start=start[:2])
    assert near(both[1], sample(patched(model), bound(seed=9), start=start[1:2])[0])


@pytest.mark.parametrize("negative_bound", [False, True], ids=["plain", "on negative"])
def test_the_negative_reads_its_own_text(model: Any, negative_bound: bool) -> None:
    """The run of both conditionings equals the arithmetic on one step of each alone."""
    negative = bound(seed=3) if negative_bound else text(length=33, seed=3)
    sigmas = (0.9, 0.0)

    def step(positive: list[Any], other: list[Any], cfg: float) -> torch.Tensor:
        return model.model.latent_format.process_in(sample(patched(model), positive, other, cfg=cfg, sigmas=sigmas))

    guided = step(bound(), negative, 3.0)
    a, b = step(bound(), bound(), 1.0), step(negative, negative, 1.0)
    assert near(guided, b + 3 * (a - b), 1e-4)
    assert not near(a, b, 1e-2)


def test_a_model_that_does_not_follow_phrases_says_so(model: Any) -> None:
    other = tiny_flux.install(model, tiny_flux.Settings())
    with pytest.raises(InputError, match="has a layout for EliGen, but the model follows ContextGen alone"):
        sample(other, bound())


# --- neighbours -----------------------------------------------------------------------------------------------------


def styled(of: Any) -> Any:
    """With a low-rank change of one of its layers, as a LoRA loader adds it."""
    clone = of.clone()
    key = "diffusion_model.double_blocks.1.img_attn.proj.weight"
    width = of.model.diffusion_model.double_blocks[1].img_attn.proj.weight.shape[0]
    change = 0.3 * torch.randn((width, width), generator=torch.Generator().manual_seed(8))
    clone.add_patches({key: ("diff", (change,))})
    return clone


def cached(of: Any) -> Any:
    from comfy_extras.nodes_easycache import EasyCacheNode

    out = EasyCacheNode.execute(of, 1e-9, 0.1, 0.9, False)
    return out.result[0] if hasattr(out, "result") else out[0]


def controlled(of: Any) -> Any:
    """With the residuals of a ControlNet on all blocks."""
    generator = torch.Generator().manual_seed(9)

    def residuals(count: int) -> list[torch.Tensor]:
        return [0.1 * torch.randn((1, WIDTH * HEIGHT, 32), generator=generator) for _ in range(count)]

    control = {"input": residuals(tiny_flux.DOUBLE), "output": residuals(tiny_flux.SINGLE)}

    def add_control(executor: Any, x: Any, t: Any, c: Any, cross: Any, _none: Any, *args: Any, **kwargs: Any) -> Any:
        return executor(x, t, c, cross, control, *args, **kwargs)

    clone = of.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "control", add_control)
    return clone


@pytest.mark.parametrize("neighbour", [styled, cached, controlled])
def test_neighbours_stay_what_they_are(model: Any, neighbour: Any) -> None:
    """In both orders of nodes: off it is the neighbour alone, bit for bit, and on it is the dense form beside it."""
    alone = sample(neighbour(model), text())
    dense = sample(patched(neighbour(model), kernel="dense"), bound())
    for both in (patched(neighbour(model)), neighbour(patched(model))):
        assert torch.equal(sample(both, text()), alone)
        assert near(sample(both, bound()), dense)
    assert torch.equal(sample(patched(neighbour(model), strength=0.0), bound()), alone)
    assert not near(dense, alone, 1e-2)
    if neighbour is not cached:
        assert not near(dense, sample(patched(model), bound()), 1e-3)


def test_weights_stored_as_fp8() -> None:
    stored = tiny_flux.build(torch.float8_e4m3fn, torch.float32)
    assert near(sample(patched(stored), bound()), sample(patched(stored, kernel="dense"), bound()))
    assert torch.equal(sample(patched(stored), text()), sample(stored, text()))


# --- without the adapter --------------------------------------------------------------------------------------------


def test_a_band_of_blocks_and_softness_act_and_agree_with_the_dense_form(model: Any) -> None:
    usual, plain = sample(patched(model), bound()), sample(model, text())
    for how in ({"blocks": (2, 6)}, {"outside": 0.3}, {"blocks": (0, 4), "outside": 0.1}):
        got = sample(patched(model, **how), bound())
        assert near(got, sample(patched(model, kernel="dense", **how), bound()))
        assert not near(got, usual, 1e-3) and not near(got, plain, 1e-3)
    assert near(sample(patched(model, blocks=(0, tiny_flux.DOUBLE + tiny_flux.SINGLE)), bound()), usual)


def test_the_patch_node_takes_a_band_and_softness(pack_nodes: Nodes, model: Any) -> None:
    node = pack_nodes["EliGenPatchModel"]
    [follows] = node.execute(model, first_block=2, last_block=5, outside=0.3).args
    assert host.settings_of(follows, ELIGEN) == EliGenSettings(blocks=(2, 6), outside=0.3)
    for first, last in ((4, 2), (0, 9), (12, -1)):
        with pytest.raises(InputError, match="does not fit a model with 9 blocks") as caught:
            node.execute(model, first_block=first, last_block=last)
        assert (caught.value.node, caught.value.input) == ("EliGenPatchModel", "first_block")
    with pytest.raises(InputError, match="it is 2; give a number from 0 to 1"):
        node.execute(model, outside=2.0)


def test_each_box_has_its_own_strength_and_steps(pack_nodes: Nodes) -> None:
    [[_, values]], _ = conditioned(pack_nodes, box_options="2: 0.5 0 0.4\n")
    plan = plan_in(values, ELIGEN)
    assert plan is not None and [phrase[2:] for phrase in plan.phrases] == [(1.0, 0.0, 1.0), (0.5, 0.0, 0.4)]


# --- the conditioning node ------------------------------------------------------------------------------------------


class Clip:
    """Text encoders that give each word a vector, padded as FLUX's T5 is."""

    def __init__(self, width: int = tiny_flux.TEXT, keys: tuple[str, ...] = ("l", "t5xxl")) -> None:
        self.width, self.keys, self.options = width, keys, {"t5xxl_min_length": 256}
        self.encoded: list[str] = []

    def clone(self) -> Clip:
        other = Clip(self.width, self.keys)
        other.options, other.encoded = dict(self.options), self.encoded
        return other

    def set_tokenizer_option(self, name: str, value: Any) -> None:
        self.options[name] = value

    def tokenize(self, text: str, tokenizer_options: Any = None) -> dict[str, Any]:
        least = {**self.options, **(tokenizer_options or {})}["t5xxl_min_length"]
        words = [*text.split(), "</s>"]
        return dict.fromkeys(self.keys, [[(word, 1.0) for word in (*words, *[""] * (least - len(words)))]])

    def encode_from_tokens_scheduled(self, tokens: Any) -> list[Any]:
        words = [word for word, _ in tokens["t5xxl"][0]]
        self.encoded.append(" ".join(words[: words.index("</s>")]))
        rows = [torch.randn(self.width, generator=torch.Generator().manual_seed(sum(map(ord, w)))) for w in words]
        return [[torch.stack(rows)[None], {}]]


CUP = Instance("b1", Box(0, 16, 80, 80), label="a red cup")
HAT = Instance("b2", Box(48, 16, 128, 80), label="a hat")


def scene(*instances: Instance) -> Any:
    return compose(Layout(WIDTH * 16, HEIGHT * 16, instances or (CUP, HAT)), ())


def conditioned(nodes: Nodes, layout: Any = None, clip: Any = None, **inputs: Any) -> Any:
    inputs = {"text_tokens": 16, **inputs}
    out = nodes["EliGenConditioning"].execute(text(), clip or Clip(), layout or scene(), **inputs)
    return out.args


def test_labels_become_phrases_in_their_boxes(pack_nodes: Nodes, model: Any) -> None:
    clip = Clip()
    again = Instance("b3", Box(0, 0, 16, 16), label="a hat")
    [[_, values]], latent = conditioned(pack_nodes, scene(CUP, HAT, again), clip, batch_size=2)
    plan = plan_in(values, ELIGEN)
    assert plan is not None and [phrase.tokens for phrase in plan.phrases] == [16, 16, 16]
    assert np.array_equal(plan.inside[0].reshape(HEIGHT, WIDTH), held(0, 5))
    assert clip.encoded == ["a red cup", "a hat"], "a label that comes again is encoded once"
    assert clip.options == {"t5xxl_min_length": 256}, "the user's encoders stay as they are"
    assert latent["samples"].shape == (2, 16, 2 * HEIGHT, 2 * WIDTH)
    positive, _ = conditioned(pack_nodes)
    [follows] = pack_nodes["EliGenPatchModel"].execute(model).args
    assert not near(sample(follows, positive), sample(model, text()), 1e-2)


def test_a_mask_takes_the_boxs_place_and_an_empty_one_does_not(pack_nodes: Nodes) -> None:
    masks = torch.zeros(2, HEIGHT * 16, WIDTH * 16)
    masks[1, 80:, :16] = 1
    [[_, values]], _ = conditioned(pack_nodes, masks=masks)
    plan = plan_in(values, ELIGEN)
    assert plan is not None and np.array_equal(plan.inside[0].reshape(HEIGHT, WIDTH), held(0, 5))
    assert np.flatnonzero(plan.inside[1]).tolist() == [40]


def test_the_prompt_itself_can_stand_in_the_boxes(pack_nodes: Nodes, model: Any) -> None:
    negative, _ = conditioned(pack_nodes, phrases="prompt")
    [[embedding, values]] = negative
    plan = plan_in(values, ELIGEN)
    assert plan is not None and [phrase.tokens for phrase in plan.phrases] == [40, 40]
    joined = values["model_conds"]["layout_vector_eligen_phrases"].cond
    assert torch.equal(joined, torch.cat([embedding, embedding], dim=1))
    positive, _ = conditioned(pack_nodes)
    assert sample(patched(model), positive, negative, cfg=2.0).isfinite().all()


def test_without_boxes_the_conditioning_is_handed_on(pack_nodes: Nodes) -> None:
    layout = compose(Layout(WIDTH * 16, HEIGHT * 16), ())
    given = text()
    assert pack_nodes["EliGenConditioning"].execute(given, Clip(), layout).args[0] is given


@pytest.mark.parametrize(
    ("inputs", "name", "sentence"),
    [
        ({"layout": scene(CUP, Instance("b2", HAT.box))}, "layout", "box 2 .* has an empty label; write what it shows"),
        ({"layout": scene(Instance("b1", CUP.box, label="a " * 20))}, "layout", "takes 21 tokens, there is room"),
        ({"masks": torch.ones(1, 96, 128)}, "masks", "1 masks for 2 boxes; give one mask for each box"),
        ({"masks": torch.ones(2, 64, 64)}, "masks", "masks are 64 x 64 pixels, the layout is 128 x 96"),
        ({"clip": Clip(width=32)}, "clip", "gives 32 numbers a token, the conditioning has 24"),
        ({"clip": Clip(keys=("l", "g", "t5xxl"))}, "clip", r"\(l, g, t5xxl\) is neither FLUX.1's nor Qwen"),
        ({"clip": Clip(keys=("qwen3_4b",))}, "clip", r"\(qwen3_4b\) is neither FLUX.1's nor Qwen"),
        ({"box_options": "1"}, "box_options", "line 1 is '1'; give the box's number, a colon and its strength"),
        ({"box_options": "1: 11"}, "box_options", "strength = 11; give a number from 0 to 10"),
        ({"box_options": "1: 1 0.5 0.2"}, "box_options", "starts at 0.5 and ends at 0.2; start it before it ends"),
        ({"box_options": "3: 1"}, "box_options", "speak of box 3, but the layout has 2; correct it"),
        ({"phrases": "words"}, "phrases", "it is 'words'; choose one of labels, prompt"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(pack_nodes: Nodes, inputs: dict[str, Any], name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        conditioned(pack_nodes, **inputs)
    assert (caught.value.node, caught.value.input) == ("EliGenConditioning", name)


def test_no_text_encoder_is_one_sentence(pack_nodes: Nodes) -> None:
    with pytest.raises(InputError, match="there is no text encoder; load clip_l and t5xxl"):
        pack_nodes["EliGenConditioning"].execute(text(), None, scene())


def test_a_hundred_boxes_are_refused() -> None:
    with pytest.raises(InputError, match="100 boxes, the limit is 50; remove 50"):
        scene(*(Instance(f"b{n}", CUP.box, label="cup") for n in range(100)))


# --- regions of other nodes -----------------------------------------------------------------------------------------


def mask(left: int, right: int) -> torch.Tensor:
    return torch.from_numpy(held(left, right)).float()[None].repeat_interleave(16, 1).repeat_interleave(16, 2)


def entry(length: int, seed: int, **values: Any) -> list[Any]:
    return text(length, seed, **values)


def regions(nodes: Nodes, conditioning: list[Any], latent: torch.Tensor | None = None) -> list[Any]:
    samples = torch.zeros(1, 4, 2 * HEIGHT, 2 * WIDTH) if latent is None else latent
    return nodes["EliGenRegions"].execute(conditioning, {"samples": samples}).args[0]


def test_masks_and_areas_become_one_pass(pack_nodes: Nodes, model: Any) -> None:
    area = (8, 10, 2, 6)  # height, width, y and x in cells: rows 1..4, columns 3..7
    share = ("percentage", 8 / 12, 10 / 16, 2 / 12, 6 / 16)
    by_mask = [*entry(7, 1, mask=mask(0, 5), mask_strength=1.0, set_area_to_bounds=False), *text()]
    for place in ({"area": area, "strength": 1.0}, {"area": share}, {"mask": mask(3, 8)}):
        [[embedding, values]] = regions(pack_nodes, [*by_mask, *entry(4, 2, **place)])
        assert torch.equal(embedding, text()[0][0])
        assert plan_in(values, ELIGEN) == PLAN
    calls = []
    follows = patched(model)
    follows.set_model_unet_function_wrapper(
        lambda run, args: calls.append(1) or run(args["input"], args["timestep"], **args["c"])
    )
    sample(follows, [[embedding, values]])
    assert len(calls) == len(tiny_flux.SIGMAS) - 1, "one pass a step"


def test_strength_and_window_of_a_region_are_kept(pack_nodes: Nodes) -> None:
    place = {"mask": mask(0, 5), "mask_strength": 0.5, "strength": 3.0, "start_percent": 0.1, "end_percent": 0.7}
    [[_, values]] = regions(pack_nodes, [*text(), *entry(7, 1, **place)])
    plan = plan_in(values, ELIGEN)
    assert plan is not None and plan.phrases[0][2:] == (1.5, 0.1, 0.7)


def test_a_region_that_holds_nothing_is_left_out(pack_nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    given = [*text(), *entry(7, 1, mask=torch.zeros(1, 96, 128))]
    [[_, values]] = regions(pack_nodes, [*given, *entry(7, 1, mask=mask(0, 5))])
    plan = plan_in(values, ELIGEN)
    assert plan is not None and len(plan.phrases) == 1 and "entry 2 has no effect" in caplog.text


def test_without_regions_the_conditioning_is_handed_on(pack_nodes: Nodes) -> None:
    given = text()
    assert regions(pack_nodes, given) is given


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (entry(7, 1, mask=mask(0, 5), control=SimpleNamespace()), "entry 2 has a region and a ControlNet"),
        (entry(7, 1, mask=mask(0, 5), hooks=SimpleNamespace()), "entry 2 has a region and hooks"),
        (entry(7, 1, mask=torch.ones(2, 96, 128)), "entry 2 has 2 masks; give each entry one"),
        ([[torch.zeros(1, 7, 32), {"mask": mask(0, 5)}]], "24 and 32 numbers a token; encode all with one"),
        (100 * entry(7, 1, mask=mask(0, 5)), "100 regions, the limit is 32; remove 68"),
        (entry(7, 1, mask=mask(0, 5), strength=float("nan")), "entry 2 has strength = nan; give a number from 0 to 10"),
        (entry(7, 1, mask=mask(0, 5), start_percent=0.8, end_percent=0.2), "entry 2 starts at 0.8 and ends at 0.2"),
        (entry(7, 1, area=("percentage", float("nan"), 0.5, 0, 0)), "NaN"),
    ],
)
def test_entries_that_cannot_be_taken_are_named(pack_nodes: Nodes, extra: list[Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        regions(pack_nodes, [*text(), *extra])
    assert (caught.value.node, caught.value.input) == ("EliGenRegions", "conditioning")


def test_a_scene_is_needed_and_the_latent_is_whole_tokens(pack_nodes: Nodes) -> None:
    with pytest.raises(InputError, match="combine them with the whole picture's prompt"):
        regions(pack_nodes, entry(7, 1, mask=mask(0, 5)))
    with pytest.raises(InputError, match="the latent is 120 x 96 pixels; give one whose sides are multiples of 16"):
        regions(pack_nodes, text(), torch.zeros(1, 16, 12, 15))
