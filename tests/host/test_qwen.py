"""EliGen on Qwen-Image in the real host: whole runs, what stands beside it, the nodes, and what they refuse."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.modules.attention as host_attention
import comfy.ldm.qwen_image.controlnet as qwen_control
import comfy.lora
import comfy.ops
import comfy.sample
import numpy as np
import pytest
import tiny_flux
import tiny_qwen
import torch
from contextgen_pack.contextgen_core.backbones import rebuild_double, view
from contextgen_pack.contextgen_core.backbones.qwen import COMFYUI
from contextgen_pack.contextgen_core.composite.compose import compose
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.layout.box import Box
from contextgen_pack.contextgen_core.layout.layout import Instance, Layout
from contextgen_pack.contextgen_core.lora.adapter import load_adapter
from contextgen_pack.contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_pack.contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from contextgen_pack.contextgen_core.methods.eligen.plan import EliGenPlan, phrase_tokens
from contextgen_pack.nodes import host
from contextgen_pack.nodes.adapter import apply_adapter
from contextgen_pack.nodes.host.conditioning import plan_of as plan_in
from tiny_flux import sample
from tiny_qwen import HEIGHT, WIDTH, Encoder, noise, text

ADAPTER = Path(__file__).parents[1] / "golden" / "eligen" / "eligen_qwen_lora.safetensors"
Nodes = dict[str, Any]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_qwen.build()


def held(left: int, right: int) -> np.ndarray:
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[1:5, left:right] = True
    return inside


PLAN = EliGenPlan(WIDTH, HEIGHT, (phrase_tokens(7, held(0, 5)), phrase_tokens(4, held(3, 8))))


def bound(plan: EliGenPlan = PLAN, seed: int = 0, vectors: int = 5, **values: Any) -> list[Any]:
    generator = torch.Generator().manual_seed(vectors)
    phrases = torch.randn((1, plan.phrase_tokens, tiny_qwen.TEXT), generator=generator)
    return host.attach(text(seed=seed, **values), ELIGEN, plan, [], {"phrases": phrases})


def patched(model: Any, **settings: Any) -> Any:
    return host.install(model, ELIGEN, EliGenSettings(**settings))


def run(model: Any, positive: list[Any], *rest: Any, **options: Any) -> torch.Tensor:
    return sample(model, positive, *rest, **{"start": noise(), **options})


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 2e-5) -> bool:
    return float((a - b).abs().max()) <= tolerance


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["auto", "merge"])
@pytest.mark.parametrize("width", [8, 7])
def test_groups_give_the_run_of_the_dense_mask(model: Any, kernel: str, width: int) -> None:
    plan = EliGenPlan(width, HEIGHT, tuple(phrase_tokens(n, held(n, 6)[:, :width]) for n in (3, 5)))
    start = noise(width=width)
    dense = run(patched(model, kernel="dense"), bound(plan), start=start)
    assert near(run(patched(model, kernel=kernel), bound(plan), start=start), dense)
    assert not near(dense, run(model, text(), start=start), 1e-2)


def test_off_is_the_model_that_came_in(model: Any) -> None:
    plain = run(model, text())
    assert torch.equal(run(patched(model), text()), plain)
    assert torch.equal(run(patched(model, strength=0.0), bound()), plain)
    with_phrases = run(patched(model), bound())
    assert not near(with_phrases, plain, 1e-2)
    assert torch.equal(run(patched(model), bound()), with_phrases)
    assert torch.equal(run(model, text()), plain)


def test_each_phrase_counts_from_its_own_start(model: Any) -> None:
    """Their order is of no account: numbered on, as the host numbers a text, they would differ."""
    turned = EliGenPlan(WIDTH, HEIGHT, PLAN.phrases[::-1])
    [[embedding, values]] = bound()
    phrases = values["model_conds"]["layout_vector_eligen_phrases"].cond
    other = {"phrases": torch.cat([phrases[:, 7:], phrases[:, :7]], dim=1)}
    assert near(
        run(patched(model), host.attach([[embedding, {}]], ELIGEN, turned, [], other)), run(patched(model), bound())
    )


def test_ids_are_the_hosts_own(model: Any) -> None:
    """What the record says of pictures and texts is what the model itself does, on odd sides as well."""
    transformer = model.model.diffusion_model
    for rows, columns in ((6, 8), (5, 7), (9, 4)):
        pictures = [torch.zeros(1, 16, 1, 2 * rows, 2 * columns), torch.zeros(1, 16, 1, 6, 10)]
        theirs = torch.cat([transformer.process_img(one, index=n)[1][0] for n, one in enumerate(pictures)])
        assert torch.equal(COMFYUI.image(((rows, columns), (3, 5))), theirs.float())
    seen: list[torch.Tensor] = []
    hook = transformer.pe_embedder.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    try:
        run(model, text(9), start=noise(width=7), sigmas=(0.5, 0.0))
    finally:
        hook.remove()
    expected = torch.cat([COMFYUI.text((9,), ((HEIGHT, 7),)), COMFYUI.image(((HEIGHT, 7),))])
    assert torch.equal(seen[0][0].float(), expected)


def test_all_rows_of_a_batch_and_a_batch_of_texts_read_their_phrases(model: Any) -> None:
    start = torch.cat([noise(seed=seed) for seed in range(3)])
    together = run(patched(model), bound(), start=start)
    for row in range(3):
        assert near(together[row], run(patched(model), bound(), start=start[row : row + 1])[0])
    texts = [[torch.cat([text()[0][0], text(seed=9)[0][0]]), {}]]
    phrases = {"phrases": bound()[0][1]["model_conds"]["layout_vector_eligen_phrases"].cond}
    both = run(patched(model), host.attach(texts, ELIGEN, PLAN, [], phrases), start=start[:2])
    assert near(both[1], run(patched(model), bound(seed=9), start=start[1:2])[0])


@pytest.mark.parametrize("negative", ["plain", "equal length", "on negative"])
def test_the_negative_reads_its_own_text(model: Any, negative: str) -> None:
    """The run of both conditionings equals the arithmetic on one step of each alone."""
    other = {
        "plain": lambda: text(length=33, seed=3),
        "equal length": lambda: text(length=20 + PLAN.phrase_tokens, seed=3),
        "on negative": lambda: bound(seed=3, vectors=6),
    }[negative]()
    sigmas = (0.9, 0.0)

    def step(positive: list[Any], against: list[Any], cfg: float) -> torch.Tensor:
        out = run(patched(model), positive, against, cfg=cfg, sigmas=sigmas)
        return model.model.latent_format.process_in(out)

    guided = step(bound(), other, 3.0)
    a, b = step(bound(), bound(), 1.0), step(other, other, 1.0)
    assert near(guided, b + 3 * (a - b), 1e-4)
    assert not near(a, b, 1e-2)


def test_strength_and_window_act(model: Any) -> None:
    usual = run(patched(model), bound())
    results = [run(patched(model, **one), bound()) for one in ({"strength": 3.0}, {"end": 0.4}, {"start": 0.6})]
    assert all(not near(one, usual, 1e-3) for one in results)


@pytest.mark.parametrize(
    ("stored", "computed", "limit"),
    [
        (torch.float32, None, 1e-6),
        (torch.float8_e4m3fn, torch.float32, 1e-6),
        (torch.bfloat16, None, 1e-2),  # the host adds and multiplies in one operation, which rounds once
    ],
    ids=["float32", "eight bits", "bfloat16"],
)
def test_a_rebuilt_block_is_the_hosts_own(stored: torch.dtype, computed: torch.dtype | None, limit: float) -> None:
    model = tiny_qwen.build(stored, computed)
    differences: list[float] = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return host_attention.optimized_attention(q, k, v, q.shape[1], skip_reshape=True)

    def compare(block: Any, args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        given = (args[name].clone() for name in ("img", "txt"))
        made = rebuild_double(view(block), *given, args["vec"], attend, args["pe"])
        out = extra["original_block"](args)
        for one, other in zip(made, (out["img"], out["txt"]), strict=True):
            assert one is not None
            differences.append(float((one - other).abs().max()) / max(1.0, float(other.abs().max())))
        return out

    watched = model.clone()
    for number, block in enumerate(model.model.diffusion_model.transformer_blocks):
        watched.set_model_patch_replace(partial(compare, block), "dit", "double_block", number)
    run(watched, text(), sigmas=(0.7, 0.0))
    assert len(differences) == 2 * tiny_qwen.BLOCKS and max(differences) <= limit


# --- beside other nodes ---------------------------------------------------------------------------------------------


def test_a_lora_and_the_adapter_act_beside_it() -> None:
    model = tiny_qwen.build()
    adapted, lines = apply_adapter(model, load_adapter(ADAPTER, "Qwen-Image"), "eligen", 1.0)
    assert lines[1] == "matched 48 modules (48 patch entries), unmatched 0"
    before, after = patched(adapted), apply_adapter(patched(model), load_adapter(ADAPTER, "Qwen-Image"), "eligen", 1.0)
    merged = tiny_qwen.build()
    with torch.no_grad():
        for pair in load_adapter(ADAPTER, "Qwen-Image").pairs:
            merged.model.diffusion_model.get_submodule(pair.module).weight += pair.delta()
    wanted = run(patched(merged, kernel="dense"), bound())
    assert near(run(before, bound()), wanted, 5e-5) and near(run(after[0], bound()), wanted, 5e-5)
    assert not near(wanted, run(patched(model), bound()), 1e-1)


def test_the_loader_reads_the_adapter_and_says_what_fits_not(pack_nodes: Nodes, model: Any) -> None:
    import folder_paths

    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "eligen_qwen.safetensors").write_bytes(ADAPTER.read_bytes())
    loader = pack_nodes["ContextGenDPOLoRALoader"]
    adapted, report = loader.execute(model, "eligen_qwen.safetensors").args
    assert "matched 48 modules" in report and not near(run(adapted, text()), run(model, text()), 1e-2)
    with pytest.raises(InputError, match="is for Qwen-Image, not for FLUX.1; choose a FLUX.1 adapter"):
        loader.execute(tiny_flux.build(), "eligen_qwen.safetensors")


def test_weights_stored_in_eight_bits_and_half_precision() -> None:
    stored = tiny_qwen.build(torch.float8_e4m3fn, torch.float32)
    assert near(run(patched(stored), bound()), run(patched(stored, kernel="dense"), bound()))
    exact = run(patched(tiny_qwen.build()), bound())
    half = tiny_qwen.build(torch.bfloat16)
    ours, dense = (run(patched(half, kernel=kernel), bound()) for kernel in ("auto", "dense"))
    assert float((ours - exact).abs().max()) < 1.5 * float((dense - exact).abs().max()) + 1e-3


@pytest.mark.parametrize("ours_first", [True, False])
def test_easy_cache_composes(model: Any, ours_first: bool) -> None:
    from comfy_extras.nodes_easycache import EasyCacheNode

    def cached(of: Any) -> Any:
        out = EasyCacheNode.execute(of, 1e-9, 0.1, 0.9, False)
        return out.result[0] if hasattr(out, "result") else out[0]

    both = cached(patched(model)) if ours_first else patched(cached(model))
    assert torch.equal(run(both, bound()), run(patched(model), bound()))


class Pictures:
    """A VAE as a ControlNet asks it: each 8 pixels become a cell."""

    def spacial_compression_encode(self) -> int:
        return 8

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 8)
        return cells[:, :1].repeat(1, 16, 1, 1)[:, :, None]


def test_the_hosts_own_controlnet_acts_beside_it(model: Any) -> None:
    """It reads the whole picture's prompt alone, as without phrases."""
    config = {key: value for key, value in tiny_qwen.CONFIG.items() if key != "num_layers"}
    network = qwen_control.QwenImageControlNetModel(num_layers=2, operations=comfy.ops.manual_cast, **config)
    tiny_qwen.weights(network, seed=4)
    cpu = torch.device("cpu")
    control = comfy.controlnet.ControlNet(
        network, compression_ratio=1, latent_format=comfy.latent_formats.Wan21(), load_device=cpu, extra_conds=[]
    )
    texts: list[int] = []
    network.register_forward_pre_hook(lambda _, args, words: texts.append(words["context"].shape[1]), with_kwargs=True)
    picture = torch.rand((1, 3, 16 * HEIGHT, 16 * WIDTH), generator=torch.Generator().manual_seed(8))

    def controlled(of: Any) -> torch.Tensor:
        hint = control.copy().set_cond_hint(picture, 1.0, (0.0, 1.0), vae=Pictures())
        return run(of, bound(control=hint, control_apply_to_uncond=True))

    dense = controlled(patched(model, kernel="dense"))
    assert near(controlled(patched(model)), dense, 5e-5)
    assert not near(dense, run(patched(model), bound()), 1e-2)
    assert set(texts) == {20}


