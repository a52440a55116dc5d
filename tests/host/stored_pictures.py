"""The pictures that the small workflows are known to make, stored beside the tests, and the comparison with them.

A picture is named WORKFLOW/NODE/NUMBER. What is only composed (cut-outs, composites, layouts) is the same on every
machine and host: pictures.json holds its digest under "composed". What the model painted is the same to one step of
255 everywhere (pictures/ holds it as PNG) and exactly the same where the arithmetic is: "painted" holds digests by
arithmetic, then by the host's version. Arithmetic is known by a control computation that no code of ours takes part in.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import live_server
import numpy as np
import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parent / "pictures"
RECORD = Path(__file__).resolve().parent / "pictures.json"
TEMPLATES = Path(__file__).resolve().parents[2] / "workflows"
OTHERWISE = "tiny_demo"  # its thumbnail is that of the demonstration (python -m contextgen_core.demo --update)
# Rounding of float32 in other orders: other threads, vector units or hosts turn up to 0.01 % of the values by one step.
STEP, SHARE = 1, 0.001

Pictures = dict[str, np.ndarray]


def made(server: live_server.Server, name: str, entry: dict[str, Any]) -> Pictures:
    """Every picture that a finished run of the workflow showed or saved, uint8 (height, width, channels), by name."""
    return {
        f"{name}/{node}/{number}": np.asarray(Image.open(io.BytesIO(encoded)))
        for node in sorted(entry["outputs"])
        for number, encoded in enumerate(server.images({"outputs": {node: entry["outputs"][node]}}))
    }


def painted(prompt: dict[str, Any], node: str) -> bool:
    """Whether a sampler lies upstream of the node, or is it."""
    sources = [str(value[0]) for value in prompt[node]["inputs"].values() if isinstance(value, list)]
    return prompt[node]["class_type"] == "KSampler" or any(painted(prompt, source) for source in sources)


def digest(pixels: np.ndarray) -> str:
    """sha256 of the shape and the uint8 values."""
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels are {pixels.dtype}, not uint8")
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def arithmetic() -> str:
    """Names how this interpreter's torch computes on this machine: its version, threads, and a digest of what the
    small model computes with (matrix products, attention, norms, convolutions), at its sizes."""
    threads, before = int(os.environ["OMP_NUM_THREADS"]), torch.get_num_threads()
    torch.set_num_threads(threads)  # as the server does, which reads the same variable
    try:
        values = _control()
    finally:
        torch.set_num_threads(before)
    total = hashlib.sha256(b"".join(value.contiguous().numpy().tobytes() for value in values)).hexdigest()
    return f"torch {torch.__version__}, {threads} threads, {total[:16]}"


@torch.inference_mode()
def _control() -> list[torch.Tensor]:
    functional = torch.nn.functional
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        # Whole numbers over a power of two do not depend on the machine; with 24 bits, so that every sum is rounded
        # and shows its order.
        return torch.randint(-(1 << 24), 1 << 24, shape, generator=generator).float() / (1 << 23)

    results = []
    for tokens in (17, 64, 200, 336):
        x = numbers(1, tokens, 128)
        query, key, value = functional.linear(x, numbers(384, 128), numbers(384)).unflatten(-1, (3, 1, 128)).unbind(2)
        query, key = (functional.rms_norm(one, (128,)).transpose(1, 2) for one in (query, key))
        attended = functional.scaled_dot_product_attention(query, key, value.transpose(1, 2))
        weights = torch.softmax(query @ key.transpose(-1, -2) / 128**0.5, -1)
        angle = torch.outer(torch.arange(tokens), 10000 ** -(torch.arange(64) / 64))
        turned = torch.cat([angle.cos(), angle.sin()], -1) * functional.layer_norm(x, (128,))
        hidden = functional.gelu(functional.linear(turned, numbers(512, 128) / 16), approximate="tanh")
        mixed = functional.silu(functional.linear(hidden, numbers(128, 512) / 16))
        results += [attended, weights @ value.transpose(1, 2), weights.logsumexp(-1), mixed]
    for channels, size in ((16, 16), (64, 64), (3, 128)):
        x = functional.conv2d(numbers(1, channels, size, size), numbers(32, channels, 3, 3) / 16, padding=1)
        results.append(functional.silu(functional.group_norm(x, 8)))
        results.append(functional.interpolate(x, scale_factor=2, mode="bilinear"))
    return results


def load() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))


def names(record: dict[str, Any], workflow: str = "") -> set[str]:
    """The names of the stored pictures, of one workflow or of all."""
    files = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.png")}
    return {name for name in {*record["composed"], *files} if name.startswith(f"{workflow}/" if workflow else "")}


def _stored(name: str) -> np.ndarray:
    return np.asarray(Image.open(FOLDER / f"{name}.png"))


def _apart(pixels: np.ndarray, stored: np.ndarray) -> str:
    """What is wrong with a painted picture on any machine; empty when it is the stored one but for rounding."""
    if pixels.shape != stored.shape:
        return f"{pixels.shape}, stored {stored.shape}"
    difference = np.abs(pixels.astype(np.int16) - stored)
    share = float((difference > 0).mean())
    if difference.max() <= STEP and share <= SHARE:
        return ""
    return f"up to {difference.max()} of 255 from the stored one, {share:.2%} of the values differ"


def complaints(
    record: dict[str, Any], prompt: dict[str, Any], pictures: Pictures, here: str, version: str
) -> list[str]:
    """One line for each picture of a workflow that is not the stored one.

    here: `arithmetic()`; version: of the host, as in "0.30.0"."""
    exact = record["painted"].get(here, {}).get(version, {})
    out = []
    for name, pixels in pictures.items():
        if not painted(prompt, name.split("/")[1]):
            if digest(pixels) != record["composed"].get(name):
                out.append(f"{name}: composed anew, or not stored")
        elif not (FOLDER / f"{name}.png").exists():
            out.append(f"{name}: not stored")
        elif wrong := _apart(pixels, _stored(name)):
            out.append(f"{name}: {wrong}")
        elif name in exact and digest(pixels) != exact[name]:
            out.append(f"{name}: equal but for rounding, where this machine's arithmetic gave other bytes before")
    return out


def update(
    record: dict[str, Any], workflow: str, prompt: dict[str, Any], pictures: Pictures, here: str, version: str
) -> None:
    """Stores what a workflow made: in `record`, in its file and as PNG.

    A stored PNG stays while it differs by rounding alone, so that hosts and machines share one. Where the bytes
    changed at the same arithmetic, what other machines and hosts recorded is out of date, and goes."""
    digests = record["painted"].setdefault(here, {}).setdefault(version, {})
    records = [of_host for of_machine in record["painted"].values() for of_host in of_machine.values()]
    for name in names(record, workflow) - pictures.keys():
        record["composed"].pop(name, None)
        (FOLDER / f"{name}.png").unlink(missing_ok=True)
        for one in records:
            one.pop(name, None)
    for name, pixels in pictures.items():
        if not painted(prompt, name.split("/")[1]):
            record["composed"][name] = digest(pixels)
            continue
        file = FOLDER / f"{name}.png"
        if not file.exists() or _apart(pixels, _stored(name)):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file, optimize=True)
        if digests.get(name, digest(pixels)) != digest(pixels):
            for one in records:
                one.pop(name, None)
        digests[name] = digest(pixels)
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if (TEMPLATES / f"{workflow}.json").exists() and workflow != OTHERWISE:
        _thumbnail(workflow, [pictures[f"{workflow}/{node}/0"] for node in ("30", "42")])


def _thumbnail(workflow: str, pictures: list[np.ndarray]) -> None:
    """A template's picture in the browser of templates: the composite and what the small model made of it."""
    shown = [Image.fromarray(one[..., :3]).resize((256, 256), Image.Resampling.LANCZOS) for one in pictures]
    both = Image.new("RGB", (520, 256), (255, 255, 255))
    for number, one in enumerate(shown):
        both.paste(one, (264 * number, 0))
    both.save(TEMPLATES / f"{workflow}.jpg", quality=88)
