"""SAM checkpoints from the host's folder list, kept and moved by the host's model management."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import comfy.model_management
import comfy.model_patcher
import folder_paths

from ..contextgen_core.cutout.sam import Segmenter
from ..contextgen_core.errors import InputError

FOLDER = "sams"
NONE = "none"
SUFFIXES = (".pth", ".pt", ".safetensors")


class _Kept(NamedTuple):
    file: tuple[str, int, int]
    patcher: comfy.model_patcher.ModelPatcher


# The host forgets a model nobody holds, and nothing of a node survives its run. This holds the one model used last,
# so that the next click reads no file and finds its picture's embedding; the host moves it out of the GPU like any
# other.
_kept: list[_Kept] = []


def register_folder() -> None:
    """Make models/sams known, unless another pack already did."""
    if FOLDER not in folder_paths.folder_names_and_paths:
        folder = os.path.join(folder_paths.models_dir, FOLDER)
        folder_paths.folder_names_and_paths[FOLDER] = ([folder], set(folder_paths.supported_pt_extensions))


def model_names() -> list[str]:
    """The combo's choices: "none" and every checkpoint of the folder list."""
    register_folder()
    return [NONE, *(name for name in folder_paths.get_filename_list(FOLDER) if name.lower().endswith(SUFFIXES))]


def load(name: str) -> Segmenter:
    """The checkpoint of that name, on the host's device and ready. Raises InputError where there is none or it is no
    SAM."""
    register_folder()
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise InputError(f'there is no "{name}" in models/{FOLDER}; choose a SAM checkpoint that is there.')
    status = Path(path).stat()
    file = (path, status.st_size, status.st_mtime_ns)
    if not _kept or _kept[0].file != file:
        _kept.clear()  # before reading: two models need not fit into memory together
        patcher = comfy.model_patcher.ModelPatcher(
            Segmenter.from_file(path),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        _kept.append(_Kept(file, patcher))
    patcher = _kept[0].patcher
    model: Segmenter = patcher.model
    # SAM's plain layers cannot run half on the CPU; an encoder's attention over a whole picture needs a few times its
    # tokens squared.
    tokens = (model.shape.image_size // model.shape.patch) ** 2
    memory = 4 * model.shape.heads * tokens * tokens * 3
    comfy.model_management.load_models_gpu([patcher], memory_required=memory, force_full_load=True)
    return model
