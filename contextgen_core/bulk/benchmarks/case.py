"""A picture that a benchmark asks for, and the files of a download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...input.bounded_json import parse
from ...input.checks import finite_number, shorten

MAX_FILE_BYTES = 256 << 20
_POINTER = b"version https://git-lfs"

Share = tuple[float, float, float, float]  # left, top, right, bottom as parts of the canvas


class CaseBox(NamedTuple):
    """A box of a case.

    label: what the method is told of it. picture: of its subject, mask: white where the subject is (None: the whole
    picture). name: of the reference. fit: how the subject fills the box. tokens: of the reference, 0 = the method's
    own rule.
    """

    share: Share
    label: str = ""
    picture: Path | None = None
    mask: Path | None = None
    name: str = ""
    fit: str | None = None
    tokens: int = 0


@dataclass(frozen=True)
class Case:
    """One row. asked: what its scorer reads, plain JSON. composite: the layout's own picture (RGBA), where the
    download brings one."""

    id: str
    prompt: str
    size: tuple[int, int]
    seed: int
    boxes: tuple[CaseBox, ...]
    asked: Mapping[str, Any] = field(default_factory=dict)
    composite: Path | None = None


def locate(data: Path, names: Sequence[str], origin: str) -> Path:
    """The first of `names` (patterns, from the folder down) that lies in the download.

    Raises InputError, naming where it comes from, where none does, and for what is a mere pointer to it.
    """
    for name in names:
        for path in sorted(data.glob(name)):
            if path.is_file():
                with path.open("rb") as file:
                    if file.read(len(_POINTER)) == _POINTER:
                        raise InputError(f"{path.name} is a Git LFS pointer, not the file; fetch it with git lfs pull.")
            return path
    packed = next((p.name for p in sorted(data.rglob("*.tar.gz"))), None)
    hint = f"unpack {packed} there" if packed is not None else f"it comes from {origin}"
    raise InputError(f"{shorten(str(data), 80)} holds no {names[0]}; {hint}.")


def read_document(path: Path) -> object:
    """A JSON file of a download. Raises InputError for what is none, or larger than 256 MiB."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror or error}).") from None
    value, literals = parse(text, path.name, MAX_FILE_BYTES)
    if literals:
        raise InputError(f"{path.name} contains {literals[0]}, which is not JSON; download it again.")
    return value


def entries(value: object, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The items of a list, or of an object by its keys, each with how errors call it. Raises InputError."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value))
    else:
        raise InputError(f"{name} holds {shorten(value)}; download it again.")
    for key, item in pairs:
        where = f"{name}, item {key}"
        if not isinstance(item, Mapping):
            raise InputError(f"{where} is {shorten(item)}; download it again.")
        yield where, item


def wanted(item: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A value of an item. Raises InputError where it is missing or of another type."""
    value = item.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where} has {key} = {shorten(value)}; download the file again.")
    return value


def share_of(value: object, where: str, width: float = 1.0, height: float = 1.0) -> Share:
    """Four corners, in units of width and height, as parts of the canvas, clipped to it.

    Raises InputError for what is no box of the canvas.
    """
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise InputError(f"{where} has the box {shorten(value)}; it needs left, top, right, bottom.")
    x1, y1, x2, y2 = (finite_number(number, where, "box") for number in value)
    left, top, right, bottom = (
        min(max(number, 0.0), 1.0) for number in (x1 / width, y1 / height, x2 / width, y2 / height)
    )
    if right <= left or bottom <= top:
        raise InputError(f"{where} has the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}), which covers nothing of the canvas.")
    return left, top, right, bottom


def file_in(folder: Path, name: object, where: str) -> Path:
    """A file that a download names, inside `folder`; whether it is there is asked when it is needed.

    Raises InputError for a name that leads out of it.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"{where} names the file {shorten(name)}; download it again.")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{where} names {shorten(name, 80)}, which lies outside the download.")
    return path
