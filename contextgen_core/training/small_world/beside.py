"""What a method reads of encoded scenes besides them: drawn again from the scenes' keys, encoded once, and kept in a
folder of its own within theirs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..config import Config
from ..latents import LatentSet
from ..parts import autoencoder

logger = logging.getLogger("contextgen")
Arrays = dict[str, np.ndarray]
_PORTION = 250  # scenes that a worker draws at a time


def read_beside(folder: Path, fields: Mapping[str, Any], stage: str) -> Arrays:
    """The fields that a stage kept in a folder, memory-mapped. Raises InputError where they are not there."""
    if not all((folder / f"{name}.npy").is_file() for name in fields):
        raise InputError(f"{str(folder)!r} is not there or not whole; run the stage {stage!r} first.")
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in fields}


def make_beside(
    config: Config,
    name: str,
    fields: Mapping[str, tuple[int, int] | None],
    portion: Callable[[Config, np.ndarray], Arrays],
) -> int:
    """Makes the fields of all scenes in data.path (or the folders in it that data.folders names), on all cores, and
    keeps them in the folder ``name`` of each set; returns of how many scenes.

    fields   each with the axis that counts members and what fills it up, None where there is no such axis
    portion  of a config and scenes' keys (N, 3), see :class:`..latents.LatentSet`
    """
    if not config.data.path:
        raise InputError("data.path is empty in the training config; give the folder of the encoded scenes.")
    folders = [Path(config.data.path) / inner for inner in config.data.folders] or [Path(config.data.path)]
    autoencoder(config)  # a missing file is told before anything starts
    return sum(_make(config, folder, name, fields, portion) for folder in folders)


def _make(
    config: Config,
    folder: Path,
    name: str,
    fields: Mapping[str, tuple[int, int] | None],
    portion: Callable[[Config, np.ndarray], Arrays],
) -> int:
    keys = np.asarray(LatentSet.load(folder).keys)
    starts = range(0, len(keys), _PORTION)
    work = [config] * len(starts), [keys[start : start + _PORTION] for start in starts]
    workers = min(config.threads or os.cpu_count() or 1, len(starts))
    parts: list[Arrays] = []
    with ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else nullcontext() as pool:
        for part in (pool.map if pool else map)(portion, *work):
            parts.append(part)
            done = sum(len(next(iter(p.values()))) for p in parts)
            logger.info("%s: %d of %d scenes", folder.name, done, len(keys))
    (folder / name).mkdir(exist_ok=True)
    for field, ragged in fields.items():
        np.save(folder / name / f"{field}.npy", np.concatenate(_alike([part[field] for part in parts], ragged)))
    return len(keys)


def _alike(parts: list[np.ndarray], ragged: tuple[int, int] | None) -> list[np.ndarray]:
    """The parts with as many members each."""
    if ragged is None:
        return parts
    axis, fill = ragged
    most = max(part.shape[axis] for part in parts)
    pads = [[(0, most - part.shape[a] if a == axis else 0) for a in range(part.ndim)] for part in parts]
    return [np.pad(part, pad, constant_values=fill) for part, pad in zip(parts, pads, strict=True)]
