"""What goes wrong in the middle of a run leaves nothing behind: the next picture is the one that it always was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_management as management
import comfy.ops
import numpy as np
import offload
import pytest
import tiny_assemble
import tiny_flux
import torch
from contextgen_pack.contextgen_core.attention import lse
from contextgen_pack.contextgen_core.hosts import passes, remembered
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from contextgen_pack.contextgen_core.methods.eligen.plan import EliGenPlan, phrase_tokens
from contextgen_pack.contextgen_core.methods.instance_assemble import encoder
from contextgen_pack.contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_pack.contextgen_core.methods.instance_assemble.step import AssembleSettings
from contextgen_pack.contextgen_core.methods.sigma_gen.method import SIGMA_GEN, Plan
from contextgen_pack.contextgen_core.methods.sigma_gen.method import Settings as SigmaSettings
from contextgen_pack.nodes import host
from contextgen_pack.nodes.host import call
from tiny_flux import DOUBLE, SINGLE, sample, text
from torch.utils._python_dispatch import TorchDispatchMode

BLOCKS, STEPS = DOUBLE + SINGLE, len(tiny_flux.SIGMAS) - 1
MemoryError_ = torch.cuda.OutOfMemoryError
PLAN = tiny_flux.plan(references=2)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_flux.build()


def three(model: Any) -> tuple[Any, list[Any]]:
    """References, phrases as text and phrases by steps with weights of their own, on one model."""
    inside = np.zeros((PLAN.height, PLAN.width), bool)
    inside[1:4, 2:6] = True
    phrases = EliGenPlan(PLAN.width, PLAN.height, (phrase_tokens(5, inside),))
    words = torch.randn((1, 5, tiny_flux.TEXT), generator=torch.Generator().manual_seed(7))
    made = host.attach(tiny_flux.conditioned(PLAN), ELIGEN, phrases, [], {"phrases": words})
    made = tiny_assemble.attach(made, tiny_assemble.plan(), tiny_flux.POOLED)
    modules = tiny_assemble.weights(host.family_of(model).backbone).build(comfy.ops.manual_cast.Linear)
    patched = host.install(tiny_flux.install(model, Settings()), ELIGEN, EliGenSettings())
    return host.install(patched, INSTANCE_ASSEMBLE, AssembleSettings(ratio=1.0), modules), made


def fixed(model: Any) -> tuple[Any, list[Any]]:
    """Condition pictures whose keys and values are kept over the run, in blocks that are rebuilt."""
    plan = Plan(8, 6, 3, 6)
    generator = torch.Generator().manual_seed(5)
    latents = [torch.randn((1, 16, 2 * h, 2 * w), generator=generator) for h, w in SIGMA_GEN.sizes(plan)[1]]
    settings = SigmaSettings(timestep="zero", cross=False, context=False)
    return host.install(model, SIGMA_GEN, settings), host.attach(text(), SIGMA_GEN, plan, latents)


def adapted(model: Any) -> tuple[Any, list[Any]]:
    """References, with an adapter that the host adds to weights: of each of a block's kinds, and a bias."""
    patched = tiny_flux.install(model, Settings())
    generator = torch.Generator().manual_seed(9)
    names = ("double_blocks.1.img_attn.qkv.weight", "single_blocks.2.linear1.weight", "single_blocks.4.linear2.bias")
    shapes = {name: model.model.diffusion_model.get_parameter(name).shape for name in names}
    changes = {
        f"diffusion_model.{name}": (0.1 * torch.randn(shape, generator=generator),) for name, shape in shapes.items()
    }
    assert set(patched.add_patches(changes)) == set(changes)
    return patched, tiny_flux.conditioned(PLAN)


WAYS = {"three": three, "fixed": fixed, "adapted": adapted}


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, model: Any) -> Callable[..., torch.Tensor]:
    """Samples one of the ways; the keyword arguments are those of :func:`tiny_flux.sample`."""
    patched, positive = WAYS[request.param](model)
    return lambda **words: sample(patched, positive, **words)