def test_a_foreign_block_replacement_is_called_inside_ours(model: Any) -> None:
    called: list[int] = []

    def theirs(args: Any, extra: Any) -> Any:
        called.append(1)
        return extra["original_block"]({**args})

    for order in (0, 1):
        one = patched(model) if order else model.clone()
        one.set_model_patch_replace(theirs, "dit", "double_block", 2)
        one = one if order else patched(one)
        assert torch.equal(run(one, bound()), run(patched(model), bound()))
    assert len(called) == 2 * (len(tiny_flux.SIGMAS) - 1)


def test_a_foreign_attention_override_does_our_attention(model: Any) -> None:
    calls: list[int] = []

    def theirs(func: Any, q: Any, k: Any, v: Any, heads: int, **words: Any) -> Any:
        calls.append(q.shape[2])
        return func(q, k, v, heads, **words)

    other = patched(model)
    other.model_options["transformer_options"]["optimized_attention_override"] = theirs
    assert near(run(other, bound()), run(patched(model, kernel="dense"), bound())) and calls


# --- pictures to edit -----------------------------------------------------------------------------------------------


def references(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randn((1, 16, 1, 2 * rows, 2 * columns), generator=generator) for rows, columns in sizes]


@pytest.mark.parametrize("sizes", [((HEIGHT, WIDTH),), ((5, 7),), ((4, 4), (HEIGHT, WIDTH))])
@pytest.mark.parametrize("method", [None, "index", "offset", "index_timestep_zero"])
def test_phrases_beside_pictures_to_edit(model: Any, sizes: tuple[tuple[int, int], ...], method: str | None) -> None:
    beside = {"reference_latents": references(*sizes), **({"reference_latents_method": method} if method else {})}
    dense = run(patched(model, kernel="dense"), bound(**beside))
    assert near(run(patched(model), bound(**beside)), dense)
    assert not near(dense, run(model, text(**beside)), 1e-2)
    assert not near(dense, run(patched(model), bound()), 1e-2)
    assert torch.equal(run(patched(model), text(**beside)), run(model, text(**beside)))


