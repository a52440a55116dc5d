"""What all nodes share: the socket types, tensors to arrays and back, errors that name the node, previews."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from ..contextgen_core.errors import InputError
from ..contextgen_core.input.checks import finite_number
from ..contextgen_core.layout.box import Box
from ..contextgen_core.layout.foreign_boxes import BoxFormat

log = logging.getLogger("contextgen")

CATEGORY = "ContextGen"

References = io.Custom("CONTEXTGEN_REFERENCES")  # tuple[Reference, ...]
LayoutType = io.Custom("CONTEXTGEN_LAYOUT")  # Scene
AssembleType = io.Custom("INSTANCE_ASSEMBLE_WEIGHTS")  # AssembleFile
BoundingBox = io.Custom("BOUNDING_BOX")  # the host's own: one list of {x, y, width, height} per frame
FORMS: dict[str, BoxFormat | None] = {"auto": None, "xywh": "xywh", "xyxy": "xyxy"}  # of bare rows
BOX_TYPES = [io.Custom(name) for name in ("BOUNDING_BOX", "BOUNDING_BOXES", "BBOX", "SEGS", "JSON", "ARRAY", "STRING")]

_NO_ALPHA_SIDE = 64  # Load Image's mask for a picture without transparency is 64 x 64 zeros
_SCHEMA_FIELDS = {field.name for field in fields(io.Schema)}
_WORDS = json.loads((Path(__file__).parents[1] / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))


def schema(node_id: str, inputs: Sequence[Any], outputs: Sequence[Any], **values: Any) -> io.Schema:
    """An ``io.Schema`` in our category whose names, description and tooltips are those of locales/en/nodeDefs.json.

    Fields that this host does not know yet are left out.
    """
    words = _WORDS[node_id]
    for socket, said in (
        *((one, words["inputs"][one.id]) for one in inputs),
        *((one, words["outputs"][str(number)]) for number, one in enumerate(outputs)),
    ):
        socket.display_name, socket.tooltip = said["name"], said["tooltip"]
    values |= {"node_id": node_id, "inputs": list(inputs), "outputs": list(outputs)}
    values |= {"display_name": words["display_name"], "description": words["description"]}
    known = {name: value for name, value in values.items() if name in _SCHEMA_FIELDS}
    return io.Schema(**{"category": CATEGORY, **known})


@contextmanager
def naming(node: str, name: str) -> Iterator[None]:
    """Gives an InputError raised inside its node, and the input's name where it names none yet."""
    try:
        yield
    except InputError as error:
        if error.node is None:
            error.node, error.input = node, error.input or name
        raise


def chosen(node: str, name: str, value: str, options: Sequence[str]) -> str:
    """The value if it is one of the options. Not every host checks the choices in an API prompt."""
    if value not in options:
        raise InputError(f"it is {str(value)[:40]!r}; choose one of {', '.join(options)}.", node, name)
    return value


def bounded(node: str, name: str, value: float, low: float, high: float) -> float:
    """The number if it lies between two others. Not every host checks the range in an API prompt."""
    with naming(node, name):
        number = finite_number(value, "the node", name)
    if not low <= number <= high:
        raise InputError(f"it is {number:g}; give a number from {low:g} to {high:g}.", node, name)
    return number


# --- inputs that several nodes have ---------------------------------------------------------------------------------


def window(*, start: float = 0.0, end: float = 1.0, last: float = 1.0, optional: bool = True) -> list[Any]:
    """The inputs start_percent and end_percent, shares 0..last of the sampling run."""
    return [
        io.Float.Input(f"{name}_percent", optional=optional, default=default, min=0.0, max=last, step=0.01)
        for name, default in (("start", start), ("end", end))
    ]


def check_window(node: str, start: float, end: float) -> None:
    """Raises InputError where the window ends before it starts."""
    if start > end:
        raise InputError(f"it is {start:g} and end_percent {end:g}; start before the end.", node, "start_percent")


def boxes_format_input() -> Any:
    """The input that says how bare rows of four numbers are meant."""
    return io.Combo.Input("boxes_format", options=list(FORMS), default="auto", optional=True)


# --- tensors --------------------------------------------------------------------------------------------------------


def to_bytes(values: torch.Tensor) -> np.ndarray:
    """Floats 0..1 as uint8 of the same shape; what is not finite counts as 0."""
    array = values.detach().to(device="cpu", dtype=torch.float32).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
    return (array * 255).round().to(torch.uint8).numpy()


def to_image(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, C) as a ComfyUI IMAGE (1, H, W, C), floats 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).float().div(255)[None]


def colours_and_alpha(picture: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """A picture (H, W, 1, 3 or 4), floats 0..1, as uint8 (H, W, 3) and its alpha uint8 (H, W), None without one."""
    pixels = to_bytes(picture)
    colours = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels[..., :3]
    return np.ascontiguousarray(colours), pixels[..., 3] if pixels.shape[-1] == 4 else None


def mask_at(masks: torch.Tensor, number: int) -> np.ndarray | None:
    """One mask of a batch, uint8 (H, W); a single mask serves all pictures. Raises InputError where there is none.

    None for the empty mask that Load Image gives for a picture without transparency: it says nothing.
    """
    if masks.ndim == 2:
        masks = masks[None]
    if len(masks) != 1 and number >= len(masks):
        raise InputError(f"there are {len(masks)} masks for more pictures; give one mask, or one for each picture.")
    mask = to_bytes(masks[0 if len(masks) == 1 else number])
    return None if mask.shape == (_NO_ALPHA_SIDE, _NO_ALPHA_SIDE) and not mask.any() else mask


def box_entry(box: Box, label: str = "") -> dict[str, Any]:
    """A box in the host's form: whole pixels, at least one of them, with its label if it has one."""
    x, y = round(box.x1), round(box.y1)
    size = {"width": max(1, round(box.x2) - x), "height": max(1, round(box.y2) - y)}
    return {"x": x, "y": y, **size, **({"label": label} if label else {})}


# --- warnings -------------------------------------------------------------------------------------------------------


def warned(node: str, warnings: Sequence[str]) -> dict[str, list[str]]:
    """Logs full sentences, and gives the entry of a node's ``ui`` by which the frontend shows them on the node."""
    for warning in warnings:
        log.warning("%s: %s", node, warning)
    return {"contextgen_warnings": list(warnings)}


# --- previews -------------------------------------------------------------------------------------------------------


def preview(picture: Image.Image) -> dict[str, str]:
    """Saves a picture in the host's temporary folder and returns how the frontend asks for it.

    The name is made from the content: the same picture is written once.
    """
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    content = picture.mode.encode() + repr(picture.size).encode() + picture.tobytes()
    name = f"contextgen_{hashlib.sha256(content).hexdigest()[:20]}.png"
    if not (folder / name).exists():
        picture.save(folder / name, compress_level=1)
    return {"filename": name, "subfolder": "", "type": "temp"}


def cutout(pixels: np.ndarray, mask: np.ndarray, side: int = 512) -> Image.Image:
    """A subject as RGBA, its longer side at most ``side`` pixels."""
    picture = Image.fromarray(np.dstack([pixels, mask]))
    picture.thumbnail((side, side))
    return picture
