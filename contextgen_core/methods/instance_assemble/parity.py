"""Golden cases of InstanceAssemble, for FLUX.1 and Stable Diffusion 3.

Points, cells, ids and layout tokens are compared here, the velocity by the command. Each row of a case's batch is a
picture with its own boxes, so each is run alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

from ...backbones.flux import unpack
from ...errors import InputError
from ...layout.box import Box
from ..boundary import Bound
from ..golden import Arrays, Golden
from .cells import cell_ends, corners_of, grid_points
from .files import AssembleFile, read_files
from .method import INSTANCE_ASSEMBLE
from .plan import PhraseBox, PhrasePlan, at_corners, phrase_box
from .step import PHRASES, AssembleSettings

# A case's velocity for each scale that it was computed with.
_VELOCITY = {1.0: "velocity", 0.5: "velocity_half", 0.0: "velocity_off"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layout-weights", help="the layout weights (pth or safetensors), for instance_assemble")
    parser.add_argument("--scale", type=float, default=1.0, help="layout scale of instance_assemble: 1, 0.5 or 0")


def golden(arrays: Arrays, arguments: argparse.Namespace) -> Golden:
    if not arguments.layout_weights:
        raise InputError("instance_assemble needs its weights; give --layout-weights and --adapter.")
    if arguments.scale not in _VELOCITY:
        raise InputError(f"--scale is {arguments.scale:g}; golden cases exist for {', '.join(map(str, _VELOCITY))}.")
    file = read_files(arguments.layout_weights, arguments.adapter)
    rows = [_row(arrays, arguments, file, row) for row in range(len(arrays["valid"]))]
    facts = {
        "cells_equal": all(row.facts["cells_equal"] for row in rows),
        "points_equal": all(row.facts["points_equal"] for row in rows),
        "ids_max_abs_diff": max(float(row.facts["ids_max_abs_diff"]) for row in rows),
        "tokens_max_abs_diff": _tokens_differ(arrays, file, rows),
        "instances": sum(int(row.facts["instances"]) for row in rows),
    }
    return replace(rows[0], facts=facts, within={"tokens_max_abs_diff": 1e-5}, others=tuple(rows[1:]))


def _row(arrays: Arrays, arguments: argparse.Namespace, file: AssembleFile, row: int) -> Golden:
    """One row of the batch. A row without instances (the unconditional one) is a negative with any box."""
    sd3 = "latent" in arrays
    width, height = (int(side) for side in arrays["canvas_wh"])
    rows, columns = (int(side) for side in arrays["grid_hw"])
    slots = np.flatnonzero(arrays["valid"][row])
    boxes = tuple(
        at_corners(
            f"box {slot + 1}",
            corners_of(*(float(v) for v in arrays["boxes_px"][row, slot]), width=width, height=height),
            rows,
            columns,
            sliced=True,
        )
        for slot in slots
    )
    count = arrays["cell_count"].reshape(-1)
    ends = count.cumsum()
    first = row * arrays["valid"].shape[1]
    cells_equal = points_equal = True
    ids = 0.0
    for slot, box in zip(slots, boxes, strict=True):
        stop = ends[first + slot]
        cells = arrays["cells_flat"][stop - count[first + slot] : stop]
        cells_equal &= bool(np.array_equal(box.indices(columns), cells))
        points = grid_points(box.corners)
        points_equal &= bool(np.array_equal(points, arrays["points72"][row, slot]))
        if "layout_ids" in arrays:
            centre = (0.0, *cell_ends(points, rows, columns).centre)
            ids = max(ids, float(np.abs(np.array(centre) - arrays["layout_ids"][row, slot]).max()))
    plan = PhrasePlan(rows, columns, boxes or (_anywhere(width, height),))
    pooled = arrays["phrase_pooled"][row : row + 1]

    def tensor(key: str) -> torch.Tensor:
        return torch.from_numpy(arrays[key][row : row + 1])

    # The cases with alphas in the adapter have an answer of their own.
    scaled = "velocity_alpha" in arrays and any(pair.scale != 1 for pairs in file.blocks.values() for pair in pairs)
    noise = tensor("latent") if sd3 else unpack(tensor("noise_packed"), columns, rows)
    return Golden(
        bound=Bound(INSTANCE_ASSEMBLE, plan, AssembleSettings(scale=arguments.scale, ratio=1.0)),
        noise=noise,
        pictures=(),
        text=tensor("text_embeds"),
        pooled=tensor("pooled"),
        timestep=tensor("timestep"),
        guidance=tensor("guidance") if "guidance" in arrays else None,
        velocity=tensor("velocity_alpha" if scaled else _VELOCITY[arguments.scale]),
        facts={
            "cells_equal": cells_equal,
            "points_equal": points_equal,
            "ids_max_abs_diff": ids,
            "instances": len(boxes),
        },
        vectors={PHRASES: torch.from_numpy(pooled[:, slots] if len(slots) else pooled[:, :1])},
        family="sd3" if sd3 else "flux",
        config="sd3" if sd3 else ("flux" if "guidance" in arrays else "flux_schnell"),
        positive=bool(len(slots)),
        modules=file.build,
    )


def _anywhere(width: int, height: int) -> PhraseBox:
    return phrase_box("no box", Box(0, 0, width, height), width, height)


def _tokens_differ(arrays: Arrays, file: AssembleFile, rows: list[Golden]) -> float:
    """Largest difference of the layout tokens of all instances.

    Encoded in one product with the empty slots, as in the case: a product of another size may round otherwise.
    """
    valid = arrays["valid"].astype(bool)
    points = np.zeros_like(arrays["points72"])
    for row, case in enumerate(rows):
        for slot, box in zip(np.flatnonzero(valid[row]), case.bound.plan.boxes, strict=False):
            points[row, slot] = grid_points(box.corners)
    pooled = torch.from_numpy(arrays["phrase_pooled"]).flatten(0, 1)[None]
    with torch.no_grad():
        tokens = file.build().layout_net(torch.from_numpy(points).flatten(0, 1), pooled)[0].numpy()
    differences = np.abs(tokens.reshape(arrays["layout_tokens"].shape) - arrays["layout_tokens"])
    return float(differences[valid].max(initial=0.0))
