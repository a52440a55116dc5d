"""A reference cut to its subject."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contextgen_core.composite.references import CROP_MARGIN, Reference, cropped
from contextgen_core.methods.lamic.pictures import fed_picture

SIDE = st.integers(16, 80)


@given(SIDE, SIDE, st.data())
def test_a_cut_out_has_at_least_sixteen_pixels_wherever_the_subject_is(
    width: int, height: int, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 255
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    reference = Reference("pin", pixels, mask, tokens=9, crop=True)
    cut, cut_mask = cropped(reference)
    assert cut.shape[:2] == cut_mask.shape and min(cut_mask.shape) >= 16
    assert (cut_mask > 0).sum() == w * h, "all of the subject"
    most = max(w, h)
    assert cut.shape[1] <= max(w + 2 * (most * CROP_MARGIN + 1), 17) and cut.shape[0] <= max(
        h + 2 * (most * CROP_MARGIN + 1), 17
    )
    if max(cut_mask.shape) < 9 * min(cut_mask.shape):
        assert min(fed_picture(reference, grey=False).shape[:2]) >= 16
