"""Names in any script can be told apart in a picture, whatever fonts the machine has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from contextgen_core import lettering as lettering_module
from contextgen_core.composite.compose import compose
from contextgen_core.composite.references import Reference
from contextgen_core.layout.layout import Layout
from contextgen_core.lettering import lettering
from contextgen_core.report import draw_layout
from contextgen_core.score.figures import Expected, judge
from contextgen_core.score.table import chart


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering_module, "_files", lambda: ())
    lettering_module._lettering.cache_clear()


def drawn(text: str) -> bytes:
    shown, font = lettering(text, 14)
    picture = Image.new("L", (200, 24))
    ImageDraw.Draw(picture).text((2, 2), shown, fill=255, font=font)
    return picture.tobytes()


def test_latin_stays_as_it_is() -> None:
    assert lettering("Zoë's cat", 14)[0] == "Zoë's cat"


def test_what_no_font_knows_comes_as_code_points(no_fonts: None) -> None:
    assert lettering("猫 2", 14)[0] == "<732B> 2"
    assert drawn("猫") != drawn("狗")


def test_a_system_font_is_taken_that_has_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Chinese(ImageFont.FreeTypeFont):
        """Draws every letter that exists as its own picture; has no file."""

        def __init__(self) -> None: ...

        def getmask(self, text: str, *_: object, **__: object) -> Image.core.ImagingCore:  # type: ignore[override]
            return Image.new("L", (2 + ord(text) % 97 if text != lettering_module.NOBODY else 1, 3), 255).im

    fonts = {Path("broken.ttf"): None, Path("chinese.ttf"): Chinese()}
    monkeypatch.setattr(lettering_module, "_files", lambda: tuple(fonts))
    monkeypatch.setattr(lettering_module, "_opened", lambda path, height: fonts[path])
    lettering_module._lettering.cache_clear()
    text, font = lettering("\u6a59\u732b cat", 14)
    assert text == "\u6a59\u732b cat" and font is fonts[Path("chinese.ttf")]
    assert lettering("cat", 14)[1] is not font


def test_names_of_one_height_share_the_font() -> None:
    assert lettering("cat", 17)[1] is lettering("dog", 17)[1]


def test_marks_of_direction_are_left_out() -> None:
    assert lettering("a\u202eb", 14)[0] == "ab"


def layout(name: str) -> np.ndarray:
    pixels, mask = np.full((64, 64, 3), 200, np.uint8), np.full((64, 64), 255, np.uint8)
    text = '{"v":1,"canvas":{"w":256,"h":256},"boxes":[{"id":"b1","x":8,"y":8,"w":200,"h":200,"ref":1}]}'
    return draw_layout(compose(Layout.from_json(text, 256, 256), [Reference(name, pixels, mask)]))


def test_two_chinese_names_differ_in_report_and_chart() -> None:
    assert (layout("橙色的猫") != layout("蓝色的狗")).any()
    charts = [chart([judge([Expected((0, 0, 9, 9), label, identity=0.5)], None)]) for label in ("猫", "狗")]  # type: ignore[arg-type]
    assert charts[0].shape != charts[1].shape or (charts[0] != charts[1]).any()
