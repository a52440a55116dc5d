"""The figures of the field, on cases worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from contextgen_core.commands.score import main
from contextgen_core.errors import InputError
from contextgen_core.layout.box import Box
from contextgen_core.layout.foreign_boxes import LabelledBox
from contextgen_core.score.colour import COLOURS, colour_right, colour_share, named_colour, to_hsv
from contextgen_core.score.figures import (
    Answers,
    Expected,
    by_level,
    cosine,
    judge,
    masked_average,
    merit,
    rank,
    summarise,
)
from contextgen_core.score.results_file import read_results
from contextgen_core.score.table import _bars, chart, instance_table, table

LEFT, RIGHT = Box(0, 0, 100, 100), Box(200, 0, 300, 100)
THIRD = Box(50, 0, 150, 100)  # IoU 1/3 with LEFT
SIXTY = Box(0, 0, 100, 60)  # IoU 0.6 with LEFT


def seen(box: Box, label: str = "") -> LabelledBox:
    return LabelledBox(box, label)


def test_a_perfect_image():
    scored = judge([Expected(LEFT, "red cup"), Expected(RIGHT, "dog")], [seen(RIGHT, "dog"), seen(LEFT, "cup")])
    assert [one.iou for one in scored.instances] == [1.0, 1.0] and [one.match for one in scored.instances] == [1, 0]
    assert scored.success and summarise([scored]).miou == 1.0


def test_the_rules_of_coco_mig():
    """Located and right 0.6; located in the wrong colour 0; mislocated 1/3 as it is; nothing of that noun 0."""
    expected = [
        Expected(LEFT, "red cup", colour_right=True),
        Expected(LEFT, "blue cup", colour_right=False),
        Expected(THIRD, "green cup", colour_right=False),
        Expected(RIGHT, "red dog", colour_right=True),
    ]
    scored = judge(expected, [seen(SIXTY, "cup"), seen(LEFT.scaled(1, 1), "cat")])
    iou = [one.iou for one in scored.instances]
    assert iou == pytest.approx([0.6, 0.6, 3000 / 13000, 0.0])
    assert [one.located for one in scored.instances] == [True, True, False, False]
    assert [one.success for one in scored.instances] == [True, False, False, False]
    assert [one.counted_iou for one in scored.instances] == pytest.approx([0.6, 0.0, 3000 / 13000, 0.0])
    summary = summarise([scored])
    assert summary.miou == pytest.approx((0.6 + 3000 / 13000) / 4) and summary.instance_success == 0.25
    assert summary.success == 0.0


def test_averages_run_over_instances_but_success_over_images():
    good = judge([Expected(LEFT)], [seen(LEFT)], name="good")
    half = judge([Expected(LEFT), Expected(RIGHT), Expected(THIRD)], [seen(LEFT)], name="half")
    summary = summarise([good, half])
    assert summary.images == 2 and summary.instances == 4
    assert summary.success == 0.5
    assert summary.instance_success == pytest.approx(2 / 4)
    assert summary.miou == pytest.approx((1 + 1 + 0 + 1 / 3) / 4)
    levels = dict(by_level([good, half]))
    assert levels[1].success == 1.0 and levels[3].success == 0.0 and set(levels) == {1, 3}


def test_the_threshold_is_included():
    half = Box(0, 0, 100, 50)
    assert judge([Expected(LEFT)], [seen(half)], threshold=0.5).success
    assert not judge([Expected(LEFT)], [seen(half)], threshold=0.51).success
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="threshold"):
            judge([Expected(LEFT)], [], threshold=wrong)


def test_one_detection_serves_two_only_where_that_is_allowed():
    twins = [Expected(LEFT, "cup"), Expected(SIXTY, "cup")]
    assert judge(twins, [seen(LEFT, "cup")]).success
    apart = judge(twins, [seen(LEFT, "cup")], one_to_one=True)
    assert [one.match for one in apart.instances] == [0, None] and not apart.success


def test_one_to_one_takes_the_best_sum():
    wanted = [Expected(Box(0, 0, 10, 10)), Expected(Box(0, 0, 10, 8))]
    detections = [seen(Box(0, 0, 10, 9)), seen(Box(0, 0, 10, 20))]
    greedy = judge(wanted, detections)
    assert [one.match for one in greedy.instances] == [0, 0]
    best = judge(wanted, detections, one_to_one=True)
    assert [one.match for one in best.instances] == [1, 0]


def test_one_to_one_never_pairs_across_labels():
    scored = judge([Expected(LEFT, "dog"), Expected(LEFT, "cat")], [seen(LEFT, "cat")], one_to_one=True)
    assert [one.match for one in scored.instances] == [None, 0]


def test_layoutsam_divides_every_answer_by_the_number_of_boxes():
    answers = [
        Answers(True, True, True, False),
        Answers(True, False, True, True),
        Answers(False, True, True, True),
        Answers(False),
    ]
    scored = judge([Expected(LEFT, answers=one) for one in answers], None)
    summary = summarise([scored])
    assert (summary.spatial, summary.colour, summary.texture, summary.shape) == (0.5, 0.25, 0.5, 0.25)
    assert summary.miou is None and summary.success is None and summary.instance_success is None


def test_identity_and_what_was_not_measured():
    scored = judge([Expected(LEFT, identity=0.8), Expected(RIGHT, identity=0.4), Expected(RIGHT)], None)
    assert summarise([scored]).identity == pytest.approx(0.6)
    assert summarise([]).miou is None
    assert merit(scored, "mIoU and identity") == pytest.approx(0.6)
    with pytest.raises(InputError, match="not measured"):
        merit(scored, "mIoU")
    with pytest.raises(InputError, match="choose one"):
        merit(scored, "beauty")


def test_the_best_of_four():
    boxes = [THIRD, LEFT, SIXTY, LEFT]
    scores = [judge([Expected(LEFT)], [seen(box)], name=str(n)) for n, box in enumerate(boxes)]
    assert rank(scores, "mIoU") == (1, 3, 2, 0)
    assert rank(scores, "instance success") == (1, 2, 3, 0)


def test_cosine_and_masked_average():
    assert cosine(np.array([1.0, 0]), np.array([2.0, 0])) == 1.0
    assert cosine(np.array([1.0, 0]), np.array([0, 3.0])) == 0.0
    assert cosine(np.array([1.0, 0]), np.array([-1.0, 0])) == -1.0
    assert cosine(np.zeros(2), np.ones(2)) == 0.0
    features = np.arange(12.0).reshape(2, 2, 3)
    weights = np.array([[1.0, 0], [0, 0.5]])
    assert np.allclose(masked_average(features, weights), (features[0, 0] + 0.5 * features[1, 1]) / 1.5)
    assert np.allclose(masked_average(features, np.zeros((2, 2))), features.mean(axis=(0, 1)))


@pytest.mark.parametrize(
    ("rgb", "hsv"),
    # OpenCV 5.0 gave these values; on a million random colours the two agree in every bit.
    [
        ((255, 0, 0), (0, 255, 255)),
        ((0, 255, 0), (60, 255, 255)),
        ((0, 0, 255), (120, 255, 255)),
        ((255, 255, 255), (0, 0, 255)),
        ((0, 0, 0), (0, 0, 0)),
        ((139, 69, 19), (13, 220, 139)),
        ((255, 0, 30), (176, 255, 255)),
        ((128, 128, 127), (30, 2, 128)),
    ],
)
def test_hsv_as_opencv_counts_it(rgb, hsv):
    assert to_hsv(np.array([rgb], np.uint8)).tolist() == [list(hsv)]


def test_colours_of_the_benchmark():
    samples = {
        "red": (200, 20, 20),
        "brown": (139, 69, 19),
        "yellow": (230, 220, 30),
        "green": (30, 160, 40),
        "blue": (30, 60, 200),
        "black": (10, 10, 10),
        "white": (250, 250, 250),
    }
    assert set(samples) == set(COLOURS)
    for name, rgb in samples.items():
        picture = np.full((4, 4, 3), rgb, np.uint8)
        everywhere = np.ones((4, 4), bool)
        assert [other for other in COLOURS if colour_share(picture, everywhere, other) == 1] == [name]
    assert named_colour("Red cup") == "red" and named_colour("a red cup") is None and named_colour("") is None


@pytest.mark.parametrize(
    ("rgb", "colours"),
    [
        ((255, 75, 0), ["red", "brown"]),  # hue 9: red as the published code stands, not as it was first
        ((255, 0, 75), ["red"]),  # hue 171
        ((60, 20, 20), []),  # value 60: too dark for red
        ((60, 25, 15), ["brown"]),  # brown alone goes down to 35
        ((33, 33, 33), []),  # black ends at 30
    ],
)
def test_the_ends_of_the_published_ranges(rgb, colours):
    picture, everywhere = np.full((1, 1, 3), rgb, np.uint8), np.ones((1, 1), bool)
    assert [name for name in COLOURS if colour_share(picture, everywhere, name) == 1] == colours


def test_a_fifth_of_the_mask_is_enough():
    picture = np.zeros((1, 10, 3), np.uint8) + np.uint8(128)
    picture[0, :2] = (200, 20, 20)
    everywhere = np.ones((1, 10), bool)
    assert colour_right(picture, everywhere, "red cup") is True
    picture[0, 1] = 128
    assert colour_right(picture, everywhere, "red cup") is False
    assert colour_right(picture, everywhere, "cup") is None
    assert colour_right(picture, ~everywhere, "red cup") is False


def lines() -> list[dict]:
    return [
        {
            "id": "a",
            "instances": [{"label": "red cup", "box": [0, 0, 100, 100], "colour_right": True, "identity": 0.5}],
            "detections": [{"label": "cup", "box": [0, 0, 100, 60], "score": 0.9}],
        },
        {
            "id": "b",
            "instances": [
                {"label": "dog", "box": [0, 0, 100, 100], "answers": {"spatial": True, "colour": True}},
                {"label": "cat", "box": [200, 0, 300, 100], "answers": {"spatial": False, "colour": None}},
            ],
            "detections": [],
        },
    ]


def test_the_command_prints_a_table_and_writes_json(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines()) + "\n\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "contextgen_core.score", str(path), "--json", str(tmp_path / "out.json")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    header, every, level1, level2 = (line.split() for line in done.stdout.splitlines())
    assert header == ["images", "instances", "SR", "I-SR", "mIoU", "identity", "spatial", "colour", "texture", "shape"]
    assert every == ["all", "2", "3", "50.00", "33.33", "20.00", "50.00", "50.00", "50.00", "0.00", "0.00"]
    assert level1[0] == "L1" and level2[0] == "L2" and "100 %" in done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["all"]["miou"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", "line 2: the line is a list of 1"),
        ("{}", "line 2: instances = null"),
        ('{"instances": [{}]}', "line 2: instance 1 has box = null"),
        ('{"instances": [{"box": [0, 0, 1, "x"]}]}', "give a number"),
        ('{"instances": [{"box": [9, 0, 1, 1]}]}', "in this order"),
        ('{"instances": [{"box": [0, 0, 1, 1], "colour_right": "yes"}]}', "colour_right"),
        ('{"instances": [{"box": [0, 0, 1, 1], "identity": 7}]}', "identity"),
        ('{"instances": [{"box": [0, 0, 1, 1], "answers": {}}]}', "spatial = null"),
        ('{"instances": [], "detections": 5}', "detections = 5"),
        ('{"instances": [{"box": [0, 0, NaN, 1]}]}', "NaN"),
        ("not json", "line 2: the line is not JSON"),
    ],
)
def test_the_command_names_the_line(tmp_path, capsys, line, says):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(lines()[0]) + "\n" + line + "\n", encoding="utf-8")
    assert main([str(path), "--quiet"]) == 2
    assert says in capsys.readouterr().err
    assert main([str(tmp_path / "missing.jsonl")]) == 2


def test_the_command_scores_what_the_authors_request_file_asked_for(tmp_path, capsys):
    asked = [{"image": "cat.png", "bbox": [0, 0, 256, 256], "label": "cat"}]
    asked += [{"image": "dog.png", "bbox": [256, 0, 512, 256], "phrase": "a brown dog"}]
    requests, results, summary = (tmp_path / name for name in ("segment_info.json", "results.jsonl", "out.json"))
    requests.write_text(json.dumps([{"caption": "", "width": 512, "instances": asked}] * 2), encoding="utf-8")
    found = [{"label": "cat", "box": [0, 0, 512, 512]}, {"label": "dog", "box": [512, 0, 1024, 256]}]
    rows = [{"size": [1024, 1024], "detections": found}, {"instances": [{"identity": 0.5}] * 2, "detections": []}]
    results.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command = [str(results), "--requests", str(requests), "--json", str(summary), "--quiet"]
    assert main(command) == 0
    total = json.loads(summary.read_text())["all"]
    assert (total["instances"], total["miou"], total["identity"]) == (4, pytest.approx((1 + 0.5) / 4), 0.5)
    for wrong, says in (
        (rows[:1], "1 results for 2 requests"),
        ([*rows, {}], "line 3: there are only 2 requests"),
        ([{"size": 512}, rows[1]], "line 1: size = 512"),
        ([{"instances": [{}]}, rows[1]], "line 1: there are 1 instances and the request has 2"),
    ):
        results.write_text("\n".join(map(json.dumps, wrong)), encoding="utf-8")
        capsys.readouterr()
        assert main(command) == 2
        assert says in capsys.readouterr().err


def test_reports():
    scores = [
        judge(
            [Expected(LEFT, "cup", identity=0.7), Expected(RIGHT, "d\u00f6g \u732b")], [seen(SIXTY, "cup")], name="7"
        ),
        judge([Expected(LEFT, identity=-0.2)], None),
    ]
    text = instance_table(scores)
    assert "0.600" in text and "yes" in text and text.count("\n") == 3
    assert "mIoU" in table([("all", summarise(scores))])
    picture = chart(scores)
    assert picture.shape == (6 * 22 + 8, 640, 3) and picture.dtype == np.uint8
    blue = (picture == (58, 110, 180)).all(axis=2)
    widths = blue.sum(axis=1)
    assert widths.max() == pytest.approx(0.6 * 320, abs=2), "the bar is as long as its figure"
    assert chart([judge([Expected(LEFT)] * 300, [])]).shape[0] == 129 * 22 + 8


def test_a_bar_of_a_box_without_a_name_does_not_read_as_a_count():
    (bar,) = _bars(judge([Expected(LEFT)], [seen(LEFT)]))
    assert bar.text.startswith("box 1: IoU")
    (bar,) = _bars(judge([Expected(LEFT, "cup")], [seen(LEFT, "cup")]))
    assert bar.text.startswith("box 1 cup: IoU")


def test_a_line_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(b'{"instances":[]}\n{"id":"\xb5"}\n')
    with pytest.raises(InputError, match=r"^results.jsonl line 2 is not UTF-8 text \(byte 7\); save it as UTF-8\.$"):
        list(read_results(tmp_path / "results.jsonl"))
