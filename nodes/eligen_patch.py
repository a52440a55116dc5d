"""EliGenPatchModel: a FLUX.1 or Qwen-Image model that reads each phrase in its own place."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..contextgen_core.attention import KERNELS
from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.eligen.method import ELIGEN, EliGenSettings
from ..contextgen_core.methods.eligen.plan import MAX_STRENGTH
from . import host
from .sockets import bounded, check_window, chosen, naming, schema, window

NODE = ELIGEN.node
ALL = -1
MAX_BLOCK = 511


class EliGenPatchModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=[
                "regional prompt",
                "attention",
                "entity",
                "flux patch",
                "qwen image",
                "eligen",
                "contextgen",
            ],
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("strength", optional=True, default=1.0, min=0.0, max=MAX_STRENGTH, step=0.05),
                *window(),
                io.Combo.Input("kernel", options=list(KERNELS), default="auto", optional=True),
                io.Int.Input("first_block", optional=True, default=ALL, min=ALL, max=MAX_BLOCK),
                io.Int.Input("last_block", optional=True, default=ALL, min=ALL, max=MAX_BLOCK),
                io.Float.Input("outside", optional=True, default=0.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Model.Output("model_out")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        strength: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        kernel: str = "auto",
        first_block: int = ALL,
        last_block: int = ALL,
        outside: float = 0.0,
    ) -> io.NodeOutput:
        check_window(NODE, start_percent, end_percent)
        settings = EliGenSettings(
            bounded(NODE, "strength", strength, 0, MAX_STRENGTH),
            start_percent,
            end_percent,
            chosen(NODE, "kernel", kernel, KERNELS),
            _blocks(model, first_block, last_block),
            bounded(NODE, "outside", outside, 0, 1),
        )
        with naming(NODE, "model"):
            return io.NodeOutput(host.install(model, ELIGEN, settings))


def _blocks(model: Any, first: int, last: int) -> tuple[int, int] | None:
    """The half-open range of blocks, None for all."""
    if first == ALL and last == ALL:
        return None
    with naming(NODE, "model"):
        count = host.family_of(model).counts.all
    start, stop = 0 if first == ALL else first, count if last == ALL else last + 1
    if not 0 <= start < stop <= count:
        raise InputError(
            f"the range {start} to {stop - 1} does not fit a model with {count} blocks; choose 0 <= first <= last <="
            f" {count - 1}, or -1 for the model's first and last.",
            NODE,
            "first_block",
        )
    return start, stop
