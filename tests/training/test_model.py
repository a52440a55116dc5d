"""The network under training: batched attention is the product's attention, folding changes nothing, keys are the
authors'."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from networks import randomise
from safetensors.torch import load_file
from torch import Tensor

from contextgen_core.errors import InputError
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.tiny import model as tiny
from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.tiny.text import encode_words
from contextgen_core.training import tasks
from contextgen_core.training.adapter import (
    TARGETS,
    adapter_state,
    cut_rank,
    load_adapter_state,
    read_adapter,
    save_adapter,
)
from contextgen_core.training.config import from_dict
from contextgen_core.training.latents import LatentSet, encode_scenes
from contextgen_core.training.muon import Muon, orthogonal
from contextgen_core.training.small_world import world
from contextgen_core.training.tasks import TransformerTask


def scenes(count: int = 8) -> list[world.Scene]:
    return [world.scene(0, "train", i, world.TIERS[i % 3]) for i in range(count)]


@pytest.fixture(scope="module")
def data() -> LatentSet:
    torch.manual_seed(0)
    chosen = scenes()
    return encode_scenes(Taesd(NARROW), chosen, [world.render(s) for s in chosen])


def task(
    data: LatentSet, stage: str = "sft", folded: bool = False, alpha: float = 0.0, **method: Any
) -> TransformerTask:
    config = from_dict(
        {
            "stage": stage,
            "output": "unused",
            "batch": 2,
            "lora": {"rank": 4, "folded": folded, "alpha": alpha},
            "method": method,
            "model": {"layers": 1, "single_layers": 2},
            "seed": 5,
        }
    )
    made = TransformerTask(config, data)
    randomise(made.network.transformer)
    return made


def loss_and_gradients(made: TransformerTask, seed: int) -> tuple[float, dict[str, Tensor]]:
    loss, _ = made.model(*made.inputs(seed, 0))
    loss.backward()
    named = made.network.transformer.named_parameters()
    return loss.item(), {name: p.grad for name, p in named if p.grad is not None}


@pytest.mark.parametrize("kernel", ["grouped", "batched"])
@pytest.mark.parametrize("rule", ["official", "paper", "cla"])
def test_gradients_equal_those_of_the_dense_mask(data: LatentSet, kernel: str, rule: str) -> None:
    for seed in (1, 2):
        loss, gradients = loss_and_gradients(task(data, kernel=kernel, rule=rule), seed)
        wanted, expected = loss_and_gradients(task(data, kernel="dense", rule=rule), seed)
        assert loss == pytest.approx(wanted, rel=1e-5)
        assert gradients.keys() == expected.keys()
        largest = max(g.abs().max() for g in expected.values())
        for name, gradient in expected.items():
            assert (gradients[name] - gradient).abs().max() < 2e-5 * largest, name


def test_references_reach_the_loss_only_where_a_rule_reads_them(data: LatentSet) -> None:
    for rule, reads in (("official", True), ("cla", False)):
        made = task(data, kernel="batched", rule=rule)
        batch, times, noise = made.inputs(4, 0)
        conditions = torch.stack(list(batch.conditions))
        conditions[:, 64:] += 1.0  # the references alone
        with torch.no_grad():
            before, after = made.model(batch, times, noise)[0], made.model(_with(batch, conditions), times, noise)[0]
        assert (before != after) == reads


def _with(batch: Any, conditions: Tensor) -> Any:
    from dataclasses import replace

    return replace(batch, conditions=conditions)


def test_the_base_sees_no_reference(data: LatentSet) -> None:
    made = task(data, "base", kernel="batched")
    batch, _, _ = made.inputs(1, 0)
    assert isinstance(batch.conditions, Tensor) and batch.conditions.shape[1] == 64
    assert all(not plan.references for plan in batch.plans)
    assert all(p.requires_grad for p in made.network.transformer.parameters())


def test_a_blank_place_is_told_by_the_caption_alone(data: LatentSet) -> None:
    tree = {"stage": "base", "output": "unused", "batch": 6, "data": {"composite": 1.0, "blank": 1.0}}
    batch = data.draw(np.random.default_rng(4), from_dict({**tree, "flow": {"blank": 3.0}}))
    blanks = []
    for row in range(6):
        target, shown = batch.target[row].half().numpy(), batch.conditions[row].half().numpy()
        index = next(i for i in range(len(data)) if np.array_equal(data.target[i], target))
        empty = (shown == 0).all(-1)
        assert np.array_equal(shown[~empty], data.layout[index][~empty])
        fits = []
        for marks in itertools.product((False, True), repeat=data.members(index)):
            blank = np.array(marks + (False,) * (data.told.shape[1] - len(marks)))
            wanted = np.zeros((data.grid, data.grid), bool)
            for x1, y1, x2, y2 in data.boxes[index][blank]:
                wanted[y1:y2, x1:x2] = True
            words = encode_words(data.caption(index, blank)).tokens
            if np.array_equal(wanted.reshape(-1), empty) and torch.equal(words, batch.text[row]):
                fits.append(sum(marks))
        assert len(fits) == 1  # the words name what the blanks leave out, and nothing else
        assert batch.weight is not None and (batch.weight[row].numpy()[empty] == 3.0).all()
        blanks += fits
    assert min(blanks) == 1 and max(blanks) > 1


def test_folding_the_adapter_changes_nothing(data: LatentSet) -> None:
    loss, gradients = loss_and_gradients(task(data, folded=True, kernel="batched"), 1)
    wanted, expected = loss_and_gradients(task(data, folded=False, kernel="batched"), 1)
    assert loss == pytest.approx(wanted, rel=1e-5)
    largest = max(g.abs().max() for g in expected.values())
    assert all((gradients[n] - g).abs().max() < 2e-5 * largest for n, g in expected.items())


def test_the_adapter_sits_on_the_official_modules_and_nowhere_else(data: LatentSet) -> None:
    keys = adapter_state(task(data).network.transformer)
    modules = {key.removesuffix(f".lora_{x}.weight") for key in keys for x in "AB" if key.endswith(f".lora_{x}.weight")}
    double = ("norm1.linear", "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.2")
    single = ("norm.linear", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")
    expected = {"transformer.x_embedder"}
    expected |= {f"transformer.transformer_blocks.0.{m}" for m in double}
    expected |= {f"transformer.single_transformer_blocks.{i}.{m}" for i in (0, 1) for m in single}
    assert modules == expected
    assert len(keys) == 2 * len(expected)
    assert "add_q" not in TARGETS


@pytest.mark.parametrize("alpha", [0.0, 2.0, 6.0])  # 0: the rank
def test_a_saved_adapter_gives_the_same_velocity_again_and_any_loader_reads_it(
    data: LatentSet, tmp_path: Any, alpha: float
) -> None:
    trained, fresh = task(data, kernel="batched", alpha=alpha), task(data, kernel="batched", alpha=alpha)
    with torch.no_grad():
        for parameter in fresh.network.transformer.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, adapter_state(trained.network.transformer), trained.config)
    read = load_adapter(path)
    assert (read.rank, read.alpha) == (4, 4)
    assert len(read.pairs) == 1 + 6 + 2 * 6
    scale = (alpha or 4) / 4
    state, file = adapter_state(trained.network.transformer), load_file(path)
    for pair in read.pairs:
        down, up = (f"transformer.{pair.module}.lora_{factor}.weight" for factor in "AB")
        change = state[up] @ state[down] * scale
        assert torch.allclose(pair.delta(), change, rtol=2e-3, atol=1e-4)
        plain = file[up].float() @ file[down].float()  # as ComfyUI reads it: the file has no alpha
        assert torch.allclose(plain, change, rtol=2e-3, atol=1e-4)
    load_adapter_state(fresh.network.transformer, read_adapter(path, fresh.config))
    batch, times, noise = trained.inputs(9, 0)
    with torch.no_grad():
        first, second = (t.network(batch, noise, times) for t in (trained, fresh))
    assert (first - second).abs().max() < 2e-3 * first.abs().max()  # half precision on disk


def test_an_adapter_of_another_rank_is_refused(data: LatentSet) -> None:
    state = {k: v[:2] if "lora_A" in k else v[:, :2] for k, v in adapter_state(task(data).network.transformer).items()}
    with pytest.raises(InputError, match="set lora.rank"):
        load_adapter_state(task(data).network.transformer, state)


def test_random_weights_fit_diffusers_and_the_calm_start_predicts_nothing() -> None:
    from diffusers import FluxTransformer2DModel

    made = tiny.TinyConfig(num_layers=1, num_single_layers=2)
    model = FluxTransformer2DModel(**vars(made))
    model.load_state_dict(tasks.initial_weights(made, 0))
    assert not model.proj_out.weight.detach().any()
    assert np.isfinite(model.x_embedder.weight.detach().numpy()).all()


@pytest.mark.parametrize("autocast", [False, True])
def test_dpo_starts_at_log_two_with_the_anchor_it_was_given(data: LatentSet, tmp_path: Any, autocast: bool) -> None:
    path = tmp_path / "adapter.safetensors"
    first = task(data, kernel="batched")
    save_adapter(path, adapter_state(first.network.transformer), first.config)
    config = from_dict(
        {
            "stage": "dpo",
            "output": "unused",
            "batch": 2,
            "lora": {"rank": 4},
            "method": {"kernel": "batched"},
            "seed": 5,
            "model": {"layers": 1, "single_layers": 2, "adapter": str(path)},
        }
    )
    made = TransformerTask(config, with_lose(data))
    generator = torch.Generator().manual_seed(3)

    def step() -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return made.model(*made.inputs(1, 0))

    def move(trained: bool, by: float) -> None:
        with torch.no_grad():
            for parameter in made.network.transformer.parameters():
                if parameter.requires_grad == trained:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * by)

    move(False, 0.08)  # away from the calm start, whose output is zero whatever the adapter
    loss, metrics = step()
    assert loss.item() == pytest.approx(np.log(2), rel=1e-6)
    loss.backward()
    move(True, 0.1)
    moved = {k: v.clone() for k, v in adapter_state(made.network.transformer).items()}
    _, later = step()
    assert later["anchor_win"] == metrics["anchor_win"]  # the anchor stayed while the policy moved
    assert abs(later["win"] - later["anchor_win"]) > 1e-3  # under autocast, too
    assert all(torch.equal(v, adapter_state(made.network.transformer)[k]) for k, v in moved.items())


def with_lose(data: LatentSet) -> LatentSet:
    from dataclasses import replace

    return replace(data, lose=data.layout)


def test_a_one_sided_adapter_keeps_its_product_and_trains_one_factor(data: LatentSet, tmp_path: Any) -> None:
    plain = task(data, kernel="batched")
    made = from_dict(
        {
            "stage": "sft",
            "output": "unused",
            "batch": 2,
            "lora": {"rank": 128, "one_sided": True, "folded": True},
            "method": {"kernel": "batched"},
            "model": {"layers": 1, "single_layers": 2},
            "seed": 5,
        }
    )
    one = TransformerTask(made, data)
    names = [n for n, p in one.network.transformer.named_parameters() if "lora_" in n and p.requires_grad]
    assert len(names) == 1 + 6 + 2 * 6  # one factor of each module
    wide = {}
    for name, value in adapter_state(plain.network.transformer).items():
        shape = (128, value.shape[1]) if "lora_A" in name else (value.shape[0], 128)
        wide[name] = torch.zeros(shape)
        wide[name][: value.shape[0], : value.shape[1]] = value
    load_adapter_state(one.network.transformer, wide)
    stored = adapter_state(one.network.transformer)
    for name in (n for n in wide if "lora_A" in n):
        up = name.replace("lora_A", "lora_B")
        assert (stored[up] @ stored[name] - wide[up] @ wide[name]).abs().max() < 1e-5
    with torch.autocast("cpu", torch.bfloat16):  # again, not rounded: as DPO's anchor does in each step
        load_adapter_state(one.network.transformer, wide)
    assert all(torch.equal(v, stored[k]) for k, v in adapter_state(one.network.transformer).items())


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12)])
def test_muon_steps_are_nearly_orthogonal_and_point_downhill(shape: tuple[int, int]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0)) ** 3
    step = orthogonal(gradient)
    values = torch.linalg.svdvals(step)
    assert 0.5 < values.min() and values.max() < 1.3
    assert (step * gradient).sum() > 0.5 * torch.linalg.svdvals(gradient).sum()


def test_muon_finds_a_matrix_and_a_vector() -> None:
    generator = torch.Generator().manual_seed(1)
    wanted = [torch.randn(6, 6, generator=generator), torch.randn(6, generator=generator)]
    found = [torch.nn.Parameter(torch.zeros_like(w)) for w in wanted]
    optimizer = Muon(found, 0.05, vector_share=1.0)
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 200)
        optimizer.zero_grad()
        torch.stack([(f - w).square().sum() for f, w in zip(found, wanted, strict=True)]).sum().backward()
        optimizer.step()
    for f, w in zip(found, wanted, strict=True):
        assert (f - w).abs().max() < 0.05


def test_muon_steps_vectors_as_adam_does() -> None:
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    muon = Muon([ours], 0.1, vector_share=0.5, betas=(0.9, 0.98))
    adam = torch.optim.Adam([theirs], 0.05, (0.9, 0.98))
    for step in range(5):
        for parameter, optimizer in ((ours, muon), (theirs, adam)):
            parameter.grad = torch.tensor([0.3, -1.0, 0.1 * step])
            optimizer.step()
    assert (ours - theirs).abs().max() < 1e-6


def test_cutting_an_adapter_keeps_its_largest_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for module, inputs, outputs in (("a", 20, 12), ("b", 6, 30)):
        state[f"transformer.{module}.lora_A.weight"] = torch.randn(16, inputs, generator=generator)
        state[f"transformer.{module}.lora_B.weight"] = torch.randn(outputs, 16, generator=generator)
    for rank in (3, 8, 16):
        cut = cut_rank(state, rank, 0.5)
        for module in ("a", "b"):
            up, down = (f"transformer.{module}.lora_{side}.weight" for side in "BA")
            whole = 0.5 * state[up] @ state[down]
            assert cut[down].shape[0] == cut[up].shape[1] == rank
            values = torch.linalg.svdvals(whole)
            error = torch.linalg.matrix_norm(whole - cut[up] @ cut[down])
            assert error == pytest.approx(float(values[rank:].square().sum().sqrt()), rel=1e-4, abs=1e-4)
