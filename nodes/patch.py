"""ContextGenPatchModel: teaches a FLUX.1 model to follow the layout in its conditioning."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..contextgen_core.attention import KERNELS
from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.contextgen.method import CONTEXTGEN
from ..contextgen_core.methods.contextgen.schedule import Rule, default_ica_blocks
from ..contextgen_core.methods.contextgen.settings import Settings
from . import host
from .sockets import check_window, chosen, naming, schema, window

log = logging.getLogger("contextgen")

NODE = CONTEXTGEN.node
AUTOMATIC = -1
MAX_BLOCK = 511
RETIRED_KERNELS = ("flex", "varlen")  # choices of earlier versions, so that their workflows keep loading
RULES = tuple(rule.value for rule in (Rule.ICA, Rule.ICA_PAPER, Rule.CLA))


class ContextGenPatchModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["layout", "attention", "regional", "identity", "kontext", "flux patch", "contextgen"],
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("rule", options=list(RULES), default=Rule.ICA.value, optional=True),
                *window(),
                io.Int.Input("ica_first", optional=True, default=AUTOMATIC, min=AUTOMATIC, max=MAX_BLOCK),
                io.Int.Input("ica_last", optional=True, default=AUTOMATIC, min=AUTOMATIC, max=MAX_BLOCK),
                io.Combo.Input("kernel", options=list(KERNELS), default="auto", optional=True),
                io.Boolean.Input("round_ids", optional=True, default=False),
            ],
            outputs=[io.Model.Output("model_out")],
        )

    @classmethod
    def validate_inputs(cls, kernel: str = "auto") -> bool | str:
        """Lets the retired kernels through, which the host would refuse as no longer among the choices."""
        if kernel is None or kernel in (*KERNELS, *RETIRED_KERNELS):  # None: it comes from another node
            return True
        return f"{NODE}, kernel: it is {str(kernel)[:40]!r}; choose one of {', '.join(KERNELS)}."

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
            kernel=_kernel(kernel),
            round_ids=round_ids,
        )
        return io.NodeOutput(host.install(model, CONTEXTGEN, settings))


def _kernel(name: str) -> str:
    if name in RETIRED_KERNELS:
        log.warning("%s, kernel: %s is no longer offered; auto takes its place.", NODE, name)
        return "auto"
    return chosen(NODE, "kernel", name, KERNELS)


def _ica_blocks(model: Any, first: int, last: int) -> tuple[int, int] | None:
    """The half-open block range, None for the authors'."""
    with naming(NODE, "model"):
        double, single = host.family_of(model).counts
    if first == AUTOMATIC and last == AUTOMATIC:
        return None
    trained = default_ica_blocks(double, single)
    start = trained[0] if first == AUTOMATIC else first
    stop = trained[1] if last == AUTOMATIC else last + 1
    if not start < stop <= double + single:
        raise InputError(
            f"the range {start} to {stop - 1} does not fit a model with {double + single} blocks; choose"
            f" 0 <= first <= last <= {double + single - 1}, or -1 for the trained range.",
            NODE,
            "ica_first",
        )
    return start, stop
