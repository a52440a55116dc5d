"""The two backends of a run: ComfyUI through its API, and diffusers in the worker's own process."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..input.checks import shorten
from ..input.picture_file import open_picture
from ..layout.layout import Layout
from .backend import HostError, Made, Subject, Task, Worker
from .comfy import Comfy, OwnComfy
from .graph import Filled, Graph, Place, inside, seed_of
from .stages import describe
from .table import Row

if TYPE_CHECKING:
    from ..methods.boundary import Prepared
    from ..verbs import DiffusersModel


# ---- ComfyUI -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComfyBackend:
    """A workflow on ComfyUI: either at addresses, or one started from `path` for each worker."""

    graph: Graph
    urls: tuple[str, ...] = ()
    path: Path | None = None
    python: str = ""
    arguments: tuple[str, ...] = ()
    timeout: float = 600.0
    threads: int = 1
    allowed: tuple[Path, ...] = ()

    @property
    def digest(self) -> str:
        return self.graph.digest

    @property
    def workers(self) -> int | None:
        return len(self.urls) or None

    def check(self) -> list[str]:
        """Asks every address once; one that does not answer is left for later. Raises InputError where none does, and
        where one is too old or lacks a node."""
        if self.path is not None:
            if not (self.path / "main.py").is_file():
                raise InputError(
                    f"there is no ComfyUI in {shorten(str(self.path), 80)}; give the folder with its main.py."
                )
            return []
        versions, silent = {}, []
        for url in self.urls:
            host = Comfy(url, self.timeout)
            try:
                versions[url] = host.version()
                lacking = host.missing(self.graph)
            except HostError as error:
                silent.append(str(error))
                continue
            if lacking:
                raise InputError(f"ComfyUI at {url} lacks the nodes {', '.join(lacking)}; install their packs there.")
        if not versions:
            raise InputError(f"no ComfyUI answers: {silent[0]} Start it, or give --comfy-path.")
        if len(set(versions.values())) > 1:
            told = ", ".join(f"{url} is {version}" for url, version in versions.items())
            silent.append(f"the hosts differ in version ({told}): pictures may differ by host.")
        return silent

    def prepare(self, row: Row, base: Path) -> Task:
        filled = self.graph.fill(row.values, row.id, base, self.allowed)
        return Task(row, filled, filled.seed, _subjects_of(self.graph, filled), dict(filled.extra))

    def open(self) -> Worker:
        if self.path is None:
            return _Shared([Comfy(url, self.timeout) for url in self.urls])
        host = OwnComfy(self.path, self.python, self.timeout, self.threads, self.arguments)
        try:
            if lacking := host.missing(self.graph):
                told = shorten(str(self.path), 80)
                raise InputError(f"the ComfyUI in {told} lacks the nodes {', '.join(lacking)}; install their packs.")
        except BaseException:
            host.close()
            raise
        return _Owned(host)


class _Owned:
    def __init__(self, host: OwnComfy) -> None:
        self.host = host

    def make(self, task: Task, seeds: list[int]) -> list[Made]:
        if not self.host.alive():
            raise HostError("ComfyUI ended on its own.")
        return [self.host.paint(task.work, seed) for seed in seeds]

    def close(self) -> None:
        self.host.close()


class _Shared:
    """Several running hosts: each row goes to the one with the shortest queue."""

    def __init__(self, hosts: Sequence[Comfy]) -> None:
        self.hosts = hosts

    def make(self, task: Task, seeds: list[int]) -> list[Made]:
        lengths: list[tuple[int, int]] = []
        for number, host in enumerate(self.hosts):
            with suppress(HostError):
                lengths.append((host.waiting(), number))
        if not lengths:
            raise HostError(f"no ComfyUI answers ({', '.join(host.url for host in self.hosts)}).")
        host = self.hosts[min(lengths)[1]]
        return [host.paint(task.work, seed) for seed in seeds]

    def close(self) -> None:
        for host in self.hosts:
            host.close()


def _subjects_of(graph: Graph, filled: Filled) -> tuple[Subject, ...]:
    """The boxes of the graph's one layout; a reference is known where the row gave its file."""
    texts = [
        node["inputs"]["layout"] for node in filled.prompt.values() if isinstance(node["inputs"].get("layout"), str)
    ]
    if len(texts) != 1:
        return ()
    layout = Layout.from_json(texts[0])
    files: dict[str, Path] = {}
    for node in filled.prompt.values():
        name, behind = node["inputs"].get("name"), _behind(node)
        if isinstance(name, str) and behind is not None:
            file = _file_behind(filled.prompt, behind, filled.files)
            if file is not None:
                files[name] = file
    return subjects(layout, files)


