"""Changes to real inputs: JSON by its structure, any bytes by their place, a container by its parts."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

# As text, so that what JSON cannot say (NaN, a number of 400 digits) is among them.
SCALARS = (
    "0", "-0", "1", "-1", "0.5", "2", "1e-320", "1e308", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "true",
    "false", "null", '""', '" "', '"a"', '"0"', '"\\ud800"', '"\\u0000"', '"\\u202e"', '"\\n"', '"../../etc/passwd"',
    "[]", "{}", "[[]]", "[0,0,0,0]", "[1,2,3,4]", '{"":0}', "65", "360", "-180", "1000000", "1000001", "16384", "16385",
    "9" * 30, "9" * 400, "4294967296", "-2147483649", "9223372036854775808", "18446744073709551616", "50", "51",
    '"' + "x" * 300 + '"', '"<img src=x>"', '"__proto__"', "1.0000000000000001", "0.1", "1E5",
)  # fmt: skip
_BYTES = (0, 1, 2, 7, 10, 13, 34, 44, 45, 48, 58, 91, 92, 93, 123, 125, 127, 128, 192, 237, 254, 255)


class Raw(str):
    """JSON text that is put in as it is."""

    __slots__ = ()


def write(value: object) -> str:
    """JSON in which Raw stands as it is."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key))}:{write(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of all that stands inside."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 2000:
        inner = waiting.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        found += [(inner, key) for key in keys]
        waiting += [inner[key] for key in keys]
    return found


def json_change(rng: random.Random, value: Any) -> Any:
    """A parsed JSON value with one change, made in place where it can be."""
    places = _places(value)
    if not places or rng.random() < 0.02:
        return Raw(rng.choice(SCALARS))
    container, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind < 3:
        container[key] = Raw(rng.choice(SCALARS))
    elif kind == 3:
        del container[key]
    elif kind == 4:  # something from elsewhere
        other, place = rng.choice(places)
        container[key] = json.loads(write(other[place])) if _plain(other[place]) else other[place]
    elif kind == 5:
        container[key] = [container[key]] if rng.random() < 0.5 else {"x": container[key]}
    elif isinstance(container, list):
        times = rng.choice((1, 2, 3, 60)) if len(container) < 64 else 1
        container[:] = container + [container[key]] * times if rng.random() < 0.5 else container[::-1]
    elif kind == 6:
        names = [k for c, k in places if isinstance(c, dict)]
        container[rng.choice((*names, "v", "id", "rot", "needs", "bbox", "boxes"))] = container[key]
    else:
        inner: Any = Raw(rng.choice(SCALARS))
        for _ in range(rng.choice((2, 7, 9, 400))):
            inner = [inner] if rng.random() < 0.5 else {"a": inner}
        container[key] = inner
    return value


def _plain(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, Raw)


def json_bytes(rng: random.Random, data: bytes) -> bytes:
    """A JSON text changed by its structure, one to four times, and sometimes by its bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return any_bytes(rng, data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = json_change(rng, value)
    try:
        text = write(value).encode("utf-8", "surrogatepass")
    except RecursionError:
        return any_bytes(rng, data)
    return any_bytes(rng, text) if rng.random() < 0.15 else text


def json_lines(rng: random.Random, data: bytes) -> bytes:
    """One of the lines changed as JSON; lines doubled, dropped, exchanged."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.random()
    if kind < 0.75:
        lines[at] = json_bytes(rng, lines[at])
    elif kind < 0.85:
        lines.insert(at, rng.choice(lines))
    elif kind < 0.9 and len(lines) > 1:
        del lines[at]
    else:
        return any_bytes(rng, data)
    return b"\n".join(lines)


def any_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes flipped, put in, left out, doubled, or the rest cut off."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(8)
        if kind == 0 and out:
            out[at - 1] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at - 1] = rng.choice(_BYTES)
        elif kind == 2:
            out[at:at] = bytes(rng.choice(_BYTES) for _ in range(rng.choice((1, 1, 2, 4, 16))))
        elif kind == 3:
            del out[at : at + rng.choice((1, 1, 2, 4, 16, 64))]
        elif kind == 4:
            stop = at + rng.choice((1, 4, 16, 64, 256))
            out[at:at] = out[at:stop] * rng.choice((1, 1, 2, 20))
        elif kind == 5 and rng.random() < 0.3:
            del out[at:]
        elif kind == 6 and len(out) >= 4:  # a number of four or eight bytes, as headers have them
            width = rng.choice((2, 4, 8))
            number = rng.choice((0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1))
            piece = (number & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(("little", "big")))
            out[at : at + width] = piece
        elif out:
            other = rng.randrange(len(out))
            out[at : at + 8] = out[other : other + 8]
    return bytes(out[: 1 << 20])


