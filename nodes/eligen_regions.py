"""EliGenRegions: conditionings with masks or areas, as other nodes make them, in one pass instead of one each."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.eligen.masks import CELLS, cells_to_tokens, mask_cells
from ..contextgen_core.methods.eligen.method import ELIGEN, checked_reading
from ..contextgen_core.methods.eligen.plan import MAX_PHRASES, EliGenPlan, PhraseReading, PhraseTokens, phrase_tokens
from . import host
from .eligen_text import without_padding
from .sockets import bounded, naming, schema, to_bytes

log = logging.getLogger("contextgen")

NODE = "EliGenRegions"
# What a whole picture can have and a region of one pass cannot, and how a user knows it.
REFUSED = {
    "hooks": "hooks (a LoRA or schedule of its own)",
    "control": "a ControlNet",
    "gligen": "GLIGEN boxes",
    "reference_latents": "reference latents",
    "attention_mask": "an attention mask",
    "model_conds": "a layout of its own",
}


class EliGenRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["regional prompt", "area prompt", "set mask", "set area", "eligen", "contextgen"],
            inputs=[io.Conditioning.Input("conditioning"), io.Latent.Input("latent")],
            outputs=[io.Conditioning.Output("conditioning_out")],
        )

    @classmethod
    def execute(cls, conditioning: list[Any], latent: dict[str, Any]) -> io.NodeOutput:
        rows, columns = _grid(latent)
        scenes: list[list[Any]] = []
        phrases: list[PhraseTokens] = []
        vectors: list[torch.Tensor] = []
        for number, entry in enumerate(conditioning, 1):
            embedding, values = without_padding(NODE, *entry)
            if values.get("mask") is None and values.get("area") is None:
                scenes.append([embedding, values])
                continue
            inside = cells_to_tokens(_cells(number, values, rows, columns))
            _check_entry(number, values)
            if not inside.any():
                log.warning("%s: entry %d has no effect: its region holds no token of the picture.", NODE, number)
                continue
            strength = float(values.get("strength", 1.0)) * float(values.get("mask_strength", 1.0))
            window = (float(values.get("start_percent", 0.0)), float(values.get("end_percent", 1.0)))
            with naming(NODE, "conditioning"):
                reading = checked_reading(PhraseReading(strength, *window), f"entry {number}", "conditioning")
            phrases.append(phrase_tokens(embedding.shape[1], inside, *reading))
            vectors.append(embedding)
        if not phrases:
            return io.NodeOutput(conditioning)
        if not scenes:
            raise InputError(
                "each entry has a mask or an area; combine them with the whole picture's prompt, which has neither.",
                NODE,
                "conditioning",
            )
        if len(phrases) > MAX_PHRASES:
            raise InputError(
                f"there are {len(phrases)} regions, the limit is {MAX_PHRASES}; remove {len(phrases) - MAX_PHRASES}.",
                NODE,
                "conditioning",
            )
        plan = EliGenPlan(columns, rows, tuple(phrases))
        bound = []
        for scene in scenes:
            bound += host.attach([scene], ELIGEN, plan, [], {"phrases": _joined(vectors, scene[0])})
        return io.NodeOutput(bound)


def _grid(latent: dict[str, Any]) -> tuple[int, int]:
    height, width = latent["samples"].shape[-2:]
    if height % CELLS or width % CELLS:
        raise InputError(
            f"the latent is {width * 8} x {height * 8} pixels; give one whose sides are multiples of 16.",
            NODE,
            "latent",
        )
    return height // CELLS, width // CELLS


def _cells(number: int, values: dict[str, Any], rows: int, columns: int) -> np.ndarray:
    """The latent cells of an entry, bool (2 rows, 2 columns): inside its mask and its area."""
    cells = np.ones((CELLS * rows, CELLS * columns), bool)
    area, mask = values.get("area"), values.get("mask")
    if area is not None:
        top, left, height, width = _area(area, *cells.shape)
        cells[:] = False
        cells[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    if mask is not None:
        pictures = to_bytes(mask if mask.ndim == 3 else mask[None])
        if len(pictures) != 1:
            raise InputError(f"entry {number} has {len(pictures)} masks; give each entry one.", NODE, "conditioning")
        cells &= mask_cells(pictures[0], rows, columns)
    return cells


def _area(area: tuple[Any, ...], rows: int, columns: int) -> tuple[int, int, int, int]:
    """top, left, height and width in latent cells, of an area as the host writes it: in cells, or in shares."""
    if area[0] == "percentage":
        height, width, top, left = (bounded(NODE, "conditioning", share, 0, 1) for share in area[1:])
        return round(top * rows), round(left * columns), max(1, round(height * rows)), max(1, round(width * columns))
    height, width, top, left = area
    return top, left, height, width


def _check_entry(number: int, values: dict[str, Any]) -> None:
    for key, what in REFUSED.items():
        if values.get(key) is not None:
            raise InputError(
                f"entry {number} has a region and {what}, which acts on whole pictures alone; put it on the whole"
                " picture's prompt, or remove it.",
                NODE,
                "conditioning",
            )


def _joined(vectors: list[torch.Tensor], scene: torch.Tensor) -> torch.Tensor:
    """(B, phrase tokens, C) of one text encoder."""
    widths = sorted({vector.shape[-1] for vector in (*vectors, scene)})
    if len(widths) > 1:
        raise InputError(
            f"its entries have {' and '.join(map(str, widths))} numbers a token; encode all with one text encoder.",
            NODE,
            "conditioning",
        )
    batch = max(len(vector) for vector in vectors)
    if any(len(vector) not in (1, batch) for vector in vectors):
        raise InputError("its entries are batches of different sizes; encode one text for each.", NODE, "conditioning")
    return torch.cat([vector.expand(batch, -1, -1) for vector in vectors], dim=1)
