"""The patched model in the real host: equal to the specification, silent when off, a good neighbour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import pytest
import tiny_flux
import torch
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.methods.contextgen.schedule import Rule
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.nodes import host
from tiny_flux import DOUBLE, SINGLE, conditioned, noise, sample, text

SPECIFICATION = Settings(kernel="dense", prune=False)
EXACT = 2e-5  # three steps in float32


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_flux.build()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def specified(model: Any, positive: list[Any], *args: Any, rule: Rule = Rule.ICA, **kwargs: Any) -> torch.Tensor:
    settings = Settings(rule=rule, kernel="dense", prune=False)
    return sample(tiny_flux.install(model, settings), positive, *args, **kwargs)


# --- the same picture as the specification ------------------------------------------------------------------------


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("kernel", ["auto", "grouped", "merge"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_kernel_gives_the_dense_result(model: Any, rule: Rule, kernel: str, seed: int) -> None:
    positive = conditioned(tiny_flux.plan(seed, references=4), seed=seed)
    fast = sample(tiny_flux.install(model, Settings(rule=rule, kernel=kernel)), positive)
    assert difference(fast, specified(model, positive, rule=rule)) < EXACT
    if rule is not Rule.CLA:
        assert difference(fast, specified(model, positive, rule=Rule.CLA)) > 1e-3  # the rule matters at all


@pytest.mark.parametrize("length", [1, 77, 256, 512, 600])
def test_any_text_length(model: Any, length: int) -> None:
    positive = conditioned(tiny_flux.plan(), length)
    assert difference(sample(tiny_flux.install(model, Settings()), positive), specified(model, positive)) < EXACT


def test_velocity_times_steps_is_the_trajectory(model: Any) -> None:
    """KSampler's Euler equals a loop of our own over single velocities."""
    layout = tiny_flux.plan()
    patched = tiny_flux.install(model, Settings())
    positive = conditioned(layout)
    embedding, values = positive[0]
    options = {"wrappers": patched.wrappers}
    x = noise()
    with torch.inference_mode():
        for sigma, following in zip(tiny_flux.SIGMAS[:-1], tiny_flux.SIGMAS[1:], strict=True):
            velocity = model.model.diffusion_model(
                x,
                torch.tensor([sigma]),
                context=embedding,
                y=values["pooled_output"],
                guidance=torch.tensor([3.5]),
                ref_latents=[model.model.process_latent_in(latent) for latent in values["reference_latents"]],
                transformer_options=options,
                layout_plan_contextgen=layout.as_tuple(),
            )
            x = x + (following - sigma) * velocity
        by_hand = model.model.process_latent_out(x)
    assert difference(sample(patched, positive), by_hand) < EXACT


def test_batch_equals_singles(model: Any) -> None:
    patched, positive = tiny_flux.install(model, Settings()), conditioned(tiny_flux.plan())
    start = noise(batch=2)
    both = sample(patched, positive, start=start)
    for i in range(2):
        assert difference(both[i : i + 1], sample(patched, positive, start=start[i : i + 1])) < EXACT


@pytest.mark.parametrize("length", [40, 17])
def test_guidance_with_a_negative_without_layout(model: Any, length: int) -> None:
    patched, positive, negative = (
        tiny_flux.install(model, Settings()),
        conditioned(tiny_flux.plan()),
        text(length, seed=5),
    )
    both = sample(patched, positive, negative, cfg=3.0, sigmas=(0.6, 0.0))
    one = sample(patched, positive, sigmas=(0.6, 0.0))
    other = sample(model, negative, sigmas=(0.6, 0.0))  # a single step to 0 is linear in the two predictions
    assert difference(both, other + 3.0 * (one - other)) < 5e-5


def test_equal_layouts_share_a_batch_and_different_ones_do_not(model: Any) -> None:
    calls: list[int] = []

    def count(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(x.shape[0])
        return executor(x, *args, **kwargs)

    patched = tiny_flux.install(model, Settings())
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "count", count)
    positive = conditioned(tiny_flux.plan())
    same = [[text(seed=5)[0][0], dict(positive[0][1])]]
    sample(patched, positive, same, cfg=3.0, sigmas=(0.6, 0.0))
    assert calls == [2]
    calls.clear()
    sample(patched, positive, conditioned(tiny_flux.plan(3)), cfg=3.0, sigmas=(0.6, 0.0))
    assert calls == [1, 1]


