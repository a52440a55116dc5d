"""The method on diffusers' transformer: gradients, checkpointing, mixed batches, and no tensor of S x S."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from plans import crowd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contextgen_core.errors import InputError
from contextgen_core.hosts.diffusers import FluxHost
from contextgen_core.layout.tokens import TokenBox
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_core.methods.contextgen.sequence import Plan, reference_tokens
from contextgen_core.methods.contextgen.settings import Settings

TEXT = 12


@pytest.fixture
def transformer() -> Any:
    torch.manual_seed(0)
    made = FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 6, 6),
    )
    return made.eval()


def plan(references: int, width: int = 5, height: int = 4) -> Plan:
    valid = torch.tensor([[True, False], [True, True]]).numpy()
    boxes = [TokenBox(0, 0, 3, 3), TokenBox(2, 1, 5, 4), TokenBox(1, 0, 2, 4)]
    return Plan(width, height, tuple(reference_tokens(f"r{n}", valid, boxes[n % 3]) for n in range(references)))


def bound(layout: Plan, settings: Settings | None = None) -> Bound:
    return Bound(CONTEXTGEN, layout, settings or Settings())


def inputs(layout: Plan, batch: int = 1, text: int = TEXT) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "noise": normal(batch, layout.noise_tokens, 64),
        "conditions": normal(batch, layout.image_tokens - layout.noise_tokens, 64),
        "text": normal(batch, text, 8),
        "pooled": normal(batch, 8),
        "timestep": torch.full((batch,), 0.5),
    }


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_those_of_the_dense_form(transformer: Any, checkpointing: bool) -> None:
    layout = plan(3)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
        transformer.train()

    def gradients(settings: Settings) -> list[torch.Tensor]:
        transformer.zero_grad()
        with FluxHost(transformer) as model:
            model.velocity(bound(layout, settings), **inputs(layout)).square().mean().backward()
        return [p.grad.clone() for p in transformer.parameters() if p.grad is not None]

    fast = gradients(Settings())
    dense = gradients(Settings(kernel="dense", prune=False))
    assert len(fast) == len(dense) > 50
    for a, b in zip(fast, dense, strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=1e-3)


def test_a_batch_of_different_plans_equals_each_alone(transformer: Any) -> None:
    plans = [plan(3), plan(0), plan(1)]
    given = [inputs(p) for p in plans]
    together = {
        key: [g[key] for g in given] if key == "conditions" else torch.cat([g[key] for g in given]) for key in given[0]
    }
    with torch.no_grad(), FluxHost(transformer) as model:
        batch = model.velocity([(bound(p),) for p in plans], **together)
        for i, p in enumerate(plans):
            alone = model.velocity(bound(p), **given[i])
            assert torch.allclose(batch[i], alone[0], atol=1e-5)


def test_pictures_of_different_sizes_do_not_share_a_batch(transformer: Any) -> None:
    a = plan(1)
    with FluxHost(transformer) as model, pytest.raises(InputError, match="differ in size"):
        model.velocity([(bound(a),), (bound(plan(1, width=6)),)], **inputs(a, batch=2))


def test_removed_it_is_the_stock_transformer_again(transformer: Any) -> None:
    before = [block.attn.processor for block in transformer.transformer_blocks]
    hooks = [len(block._forward_hooks) for block in transformer.transformer_blocks]
    with FluxHost(transformer):
        pass
    assert [block.attn.processor for block in transformer.transformer_blocks] == before
    assert [len(block._forward_hooks) for block in transformer.transformer_blocks] == hooks


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation took or gave."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, out)):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize("kernel", ["auto", "grouped", "merge"])
def test_no_tensor_of_sequence_by_sequence(transformer: Any, kernel: str) -> None:
    layout = crowd(8, width=24, height=24)
    sequence = TEXT + layout.image_tokens
    # Every activation is a small multiple of S; with this S that is far below S squared.
    with torch.no_grad(), FluxHost(transformer) as model:
        dense, ours = LargestTensor(), LargestTensor()
        with dense:
            model.velocity(bound(layout, Settings(kernel="dense", prune=False)), **inputs(layout))
        with ours:
            model.velocity(bound(layout, Settings(kernel=kernel)), **inputs(layout))
    assert dense.elements >= sequence**2
    assert ours.elements < sequence**2 / 3
