"""Benchmarks as rows, on miniatures of the published data sets: from the download to the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from contextgen_core.bulk import command, run  # noqa: E402
from contextgen_core.bulk.benchmarks import judging  # noqa: E402
from contextgen_core.bulk.benchmarks.eyes import read_eyes  # noqa: E402
from contextgen_core.bulk.benchmarks.registry import MODULES  # noqa: E402
from contextgen_core.bulk.benchmarks.run import Judging, run_benchmark  # noqa: E402

SMALL = ["--with", "small-world"]


def figures(out: Path) -> dict[str, Any]:
    return json.loads((out / "figures.json").read_text())


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", list(MODULES))
def test_from_the_download_to_the_table_with_the_small_model(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import miniatures

    data, out = tmp_path / "data", tmp_path / "out"
    getattr(miniatures, name.replace("-", "_"))(data)
    words = ["benchmark", name, "--data", str(data), "--out", str(out), "--diffusers", "tiny", "--steps", "2"]
    assert command.main([*words, "--size", "128", "--limit", "1", "--title", "tiny", *SMALL]) == 0
    said, got = capsys.readouterr().out, figures(out)
    assert "1 of 1 rows done" in said and "**tiny**" in said and "not the whole data set" in said
    assert got["judged"] == got["rows"] == 1 and not got["whole"]
    page = (out / "table.md").read_text()
    assert all(
        f"**{title}**" in page for group in got["figures"].values() for title, v in group.items() if v is not None
    )


@pytest.mark.usefixtures("ray")
def test_a_run_goes_on_where_it_stood_and_judges_again_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import miniatures

    data, out = tmp_path / "data", tmp_path / "out"
    miniatures.dense_layout(data)
    judged: list[int] = []

    def ran(moved: tuple[str, ...] = (), given: tuple[str, ...] = ("small-world",), limit: int | None = None) -> Any:
        run_benchmark(
            "dense-layout", data, out, miniatures.Painter(moved), run.Options(limit=limit), Judging(read_eyes(given)),
            looked=lambda done, of: judged.append(of) if not done else None,
        )  # fmt: skip
        return figures(out)["figures"]["all"]

    def close(got: dict[str, float], miou: float, colour: float) -> None:
        assert got["mIoU"] == pytest.approx(miou, abs=1.5) and got["colour"] == pytest.approx(colour, abs=1.5)

    close(ran(limit=1), 100, 100)
    close(ran(), 100, 80)  # five boxes, of which one is not described
    lines = (out / judging.JUDGED).read_bytes().splitlines(keepends=True)
    (out / judging.JUDGED).write_bytes(b"".join(lines[:2]) + lines[2][:20])  # killed while it wrote
    close(ran(), 100, 80)
    assert judged == [1, 2, 1]
    close(ran(moved=("third",)), 80, 60)  # another picture is another judgement
    assert judged[3:] == [1]
    got = ran(moved=("third",), given=("detector=small-world",))
    assert got["mIoU"] == pytest.approx(80, abs=1.5) and got["colour"] is None
    page = (out / "table.md").read_text()
    assert "colour, texture, shape" in page and "--with judge=PLACE" in page and "MiniCPM-V 2.6" in page


@pytest.mark.usefixtures("ray")
def test_a_picture_that_cannot_be_judged_is_told_and_tried_again(tmp_path: Path) -> None:
    import miniatures

    data, out = tmp_path / "data", tmp_path / "out"
    miniatures.coco_mig(data)
    miniatures.write_json(
        data / "mig_bench.json", dict([*json.loads((data / "mig_bench.json").read_text()).items()][:1])
    )

    def ran(given: dict[str, str]) -> dict[str, Any]:
        run_benchmark("coco-mig", data, out, miniatures.Painter(), run.Options(), Judging(given), size=128)
        return figures(out)

    got = ran(read_eyes(["small-world"]))
    assert got["figures"]["L2"]["SR"] == 100 and got["figures"]["L3"]["SR"] is None and got["whole"]
    log = judging.Judged(out)
    log.add(judging.Seen("0", log.known["0"].key, error="unexpected."))
    log.close()
    assert ran(read_eyes(["small-world"]))["judged"] == 1
    assert (out / "references").is_dir() and "ContextGen, released" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--with", "nose=x"], "no model"),
        (["--with", "judge=/nowhere"], "the judge '/nowhere' is not there"),
        (["--with", "detector=small-world", "detector=small-world"], "twice"),
        (["--with", "aesthetic=small-world"], "clip=FOLDER"),
        (["--limit", "0"], "--limit is 0"),
        (["--size", "8"], "--size is 8"),
        (["--judges", "0"], "--judges is 0"),
        ([], "holds no **/test*.parquet; it comes from the data set FireRedTeam/DenseLayout"),
        (["--data", "/nowhere"], "--data /nowhere is no folder"),
    ],
)
def test_bad_words_are_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["benchmark", "dense-layout", "--data", str(tmp_path), "--out", str(tmp_path / "o"), "--diffusers", "tiny"]
    assert command.main([*line, *words]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
