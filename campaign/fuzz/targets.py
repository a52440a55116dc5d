"""What is fuzzed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files, objects, text
from . import mutate as change


@dataclass(frozen=True)
class Target:
    """One kind of input.

    share: of the part's time. seeds(): real cases. mutate: a case from a case. attempt(folder): what is done with one,
    in a process of its own where the pack is imported only then; a file of the case may lie in ``folder``.
    strategy(): a hypothesis strategy instead of bytes. guided: whether atheris leads, which pays where a case is fast.
    """

    name: str
    what: str
    share: float
    suffix: str
    seeds: Callable[[], list[Any]]
    attempt: Callable[[Path], Callable[[Any], object]]
    mutate: change.Mutation = change.any_bytes
    strategy: Callable[[], Any] | None = None
    guided: bool = True

    def spelling(self, case: Any) -> bytes:
        """A case as the file that is kept of it."""
        return case if isinstance(case, bytes) else repr(case).encode("utf-8", "backslashreplace")


TARGETS = {
    target.name: target
    for target in (
        Target(
            "layouts",
            "layout text, read, written, scaled",
            3,
            ".json",
            text.layout_seeds,
            text.layouts,
            change.json_bytes,
        ),
        Target("boxes", "box texts of other packs", 2, ".json", text.box_seeds, text.boxes, change.json_bytes),
        Target(
            "box objects",
            "boxes as lists, arrays, tensors and segments",
            2,
            ".txt",
            list,
            objects.foreign,
            strategy=objects.box_objects,
        ),
        Target(
            "plans",
            "plans in conditionings, of each method, up to the forward pass",
            3,
            ".txt",
            objects.real_plans,
            objects.plans,
            strategy=objects.plan_values,
        ),
        Target(
            "requests", "the authors' request files", 1, ".json", text.request_seeds, text.requests, change.json_bytes
        ),
        Target(
            "clicks", "clicks and boxes of the cut-out", 1, ".json", text.click_seeds, text.clicks, change.json_bytes
        ),
        Target("results", "files of scores", 1, ".jsonl", text.result_seeds, text.results, change.json_lines),
        Target(
            "tables",
            "tables (JSON lines, CSV, Parquet), each row put into a workflow",
            3,
            ".bin",
            text.table_seeds,
            text.tables,
            change.by_kind([(b"{", change.json_lines), (b"", change.any_bytes)]),
        ),
        Target(
            "graphs",
            "workflows in API form for bulk runs",
            1,
            ".json",
            text.graph_seeds,
            text.graphs,
            change.json_bytes,
        ),
        Target(
            "adapters",
            "LoRA files with lying headers, FLUX.1 and Qwen-Image",
            3,
            ".safetensors",
            files.adapter_seeds,
            files.adapters,
            change.tensors_bytes,
        ),
        Target(
            "layout weights",
            "InstanceAssemble's files, safetensors and PyTorch's form with code",
            2,
            ".pth",
            files.assemble_seeds,
            files.assembles,
            files.CHECKPOINTS,
        ),
        Target(
            "SAM files",
            "SAM checkpoints, safetensors and PyTorch's form with code",
            1,
            ".pth",
            files.sam_seeds,
            files.sams,
            files.CHECKPOINTS,
        ),
        Target(
            "pictures",
            "picture files of 25 forms, damaged, turned, animated, bombs",
            3,
            ".bin",
            files.picture_seeds,
            files.pictures,
        ),
    )
}
