"""ContextGenPatchModel: teaches a FLUX.1 model to follow the layout in its conditioning."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..contextgen_core.attention.run import KERNELS
from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.contextgen.schedule import Rule, default_ica_blocks
from ..contextgen_core.methods.contextgen.settings import Settings
from . import host
from .sockets import check_window, chosen, naming, schema, window

NODE = host.NODE
AUTOMATIC = -1
MAX_BLOCK = 511
RULES = tuple(rule.value for rule in (Rule.ICA, Rule.ICA_PAPER, Rule.CLA))


class ContextGenPatchModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            display_name="ContextGen Patch Model",
            description=(
                "A FLUX.1-Kontext model that follows the layout in its conditioning. Without a layout it is exactly "
                "the "
                "model that came in. The order of this and other patching nodes does not matter."
            ),
            search_aliases=["layout", "attention", "regional", "identity", "kontext", "flux patch", "contextgen"],
            inputs=[
                io.Model.Input(
                    "model",
                    display_name="model",
                    tooltip="FLUX.1-Kontext-dev in bf16, fp16, fp8 or GGUF, with the ContextGen adapter.",
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default=Rule.ICA.value,
                    display_name="rule",
                    optional=True,
                    tooltip="official: what the released weights were trained with. paper: the printed formula. "
                    "cla: the layout alone, references are never read.",
                ),
                *window(
                    "Share of the sampling run after which references are read at all.",
                    "Share of the sampling run until which references are read at all. Steps without them are faster.",
                ),
                io.Int.Input(
                    "ica_first",
                    display_name="ICA first block",
                    optional=True,
                    default=AUTOMATIC,
                    min=AUTOMATIC,
                    max=MAX_BLOCK,
                    tooltip="First block in which boxes read their references, double blocks counted first (0 to 56). "
                    "-1: as trained (19).",
                ),
                io.Int.Input(
                    "ica_last",
                    display_name="ICA last block",
                    optional=True,
                    default=AUTOMATIC,
                    min=AUTOMATIC,
                    max=MAX_BLOCK,
                    tooltip="Last block in which boxes read their references. -1: as trained (37).",
                ),
                io.Combo.Input(
                    "kernel",
                    options=list(KERNELS),
                    default="auto",
                    display_name="kernel",
                    optional=True,
                    tooltip="How attention is computed; all give the same picture. auto is the fast choice, dense the "
                    "slow one for comparison.",
                ),
                io.Boolean.Input(
                    "round_ids",
                    display_name="round ids",
                    optional=True,
                    default=False,
                    tooltip="Round positions to bfloat16 as the authors' pipeline does. Matters beyond 256 tokens "
                    "only.",
                ),
            ],
            outputs=[io.Model.Output("model_out", display_name="model", tooltip="For the sampler.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        rule: str = Rule.ICA.value,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        ica_first: int = AUTOMATIC,
        ica_last: int = AUTOMATIC,
        kernel: str = "auto",
        round_ids: bool = False,
    ) -> io.NodeOutput:
        check_window(NODE, start_percent, end_percent)
        settings = Settings(
            rule=Rule(chosen(NODE, "rule", rule, RULES)),
            ica_blocks=_ica_blocks(model, ica_first, ica_last),
            start=start_percent,
            end=end_percent,
            kernel=chosen(NODE, "kernel", kernel, KERNELS),
            round_ids=round_ids,
        )
        return io.NodeOutput(host.install(model, settings))


def _ica_blocks(model: Any, first: int, last: int) -> tuple[int, int] | None:
    """The half-open block range, None for the authors'."""
    with naming(NODE, "model"):
        double, single = host.block_counts(model)
    if first == AUTOMATIC and last == AUTOMATIC:
        return None
    trained = default_ica_blocks(double, single)
    start = trained[0] if first == AUTOMATIC else first
    stop = trained[1] if last == AUTOMATIC else last + 1
    if not start < stop <= double + single:
        raise InputError(
            f"{NODE}, ica_first: the range {start} to {stop - 1} does not fit a model with {double + single} blocks; "
            f"choose "
            f"0 <= first <= last <= {double + single - 1}, or -1 for the trained range."
        )
    return start, stop
