"""Checkpoints in PyTorch's form from strangers: tensors alone, no more of them than the file holds, nothing is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .checks import shorten

MAX_TENSORS = 20_000
MAX_NAME = 300
_SLACK = 65536  # bytes of headers; besides a tenth, for padding


def check_names(file: str, names: Iterable[str]) -> None:
    """Refuses names of tensors that no sentence can show: too long, or with signs that change how a line is read."""
    for name in names:
        if len(name) > MAX_NAME or not name.isprintable():
            raise InputError(f"{file} names a tensor {shorten(name)}, which no model has; download it again.")


def read_checkpoint(path: Path, wanted: str) -> dict[str, Tensor]:
    """The tensors of a file that ``torch.save`` wrote, on the CPU. wanted: what to choose instead, for the sentences.

    Raises InputError, naming the file, for one that holds anything but dense tensors by name, that states more data
    than it has, or that is damaged.
    """
    name, size = path.name, path.stat().st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(record.file_size for record in archive.infolist()) > size:  # torch never packs them
                    raise InputError(f"{name} holds packed records, which no checkpoint does; choose {wanted}.")
        value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"{name} holds more than tensors, which could be code, and is not read; get {wanted} from its authors, or"
            " in the safetensors format."
        ) from None
    except Exception as error:  # a damaged file lets the reader stumble over whatever it comes upon
        reason = shorten(str(error).split("\n")[0] or type(error).__name__, 100)
        raise InputError(f"{name} is damaged or cut off ({reason}); download it again.") from None
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        raise InputError(f"{name} is no dictionary of tensors; choose {wanted}.")
    if len(value) > MAX_TENSORS:
        raise InputError(f"{name} lists {len(value)} tensors, more than the {MAX_TENSORS} that are read.")
    check_names(name, value)
    for key, tensor in value.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(f"{name} holds {shorten(key)} as something else than plain numbers; choose {wanted}.")
    if sum(tensor.numel() * tensor.element_size() for tensor in value.values()) > 1.1 * size + _SLACK:
        raise InputError(f"{name} states more tensor data than the file holds; download it again.")
    return {key: tensor.detach() for key, tensor in value.items()}
