"""A workflow saved with a kernel that is no longer offered loads and runs as auto, and the log says so."""

from __future__ import annotations

import pytest
import tiny_flux
import torch
from contextgen_pack.nodes.patch import ContextGenPatchModel as Node


@pytest.mark.parametrize("kernel", ["flex", "varlen"])
def test_a_retired_kernel_loads_as_auto(kernel: str, caplog: pytest.LogCaptureFixture) -> None:
    base, conditioning = tiny_flux.build(), tiny_flux.conditioned(tiny_flux.plan())
    assert Node.validate_inputs(kernel=kernel) is True
    with caplog.at_level("WARNING", logger="contextgen"):
        retired = Node.execute(base, kernel=kernel).args[0]
    assert f"{kernel} is no longer offered; auto takes its place" in caplog.text
    auto = Node.execute(base, kernel="auto").args[0]
    assert torch.equal(tiny_flux.sample(retired, conditioning), tiny_flux.sample(auto, conditioning))


def test_any_other_kernel_is_refused_before_sampling() -> None:
    assert "ContextGenPatchModel, kernel: it is 'fast'; choose one of auto" in str(Node.validate_inputs(kernel="fast"))