# --- safetensors ----------------------------------------------------------------------------------------------------


def pack_tensors(header: str | bytes, data: bytes, length: int | None = None) -> bytes:
    raw = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length & (1 << 64) - 1) + raw + data


_DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "F8_E5M2",
    "I64",
    "I32",
    "I8",
    "U8",
    "BOOL",
    "C64",
    "F4",
    "U16",
    "XX",
)


def tensors_bytes(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file with a header that lies: types, shapes, offsets, lengths, names, metadata."""
    if len(data) < 10 or rng.random() < 0.1:
        return any_bytes(rng, data)
    size = struct.unpack("<Q", data[:8])[0]
    raw, body = data[8 : 8 + size], data[8 + size :]
    try:
        header = json.loads(raw)
        names = [name for name in header.keys() if name != "__metadata__"]
    except (ValueError, AttributeError, RecursionError):
        return any_bytes(rng, data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(names) if names else ""
        kind = rng.randrange(10)
        entry = header.get(name)
        if not isinstance(entry, dict) or kind == 0:
            header = json_change(rng, header)
            if not isinstance(header, dict):
                break
            names = [key for key in header if key != "__metadata__"]
        elif kind == 1:
            entry["dtype"] = rng.choice(_DTYPES)
        elif kind in (2, 3) and isinstance(entry.get("shape"), list):
            huge = (0, 1, 2, 3, 4, 1 << 20, 1 << 31, 1 << 62, (1 << 64) - 1, -1)
            shape = entry["shape"]
            if shape and kind == 2:
                shape[rng.randrange(len(shape))] = rng.choice(huge)
            else:
                shape.insert(rng.randrange(len(shape) + 1), rng.choice(huge))
        elif kind in (4, 5):
            ends = [rng.choice((0, 1, 4, len(body), len(body) + 1, 1 << 40, (1 << 64) - 1)) for _ in range(2)]
            other = header[rng.choice(names)]
            entry["data_offsets"] = other.get("data_offsets", ends) if kind == 5 and isinstance(other, dict) else ends
        elif kind == 6:
            header[rng.choice(_NAMES) + name[rng.randrange(len(name) + 1) :]] = header.pop(name)
            names = [key for key in header if key != "__metadata__"]
        elif kind == 7:
            del header[name]
            names.remove(name)
        elif kind == 8:
            about = header.setdefault("__metadata__", {})
            key = rng.choice(("lora_adapter_metadata", "lora_alpha", "rank", "alpha", "format", "instance_assemble"))
            if isinstance(about, dict):
                about[key] = rng.choice(
                    ('{"lora_alpha":8,"r":4}', '{"alpha_pattern":{"^x$":"y"}}', "1e400", "[" * 99, "")
                )
        elif body:
            at = rng.randrange(len(body))
            body = body[:at] + rng.choice((b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"")) + body[at + 4 :]
    try:
        raw = write(header).encode("utf-8", "surrogatepass")
    except RecursionError:
        return any_bytes(rng, data)
    lie = (
        rng.choice((len(raw) + 1, len(raw) - 1, 0, 1 << 63, (1 << 64) - 8, len(data))) if rng.random() < 0.05 else None
    )
    if rng.random() < 0.1:
        body = body[: rng.randrange(len(body) + 1)]
    return pack_tensors(raw, body, lie)


_NAMES = (
    "transformer.", "lora_unet_", "diffusion_model.", "transformer_blocks.0.", "single_blocks.3.", "text_encoder.",
    "double_blocks.99999999999999999999.", "x" * 5000, "..", "layout_net.", "\u202e", "a.b.c.d." * 200, "lora_te1_", "",
)  # fmt: skip


# --- tables and others ----------------------------------------------------------------------------------------------


def by_kind(mutations: Sequence[tuple[bytes, Mutation]]) -> Mutation:
    """Chooses a mutation by the first bytes of the case; the last one is for all else."""

    def change(rng: random.Random, data: bytes) -> bytes:
        return next((mutation for start, mutation in mutations if data.startswith(start)), any_bytes)(rng, data)

    return change
