"""Adapters, model files and pictures: the real ones, and what is done with a case."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..frame import ROOT
from . import mutate as change

TESTS = ROOT / "tests"
GOLDEN = TESTS / "golden"


def adapter_seeds() -> list[bytes]:
    """Small files of each spelling, as their makers write them."""
    import torch
    from safetensors.torch import save

    def pair(stem: str, down: str = "lora_A.weight", up: str = "lora_B.weight", width: int = 8) -> dict[str, Any]:
        return {f"{stem}.{down}": torch.ones(2, width), f"{stem}.{up}": torch.ones(width, 2)}

    peft = pair("transformer.transformer_blocks.0.attn.to_q") | pair(
        "transformer.single_transformer_blocks.1.attn.to_k"
    )
    kohya = pair("lora_unet_double_blocks_0_img_attn_proj", "lora_down.weight", "lora_up.weight")
    kohya["lora_unet_double_blocks_0_img_attn_proj.alpha"] = torch.tensor(1.0)
    qwen = pair("transformer_blocks.0.attn.to_q", "lora_A.default.weight", "lora_B.default.weight")
    config = json.dumps(
        {"transformer.lora_alpha": 4, "transformer.r": 2, "transformer.alpha_pattern": {"attn.to_q": 8}}
    )
    made = [save(peft, {"lora_adapter_metadata": config}), save(peft, {"rank": "2", "alpha": "4"}), save(kohya)]
    made += [save(qwen), save({k: v.to(torch.bfloat16) for k, v in peft.items()})]
    made += [save({k: v.to(torch.float8_e4m3fn) for k, v in peft.items()}), save({})]
    return made


def adapters(folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.lora.adapter import flux_shapes, load_adapter, match, qwen_shapes, to_diffusers

    file = folder / "adapter.safetensors"
    families = (("FLUX.1", flux_shapes(8, 2, 2)), ("Qwen-Image", qwen_shapes(8, 2)))

    def attempt(case: bytes) -> object:
        file.write_bytes(case)
        model, shapes = families[len(case) % 2]
        adapter = load_adapter(file, model)
        match(adapter, shapes)
        return to_diffusers(adapter), [pair.delta() for pair in adapter.pairs if max(pair.shape) < 4096]

    return attempt


def assemble_seeds() -> list[bytes]:
    """The golden layout weights and pairs, as one file and each alone, cut down to a few KB where they can be."""
    from contextgen_core.methods.instance_assemble.encoder import AssembleWeights  # noqa: F401  the pack can be read

    folder = GOLDEN / "instance_assemble"
    return [(folder / name).read_bytes() for name in ("layout.safetensors", "sd3_layout.safetensors")] + _checkpoints(
        folder / "layout.safetensors"
    )


def _checkpoints(source: Path) -> list[bytes]:
    """The same weights in PyTorch's form, and what strangers put into such files."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(source)
    one = next(iter(tensors))
    wide = torch.ones(1).expand(1 << 20, 1 << 14)
    empty = {**tensors, one: torch.empty(0)}
    sparse = {**tensors, one: torch.ones(3, 3).to_sparse()}
    quantised = {**tensors, one: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.quint8)}
    nested = {"state_dict": tensors}
    values = [tensors, {**tensors, one: wide}, empty, sparse, quantised, nested, [tensors], tensors[one], 3, None]
    values += [{**tensors, one: torch.ones(2, 2, dtype=torch.complex64)}, {1: tensors[one]}, _Code()]
    values += [{**tensors, one: torch.empty(4, 4, device="meta")}, {**tensors, one: torch.nn.Parameter(tensors[one])}]
    made = []
    for value in values:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        made.append(buffer.getvalue())
    for value in (values[0], values[1], _Code()):
        buffer = io.BytesIO()
        torch.save(value, buffer, _use_new_zipfile_serialization=False)
        made.append(buffer.getvalue())
    return made