def test_two_layouts_in_one_prompt_both_count(model: Any) -> None:
    patched = tiny_flux.install(model, Settings())
    a, b = conditioned(tiny_flux.plan(0)), conditioned(tiny_flux.plan(3), seed=3)
    both = sample(patched, a, b, cfg=2.0, sigmas=(0.6, 0.0))
    one, other = sample(patched, a, sigmas=(0.6, 0.0)), sample(patched, b, sigmas=(0.6, 0.0))
    assert difference(both, other + 2.0 * (one - other)) < 5e-5


@pytest.mark.parametrize("tokens", [1, 2])
def test_control_residuals(model: Any, tokens: int) -> None:
    """Residuals of a ControlNet, of the picture's length and of twice that, on every block."""
    layout = tiny_flux.plan()
    generator = torch.Generator().manual_seed(9)

    def residual() -> torch.Tensor:
        return 0.1 * torch.randn((1, tokens * layout.noise_tokens, 32), generator=generator)

    control = {"input": [residual() for _ in range(DOUBLE)], "output": [residual() for _ in range(SINGLE)]}

    def add_control(executor: Any, x: Any, t: Any, c: Any, cross: Any, _none: Any, *args: Any, **kwargs: Any) -> Any:
        return executor(x, t, c, cross, control, *args, **kwargs)

    def run(settings: Settings) -> torch.Tensor:
        patched = tiny_flux.install(model, settings)
        patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "control", add_control)
        return sample(patched, conditioned(layout))

    assert difference(run(Settings()), run(SPECIFICATION)) < EXACT
    assert difference(run(Settings()), sample(tiny_flux.install(model, Settings()), conditioned(layout))) > 1e-3


def test_half_precision_is_no_farther_from_float32_than_the_dense_form() -> None:
    positive = conditioned(tiny_flux.plan())
    exact = specified(tiny_flux.build(), positive)
    for dtype in (torch.bfloat16, torch.float16):
        half = tiny_flux.build(dtype)
        ours = difference(sample(tiny_flux.install(half, Settings()), positive), exact)
        dense = difference(specified(half, positive), exact)
        assert ours < 1.5 * dense + 1e-3


def test_fp8_weights() -> None:
    positive = conditioned(tiny_flux.plan())
    stored = tiny_flux.build(torch.float8_e4m3fn, torch.float32)
    assert difference(sample(tiny_flux.install(stored, Settings()), positive), specified(stored, positive)) < EXACT


@pytest.mark.parametrize("name", ["attention_pytorch", "attention_sub_quad", "attention_split", "attention_basic"])
@pytest.mark.parametrize("kernel", ["grouped", "dense"])
def test_every_backend_of_the_host(model: Any, monkeypatch: pytest.MonkeyPatch, name: str, kernel: str) -> None:
    positive = conditioned(tiny_flux.plan(references=4))
    expected = specified(model, positive)
    import comfy.ldm.flux.math

    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", getattr(host_attention, name))
    assert difference(sample(tiny_flux.install(model, Settings(kernel=kernel)), positive), expected) < EXACT


def test_windows_and_strength_zero_mean_not_read(model: Any) -> None:
    patched = tiny_flux.install(model, Settings())
    whole = tiny_flux.plan()
    unread = [
        tiny_flux.plan(strength=0.0),
        tiny_flux.plan(start=0.0, end=0.0),
    ]
    expected = sample(patched, tiny_flux.attach(text(), unread[0], tiny_flux.latents(whole)))
    for plan in unread[1:]:
        got = sample(patched, tiny_flux.attach(text(), plan, tiny_flux.latents(whole)))
        assert difference(got, expected) < EXACT
    assert difference(expected, sample(patched, conditioned(whole))) > 1e-3


def test_a_reference_is_read_only_inside_its_window(model: Any) -> None:
    """Sigma is the share that is left, up to the shift: a window until 0 % of the run leaves the later steps alone."""
    patched = tiny_flux.install(model, Settings())
    early = tiny_flux.plan(start=0.0, end=0.5)
    late_steps = (0.3, 0.1, 0.0)  # past half of the run at any shift the host uses here
    got = sample(patched, conditioned(early), sigmas=late_steps)
    never = sample(patched, conditioned(tiny_flux.plan(strength=0.0)), sigmas=late_steps)
    always = sample(patched, conditioned(tiny_flux.plan()), sigmas=late_steps)
    assert difference(got, never) < EXACT
    assert difference(got, always) > 1e-3
    first = (1.0, 0.98)
    assert (
        difference(
            sample(patched, conditioned(early), sigmas=first),
            sample(patched, conditioned(tiny_flux.plan()), sigmas=first),
        )
        < EXACT
    )