def test_pictures_to_edit_keep_the_hosts_method(model: Any) -> None:
    def result(method: str) -> torch.Tensor:
        return run(patched(model), bound(reference_latents=references((5, 7), (4, 6)), reference_latents_method=method))

    assert not near(result("index"), result("offset"), 1e-3)


def test_flux_takes_plain_references_beside_phrases() -> None:
    model = tiny_flux.build()
    plan = EliGenPlan(8, 6, PLAN.phrases)
    pictures = [one[:, :, 0] for one in references((HEIGHT, WIDTH), (3, 5))]
    phrases = torch.randn((1, plan.phrase_tokens, tiny_flux.TEXT), generator=torch.Generator().manual_seed(2))
    scene = tiny_flux.text(reference_latents=pictures)
    positive = host.attach(scene, ELIGEN, plan, [], {"phrases": phrases})
    dense = sample(patched(model, kernel="dense"), positive)
    assert near(sample(patched(model), positive), dense) and not near(dense, sample(model, scene), 1e-2)


# --- nodes ----------------------------------------------------------------------------------------------------------


CUP = Instance("b1", Box(0, 16, 80, 80), label="a red cup")
HAT = Instance("b2", Box(48, 16, 128, 80), label="a hat")


def scene(*instances: Instance) -> Any:
    return compose(Layout(WIDTH * 16, HEIGHT * 16, instances or (CUP, HAT)), ())


