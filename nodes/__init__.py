"""The pack's nodes, registered through ComfyUI's V3 entry point."""

from __future__ import annotations

import logging
import sys

from comfy_api.latest import ComfyExtension, io

from .adapter import ContextGenDPOLoRALoader
from .assemble_conditioning import InstanceAssembleConditioning
from .assemble_loader import InstanceAssembleLoader
from .assemble_patch import InstanceAssemblePatchModel
from .attention_map import ContextGenAttentionMap
from .conditioning import ContextGenConditioning
from .cutout import ContextGenCutout
from .eligen_conditioning import EliGenConditioning
from .eligen_patch import EliGenPatchModel
from .eligen_regions import EliGenRegions
from .lamic_conditioning import LAMICConditioning
from .lamic_patch import LAMICPatchModel
from .layout import LayoutComposer
from .pairing import ContextGenPairBoxes
from .patch import ContextGenPatchModel
from .pick_best import ContextGenPickBest
from .references import ReferenceBundle
from .report import ContextGenReport
from .score import ContextGenScore
from .sigma_gen import SigmaGenConditioning, SigmaGenControlPictures, SigmaGenPatchModel
from .text import ContextGenTextEncode
from .tiny import ContextGenTinyModel

log = logging.getLogger("contextgen")

NODES: list[type[io.ComfyNode]] = [
    ReferenceBundle,
    LayoutComposer,
    ContextGenTextEncode,
    ContextGenConditioning,
    ContextGenPatchModel,
    ContextGenDPOLoRALoader,
    ContextGenReport,
    ContextGenTinyModel,
    ContextGenCutout,
    ContextGenPairBoxes,
    ContextGenScore,
    ContextGenPickBest,
    ContextGenAttentionMap,
    LAMICConditioning,
    LAMICPatchModel,
    InstanceAssembleLoader,
    InstanceAssembleConditioning,
    InstanceAssemblePatchModel,
    SigmaGenControlPictures,
    SigmaGenConditioning,
    SigmaGenPatchModel,
    EliGenConditioning,
    EliGenPatchModel,
    EliGenRegions,
]


class ContextGenExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        _report_taken_ids()
        return NODES


def _report_taken_ids() -> None:
    """Node ids are one namespace for all packs, in which the last one silently wins."""
    registered = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    for node in NODES:
        name = node.GET_SCHEMA().node_id
        if name in registered and registered[name].__module__.split(".")[0] != __name__.split(".")[0]:
            log.warning(
                "The node id %s is taken by another pack (%s) and is replaced.", name, registered[name].__module__
            )


async def comfy_entrypoint() -> ComfyExtension:
    return ContextGenExtension()
