"""Cases as rows of a bulk table, in the form that a backend reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...composite.references import GREY
from ...errors import InputError
from ...input.checks import MAX_LABEL, has_control_characters, shorten
from ...input.picture_file import open_picture
from ...layout.layout import MAX_INSTANCES
from ..graph import LOADERS, Graph
from ..stages import put
from .case import Case, CaseBox

TABLE, PICTURES = "benchmark.jsonl", "references"
COMPOSITE = "Layout image"  # title of the Load Image node that takes a layout's own picture
MAX_NAME = 90


@dataclass
class Cut:
    """What a layout could not hold."""

    labels: int = 0
    boxes: int = 0


@dataclass
class Rows:
    """Writes rows into a run's folder.

    graph: of the workflow; None where the backend takes references by name. cut: counted while rows are written."""

    folder: Path
    graph: Graph | None = None
    cut: Cut = field(default_factory=Cut)

    def write(self, cases: Iterable[Case]) -> int:
        """Writes the table and the references that it names; returns the number of rows."""
        lines = [json.dumps(self.row(case), ensure_ascii=True) + "\n" for case in cases]
        put(self.folder / TABLE, "".join(lines).encode())
        return len(lines)

    def row(self, case: Case) -> dict[str, Any]:
        """Columns: id, prompt, seed, layout, those of the references, and `asked`, which the scorer reads."""
        boxes = case.boxes[:MAX_INSTANCES]
        self.cut.boxes += len(case.boxes) - len(boxes)
        names = _names(boxes)
        row: dict[str, Any] = {"id": case.id, "prompt": case.prompt, "seed": case.seed, "asked": dict(case.asked)}
        row["layout"] = {
            "v": 1,
            "canvas": {"w": case.size[0], "h": case.size[1]},
            "boxes": [self._box(n, box, names[n], case.size) for n, box in enumerate(boxes)],
        }
        files = {name: self._reference(box) for box, name in zip(boxes, names, strict=True) if name}
        files = {name: file for name, file in files.items() if file is not None}
        composite = None if case.composite is None else self._composite(case.composite)
        sizes = {name: box.tokens for box, name in zip(boxes, names, strict=True)}
        if self.graph is None:
            row |= ({"references": files} if files else {}) | ({"layout_image": composite} if composite else {})
        else:
            row |= _columns(self.graph, files, sizes, composite)
        return row

    def _box(self, number: int, box: CaseBox, name: str, size: tuple[int, int]) -> dict[str, Any]:
        x1, y1, x2, y2 = (share * side for share, side in zip(box.share, size * 2, strict=True))
        label = " ".join(box.label.split())
        self.cut.labels += len(label) > MAX_LABEL
        entry = {"id": f"b{number + 1}", "x": x1, "y": y1, "w": max(x2 - x1, 0.01), "h": max(y2 - y1, 0.01)}
        entry |= {"ref": name or None, "label": label[:MAX_LABEL]}
        return entry | ({"fit": box.fit} if box.fit is not None and name else {})

    def _reference(self, box: CaseBox) -> str | None:
        """The file of a box's subject with its mask as transparency, under the run's folder."""
        if box.picture is None:
            return None
        digest = hashlib.sha256(f"{box.picture}\0{box.mask}".encode()).hexdigest()[:12]
        target = self.folder / PICTURES / f"{_safe(box.picture.stem)}-{digest}.png"
        if not target.is_file():
            picture = _opened(box.picture, "RGB")
            alpha = Image.new("L", picture.size, 255) if box.mask is None else _opened(box.mask, "L")
            if alpha.size != picture.size:
                alpha = alpha.resize(picture.size, Image.Resampling.NEAREST)
            _save(picture, alpha.point([255 * (v > 127) for v in range(256)]), target)
        return f"{PICTURES}/{target.name}"

    def _composite(self, path: Path) -> str:
        """The layout's own picture on grey, as the composite is painted."""
        target = self.folder / PICTURES / f"{_safe(path.stem)}.png"
        if not target.is_file():
            picture = _opened(path, "RGBA")
            ground = Image.new("RGBA", picture.size, (GREY,) * 3 + (255,))
            _save(Image.alpha_composite(ground, picture).convert("RGB"), None, target)
        return f"{PICTURES}/{target.name}"


def _names(boxes: Iterable[CaseBox]) -> list[str]:
    """A name for each box with a picture, no two alike; an empty one for the others."""
    names: list[str] = []
    for number, box in enumerate(boxes, 1):
        name = " ".join((box.name or f"subject {number}").split())[:MAX_NAME] if box.picture is not None else ""
        if has_control_characters(name):
            name = f"subject {number}"
        names.append(f"{name} {number}" if name and name in names else name)
    return names


def _columns(graph: Graph, files: Mapping[str, str], sizes: Mapping[str, int], composite: str | None) -> dict[str, Any]:
    """The columns that put references into a graph: each goes through a Load Image node into a Reference Bundle, which
    gets its name, so that the layout's boxes find it. Pairs that are left over hold the first picture under a name
    that no box asks for."""
    pairs = []
    for id, node in graph.nodes.items():
        link = node["inputs"].get("image")
        if "name" in node["inputs"] and isinstance(link, (list, tuple)):
            loader = str(link[0])
            if loader in graph.nodes and graph.nodes[loader]["class_type"] in LOADERS:
                pairs.append((loader, id))
    own = [id for id, node in graph.nodes.items() if node["class_type"] in LOADERS and graph.title(id) == COMPOSITE]
    columns: dict[str, Any] = {f"{id}.image": composite for id in own if composite is not None}
    if files and len(files) > len(pairs):
        raise InputError(
            f"a row has {len(files)} references and the workflow takes {len(pairs)}; give one with as many pairs of"
            " Load Image and Reference Bundle as the benchmark's largest row."
        )
    if files:
        spare = next(iter(files.values()))
        filled = [*files.items(), *((f"unused {n}", spare) for n in range(len(pairs) - len(files)))]
        for (loader, bundle), (name, file) in zip(pairs, filled, strict=True):
            columns |= {f"{loader}.image": file, f"{bundle}.name": name}
            if sizes.get(name):
                columns[f"{bundle}.size"] = sizes[name]
    return columns


def _safe(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:60] or "picture"


def _opened(path: Path, mode: str) -> Image.Image:
    if not path.is_file():
        raise InputError(f"the picture {shorten(path.name, 80)} is missing in {path.parent}; unpack it anew.")
    return open_picture(path).convert(mode)


def _save(picture: Image.Image, alpha: Image.Image | None, target: Path) -> None:
    import io

    if alpha is not None:
        if not np.asarray(alpha).any():
            raise InputError(f"the mask of {target.stem} is empty; unpack the download anew.")
        picture.putalpha(alpha)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    put(target, buffer.getvalue())
