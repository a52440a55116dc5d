"""InstanceAssemble's files: the authors' two, one converted file, and all that can be wrong with them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from contextgen_core.backbones.record import Backbone
from contextgen_core.commands import convert
from contextgen_core.errors import InputError
from contextgen_core.methods.instance_assemble.encoder import AssembleWeights
from contextgen_core.methods.instance_assemble.files import check_fits, read_files, write_file

GOLDEN = Path(__file__).parents[2] / "golden" / "instance_assemble"
LAYOUT, LORA = GOLDEN / "layout.safetensors", GOLDEN / "pytorch_lora_weights.safetensors"
ALPHA = GOLDEN / "pytorch_lora_weights_alpha.safetensors"
SD3_LAYOUT, SD3_LORA = GOLDEN / "sd3_layout.safetensors", GOLDEN / "sd3_pytorch_lora_weights.safetensors"
TINY_FLUX = Backbone("FLUX.1", 7, 3, 32, pooled=24)
TINY_SD3 = Backbone("Stable Diffusion 3", 4, 0, 32, axes=0, pooled=24)


@pytest.mark.parametrize("lora", [LORA, ALPHA])
def test_the_authors_files(lora: Path) -> None:
    file = read_files(LAYOUT, lora)
    assert (file.family, file.width, file.pooled, file.ranks) == ("FLUX.1", 32, 24, (4,))
    assert list(file.blocks) == [*(f"transformer_blocks.{i}" for i in (0, 3, 6)), "single_transformer_blocks.0"]
    scales = {pair.scale for pairs in file.blocks.values() for pair in pairs}
    assert scales == ({1.0} if lora == LORA else {1.5, 0.5})
    names = {name.removesuffix(".alpha") for name in file.ignored}
    assert names == {
        "single_transformer_blocks.1.proj_out",
        "transformer_blocks.0.ff.net.0.proj",
        "transformer_blocks.1.attn.to_q",
        "x_embedder",
    }
    check_fits(file, TINY_FLUX)


def test_the_checkpoint_form_and_the_converted_file_hold_the_same(tmp_path: Path) -> None:
    for layout, lora in ((LAYOUT, ALPHA), (SD3_LAYOUT, SD3_LORA)):
        torch.save(load_file(layout), tmp_path / "layout.pth")
        first = read_files(tmp_path / "layout.pth", lora)
        target = tmp_path / "one.safetensors"
        words = ["instance_assemble", str(tmp_path / "layout.pth"), str(lora), str(target)]
        assert convert.main(words) == 0
        second = read_files(target)
        assert second.blocks == first.blocks and second.family == first.family and not second.ignored
        assert second.tensors.keys() == first.tensors.keys()
        assert all(torch.equal(second.tensors[key], value) for key, value in first.tensors.items())
        weights = second.build()
        assert all(torch.equal(value, first.tensors[key]) for key, value in weights.state_dict().items())
        assert not any(p.is_meta for p in weights.parameters())


def test_the_encoder_of_pictures_travels_in_the_file(tmp_path: Path) -> None:
    plain = read_files(LAYOUT, ALPHA)
    assert not plain.pictures and plain.build().picture_net is None
    knowing = AssembleWeights(plain.width, plain.pooled, plain.blocks, pictures=True).state_dict()
    target = tmp_path / "pictures.safetensors"
    write_file(target, replace(plain, tensors={**knowing, **plain.tensors}))
    file = read_files(target)
    assert file.pictures and not file.ignored and file.blocks == plain.blocks
    state = file.build().state_dict()
    assert state.keys() == knowing.keys()
    assert all(torch.equal(state[key], knowing[key]) for key in state if key.startswith("picture_net."))
    tensors = load_file(target)
    del tensors["picture_net.linears.linear_2.bias"]
    save_file(tensors, target, {"instance_assemble": "1"})
    with pytest.raises(InputError, match=r"lacks picture_net\.linears\.linear_2\.bias"):
        read_files(target)


def test_half_precision_is_kept_or_asked_for(tmp_path: Path) -> None:
    file = read_files(LAYOUT, LORA)
    assert {p.dtype for p in file.build(dtype=torch.bfloat16).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in file.build().parameters()} == {torch.float32}


def test_ranks_that_differ_scale_as_in_the_authors_loader(tmp_path: Path) -> None:
    tensors = load_file(LORA)
    name = "transformer.transformer_blocks.3.attn.to_q"
    tensors[f"{name}.lora_A.weight"] = torch.randn(8, 32)
    tensors[f"{name}.lora_B.weight"] = torch.randn(32, 8)
    save_file(tensors, tmp_path / "lora.safetensors")
    file = read_files(LAYOUT, tmp_path / "lora.safetensors")
    scales = {pair.layer: pair.scale for pair in file.blocks["transformer_blocks.3"]}
    assert scales.pop("attn.to_q") == 0.5 and set(scales.values()) == {1.0}
    # Stable Diffusion 3's loader knows no alphas.
    tensors = load_file(SD3_LORA) | {"transformer.transformer_blocks.0.attn.to_q.alpha": torch.tensor(8.0)}
    save_file(tensors, tmp_path / "lora.safetensors")
    file = read_files(SD3_LAYOUT, tmp_path / "lora.safetensors")
    assert {pair.scale for pairs in file.blocks.values() for pair in pairs} == {1.0}


Tensors = dict[str, Tensor]


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if part not in key}


def replaced(part: str, value: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value if part in key else old for key, old in tensors.items()}


@pytest.mark.parametrize(
    ("layout", "lora", "words"),
    [
        (renamed("layout_net.linears", "layout.linears"), None, "lacks layout_net.linears.linear_1.weight but has"),
        (renamed("layout_forward", "forward_layout"), None, "lacks"),
        (without("single_transformer"), None, "lacks"),
        (without("layout_net"), None, "holds no layout weights"),
        (replaced("layout_net.text_embedder.linear_2.bias", torch.zeros(31)), None, "shape (31,) where (32,)"),
        (replaced("layout_net.linears.linear_1.bias", torch.full((16,), torch.nan)), None, "not finite"),
        (replaced("layout_net.linears.linear_1.bias", torch.zeros(16, dtype=torch.int8)), None, "must be floating"),
        (None, renamed("transformer.", ""), "without 'transformer.' in front"),
        (None, renamed("transformer_blocks", "blocks"), "changes none of the layers"),
        (None, without("blocks.3.attn.to_q.lora_B"), "lacks lora_B.weight of transformer_blocks.3.attn.to_q"),
        (None, replaced("blocks.3.attn.to_q.lora_A", torch.zeros(5, 32)), "they differ"),
        (None, replaced("blocks.3.attn.to_q.lora_B", torch.zeros(64, 4)), "does not fit layout weights of width 32"),
        (None, renamed("lora_A", "hada_w1"), "holds no low-rank pairs"),
    ],
)
def test_wrong_names_and_numbers_are_refused_in_one_sentence(
    layout: Callable[[Tensors], Tensors] | None,
    lora: Callable[[Tensors], Tensors] | None,
    words: str,
    tmp_path: Path,
) -> None:
    paths = []
    for name, source, change in (("layout.safetensors", LAYOUT, layout), ("lora.safetensors", LORA, lora)):
        tensors = load_file(source)
        save_file({k: v.clone() for k, v in (change(tensors) if change else tensors).items()}, tmp_path / name)
        paths.append(tmp_path / name)
    if words == "holds no low-rank pairs":
        save_file({"a": torch.zeros(1)}, paths[1])
    with pytest.raises(InputError) as caught:
        read_files(*paths)
    assert words in str(caught.value)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


class _Code:
    def __reduce__(self) -> tuple:
        return (print, ("this must never run",))


def test_damaged_and_hostile_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(name: str, content: bytes, lora: Path | None = LORA) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_files(path, lora)
        assert str(caught.value).startswith(name) and str(caught.value).endswith(".")
        return str(caught.value)

    torch.save({"layout_net.x": _Code()}, tmp_path / "code.pth")
    assert "could be code" in said("code.pth", (tmp_path / "code.pth").read_bytes())
    assert "could be code" in said("plain.pth", pickle.dumps(_Code()))
    assert capsys.readouterr().out == ""
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    assert "no dictionary of tensors" in said("list.pth", (tmp_path / "list.pth").read_bytes())
    torch.save(load_file(LAYOUT), tmp_path / "whole.pth")
    assert "damaged or cut off" in said("short.pth", (tmp_path / "whole.pth").read_bytes()[:5000])
    assert "download it again" in said("short.safetensors", LAYOUT.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be read"):
        read_files(tmp_path / "missing.pth", LORA)
    assert "low-rank pairs but no layout weights" in said("swapped.safetensors", LORA.read_bytes())
    assert "layout weights alone" in said("alone.safetensors", LAYOUT.read_bytes(), None)


@pytest.mark.parametrize(
    ("paths", "model", "words"),
    [
        ((SD3_LAYOUT, SD3_LORA), TINY_FLUX, "is for Stable Diffusion 3, the model is FLUX.1"),
        ((LAYOUT, LORA), TINY_SD3, "is for FLUX.1, the model is Stable Diffusion 3"),
        ((LAYOUT, LORA), Backbone("FLUX.1", 19, 38, 3072, pooled=768), "width 32"),
        ((LAYOUT, LORA), TINY_FLUX._replace(double=10), "10 blocks"),
        ((LAYOUT, SD3_LORA), None, "choose the two files of one model"),
    ],
)
def test_files_of_another_model(paths: tuple[Path, Path], model: Backbone | None, words: str) -> None:
    with pytest.raises(InputError) as caught:
        file = read_files(*paths)
        check_fits(file, model or TINY_FLUX)
    assert words in str(caught.value)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "one.safetensors"
    with pytest.raises(Exception):  # noqa: B017 - whatever the library says about a missing folder
        write_file(target, read_files(LAYOUT, LORA))
    assert not list(tmp_path.iterdir())


def test_convert_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert.main(["instance_assemble", str(LORA), str(LORA), str(tmp_path / "x.safetensors")]) == 2
    assert "convert: pytorch_lora_weights.safetensors holds low-rank pairs" in capsys.readouterr().err
