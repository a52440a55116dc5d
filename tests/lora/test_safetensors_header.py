"""Headers of hostile and damaged files: one sentence that names the file, and nothing else."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from contextgen_core.errors import InputError
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.lora.header import MAX_HEADER_BYTES, MAX_TENSORS, read_header

KEY = "transformer.x_embedder.lora_A.weight"
GOOD = save({KEY: torch.ones(2, 4), KEY.replace("_A", "_B"): torch.ones(8, 2)}, {"format": "pt"})


def packed(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}}


def refused(tmp_path: Path, content: bytes) -> str:
    file = tmp_path / "some adapter.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_header(file)
    message = str(caught.value)
    assert "some adapter.safetensors" in message
    assert str(tmp_path) not in message
    assert "\n" not in message and message.endswith(".") and len(message) < 300
    return message


def test_good_header(tmp_path: Path) -> None:
    file = tmp_path / "good.safetensors"
    file.write_bytes(GOOD)
    header = read_header(file)
    assert {info.name: (info.dtype, info.shape) for info in header.tensors} == {
        KEY: ("F32", (2, 4)),
        KEY.replace("_A", "_B"): ("F32", (8, 2)),
    }
    assert header.metadata == (("format", "pt"),)
    assert header.meta("format") == "pt" and header.meta("none") is None


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    for end in range(len(GOOD)):
        refused(tmp_path, GOOD[:end])


def test_other_kinds_of_file_are_named(tmp_path: Path) -> None:
    tensor = {"a": torch.ones(2)}
    torch.save(tensor, tmp_path / "new.pt")
    torch.save(tensor, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("x", "y")
    assert "zip archive" in refused(tmp_path, (tmp_path / "new.pt").read_bytes())
    assert "zip archive" in refused(tmp_path, (tmp_path / "some.zip").read_bytes())
    assert "pickle" in refused(tmp_path, (tmp_path / "old.pt").read_bytes())
    assert "web page" in refused(tmp_path, b"<!DOCTYPE html><html></html>")
    assert "Git LFS pointer" in refused(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    assert "GGUF" in refused(tmp_path, b"GGUF" + bytes(60))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_header(path)


def test_header_that_starts_like_a_pickle_is_still_read(tmp_path: Path) -> None:
    raw = json.dumps(entry()).encode().ljust(0x280)  # its length begins with the bytes 80 02
    file = tmp_path / "padded.safetensors"
    file.write_bytes(packed(raw, bytes(4)))
    assert read_header(file).tensors[0].shape == (1,)


@pytest.mark.parametrize(
    ("header", "length", "reason"),
    [
        (b"{", MAX_HEADER_BYTES + 1, "announces a header"),
        (b"{", 2**63, "announces a header"),
        (b"{", 100, "ends inside its header"),
        (b"{" + b"\xff" * 9, None, "damaged or cut off"),
        (b'{"a": 1, "a": 2}', None, "damaged or cut off"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "recursion limit"),
        (b'{"a":' + b"9" * 5000 + b"}", None, "damaged or cut off"),
        ({"__metadata__": {"a": 1}}, None, "expected a string"),
        ({"__metadata__": []}, None, "expected a map"),
        ({"x": 1}, None, "damaged or cut off"),
        (entry(dtype="F99"), None, "F99"),
        (entry(dtype=["F32"]), None, "damaged or cut off"),
        (entry(shape=[-1]), None, "-1"),
        (entry(shape=[1.0]), None, "1.0"),
        (entry(shape=[True]), None, "true"),
        (entry(shape=[2**40]), None, "shape"),
        (entry(shape=[2**63, 2**63]), None, "damaged or cut off"),
        (entry(shape="1"), None, "expected a sequence"),
        (entry(data_offsets=[0]), None, "damaged or cut off"),
        (entry(data_offsets=[4, 0]), None, "offset"),
        (entry(data_offsets=[0, 10**30]), None, "damaged or cut off"),
        (entry(shape=[2], data_offsets=[0, 8]), None, "damaged or cut off"),
        (entry(shape=[2]), None, "shape"),
        ({**entry(), "y": entry()["x"]}, None, "offset"),
    ],
)
def test_damage_is_named(tmp_path: Path, header: Any, length: int | None, reason: str) -> None:
    assert reason in refused(tmp_path, packed(header, bytes(4), length))


def test_too_many_tensors_are_refused(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    assert "lists" in refused(tmp_path, packed({f"t{i}": empty for i in range(MAX_TENSORS + 1)}))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOOD) - 1), new=st.binary(min_size=0, max_size=6), cut=st.integers(0, 6))
def test_mutated_files_are_read_or_refused(tmp_path: Path, at: int, new: bytes, cut: int) -> None:
    file = tmp_path / "mutated.safetensors"
    file.write_bytes(GOOD[:at] + new + GOOD[at + cut :])
    try:
        load_adapter(file)
    except InputError as error:
        assert "mutated.safetensors" in str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_json_in_place_of_an_entry(tmp_path: Path, value: Any) -> None:
    file = tmp_path / "json.safetensors"
    for header in (value, {KEY: value}, entry(shape=value), entry(data_offsets=value), {"__metadata__": value}):
        file.write_bytes(packed(header, bytes(8)))
        try:
            read_header(file)
        except InputError:
            continue


@pytest.mark.parametrize("name", ["\u202eformer.lora_A.weight", "a\nb", "x" * 5000])
def test_a_name_that_no_line_can_show_is_refused(tmp_path: Path, name: str) -> None:
    good = {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    lying = {name: {"dtype": "F32", "shape": [1], "data_offsets": [9, 4]}}
    for header in (good, lying):
        message = refused(tmp_path, packed(header, bytes(4)))
        assert message.isprintable() and len(message) < 300