def _behind(node: Mapping[str, Any]) -> str | None:
    """The node that a node's picture comes from."""
    link = node["inputs"].get("image")
    return str(link[0]) if isinstance(link, (list, tuple)) and link else None


def _file_behind(prompt: Mapping[str, Any], node: str | None, files: Mapping[Place, Path]) -> Path | None:
    """The file of the picture that a node's output comes from."""
    seen: set[str] = set()
    while node is not None and node in prompt and node not in seen:
        seen.add(node)
        if (node, "image") in files:
            return files[node, "image"]
        node = _behind(prompt[node])
    return None


def subjects(layout: Layout, files: Mapping[str, Path]) -> tuple[Subject, ...]:
    out = []
    for instance in layout.instances:
        if not instance.hidden:
            region = instance.region
            share = (region.x1 / layout.width, region.y1 / layout.height) + (
                region.x2 / layout.width,
                region.y2 / layout.height,
            )
            clipped = tuple(min(max(v, 0.0), 1.0) for v in share)
            file = files.get(str(instance.reference)) if instance.reference is not None else None
            out.append(Subject(clipped, file, instance.label))  # type: ignore[arg-type]
    return tuple(out)


# ---- diffusers -----------------------------------------------------------------------------------------------------

SMALL = "tiny"
_KNOWN = ("layout", "layout_image", "references", "prompt", "seed")


@dataclass(frozen=True)
class Job:
    """A row for diffusers. shape: what pictures made together have in common."""

    prepared: Prepared
    prompt: str


@dataclass(frozen=True)
class DiffusersBackend:
    """A method on diffusers, the layout's candidates in one batch. model: a pipeline's local folder, or ``tiny``.

    Rows have layout, references ({name: file}), prompt, seed, and layout_image (the layout's own picture)."""

    model: str = SMALL
    adapter: Path | None = None
    method: str = "contextgen"
    steps: int = 28
    guidance: float = 2.5
    device: str = "cpu"
    threads: int = 1
    allowed: tuple[Path, ...] = ()
    workers: int | None = field(default=None)

    @property
    def digest(self) -> str:
        adapter = self.adapter and hashlib.sha256(self.adapter.read_bytes()).hexdigest()
        return describe([self.model, adapter, self.method, self.steps, self.guidance, self.device, self.threads])

    def check(self) -> list[str]:
        from ..methods.registry import method as method_named

        method_named(self.method)
        if self.model != SMALL and not (Path(self.model) / "model_index.json").is_file():
            raise InputError(
                f"--diffusers {shorten(self.model, 80)} is no pipeline's folder (it has no model_index.json);"
                f" give one, or {SMALL}."
            )
        if self.adapter is not None and not self.adapter.is_file():
            raise InputError(f"the adapter {shorten(str(self.adapter), 80)} is not there; check --adapter.")
        return []

    def prepare(self, row: Row, base: Path) -> Task:

        from ..composite.compose import compose
        from ..composite.references import Reference, subject_from_image
        from ..tiny.model import REFERENCE_TOKENS
        from ..verbs import prepare

        for name in ("layout", "prompt"):
            if name not in row.values:
                raise InputError(f"the row has no {name}; add the column.")
        text = row.values["layout"]
        layout = Layout.from_json(text)
        if not isinstance(row.values["prompt"], str):
            raise InputError(f"prompt is {shorten(row.values['prompt'])}; give text.")
        given = row.values.get("references", {})
        if not isinstance(given, Mapping):
            raise InputError(f"references is {shorten(given)}; give an object with a file for each name.")
        files = {str(name): inside(file, base, self.allowed) for name, file in given.items()}
        tokens = REFERENCE_TOKENS if self.model == SMALL else 0
        references = []
        for name, file in files.items():
            references.append(Reference(name, *subject_from_image(open_picture(file)), tokens=tokens))
        own = None
        if "layout_image" in row.values:
            own = np.asarray(open_picture(inside(row.values["layout_image"], base, self.allowed)).convert("RGBA"))
        prepared = prepare(compose(layout, references, own_composite=own), self.method)
        extra = {k: v for k, v in row.values.items() if k not in _KNOWN}
        seed = seed_of(row.id, row.values.get("seed"))
        return Task(row, Job(prepared, row.values["prompt"]), seed, subjects(layout, files), extra)

    def open(self) -> Worker:
        import torch

        torch.set_num_threads(self.threads)
        return _Diffusers(self)