def test_model_window_closes_all_references(model: Any) -> None:
    never = sample(tiny_flux.install(model, Settings(rule=Rule.CLA)), conditioned(tiny_flux.plan()))
    closed = sample(tiny_flux.install(model, Settings(start=0.0, end=0.0)), conditioned(tiny_flux.plan()))
    assert difference(closed, never) < EXACT


@pytest.mark.parametrize("strength", [0.25, 2.0])
@pytest.mark.parametrize("kernel", ["grouped", "merge", "auto"])
def test_strength_adds_its_logarithm_to_the_logits(model: Any, strength: float, kernel: str) -> None:
    positive = conditioned(tiny_flux.plan(strength=strength))
    fast = sample(tiny_flux.install(model, Settings(kernel=kernel)), positive)
    assert difference(fast, specified(model, positive)) < EXACT
    assert difference(fast, specified(model, conditioned(tiny_flux.plan()))) > 1e-4


@pytest.mark.parametrize("ica", [(0, 3), (1, 5), (3, 9), (0, 9), (2, 2)])
def test_other_ica_blocks(model: Any, ica: tuple[int, int]) -> None:
    positive = conditioned(tiny_flux.plan())
    fast = sample(tiny_flux.install(model, Settings(ica_blocks=ica)), positive)
    dense = sample(tiny_flux.install(model, Settings(ica_blocks=ica, kernel="dense", prune=False)), positive)
    assert difference(fast, dense) < EXACT


# --- off means off ------------------------------------------------------------------------------------------------


def test_without_a_layout_it_is_the_model_itself(model: Any) -> None:
    patched = tiny_flux.install(model, Settings())
    for positive in (text(), text(reference_latents=[torch.ones(1, 16, 8, 8)])):
        assert torch.equal(sample(patched, positive), sample(model, positive))


def test_one_run_leaves_no_trace_in_the_next(model: Any) -> None:
    patched = tiny_flux.install(model, Settings())
    a, b = conditioned(tiny_flux.plan(0)), conditioned(tiny_flux.plan(3, references=2), length=13, seed=3)
    first = sample(patched, a)
    sample(patched, b)
    plain = sample(model, text())
    assert torch.equal(sample(patched, a), first)
    assert torch.equal(sample(model, text()), plain)


def test_nothing_leaks_out_of_the_clone(model: Any) -> None:
    before = (str(model.model_options), str(model.wrappers), dict(vars(model.model.diffusion_model)))
    patched = tiny_flux.install(model, Settings())
    sample(patched, conditioned(tiny_flux.plan()))
    sibling = model.clone()
    after = (str(model.model_options), str(model.wrappers), dict(vars(model.model.diffusion_model)))
    assert before == after
    assert (
        host.settings_of(sibling, tiny_flux.CONTEXTGEN) is None
        and host.settings_of(patched, tiny_flux.CONTEXTGEN) == Settings()
    )
    # On a model without the patch the layout is plain reference pictures.
    images = conditioned(tiny_flux.plan())
    plain = [[images[0][0], {**images[0][1], "model_conds": {}}]]
    assert torch.equal(sample(sibling, images), sample(sibling, plain))


def test_patched_twice_the_later_settings_hold(model: Any) -> None:
    positive = conditioned(tiny_flux.plan())
    twice = tiny_flux.install(tiny_flux.install(model, Settings()), Settings(rule=Rule.CLA))
    assert torch.equal(sample(twice, positive), sample(tiny_flux.install(model, Settings(rule=Rule.CLA)), positive))


@pytest.mark.parametrize("method", ["offset", "index", "uxo", "index_timestep_zero"])
def test_the_users_reference_method_makes_no_difference(model: Any, method: str) -> None:
    patched = tiny_flux.install(model, Settings())
    plain = sample(patched, conditioned(tiny_flux.plan()))
    assert torch.equal(sample(patched, conditioned(tiny_flux.plan(), reference_latents_method=method)), plain)


# --- other packs --------------------------------------------------------------------------------------------------

