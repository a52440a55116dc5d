"""torch.compile by the stock node: one graph, none more from step to step, and never a graph of another layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.ldm.flux.math
import comfy.ldm.modules.attention as host_attention
import comfy.ops
import pytest
import tiny_assemble
import tiny_flux
import torch
import torch._dynamo
from contextgen_pack.contextgen_core.methods.contextgen.sequence import Plan, ReferenceTokens, TokenBox
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_pack.contextgen_core.methods.instance_assemble.step import AssembleSettings
from contextgen_pack.nodes import host
from tiny_flux import conditioned, sample
from torch._dynamo.utils import counters


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Few blocks, and an attention of the host's that does not itself break graphs by asking for free memory."""
    monkeypatch.setitem(tiny_flux.CONFIG, "num_layers", 1)
    monkeypatch.setitem(tiny_flux.CONFIG, "num_single_layers", 2)
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", host_attention.attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    yield tiny_flux.build()
    torch._dynamo.reset()


def plan(first: int, second: int, left: int = 0) -> Plan:
    """Two references of ``first`` and ``second`` tokens: equal sums give equal shapes everywhere."""
    made = [
        ReferenceTokens(str(n), kept, 1, bytes([1] * kept), TokenBox(left + 3 * n, 0, left + 3 * n + 3, 4))
        for n, kept in enumerate((first, second))
    ]
    return Plan(8, 6, tuple(made))


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def compiled(model: Any) -> Any:
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    node = TorchCompileModel.execute(model, "eager")
    return node.args[0] if hasattr(node, "args") else node[0]


def test_one_graph_for_all_steps_and_the_right_one_for_each_layout(small: Any) -> None:
    model = tiny_flux.install(small, Settings())
    fast = compiled(model)
    layouts = [plan(2, 4), plan(4, 2), plan(2, 4, left=1)]
    for number, layout in enumerate(layouts):
        positive = conditioned(layout)
        assert (sample(fast, positive) - sample(model, positive)).abs().max() < 1e-5, number
        if number == 0:
            assert graphs() == 1  # three steps, one graph through all blocks
        assert graphs() <= 2  # another layout may need another graph; boxes alone are data
    assert all("disable" in reason for reason in counters["graph_break"]), dict(
        counters["graph_break"]
    )  # our planning, before the first block


def test_patching_after_compiling_works_too(small: Any) -> None:
    positive = conditioned(plan(2, 4))
    settings = Settings(kernel="grouped")
    fast = tiny_flux.install(compiled(small), settings)
    assert (sample(fast, positive) - sample(tiny_flux.install(small, settings), positive)).abs().max() < 1e-5
    assert graphs() == 1


def test_the_layout_step_of_instance_assemble_stays_in_the_graph(small: Any) -> None:
    file = tiny_assemble.weights(host.family_of(small).backbone)
    settings = AssembleSettings(ratio=1.0)
    model = host.install(small, INSTANCE_ASSEMBLE, settings, file.build(comfy.ops.manual_cast.Linear))
    positive = tiny_assemble.attach(tiny_flux.text(), tiny_assemble.plan(), tiny_flux.POOLED)
    stepped = sample(model, positive)
    assert (sample(compiled(model), positive) - stepped).abs().max() < 1e-5
    assert graphs() == 1  # one graph through all blocks
    assert all("disable" in reason for reason in counters["graph_break"]), dict(counters["graph_break"])
