"""A workflow in API form, and what a row puts into it.

A column named ``Title.input`` sets the input of the node with that title (or with that id); a bare name sets the one
input that is called so anywhere in the graph. ``layout``, ``prompt``, ``seed`` and ``references`` are known besides:

    layout      the layout's JSON (text or object); a canvas of another size sets width and height of its node, too
    prompt      the text of the one node that takes a prompt and is not named as the negative one
    seed        a whole number, for every sampler; else it comes from the row's id
    references  files in the order of the graph's Load Image nodes, or an object with a file for each node's title

A bare name that the graph does not know is the table's own matter: it goes into the manifest.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import shorten
from ..layout.layout import Layout

MAX_GRAPH_BYTES = 4 << 20
LOADERS = ("LoadImage", "LoadImageMask")
SEEDS = ("seed", "noise_seed")
PROMPTS = ("prompt", "text")
MAX_SEED = 2**64 - 1

Place = tuple[str, str]  # node's id, input's name


@dataclass(frozen=True)
class Filled:
    """A graph for one row. files: which file each image input loads. extra: the columns that the graph does not know.
    seeds: the inputs that take the seed."""

    prompt: dict[str, Any]
    files: Mapping[Place, Path] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[Place, ...] = ()
    seed: int = 0

    def with_seed(self, seed: int) -> dict[str, Any]:
        """The graph with another seed; nothing of this one is shared that changes."""
        prompt = {id: {**node, "inputs": dict(node["inputs"])} for id, node in self.prompt.items()}
        for id, name in self.seeds:
            prompt[id]["inputs"][name] = seed
        return prompt


@dataclass(frozen=True)
class Graph:
    """nodes: id -> {class_type, inputs, _meta}."""

    nodes: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Raises InputError for what is not a workflow in API form."""
        try:
            with path.open("rb") as file:
                text = file.read(MAX_GRAPH_BYTES + 1)
        except OSError as error:
            raise InputError(
                f"the workflow {shorten(str(path), 80)} cannot be read ({error.strerror}); check it."
            ) from None
        value, literals = parse(text, f"the workflow {path.name}", MAX_GRAPH_BYTES)
        if literals:
            raise InputError(f"the workflow {path.name} contains {literals[0]}, which is not JSON; export it again.")
        if isinstance(value, Mapping) and isinstance(value.get("prompt"), Mapping):
            value = value["prompt"]
        if isinstance(value, Mapping) and "nodes" in value and "links" in value:
            raise InputError(
                f"{path.name} is a workflow as the page saves it; export it with Workflow > Export (API) and give that."
            )
        nodes = value if isinstance(value, Mapping) else {}
        if not nodes or not all(
            isinstance(n, Mapping) and isinstance(n.get("class_type"), str) and isinstance(n.get("inputs"), Mapping)
            for n in nodes.values()
        ):
            raise InputError(f"{path.name} is not a workflow in API form; export it with Workflow > Export (API).")
        return cls(dict(nodes))

    @property
    def digest(self) -> str:
        text = json.dumps(self.nodes, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({node["class_type"] for node in self.nodes.values()}))

    def title(self, id: str) -> str:
        meta = self.nodes[id].get("_meta")
        return str(meta.get("title") or "") if isinstance(meta, Mapping) else ""

    def places(self, name: str) -> list[Place]:
        """Where an input of this name has a value of its own, in the order of the graph."""
        return [(id, name) for id, node in self.nodes.items() if _literal(node["inputs"].get(name))]

    def address(self, column: str) -> list[Place]:
        """The inputs that a column sets; none for a bare name that the graph does not know.

        Raises InputError for a title or an input that is not there, and for a name that several nodes share.
        """
        title, dot, name = column.rpartition(".")
        if not dot:
            found = self.places(column)
            if len(found) > 1:
                choices = ", ".join(f"{self.title(id) or id}.{column}" for id, _ in found[:4])
                raise InputError(f"column {shorten(column)} fits {len(found)} nodes; name one: {choices}.")
            return found
        nodes = [id for id in self.nodes if id == title or self.title(id) == title]
        if not nodes:
            titles = ", ".join(sorted({self.title(id) for id in self.nodes} - {""})[:12])
            raise InputError(f"column {shorten(column, 80)} names no node of the workflow; its titles are {titles}.")
        places = [(id, name) for id in nodes if _literal(self.nodes[id]["inputs"].get(name))]
        if not places:
            names = ", ".join(k for k, v in self.nodes[nodes[0]]["inputs"].items() if _literal(v)) or "none"
            raise InputError(f"column {shorten(column, 80)} names no input with a value of that node; it has {names}.")
        return places

    def fill(self, values: Mapping[str, Any], id: str, base: Path, allowed: Sequence[Path] = ()) -> Filled:
        """The graph for a row. base: the folder of its files. allowed: further folders that files may lie in."""
        inputs = {key: dict(node["inputs"]) for key, node in self.nodes.items()}
        files: dict[Place, Path] = {}
        extra: dict[str, Any] = {}
        seeds = [place for name in SEEDS for place in self.places(name)]
        seed = seed_of(id, values.get("seed"))
        for column, value in values.items():
            if column == "seed":
                continue
            if column == "references":
                for place, file in self._references(value).items():
                    files[place] = inside(file, base, allowed)
                continue
            places = self._prompt() if column == "prompt" else self.address(column)
            if not places:
                if column == "layout":
                    raise InputError("the workflow has no node with a layout; add a Layout Composer.")
                extra[column] = value
            for node, name in places:
                if self.nodes[node]["class_type"] in LOADERS and name == "image":
                    files[node, name] = inside(value, base, allowed)
                elif name == "layout":
                    inputs[node] |= _layout(value, inputs[node])
                else:
                    inputs[node][name] = _like(value, inputs[node][name], column)
        for node, name in seeds:
            inputs[node][name] = seed
        prompt = {key: {**node, "inputs": inputs[key]} for key, node in self.nodes.items()}
        return Filled(prompt, files, extra, tuple(seeds), seed)

    def _prompt(self) -> list[Place]:
        found = [place for name in PROMPTS for place in self.places(name)]
        named = [p for p in found if self.title(p[0]).lower() == "prompt"]
        left = named or [p for p in found if "negative" not in self.title(p[0]).lower()] or found
        if len(left) != 1:
            choices = ", ".join(f"{self.title(id) or id}.{name}" for id, name in left[:4]) or "none"
            raise InputError(f"column 'prompt' fits {len(left)} nodes ({choices}); name one as Title.input.")
        return left

    def _references(self, value: object) -> dict[Place, object]:
        loaders = [id for id, node in self.nodes.items() if node["class_type"] == "LoadImage"]
        if isinstance(value, Mapping):
            places = {}
            for title, file in value.items():
                fitting = [id for id in loaders if id == title or self.title(id) == title]
                if not fitting:
                    titles = ", ".join(self.title(id) or id for id in loaders) or "none"
                    raise InputError(f"references name {shorten(title)}; the workflow's Load Image nodes are {titles}.")
                places |= {(id, "image"): file for id in fitting}
            return places
        if not isinstance(value, (list, tuple)) or len(value) > len(loaders):
            raise InputError(
                f"references is {shorten(value)}; give at most {len(loaders)} files, one for each Load Image node."
            )
        return {(id, "image"): file for id, file in zip(loaders, value, strict=False)}


