"""The layout step: all instances at once equal one after the other; rows, strengths, order, what is remembered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.transformers.transformer_flux import (
    FluxPosEmbed,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from contextgen_core.attention.groups import Span
from contextgen_core.backbones.block import rotate
from contextgen_core.backbones.families import view
from contextgen_core.layout.box import Box
from contextgen_core.methods.boundary import CONTENT, BlockCounts, BlockWork, ForwardCall
from contextgen_core.methods.instance_assemble.cells import grid_points
from contextgen_core.methods.instance_assemble.content import Place
from contextgen_core.methods.instance_assemble.cover import box_tokens
from contextgen_core.methods.instance_assemble.encoder import AssembleWeights, PairSize
from contextgen_core.methods.instance_assemble.method import InstanceAssemble, layout_blocks
from contextgen_core.methods.instance_assemble.plan import BoxOptions, PhrasePlan, phrase_box
from contextgen_core.methods.instance_assemble.step import PHRASES, AssembleSettings

WIDTH, POOLED, GRID, TEXT = 32, 12, 16, 5
KINDS = ("double", "single", "joint", "joint last")
METHOD = InstanceAssemble()
positions = FluxPosEmbed(10000, [4, 6, 6])

DOUBLE = [
    *((f"norm1{side}.linear", 1, 6) for side in ("", "_context")),
    *((f"attn.{name}", 1, 1) for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")),
    *((f"attn.{name}", 1, 1) for name in ("to_out.0", "to_add_out")),
    *((f"{name}.net.2", 4, 1) for name in ("ff", "ff_context")),
]
SINGLE = [
    ("norm.linear", 1, 3),
    *((f"attn.{name}", 1, 1) for name in ("to_q", "to_k", "to_v")),
    ("proj_mlp", 1, 4),
    ("proj_out", 5, 1),
]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def block_of(kind: str) -> Any:
    if kind == "double":
        return FluxTransformerBlock(WIDTH, 2, WIDTH // 2)
    if kind == "single":
        return FluxSingleTransformerBlock(WIDTH, 2, WIDTH // 2)
    return JointTransformerBlock(WIDTH, 2, WIDTH // 2, context_pre_only=kind == "joint last")


def weights_of(kind: str) -> AssembleWeights:
    pairs = SINGLE if kind == "single" else DOUBLE
    if kind == "joint last":
        pairs = [(n, i, 2 if n == "norm1_context.linear" else o) for n, i, o in pairs if "add_out" not in n]
        pairs = [pair for pair in pairs if "ff_context" not in pair[0]]
    name = "single_transformer_blocks.0" if kind == "single" else "transformer_blocks.0"
    sizes = [PairSize(layer, i * WIDTH, 3, o * WIDTH, 0.5) for layer, i, o in pairs]
    return AssembleWeights(WIDTH, POOLED, {name: sizes}, pictures=True).requires_grad_(False)


def plan_of(boxes: Sequence[Sequence[float]], strengths: Sequence[float] | None = None) -> PhrasePlan:
    made = [
        phrase_box(f"box {n}", Box(*(16.0 * v for v in box)), 256, 256, BoxOptions(strength=strength))
        for n, (box, strength) in enumerate(zip(boxes, strengths or [1.0] * len(boxes), strict=True))
    ]
    return PhrasePlan(GRID, GRID, tuple(made))


BOXES = ((0, 0, 4, 4), (3, 2, 10, 9), (2, 2, 5, 5), (12, 12, 16, 16), (0, 0, 16, 16), (8, 8, 9, 9), (3, 3, 10, 9))


def with_pictures(plan: PhrasePlan) -> PhrasePlan:
    """The same boxes: the first with its phrase, then by turns one with a picture and one with both."""
    boxes = []
    for number, box in enumerate(plan.boxes):
        rows, columns = 1 + number % 3, 1 + number % 2
        place = Place(rows, columns, *box.corners, 1.0 if number % 4 else 0.5)
        boxes.append(box._replace(phrase=number % 2 == 0, picture=place) if number else box)
    return replace(plan, boxes=tuple(boxes))


class Setting:
    """A block with its extra weights and a picture on which it works."""

    def __init__(self, kind: str, plan: PhrasePlan, batch: int = 1, positive: Sequence[bool] | None = None) -> None:
        self.kind, self.plan = kind, plan
        self.block, self.weights = block_of(kind).requires_grad_(False), weights_of(kind)
        self.single = kind == "single"
        self.tokens = GRID * GRID
        self.image = torch.randn(batch, self.tokens + (TEXT if self.single else 0), WIDTH)
        self.text = torch.randn(batch, TEXT, WIDTH)
        self.vec = torch.randn(batch, WIDTH)
        self.phrases = torch.randn(1, sum(b.phrase for b in plan.boxes), POOLED).expand(batch, -1, -1).clone()
        self.content = torch.randn(batch, sum(b.picture.size for b in plan.boxes if b.picture), 64)
        self.positive = positive or [True] * batch

    @property
    def noise(self) -> Span:
        start = TEXT if self.single else 0
        return Span(start, start + self.tokens)

    def rope_of(self, ids: Tensor) -> Any:
        return positions(ids)

    def step(self, settings: AssembleSettings) -> Any:
        counts = BlockCounts(0, 1) if self.single else BlockCounts(1, 0)
        moment = METHOD.moment(self.plan, settings, None)
        return METHOD.forward(self.plan, settings, ForwardCall(moment, TEXT, counts, (GRID, GRID))).blocks[0].after

    def work(self, **changes: Any) -> BlockWork:
        work = BlockWork(
            number=0,
            double=not self.single,
            image=self.image.clone(),
            text=None if self.single else self.text,
            noise=self.noise,
            vec=self.vec,
            rope=None if "joint" in self.kind else (),
            rope_of=self.rope_of,
            block=view(self.block),
            modules=self.weights,
            vectors={PHRASES: self.phrases, CONTENT: self.content},
            positive=self.positive,
        )
        return replace(work, **changes)

    def run(self, settings: AssembleSettings | None = None, **changes: Any) -> Tensor:
        work = self.work(**changes)
        with torch.no_grad():
            self.step(settings or AssembleSettings())(work)
        return work.image


def one_at_a_time(setting: Setting, settings: AssembleSettings) -> Tensor:
    """The step as the paper tells it: a loop over rows and over instances, each projected by itself."""
    functions: Any = view(setting.block)
    extras = setting.weights.block(not setting.single, 0)
    additions, plan = extras.additions(), setting.plan
    out = setting.image.clone()
    cells = box_tokens(plan, tuple(range(len(plan.boxes))), settings.front)
    for row, positive in enumerate(setting.positive):
        image = out[row : row + 1, slice(*setting.noise)]
        vec = setting.vec[row : row + 1]
        total, weight = torch.zeros_like(image), torch.zeros(1, setting.tokens, 1)
        stream = functions if setting.single else functions.image
        modulation = stream.modulation(vec, additions)
        for number in cells if positive else ():
            index = torch.from_numpy(cells[number])
            box = plan.boxes[number]
            layout, pictures, ids = encoded(setting, row, number)
            ids = [
                *ids[: layout.shape[1]],
                *((0, c // GRID, c % GRID) for c in index.tolist()),
                *ids[layout.shape[1] :],
            ]
            rope = None if "joint" in setting.kind else positions(torch.tensor(ids).float())
            first, last = layout.shape[1], layout.shape[1] + len(index)
            bias = torch.zeros(1, last + pictures.shape[1])
            if box.picture is not None:
                bias[:, last:] = np.log(box.picture.strength)
            if setting.single:
                joint = torch.cat([layout, image[:, index], pictures], dim=1)
                q, k, v, hidden = functions.qkv_mlp(functions.modulate(functions.norm1(joint), modulation), additions)
                attended = scaled_dot_product_attention(rotate(q, rope), rotate(k, rope), v, bias)
                added = modulation.gate * functions.out(
                    attended.transpose(1, 2).flatten(2), functions.act(hidden), additions
                )
                added = extras.layout_forward(added[:, first:last])
            else:
                to_text = functions.text.modulation(vec, additions)[0]
                words = functions.text.qkv(functions.text.modulate(functions.text.norm1(layout), to_text), additions)
                tokens = torch.cat([image[:, index], pictures], dim=1)
                rest = stream.qkv(stream.modulate(stream.norm1(tokens), modulation[0]), additions)
                q, k, v = (torch.cat(pair, dim=2) for pair in zip(words, rest, strict=True))
                attended = scaled_dot_product_attention(rotate(q, rope), rotate(k, rope), v, bias)
                attended = attended.transpose(1, 2).flatten(2)[:, first:last]
                added = modulation[0].gate * extras.layout_forward(stream.out(attended, additions))
            total[:, index] += box.strength**2 * added
            weight[:, index] += box.strength
        image += settings.scale * total / weight.clamp_min(1e-9)
        if not setting.single:
            normed = stream.modulate(stream.norm2(image), modulation[1])
            image += settings.mlp * modulation[1].gate * stream.mlp(normed, additions)
    return out


def encoded(setting: Setting, row: int, number: int) -> tuple[Tensor, Tensor, list[tuple[float, ...]]]:
    """Layout tokens and tokens of the picture of one instance, encoded by themselves, with their position ids."""
    boxes, weights = setting.plan.boxes, setting.weights
    box = boxes[number]
    points = torch.from_numpy(grid_points(box.corners))[None]
    layout, pictures, ids = [], torch.zeros(1, 0, WIDTH), [(0, *box.centre)] * box.phrase
    if box.phrase:
        at = sum(b.phrase for b in boxes[:number])
        layout.append(weights.layout_net(points, setting.phrases[row : row + 1, at : at + 1]))
    if box.picture is not None:
        at = sum(b.picture.size for b in boxes[:number] if b.picture)
        rows, columns, left, top, right, bottom, _ = box.picture
        places = [
            (left + (c + 0.5) * (right - left) / columns, top + (r + 0.5) * (bottom - top) / rows)
            for r in range(rows)
            for c in range(columns)
        ]
        content = setting.content[row : row + 1, at : at + rows * columns]
        assert weights.picture_net is not None
        mean = torch.full((1, len(places)), 1 / len(places))
        token, pictures = weights.picture_net(points, content, torch.tensor(places), mean)
        layout.append(token)
        ids = [*ids, (0, *box.centre), *((1, GRID * y - 0.5, GRID * x - 0.5) for x, y in places)]
    return torch.cat(layout, dim=1), pictures, ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [AssembleSettings(), AssembleSettings(scale=0.5), AssembleSettings(mlp=0.3), AssembleSettings(front=True)],
    ids=["official", "half", "mlp", "front"],
)
@pytest.mark.parametrize("pictures", [False, True], ids=["phrases", "pictures"])
def test_all_at_once_equals_one_at_a_time(kind: str, settings: AssembleSettings, pictures: bool) -> None:
    setting = Setting(kind, with_pictures(plan_of(BOXES)) if pictures else plan_of(BOXES))
    with torch.no_grad():
        wanted = one_at_a_time(setting, settings)
    got = setting.run(settings)
    assert (got - wanted).abs().max() < 1e-6 * max(1.0, float(wanted.abs().max()))
    assert (got - setting.image).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_strength_scales_what_a_box_adds_and_weighs_it_against_others(kind: str) -> None:
    strengths = (0.5, 1.0, 2.0, 0.25, 0.1, 3.0, 1e-9)
    setting = Setting(kind, plan_of(BOXES, strengths))
    with torch.no_grad():
        wanted = one_at_a_time(setting, AssembleSettings())
    assert (setting.run() - wanted).abs().max() < 2e-6 * max(1.0, float(wanted.abs().max()))
    without = Setting(kind, plan_of(BOXES[:-1], strengths[:-1]))
    without.block, without.weights = setting.block, setting.weights
    without.image, without.vec, without.phrases = setting.image, setting.vec, setting.phrases[:, :-1]
    assert (setting.run() - without.run()).abs().max() < 1e-5  # a strength of nearly 0 is nearly no box


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positive", [(True, True, True), (False, True, True), (True, False, True), (False,) * 3])
def test_each_row_of_a_batch_is_what_it_is_alone(kind: str, positive: tuple[bool, ...]) -> None:
    setting = Setting(kind, with_pictures(plan_of(BOXES[:4])), batch=3, positive=positive)
    together = setting.run()
    for row, is_positive in enumerate(positive):
        alone = setting.run(
            image=setting.image[row : row + 1].clone(),
            vec=setting.vec[row : row + 1],
            vectors={PHRASES: setting.phrases[row : row + 1], CONTENT: setting.content[row : row + 1]},
            positive=[is_positive],
        )
        assert (together[row : row + 1] - alone).abs().max() < 2e-6
    no_boxes = [row for row, is_positive in enumerate(positive) if not is_positive]
    if setting.single:
        assert torch.equal(together[no_boxes], setting.image[no_boxes])


def test_only_noise_tokens_change() -> None:
    setting = Setting("single", plan_of(BOXES))
    assert torch.equal(setting.run()[:, :TEXT], setting.image[:, :TEXT])
    double = Setting("double", plan_of(BOXES))
    double.image = torch.randn(1, 300, WIDTH)  # condition pictures behind the noise
    assert torch.equal(double.run()[:, 256:], double.image[:, 256:])


def test_a_skipped_block_gets_no_step() -> None:
    setting = Setting("double", plan_of(BOXES))
    assert torch.equal(setting.run(ran=False), setting.image)


def test_layout_tokens_go_on_to_the_next_block_and_a_block_can_be_run_again() -> None:
    setting = Setting("double", with_pictures(plan_of(BOXES)))
    call = ForwardCall(tuple(range(7)), TEXT, BlockCounts(4, 0), (GRID, GRID))
    step: Any = METHOD.forward(setting.plan, AssembleSettings(), call).blocks[0].after
    state: dict[str, Any] = {}

    def run(number: int) -> Tensor:
        work = setting.work(number=number, state=state)
        extras = setting.weights.block(True, 0)
        setting.weights.blocks[f"transformer_blocks/{number}"] = extras
        with torch.no_grad():
            step(work)
        return work.image

    first, second = run(0), run(1)
    assert (second - first).abs().max() > 1e-4  # the same block on the same picture, with moved layout tokens
    assert torch.equal(run(0), first) and torch.equal(run(1), second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_elsewhere_changes_nothing_for_a_phrase(kind: str) -> None:
    # What two boxes that share no token add is theirs alone.
    plain, mixed = (Setting(kind, plan) for plan in (plan_of(BOXES[:1]), with_pictures(plan_of((BOXES[0], BOXES[3])))))
    for name in ("block", "weights", "image", "vec", "text"):
        setattr(mixed, name, getattr(plain, name))
    mixed.phrases = plain.phrases
    inside = [*range(4), *range(16, 20)]
    assert (plain.run()[:, inside] - mixed.run()[:, inside]).abs().max() < 1e-6


def test_encoded_phrases_are_remembered_only_as_long_as_they_are_the_same() -> None:
    setting = Setting("double", with_pictures(plan_of(BOXES)))
    step, encoded = setting.step(AssembleSettings()), []
    encoder: Any = setting.weights.layout_net
    encoder.register_forward_hook(lambda *_: encoded.append(1))

    def run(**changes: Any) -> Tensor:
        work = setting.work(**changes)
        with torch.no_grad():
            step(work)
        return work.image

    first = run()
    content = {CONTENT: setting.content}
    assert torch.equal(run(vectors={PHRASES: setting.phrases[:], **content}), first) and len(encoded) == 1
    assert not torch.equal(run(vectors={PHRASES: setting.phrases + 1, **content}), first) and len(encoded) == 2
    assert not torch.equal(run(vectors={PHRASES: setting.phrases, CONTENT: setting.content + 1}), first)
    first, encoded[:] = run(), [1]
    setting.phrases.add_(1)  # the same memory, written to
    assert not torch.equal(run(), first) and len(encoded) == 2
    first = run()
    with torch.no_grad():
        encoder.linears.linear_2.weight.mul_(2)
    assert not torch.equal(run(), first) and len(encoded) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_extra_weights(kind: str) -> None:
    setting = Setting(kind, with_pictures(plan_of(BOXES)))
    setting.weights.requires_grad_(True)
    work = setting.work()
    setting.step(AssembleSettings())(work)
    assert torch.allclose(work.image, setting.run(), atol=1e-6)
    work.image.square().sum().backward()
    unused = {n for n, p in setting.weights.named_parameters() if p.grad is None or not p.grad.any()}
    # The layout token asks for nothing after the last block, and its way out of it leads nowhere.
    assert not [n for n in unused if not any(part in n for part in ("to_add_out", "ff_context", "add_q_proj"))]


def test_the_count_of_operations_does_not_grow_with_the_boxes() -> None:
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for boxes in (4, 16):
        grid = [(4 * (n % 4), 4 * (n // 4), 4 * (n % 4) + 4, 4 * (n // 4) + 4) for n in range(boxes)]
        setting = Setting("double", plan_of(grid))
        setting.run()
        with Count() as count:
            setting.run()
        counts.append(count.calls)
    assert counts[0] == counts[1]


# --- the method -----------------------------------------------------------------------------------------------------


class Position:
    def __init__(self, step: int, steps: int) -> None:
        self.step, self.steps = step, steps

    def within(self, start: float, end: float) -> bool:
        return start <= self.step / self.steps <= end

    def before_step(self, ratio: float) -> bool:
        return self.step < int(ratio * self.steps)


def test_blocks_of_the_released_weights() -> None:
    assert layout_blocks(BlockCounts(19, 38)) == (0, 3, 6, 9, 12, 15, 18, 19)
    assert layout_blocks(BlockCounts(24, 0)) == tuple(range(24))


def test_when_the_method_acts() -> None:
    plan = plan_of(BOXES[:2])
    windowed = replace(plan, boxes=(plan.boxes[0]._replace(end=0.1), plan.boxes[1]._replace(strength=0.0)))
    run = [METHOD.moment(plan, AssembleSettings(), Position(step, 28)) for step in range(28)]
    assert run == [(0, 1)] * 8 + [None] * 20
    run = [METHOD.moment(windowed, AssembleSettings(), Position(step, 28)) for step in range(28)]
    assert run == [(0,)] * 3 + [None] * 25
    assert METHOD.moment(plan, AssembleSettings(scale=0), None) is None
    assert METHOD.moment(plan, AssembleSettings(ratio=0), None) is None
    assert METHOD.moment(PhrasePlan(GRID, GRID), AssembleSettings(), None) is None
    assert METHOD.timed(plan, AssembleSettings()) and not METHOD.timed(plan, AssembleSettings(ratio=1))
    assert METHOD.timed(windowed, AssembleSettings(ratio=1))