def encoded(prompt: str = "a table", encoder: Encoder | None = None) -> list[Any]:
    encoder = encoder or Encoder()
    return encoder.encode_from_tokens_scheduled(encoder.tokenize(prompt))


def conditioned(nodes: Nodes, layout: Any = None, clip: Any = None, prompt: Any = None, **inputs: Any) -> Any:
    given = encoded() if prompt is None else prompt
    return nodes["EliGenConditioning"].execute(given, clip or Encoder(), layout or scene(), **inputs).args


def test_each_phrase_is_encoded_alone_without_padding(pack_nodes: Nodes, model: Any) -> None:
    positive, latent = conditioned(pack_nodes, batch_size=2)
    [[embedding, values]] = positive
    plan = plan_in(values, ELIGEN)
    assert plan is not None and [phrase.tokens for phrase in plan.phrases] == [3 + 5, 2 + 5]
    assert embedding.shape[1] == 2 + 5 and np.array_equal(plan.inside[0].reshape(HEIGHT, WIDTH), held(0, 5))
    joined = values["model_conds"]["layout_vector_eligen_phrases"].cond
    assert torch.equal(joined, torch.cat([encoded("a red cup")[0][0], encoded("a hat")[0][0]], dim=1))
    [follows] = pack_nodes["EliGenPatchModel"].execute(model).args
    start = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    assert start.shape == (2, 16, 1, 2 * HEIGHT, 2 * WIDTH)
    start = start + noise(batch=2)
    assert not near(run(follows, positive, start=start), run(model, encoded(), start=start), 1e-2)