def _literal(value: object) -> bool:
    """Whether an input holds a value of its own, and no link."""
    return value is not None and not (
        isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], int)
    )


def _like(value: Any, old: Any, column: str) -> Any:
    """A value in the type of the one that it replaces; text from CSV becomes a number or a switch."""
    if isinstance(old, bool):
        switch = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
        return _refuse(column, value, "true or false") if switch is None else switch
    if isinstance(old, (int, float)):
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not math.isfinite(number):
            _refuse(column, value, "a number")
        if isinstance(old, float):
            return number
        if number != int(number):
            _refuse(column, value, "a whole number")
        try:
            return int(value)
        except ValueError:  # 20.0, as tables write whole numbers, too
            return int(number)
    if isinstance(old, str) and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return value


def _refuse(column: str, value: object, wanted: str) -> Any:
    raise InputError(f"column {shorten(column)} is {shorten(value)}; give {wanted}.")


def _layout(value: object, inputs: Mapping[str, Any]) -> dict[str, Any]:
    text = value if isinstance(value, str) else json.dumps(value)
    sizes = ((name, inputs.get(name)) for name in ("width", "height"))
    canvas = {name: int(size) for name, size in sizes if isinstance(size, (int, float)) and math.isfinite(size)}
    layout = Layout.from_json(text, **canvas)
    return {"layout": text} | {name: getattr(layout, name) for name in canvas}


def seed_of(id: str, given: object = None) -> int:
    """The seed of a row: its own, else one that its id alone decides."""
    if given is None:
        return int.from_bytes(hashlib.sha256(id.encode()).digest()[:6], "big")
    try:
        seed = int(given)  # type: ignore[call-overload]
        if isinstance(given, bool) or (isinstance(given, float) and seed != given) or not 0 <= seed <= MAX_SEED:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"seed is {shorten(given)}; give a whole number from 0 to 2^64 - 1.") from None
    return seed


def inside(value: object, base: Path, allowed: Sequence[Path] = ()) -> Path:
    """A file of a row, resolved; it lies under `base` or one of the allowed folders. Raises InputError."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"a file of the row is {shorten(value)}; give its path as text.")
    path = (base / value).resolve()
    if not any(path.is_relative_to(folder.resolve()) for folder in (base, *allowed)):
        raise InputError(
            f"the file {shorten(value, 80)} lies outside the table's folder; move it there or give --allow its folder."
        )
    if not path.is_file():
        raise InputError(f"the file {shorten(value, 80)} is not there; correct the row or put it there.")
    return path