@pytest.fixture
def clean(model: Any) -> Iterator[None]:
    """After the test the plain model gives the picture that it gave before, and nothing of ours is left."""
    before, options = sample(model, text()), str(sorted(model.model_options["transformer_options"]))
    yield
    assert torch.equal(sample(model, text()), before)
    assert str(sorted(model.model_options["transformer_options"])) == options and not model.wrappers
    modules = model.model.diffusion_model.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert nothing_is_held()


def nothing_is_held() -> bool:
    return not (len(call.MEMO) or call.MEMO.held or len(call.REMEMBERED) or call.REMEMBERED.held)


def interrupt() -> None:
    """As the host does: the flag is set from outside and raises where it is next looked at."""
    management.interrupt_current_processing(True)
    management.throw_exception_if_processing_interrupted()


def no_memory() -> None:
    raise MemoryError_("CUDA out of memory. Tried to allocate 2.00 GiB.")


FAULTS = {
    "interrupt": (interrupt, management.InterruptProcessingException),
    "memory": (no_memory, management.OOM_EXCEPTION),
}


class Once:
    """In the place of a function: at its call of that number it fails."""

    def __init__(self, original: Callable[..., Any], at: int, fail: Callable[[], None]) -> None:
        self.original, self.at, self.fail, self.calls = original, at, fail, 0

    def __call__(self, *words: Any, **more: Any) -> Any:
        self.calls += 1
        if self.calls == self.at + 1:
            self.fail()
        return self.original(*words, **more)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_any_block_of_any_step(
    run: Callable[..., torch.Tensor], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail, error = FAULTS[fault]
    expected = run()
    for at in range(0, BLOCKS * STEPS, 2 if fault == "interrupt" else 5):
        with monkeypatch.context() as broken:
            broken.setattr(call, "run", Once(call.run, at, fail))
            with pytest.raises(error):
                run()
        assert nothing_is_held()
        if fault == "memory":
            management.unload_all_models()  # as the host does then
        assert not management.processing_interrupted()
    assert torch.equal(run(), expected)


@pytest.mark.usefixtures("clean")
def test_an_interrupt_between_steps(run: Callable[..., torch.Tensor]) -> None:
    expected = run()
    for stop in range(STEPS):

        def callback(step: int, *_: Any, at: int = stop) -> None:
            if step == at:
                interrupt()

        with pytest.raises(management.InterruptProcessingException):
            run(callback=callback)
        assert nothing_is_held()
    assert torch.equal(run(), expected)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (passes, "compile_blocks"),  # index tensors and masks of a run
        (call, "rebuild_double"),
        (call, "rebuild_single"),
        (call, "_rope_of"),
        (remembered.Recorder, "join"),  # keys and values that are kept
        (remembered.Recalled, "join"),
        (encoder.LayoutEncoder, "forward"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_no_memory_for_what_we_allocate(model: Any, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = 0
    for build in WAYS.values():
        patched, positive = build(model)
        expected = sample(patched, positive)
        with monkeypatch.context() as broken:
            once = Once(getattr(owner, name), 0, no_memory)
            broken.setattr(owner, name, lambda *a, _once=once, **k: _once(*a, **k))
            try:
                sample(patched, positive)
            except MemoryError_:
                reached += 1
        assert nothing_is_held()
        management.unload_all_models()
        assert torch.equal(sample(patched, positive), expected)
    assert reached, "nobody came by"


class FullAt(TorchDispatchMode):
    """Memory runs out at the operation of that number."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.operations = at, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.operations += 1
        if self.operations == self.at:
            no_memory()
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("clean")
def test_no_memory_at_any_operation(run: Callable[..., torch.Tensor]) -> None:
    expected = run()
    with FullAt(0) as counted:
        assert torch.equal(run(), expected)
    assert counted.operations > 500
    raised = 0
    for at in np.random.default_rng(1).integers(1, counted.operations, 12):
        with FullAt(int(at)):
            try:
                assert (run() - expected).abs().max() < 1e-5  # the host has tried another way
            except MemoryError_:
                raised += 1
        assert nothing_is_held()
        management.unload_all_models()
    assert raised > 6
    assert torch.equal(run(), expected)


@pytest.mark.usefixtures("clean")
def test_no_memory_while_an_operator_is_tried_says_nothing_about_it(
    run: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run()
    monkeypatch.setattr(lse, "_tried", {})
    with monkeypatch.context() as broken:
        broken.setattr(lse, "_sample", lambda *_words: no_memory())
        with pytest.raises(MemoryError_):
            run()
    assert torch.equal(run(), expected) and None not in lse._tried.values()


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("run", ["three", "fixed"], indirect=True)  # what the host adds to weights leaves with them
def test_all_models_are_unloaded_between_two_steps(run: Callable[..., torch.Tensor]) -> None:
    expected = run()

    def callback(step: int, *_: Any) -> None:
        if step == 0:
            management.unload_all_models()

    assert torch.equal(run(callback=callback), expected)
    assert torch.equal(run(), expected)


@pytest.fixture
def offloading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float | None], None]]:
    """Sets the share of its weights that a model may load; see offload.py."""
    offload.install(monkeypatch.setattr)
    yield offload.set_share
    offload.set_share(None)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("way", WAYS)
def test_with_little_memory_for_weights_it_is_the_same_picture(
    model: Any, way: str, share: float, offloading: Callable[[float | None], None]
) -> None:
    """--novram and --lowvram with asynchronous offload: the host brings weights for the time of a module's call."""
    patched, positive = WAYS[way](model)
    expected = sample(patched, positive)
    offloading(share)
    assert (sample(patched, positive) - expected).abs().max() < 1e-5
    weights = sum(1 for _ in model.model.diffusion_model.parameters())
    assert model.model.model_lowvram and 0 < offload.brought() and (share or offload.brought() > weights)
    offloading(None)
    assert torch.equal(sample(patched, positive), expected)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("way", WAYS)
def test_weights_come_and_go_between_two_steps(
    model: Any, way: str, offloading: Callable[[float | None], None]
) -> None:
    """As when another program takes the device's memory, and gives it back."""
    patched, positive = WAYS[way](model)
    expected = sample(patched, positive)
    left: list[bool] = []

    def callback(step: int, *_: Any) -> None:
        for loaded in management.current_loaded_models:
            if step == 0:
                loaded.model.partially_unload(loaded.model.offload_device, loaded.model_memory() // 2)
                left.append(loaded.model.model.model_lowvram)
            elif step == 1:
                loaded.model_use_more_vram(1e9)

    offloading(0.9)
    assert (sample(patched, positive, callback=callback) - expected).abs().max() < 1e-5
    assert any(left) and offload.brought()
    offloading(None)
    assert torch.equal(sample(patched, positive), expected)


class Theirs(Exception):
    """An error of another pack."""


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("where", ["block", "tokens", "attention", "wrapper"])
@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_another_pack_comes_out_as_it_is(model: Any, way: str, where: str) -> None:
    patched, positive = WAYS[way](model)
    expected = sample(patched, positive)
    raised, calls = Theirs("theirs"), []

    def theirs(result: Callable[[], Any]) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise raised
        return result()

    other = patched.clone()
    if where == "block":
        patch = lambda args, extra: theirs(lambda: extra["original_block"](args))  # noqa: E731
        for block in range(DOUBLE):
            other.set_model_patch_replace(patch, "dit", "double_block", block)
    elif where == "tokens":
        other.set_model_patch(lambda args: theirs(lambda: args), "post_input")
    elif where == "attention":
        options = other.model_options["transformer_options"]
        options["optimized_attention_override"] = lambda func, *a, **k: theirs(lambda: func(*a, **k))
    else:
        kind = "diffusion_model"
        other.add_wrapper_with_key(kind, "theirs", lambda run, *a, **k: theirs(lambda: run(*a, **k)))
    with pytest.raises(Theirs) as caught:
        sample(other, positive)
    assert caught.value is raised
    assert nothing_is_held()
    assert torch.equal(sample(patched, positive), expected)