def test_padding_is_cut_off_whoever_has_put_it_there(pack_nodes: Nodes) -> None:
    padded = Encoder(padding=6)
    assert encoded(encoder=padded)[0][0].shape[1] == 13
    [[embedding, values]], _ = conditioned(pack_nodes, clip=padded, prompt=encoded(encoder=padded))
    [[plain, others]], _ = conditioned(pack_nodes)
    assert torch.equal(embedding, plain) and "attention_mask" not in values
    names = "layout_vector_eligen_phrases"
    assert torch.equal(values["model_conds"][names].cond, others["model_conds"][names].cond)


def test_regions_of_other_nodes_become_one_pass(pack_nodes: Nodes, model: Any) -> None:
    mask = torch.from_numpy(held(0, 5)).float()[None].repeat_interleave(16, 1).repeat_interleave(16, 2)
    region = [
        [
            encoded("a red cup", Encoder(padding=3))[0][0],
            {**encoded("a red cup", Encoder(padding=3))[0][1], "mask": mask},
        ]
    ]
    latent = {"samples": torch.zeros(1, 16, 1, 2 * HEIGHT, 2 * WIDTH)}
    [[_, values]] = positive = pack_nodes["EliGenRegions"].execute([*encoded(), *region], latent).args[0]
    plan = plan_in(values, ELIGEN)
    assert plan is not None and [phrase.tokens for phrase in plan.phrases] == [8]
    assert not near(run(patched(model), positive), run(model, encoded()), 1e-2)


@pytest.mark.parametrize(
    ("inputs", "name", "sentence"),
    [
        ({"clip": Encoder(width=32)}, "clip", "gives 32 numbers a token, the conditioning has 24"),
        (
            {"prompt": [[torch.zeros(1, 9, 24), {"attention_mask": torch.tensor([[0] + [1] * 8])}]]},
            "conditioning",
            "leaves out tokens that are not at the end",
        ),
    ],
    ids=["width", "mask"],
)
def test_bad_input_is_one_sentence(pack_nodes: Nodes, inputs: dict[str, Any], name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        conditioned(pack_nodes, **inputs)
    assert (caught.value.node, caught.value.input) == ("EliGenConditioning", name)


def test_the_phrases_of_another_models_text_encoder_are_refused(model: Any) -> None:
    phrases = {"phrases": torch.zeros(1, PLAN.phrase_tokens, 32)}
    with pytest.raises(InputError, match="phrases have 32 numbers a token, Qwen-Image reads 24; connect") as caught:
        run(patched(model), host.attach(text(), ELIGEN, PLAN, [], phrases))
    assert (caught.value.node, caught.value.input) == ("EliGenConditioning", "clip")


def test_a_latent_of_layers_and_a_method_of_flux_are_refused(model: Any) -> None:
    with pytest.raises(InputError, match="the latent has 3 layers, a layout is one picture"):
        run(patched(model), bound(), start=noise().repeat(1, 1, 3, 1, 1))
    follows = host.install(model, CONTEXTGEN, CONTEXTGEN.default_settings())
    layout = tiny_flux.plan()
    with pytest.raises(InputError, match="Qwen-Image takes no pictures by ContextGen's position ids; load FLUX.1"):
        run(follows, host.attach(text(), CONTEXTGEN, layout, tiny_flux.latents(layout)))


def test_other_models_of_the_class_are_named(pack_nodes: Nodes) -> None:
    other = SimpleNamespace(model=SimpleNamespace(diffusion_model=tiny_qwen.build().model.diffusion_model))
    with pytest.raises(InputError, match="this is SimpleNamespace, not FLUX.1"):
        pack_nodes["EliGenPatchModel"].execute(other)
