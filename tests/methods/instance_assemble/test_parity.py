"""InstanceAssemble against golden outputs of the authors' code, on diffusers and in ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from contextgen_core.commands import convert, parity
from contextgen_core.hosts.comfy_process import find_comfy
from contextgen_core.methods.instance_assemble import step

GOLDEN = Path(__file__).parents[2] / "golden" / "instance_assemble"
FLUX = ("ia_two_boxes", "ia_overlap_nonsquare")
SD3 = ("ia_sd3_two_boxes",)
needs_comfy = pytest.mark.skipif(find_comfy() is None, reason="no ComfyUI found")


def files(case: str) -> dict[str, Path]:
    prefix = "sd3_" if "sd3" in case else ""
    return {
        "weights": GOLDEN / f"{prefix}transformer.safetensors",
        "layout-weights": GOLDEN / f"{prefix}layout.safetensors",
        "adapter": GOLDEN / f"{prefix}pytorch_lora_weights.safetensors",
        "config": GOLDEN / "config.json",
    }


def run(
    case: str | Path, capsys: pytest.CaptureFixture[str], *words: str, host: str = "diffusers", **changes: Path | None
) -> dict[str, object]:
    path = GOLDEN / f"{case}.npz" if isinstance(case, str) else case
    given = {**files(path.stem), **{key.replace("_", "-"): value for key, value in changes.items()}}
    options = [word for key, value in given.items() if value for word in (f"--{key}", str(value))]
    status = parity.main([str(path), "--method", "instance_assemble", "--host", host, *options, *words])
    said = capsys.readouterr()
    assert said.out, said.err
    result = json.loads(said.out)
    assert (status == 0) is result["ok"]
    return result


@pytest.mark.parametrize("case", [*FLUX, *SD3])
@pytest.mark.parametrize("scale", ["1", "0.5", "0"])
def test_diffusers(case: str, scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(case, capsys, "--scale", scale)
    assert result["ok"] and result["cells_equal"] and result["tokens_max_abs_diff"] == 0, result


@needs_comfy
@pytest.mark.parametrize("case", [*FLUX, *SD3])
def test_comfy(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(case, capsys, host="comfy")
    assert result["ok"], result


def test_an_adapter_with_alphas_has_an_answer_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ia_two_boxes", capsys, adapter=GOLDEN / "pytorch_lora_weights_alpha.safetensors")["ok"]


def test_a_converted_file_gives_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, target = files("ia_two_boxes"), tmp_path / "one.safetensors"
    assert convert.main(["instance_assemble", str(given["layout-weights"]), str(given["adapter"]), str(target)]) == 0
    capsys.readouterr()
    assert run("ia_two_boxes", capsys, layout_weights=target, adapter=None)["ok"]


@pytest.mark.parametrize("case", ["ia_two_boxes", "ia_overlap_nonsquare"])
def test_rows_of_a_batch_have_boxes_of_their_own_or_none(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(GOLDEN / f"{case}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    single = {"canvas_wh", "grid_hw", "cells_flat", "txt_ids", "img_ids"}
    both = {key: value if key in single else np.concatenate([value, value]) for key, value in arrays.items()}
    both["velocity"] = np.concatenate([arrays["velocity"], arrays["velocity_no_instance"]])
    both["valid"][1] = both["cell_count"][1] = 0
    path = tmp_path / f"{case}.npz"
    np.savez(path, allow_pickle=False, **both)
    result = run(path, capsys)
    assert result["ok"] and result["instances"] == int(arrays["valid"].sum()), result


def test_a_wrong_rule_is_noticed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    right = step.attend_instances

    def exchanged(cover: step.Cover, *qkv: step.Tensor) -> tuple[step.Tensor, step.Tensor, step.Tensor | None]:
        mean, layout, pictures = right(cover, *qkv)
        return mean.roll(1, dims=1), layout, pictures

    monkeypatch.setattr(step, "attend_instances", exchanged)
    result = run("ia_two_boxes", capsys)
    assert not result["ok"] and result["velocity_max_abs_diff"] > 1e-3  # type: ignore[operator]


def test_bad_words_give_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(GOLDEN / "ia_two_boxes.npz")
    given = files("ia_two_boxes")
    words = [path, "--weights", str(given["weights"]), "--config", str(given["config"]), "--host", "diffusers"]
    assert parity.main([*words, "--method", "instance_assemble"]) == 2
    assert "needs its weights" in capsys.readouterr().err
    more = ["--method", "instance_assemble", "--layout-weights", str(given["layout-weights"])]
    assert parity.main([*words, *more, "--adapter", str(given["adapter"]), "--scale", "0.7"]) == 2
    assert "--scale is 0.7" in capsys.readouterr().err
