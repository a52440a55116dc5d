"""Picture files and checkpoints from strangers: a few formats, bounded, nothing is run, one sentence."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contextgen_core.composite.references import subject_from_image
from contextgen_core.errors import InputError
from contextgen_core.input import checkpoint_file
from contextgen_core.input.checkpoint_file import read_checkpoint
from contextgen_core.input.picture_file import MAX_PIXELS, open_picture
from contextgen_core.training import coco, imig, sigma_set

CLEAR = np.dstack([np.full((40, 32, 3), 90, np.uint8), np.where(np.indices((40, 32))[1] > 9, 255, 0).astype(np.uint8)])


def said(read: Any, *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        read(*arguments)
    text = str(caught.value)
    assert text.endswith(".") and text.isprintable() and len(text) < 300
    return text


def png(width: int, height: int) -> bytes:
    """A small file that says it is large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16384, 16384), (9000, 8000), (50000, 50000)])
def test_a_picture_is_refused_by_its_size_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    assert size[0] * size[1] > MAX_PIXELS
    (tmp_path / "bomb.png").write_bytes(png(*size))
    assert "bomb.png" in said(open_picture, tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "read",
    [
        imig.read_picture,
        lambda path: sigma_set.read_pixels(path, "RGB", "line 1"),
        lambda path: coco.read_square(coco.Item(path, 9000, 8000, "", ()), 64),
    ],
    ids=["imig", "sigma_set", "coco"],
)
def test_a_training_set_is_bounded_as_well(tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    (tmp_path / "bomb.png").write_bytes(png(9000, 8000))
    assert "is 9000 x 8000 pixels" in said(read, tmp_path / "bomb.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.png", "EPS")
    assert "no picture of a known format" in said(read, tmp_path / "picture.png")


def test_a_form_that_starts_another_program_is_not_opened(tmp_path: Path) -> None:
    """Pillow reads EPS with Ghostscript."""
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.png", "EPS")
    assert "no picture of a known format" in said(open_picture, tmp_path / "picture.png")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF"])
def test_a_damaged_picture_is_one_sentence(tmp_path: Path, form: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(CLEAR).save(buffer, form)
    whole = buffer.getvalue()
    for cut in range(0, len(whole), 7):
        for damage in (whole[:cut], whole[:cut] + b"\xff\xff" + whole[cut + 2 :]):
            (tmp_path / "some").write_bytes(damage)
            try:
                subject_from_image(open_picture(tmp_path / "some"))
            except InputError as error:
                assert str(error).isprintable() and str(error).endswith(".")


def test_a_picture_comes_upright_with_its_transparency(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(CLEAR).save(tmp_path / "turned.png", exif=exif)
    assert open_picture(tmp_path / "turned.png").size == (40, 32)
    assert open_picture(tmp_path / "turned.png", upright=False).size == (32, 40)
    Image.fromarray(CLEAR).quantize(8).save(tmp_path / "palette.png")
    mask = subject_from_image(open_picture(tmp_path / "palette.png"))[1]
    assert not mask[:, :9].any() and mask[:, 10:].all()


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    assert "nowhere.png" in said(open_picture, tmp_path / "nowhere.png")


# --- checkpoints ----------------------------------------------------------------------------------------------------


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("a-checkpoint-was-run",)


SOME = {"a": torch.ones(2, 3)}
REFUSED = {
    "a view wider than its data": {"a": torch.ones(1).expand(1 << 20, 1 << 14)},
    "sparse": {"a": torch.ones(3, 3).to_sparse()},
    "quantised": {"a": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.quint8)},
    "without data": {"a": torch.empty(4, 4, device="meta")},
    "nested": {"model": SOME},
    "a list": [SOME["a"]],
    "unnamed": {1: SOME["a"]},
    "names of another direction": {"\u202ea": SOME["a"]},
    "names without end": {"a" * 5000: SOME["a"]},
    "code": {"a": Code()},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_tensor_is_refused(tmp_path: Path, kind: str) -> None:
    torch.save(REFUSED[kind], tmp_path / "some.pth")
    assert "some.pth" in said(read_checkpoint, tmp_path / "some.pth", "the published file")
    assert not Path("a-checkpoint-was-run").exists()


def test_packed_records_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(1 << 18)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as source, zipfile.ZipFile(tmp_path / "some.pth", "w", 8) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    monkeypatch.setattr(checkpoint_file.torch, "load", lambda *_, **__: pytest.fail("it was read"))
    assert "packed" in said(read_checkpoint, tmp_path / "some.pth", "the published file")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, zipped: bool) -> None:
    torch.save(SOME, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pth").read_bytes()
    read = read_checkpoint(tmp_path / "whole.pth", "x")
    assert torch.equal(read["a"], SOME["a"])
    for cut in range(0, len(whole), 23):
        for damage in (whole[:cut], whole[:cut] + b"\xff" + whole[cut + 1 :]):
            (tmp_path / "some.pth").write_bytes(damage)
            try:
                read_checkpoint(tmp_path / "some.pth", "the published file")
            except InputError as error:
                assert str(error).isprintable() and str(error).endswith(".")