class _Code:
    """Would make a folder where a file is unpickled as Python does it."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, ("contextgen-fuzz-was-here",)


def checkpoint_bytes(rng: random.Random, data: bytes) -> bytes:
    """A zip with its pickle, its names or its sizes changed; or any bytes."""
    if not data.startswith(b"PK") or rng.random() < 0.4:
        return change.any_bytes(rng, data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = [[name, archive.read(name)] for name in archive.namelist()]
    except Exception:  # what earlier changes have left of it is no zip any more
        return change.any_bytes(rng, data)
    if not parts:
        return change.any_bytes(rng, data)
    pickled = [part for part in parts if part[0].endswith("data.pkl")]
    part = rng.choice(pickled) if pickled and rng.random() < 0.7 else rng.choice(parts)
    kind = rng.randrange(6)
    if kind < 4:
        part[1] = change.any_bytes(rng, part[1])
    elif kind == 4:
        part[0] = rng.choice(("../x", "/etc/x", "a/" * 40 + "b", "data.pkl", part[0].upper()))
    else:
        parts.remove(part)
    out = io.BytesIO()
    form = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", form) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return out.getvalue()


def assembles(folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.methods.instance_assemble.files import read_files

    lora = GOLDEN / "instance_assemble" / "pytorch_lora_weights.safetensors"
    pairs = folder / "pairs.safetensors"
    pairs.write_bytes(lora.read_bytes())
    file = folder / "layout.pth"

    def attempt(case: bytes) -> object:
        file.write_bytes(case)
        return read_files(file, None if len(case) % 4 == 0 else pairs).build()

    return attempt


def sam_seeds() -> list[bytes]:
    import sys

    import torch
    from safetensors.torch import save

    sys.path.insert(0, str(TESTS / "support"))
    import sam_tiny  # pyright: ignore[reportMissingImports]

    from contextgen_core.cutout import sam

    state = sam_tiny.tiny_state(sam)
    made = [save({k: v.contiguous() for k, v in state.items()})]
    wide = {**state, next(iter(state)): torch.ones(1).expand(1 << 20, 1 << 14)}
    for value in (
        state,
        wide,
        {"model": state},
        _Code(),
        [1],
        {**state, next(iter(state)): torch.ones(3, 3).to_sparse()},
    ):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        made.append(buffer.getvalue())
    return made


def sams(folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.cutout.sam import read_shape, read_state

    def attempt(case: bytes) -> object:
        file = folder / ("sam.pth" if case.startswith((b"PK", b"\x80")) else "sam.safetensors")
        file.write_bytes(case)
        return read_shape(read_state(file))

    return attempt


CHECKPOINTS = change.by_kind([(b"PK", checkpoint_bytes), (b"\x80", change.any_bytes), (b"", change.tensors_bytes)])


# --- pictures -------------------------------------------------------------------------------------------------------


def picture_seeds() -> list[bytes]:
    """Every mode and form that people have, and those that they should not."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(1)
    colours = rng.integers(0, 256, (40, 32, 3), np.uint8)
    clear = np.dstack([colours, np.where(np.indices((40, 32))[1] > 9, 255, 0).astype(np.uint8)])
    rgb, rgba = Image.fromarray(colours), Image.fromarray(clear)
    made: list[bytes] = []

    def keep(picture: Image.Image, form: str, **options: Any) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        made.append(buffer.getvalue())

    for mode in ("RGBA", "LA", "RGB", "L", "1", "P"):
        keep(rgba.convert(mode), "PNG")
    keep(rgba.quantize(16), "PNG")
    keep(rgb.quantize(8), "PNG", transparency=3)
    keep(rgb, "PNG", transparency=(1, 2, 3))
    keep(Image.fromarray(colours[..., 0].astype(np.uint16) << 8), "PNG")
    keep(rgb.convert("CMYK"), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    keep(rgb, "JPEG", exif=exif)
    keep(rgba, "PNG", exif=exif)
    keep(rgba, "WEBP", lossless=True)
    keep(rgba, "WEBP", save_all=True, append_images=[rgba.rotate(90)], duration=40)
    keep(rgba, "GIF", save_all=True, append_images=[rgba, rgba.rotate(45)], transparency=0)
    keep(rgba, "PNG", save_all=True, append_images=[rgba.rotate(90)])
    keep(rgba, "TIFF", compression="tiff_lzw")
    keep(Image.fromarray(colours[..., 0].astype(np.float32)), "TIFF")
    keep(rgb.convert("YCbCr"), "TIFF")
    keep(rgba, "ICO", sizes=[(32, 32)])
    for form in ("BMP", "TGA", "PPM", "PCX", "DDS", "QOI", "JPEG2000", "SGI", "PDF", "EPS"):
        try:
            keep(rgba if form in ("TGA", "DDS", "QOI", "JPEG2000") else rgb, form)
        except (OSError, KeyError):  # Pillow was built without it
            continue
    return [*made, *bombs()]


def bombs() -> list[bytes]:
    """Small PNGs that say they are large: all of one colour, and a header alone."""
    import struct
    import zlib

    def png(width: int, height: int, kind: int, body: bytes) -> bytes:
        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    zeros = zlib.compress(bytes(1 << 20))
    text = zlib.compress(bytes(1 << 24), 9)
    return [
        *(png(side, side, 6, zeros) for side in (16384, 13000, 8192)),
        png(50000, 50000, 0, zeros),
        png(0x7FFFFFFF, 0x7FFFFFFF, 2, b""),
        png(0, 0, 2, b""),
        png(4096, 4096, 6, text),
    ]


def pictures(folder: Path) -> Callable[[bytes], object]:
    from contextgen_core.bulk.score import read_subject

    file = folder / "picture"

    def attempt(case: bytes) -> object:
        file.write_bytes(case)
        return read_subject(file)

    return attempt
