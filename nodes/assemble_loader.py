"""InstanceAssembleLoader: reads the weights of InstanceAssemble and says what it found."""

from __future__ import annotations

import logging
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.instance_assemble.files import read_files
from ..contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from ..contextgen_core.tiny.model import FOLDER, METHOD_ADAPTERS, adapter_path
from .adapter import SHIPPED
from .sockets import AssembleType, naming, schema

log = logging.getLogger("contextgen")

NODE = "InstanceAssembleLoader"
NONE = "none"
FORMS = (".pth", ".pt", ".safetensors", ".sft")


class InstanceAssembleLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [name for name in folder_paths.get_filename_list("loras") if name.lower().endswith(FORMS)]
        there = (FOLDER / METHOD_ADAPTERS[INSTANCE_ASSEMBLE.name]).is_file()
        return schema(
            node_id=NODE,
            search_aliases=["layout.pth", "layout weights", "grounding", "phrase boxes", "instanceassemble", "bbox"],
            inputs=[
                io.Combo.Input(
                    "layout_weights",
                    options=[*files, *[SHIPPED + INSTANCE_ASSEMBLE.name] * there],
                ),
                io.Combo.Input(
                    "lora",
                    options=[NONE, *files],
                    default=NONE,
                    optional=True,
                ),
            ],
            outputs=[
                AssembleType.Output(
                    "weights",
                ),
                io.String.Output(
                    "report",
                ),
            ],
        )

    @classmethod
    def execute(cls, layout_weights: str, lora: str = NONE) -> io.NodeOutput:
        first = _path(layout_weights, "layout_weights")
        second = None if lora == NONE else _path(lora, "lora")
        with naming(NODE, "layout_weights" if second is None else "lora"):
            file = read_files(first, second)
        lines = [
            f"{file.name}: {file.family}, width {file.width}, pooled text {file.pooled},"
            f" {len(file.blocks)} layout blocks, rank {', '.join(map(str, file.ranks))}"
            f"{', phrases and pictures' if file.pictures else ', phrases'}"
        ]
        if file.ignored:
            shown = ", ".join(file.ignored[:8]) + (", ..." if len(file.ignored) > 8 else "")
            lines.append(f"{len(file.ignored)} names without effect, as in the authors' code: {shown}")
        report = "\n".join(lines)
        log.info("%s: %s", NODE, report.replace("\n", "; "))
        return io.NodeOutput(file, report, ui={"text": [report]})


def _path(name: str, input: str) -> Path:
    if name.startswith(SHIPPED):
        with naming(NODE, input):
            return adapter_path(name.removeprefix(SHIPPED))
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise InputError(f"there is no file '{name[:100]}' in the loras folder; choose one from the list.", NODE, input)
    return Path(path)