Block = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def changing(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    out = extra["original_block"](args)
    return {**out, "img": out["img"] * 1.05}


def rebuilding(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """A pack that builds its own arguments and knows nothing of transformer_options."""
    return extra["original_block"]({key: args[key] for key in ("img", "txt", "vec", "pe") if key in args})


@pytest.mark.parametrize("foreign", [changing, rebuilding])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("key", [("double_block", 1), ("single_block", 1), ("single_block", 2), ("single_block", 5)])
def test_a_foreign_block_replacement_is_called_inside_ours(
    model: Any, foreign: Block, after: bool, key: tuple[str, int]
) -> None:
    called: list[int] = []

    def counted(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        called.append(1)
        return foreign(args, extra)

    def run(settings: Settings) -> torch.Tensor:
        patched = model.clone() if not after else tiny_flux.install(model, settings)
        patched.set_model_patch_replace(counted, "dit", *key)
        return sample(patched if after else tiny_flux.install(patched, settings), conditioned(tiny_flux.plan()))

    ours = run(Settings())
    assert len(called) == 3
    assert difference(ours, run(SPECIFICATION)) < EXACT
    if foreign is rebuilding:
        assert difference(ours, specified(model, conditioned(tiny_flux.plan()))) < EXACT


def test_rows_that_a_foreign_replacement_may_read_are_computed(model: Any) -> None:
    """In the last block nobody of ours reads the layout's rows; a foreign replacement there might."""
    layout = slice(40 + 48, 40 + 2 * 48)  # after 40 text and 8 x 6 noise tokens

    def reading(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        out = extra["original_block"](args)
        return {**out, "img": out["img"] + out["img"][:, layout].mean(dim=1, keepdim=True)}

    def run(settings: Settings) -> torch.Tensor:
        patched = tiny_flux.install(model, settings)
        patched.set_model_patch_replace(reading, "dit", "single_block", SINGLE - 1)
        return sample(patched, conditioned(tiny_flux.plan()))

    assert difference(run(Settings()), run(SPECIFICATION)) < EXACT


@pytest.mark.parametrize("again", [False, True])
def test_a_foreign_attention_override_does_our_attention(model: Any, again: bool) -> None:
    called: list[int] = []
    inside = False

    def foreign(func: Any, q: Any, k: Any, v: Any, heads: int, **kwargs: Any) -> torch.Tensor:
        nonlocal inside
        called.append(q.shape[2])
        if not again or inside:
            return func(q, k, v, heads, **kwargs)
        inside = True  # one that calls the host's attention afresh: it must come back to itself, not into our groups
        try:
            kwargs.pop("_inside_attn_wrapper", None)
            return host_attention.optimized_attention(q, k, v, heads, **kwargs)
        finally:
            inside = False

    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = foreign
    positive = conditioned(tiny_flux.plan())
    assert difference(sample(tiny_flux.install(other, Settings()), positive), specified(model, positive)) < EXACT
    assert len(called) > 3 * (DOUBLE + SINGLE)  # every group of every block went through it


def test_a_foreign_post_input_may_prepend_text_tokens(model: Any) -> None:
    def prepend(args: dict[str, Any]) -> dict[str, Any]:
        extra = torch.full((args["txt"].shape[0], 16, args["txt"].shape[2]), 0.1)
        ids = torch.zeros((1, 16, 3)).to(args["txt_ids"])
        return {**args, "txt": torch.cat([extra, args["txt"]], 1), "txt_ids": torch.cat([ids, args["txt_ids"]], 1)}

    def run(settings: Settings, after: bool) -> torch.Tensor:
        patched = tiny_flux.install(model, settings) if after else model.clone()
        patched.set_model_patch(prepend, "post_input")
        return sample(patched if after else tiny_flux.install(patched, settings), conditioned(tiny_flux.plan()))

    expected = run(SPECIFICATION, True)
    assert difference(run(Settings(), True), expected) < EXACT
    assert difference(run(Settings(), False), expected) < EXACT
    assert difference(expected, specified(model, conditioned(tiny_flux.plan()))) > 1e-4


def test_attention_patches_of_later_hosts_compose(model: Any, host_version: tuple[int, ...]) -> None:
    slices: list[tuple[int, int]] = []

    def queries(q: Any, k: Any, v: Any, pe: Any = None, attn_mask: Any = None, extra_options: Any = None) -> Any:
        return {"q": q * 1.1}

    def output(attn: torch.Tensor, extra_options: dict[str, Any]) -> torch.Tensor:
        start, stop = extra_options["img_slice"]
        slices.append((stop, attn.shape[1]))
        return attn * 0.9

    def run(settings: Settings) -> torch.Tensor:
        patched = tiny_flux.install(model, settings)
        patched.set_model_patch(queries, "attn1_patch")
        patched.set_model_patch(output, "attn1_output_patch")
        return sample(patched, conditioned(tiny_flux.plan()))

    assert difference(run(Settings()), run(SPECIFICATION)) < EXACT
    if host_version >= (0, 17, 0):  # earlier hosts have no such patches and ignore them
        assert slices and all(stop == length for stop, length in slices)


@pytest.mark.parametrize("ours_first", [True, False])
def test_easy_cache_composes(model: Any, ours_first: bool) -> None:
    from comfy_extras.nodes_easycache import EasyCacheNode

    def cached(of: Any) -> Any:
        out = EasyCacheNode.execute(of, 1e-9, 0.1, 0.9, False)
        return out.result[0] if hasattr(out, "result") else out[0]

    positive = conditioned(tiny_flux.plan())
    both = cached(tiny_flux.install(model, Settings())) if ours_first else tiny_flux.install(cached(model), Settings())
    assert difference(sample(both, positive), sample(tiny_flux.install(model, Settings()), positive)) < EXACT


def test_a_timestep_range_on_the_conditioning(model: Any) -> None:
    patched = tiny_flux.install(model, Settings())
    early = conditioned(tiny_flux.plan(), start_percent=0.0, end_percent=0.4)
    late = [[text(seed=7)[0][0], {**text(seed=7)[0][1], "start_percent": 0.4, "end_percent": 1.0}]]
    dense = tiny_flux.install(model, SPECIFICATION)
    assert difference(sample(patched, early + late), sample(dense, early + late)) < EXACT


# --- refused, in one sentence, before sampling ----------------------------------------------------------------------


def refused(model: Any, positive: list[Any], *words: str, **kwargs: Any) -> None:
    steps: list[int] = []
    with pytest.raises(InputError) as caught:
        sample(model, positive, callback=lambda *_: steps.append(1), **kwargs)
    message = str(caught.value)
    assert not steps, "it was refused only after sampling had begun"
    assert "\n" not in message and all(word in message for word in words), message


def test_a_replaced_forward_is_refused(model: Any) -> None:
    flux = model.model.diffusion_model
    patched = tiny_flux.install(model, Settings())
    patched.add_object_patch("diffusion_model.forward_orig", flux.forward_orig)
    refused(patched, conditioned(tiny_flux.plan()), "TeaCache", "remove")


def test_a_forward_replaced_while_running_is_noticed(model: Any) -> None:
    """TeaCache's way: a copy of the forward, swapped in around the call, that knows no hooks."""

    def copied(img: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
        return img

    def swap(executor: Any, *args: Any, **kwargs: Any) -> Any:
        flux = executor.class_obj
        flux.forward_orig = copied
        try:
            return executor(*args, **kwargs)
        finally:
            del flux.forward_orig

    patched = tiny_flux.install(model, Settings())
    patched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "swap", swap)
    with pytest.raises(InputError, match="did not reach"):
        sample(patched, conditioned(tiny_flux.plan()))


def test_flux_kv_cache_is_refused(model: Any) -> None:
    flux_nodes = pytest.importorskip("comfy_extras.nodes_flux")
    if not hasattr(flux_nodes, "FluxKVCache"):
        return  # this host has none that could be in the way
    cached = flux_nodes.FluxKVCache.execute(tiny_flux.install(model, Settings())).result[0]
    refused(cached, conditioned(tiny_flux.plan()), "Flux KV Cache")
    earlier = tiny_flux.install(flux_nodes.FluxKVCache.execute(model).result[0], Settings())
    refused(earlier, conditioned(tiny_flux.plan()), "Flux KV Cache")


def test_conditionings_that_cannot_work_are_refused(model: Any) -> None:
    patched, layout = tiny_flux.install(model, Settings()), tiny_flux.plan()
    refused(patched, conditioned(layout, area=(4, 4, 0, 0)), "area")
    refused(patched, conditioned(layout, attention_mask=torch.ones(1, 4), attention_mask_img_shape=(2, 2)), "mask")
    refused(patched, conditioned(layout), "128x96", "64x64", start=noise(4, 4))
    short = conditioned(layout)
    short[0][1]["reference_latents"].pop()
    refused(patched, short, "3 reference latents", "4")


def test_reference_latents_of_other_nodes_are_refused(model: Any) -> None:
    with pytest.raises(InputError, match="already carries 1 reference"):
        conditioned(tiny_flux.plan(), reference_latents=[torch.ones(1, 16, 8, 8)])


def test_models_that_are_not_flux1_are_refused(model: Any) -> None:
    from types import SimpleNamespace

    class NunchakuFlux(torch.nn.Module):
        pass

    other = SimpleNamespace(model=SimpleNamespace(diffusion_model=NunchakuFlux()))
    with pytest.raises(InputError, match="NunchakuFlux"):
        tiny_flux.install(other, Settings())


def test_an_interrupt_passes_through_and_the_model_goes_on_working(model: Any) -> None:
    patched, positive = tiny_flux.install(model, Settings()), conditioned(tiny_flux.plan())
    expected = sample(patched, positive)

    def stop(step: int, *_: Any) -> None:
        if step == 1:
            raise comfy.model_management.InterruptProcessingException()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patched, positive, callback=stop)
    assert torch.equal(sample(patched, positive), expected)
