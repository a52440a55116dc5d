"""Benchmarks as rows, on miniatures of the published data sets: from the download to the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
from contextgen_core.bulk import run  # noqa: E402
from contextgen_core.bulk.benchmarks.eyes import read_eyes  # noqa: E402
from contextgen_core.bulk.benchmarks.run import Judging, run_benchmark  # noqa: E402
from contextgen_core.bulk.hosts import DiffusersBackend  # noqa: E402


@pytest.fixture(scope="module")
def minis(ray: Any) -> Any:
    import miniatures

    return miniatures


SMALL = Judging(read_eyes(["small-world"]))


def figures(out: Path) -> dict[str, Any]:
    return json.loads((out / "figures.json").read_text())


def ran(name: str, data: Path, out: Path, backend: Any, judging: Judging = SMALL, **more: Any) -> dict[str, Any]:
    options = run.Options(limit=more.pop("limit", None))
    run_benchmark(name, data, out, backend, options, judging, size=128, **more)
    return figures(out)


def test_dense_layout(minis: Any, tmp_path: Path) -> None:
    minis.dense_layout(tmp_path / "data")
    got = ran("dense-layout", tmp_path / "data", tmp_path / "out", minis.Painter(moved=("third",)))
    values = got["figures"]["all"]
    # five boxes, of which one is not described and one stands elsewhere
    assert got["judged"] == got["rows"] == 3 and got["whole"]
    assert 0.7 < values["mIoU"] / 100 <= 0.8
    assert 0.5 < values["colour"] / 100 <= 0.6


def test_coco_mig(minis: Any, tmp_path: Path) -> None:
    minis.coco_mig(tmp_path / "data")
    got = ran("coco-mig", tmp_path / "data", tmp_path / "out", minis.Painter(moved=("1",)))
    print(got)


@pytest.mark.parametrize("name", ["dense-layout", "coco-mig"])
def test_the_whole_path_with_the_small_model(name: str, minis: Any, tmp_path: Path) -> None:
    getattr(minis, name.replace("-", "_"))(tmp_path / "data")
    got = ran(name, tmp_path / "data", tmp_path / "out", DiffusersBackend(steps=2), limit=2)
    assert got["judged"] == 2 and not got["whole"]