class _Diffusers:
    def __init__(self, backend: DiffusersBackend) -> None:
        self.backend = backend
        self.model, self.encode = (_small if backend.model == SMALL else _pipeline)(backend)

    def make(self, task: Task, seeds: list[int]) -> list[Made]:
        from PIL import Image

        from ..verbs import sample

        start = time.monotonic()
        text, pooled = self.encode(task.work.prompt)
        made = sample(
            self.model, task.work.prepared, text, pooled, steps=self.backend.steps, seed=seeds,
            guidance=self.backend.guidance, batch=len(seeds),
        )  # fmt: skip
        seconds = (time.monotonic() - start) / len(seeds)
        out = []
        for seed, pixels in zip(seeds, made, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            out.append(Made(buffer.getvalue(), seed, seconds))
        return out

    def close(self) -> None:
        """Its memory ends with the process."""


Encode = Callable[[str], Any]


def _small(backend: DiffusersBackend) -> tuple[DiffusersModel, Encode]:
    from ..commands.demo import small_model
    from ..hosts.diffusers import merge_adapter
    from ..lora.adapter import load_adapter
    from ..methods.contextgen.prompt import wrap
    from ..tiny import model as tiny

    def encode(prompt: str) -> tuple[Any, Any]:
        words = tiny.encode_words(wrap(prompt) if backend.method == "contextgen" else prompt)
        return words.tokens[None], words.pooled[None]

    model = small_model(None)
    if backend.adapter is not None:
        merge_adapter(model.transformer, load_adapter(backend.adapter))
    return model, encode


def _pipeline(backend: DiffusersBackend) -> tuple[DiffusersModel, Encode]:
    import torch
    from diffusers import FluxKontextPipeline

    from ..hosts.diffusers import merge_adapter
    from ..lora.adapter import load_adapter
    from ..methods.contextgen.prompt import wrap
    from ..verbs import DiffusersModel

    kind = torch.float32 if backend.device == "cpu" else torch.bfloat16
    pipeline = FluxKontextPipeline.from_pretrained(backend.model, torch_dtype=kind, local_files_only=True)
    pipeline.to(backend.device)
    if backend.adapter is not None:
        merge_adapter(pipeline.transformer, load_adapter(backend.adapter))

    @torch.no_grad()
    def encode(prompt: str) -> tuple[Any, Any]:
        worded = wrap(prompt) if backend.method == "contextgen" else prompt
        text, pooled, _ = pipeline.encode_prompt(prompt=worded, prompt_2=None, max_sequence_length=512)
        return text, pooled

    return DiffusersModel.from_pipeline(pipeline), encode
