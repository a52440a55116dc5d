"""Checkpoints: what trains, its average, the optimizer and the step; written whole or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import InputError
from .shard import alike

logger = logging.getLogger("contextgen")
_MARK = "state.json"


class Checkpoint(NamedTuple):
    """step: how many steps are done; tensors: what trains, and buffers; average: the EMA, maybe empty; extra:
    fixed tensors (the DPO anchor)."""

    step: int
    seconds: float
    tensors: dict[str, Tensor]
    average: dict[str, Tensor]
    extra: dict[str, Tensor]
    optimizer: Any


def training_state(model: nn.Module) -> dict[str, Tensor]:
    """What a step changes: parameters that train, and buffers."""
    state = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return state | {
        f"buffer:{name}": b.detach() for name, b in model.named_buffers() if b.numel() and b.is_floating_point()
    }


def restore(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies a saved training state back. Raises InputError when it belongs to another model."""
    own = training_state(model)
    if set(own) != set(tensors) or any(own[k].shape != tensors[k].shape for k in own):
        raise InputError(
            "The checkpoint in the output folder belongs to another model or adapter rank;"
            " choose another output folder or the settings it was started with."
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(alike(tensors[name], value))


def save(folder: Path, checkpoint: Checkpoint, config: Mapping[str, Any], keep: int) -> Path:
    """Writes `folder`/step_NNNNNN atomically, and removes the oldest beyond `keep`."""
    target = folder / f"step_{checkpoint.step:06d}"
    draft = folder / f".draft_{checkpoint.step:06d}"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, tensors in (
            ("trained", checkpoint.tensors),
            ("average", checkpoint.average),
            ("extra", checkpoint.extra),
        ):
            save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, draft / f"{name}.safetensors")
        torch.save(checkpoint.optimizer, draft / "optimizer.pt")
        state = {"step": checkpoint.step, "seconds": checkpoint.seconds, "config": config}
        (draft / _MARK).write_text(json.dumps(state, indent=1))
        if target.exists():
            shutil.rmtree(target)
        os.replace(draft, target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise _saving_failed(folder, checkpoint.step, error) from error
    for old in sorted(folder.glob("step_*"))[: -max(keep, 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _saving_failed(folder: Path, step: int, error: OSError) -> InputError:
    why = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
    last = latest(folder)
    kept = f"the checkpoint {last.name} is intact" if last else "there is no earlier checkpoint"
    return InputError(
        f"The checkpoint of step {step} could not be written to {str(folder)!r}: {why}; {kept}, make room and"
        " start again."
    )


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint."""
    found = sorted(p for p in folder.glob("step_*") if (p / _MARK).is_file())
    return found[-1] if found else None


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint to the CPU. The optimizer state is read without executing anything (weights_only)."""
    try:
        state = json.loads((path / _MARK).read_text())
        tensors, average, extra = (load_file(path / f"{n}.safetensors") for n in ("trained", "average", "extra"))
        optimizer = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"The checkpoint {str(path)!r} is damaged; delete that folder to resume from the one before."
        ) from error
    return Checkpoint(state["step"], state["seconds"], tensors, average, extra, optimizer)
