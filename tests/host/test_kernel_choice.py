"""A kernel that cannot run here is refused with the node's and the input's name."""

from __future__ import annotations

import pytest
import tiny_flux
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from contextgen_pack.nodes import host


@pytest.mark.parametrize("kernel", ["flex", "varlen"])
def test_a_kernel_for_gpus_is_refused_on_a_cpu(kernel: str) -> None:
    model = host.install(tiny_flux.build(), Settings(kernel=kernel))
    with pytest.raises(InputError, match=f"ContextGenPatchModel, kernel: .*{kernel} needs .* choose auto"):
        tiny_flux.sample(model, tiny_flux.conditioned(tiny_flux.plan()))
