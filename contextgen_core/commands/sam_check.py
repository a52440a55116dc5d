"""Checks cut-outs with real SAM weights against the published package's own predictor.

    python -m contextgen_core.sam_check sam_vit_b_01ec64.pth photo.png --point 168,90 --box 16,10,284,382 --out
    cutout.png

Prints the recognised model, how alike the masks are (they should be equal but for rounding), the quality figure, and
the seconds of the first and of a further click; writes the cut-out with a transparent background.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..cutout.cutout import Cleaning, Prompts, by_model, rgba
from ..cutout.sam import Candidates, Point, Segmenter
from ..errors import InputError
from ..input.picture_file import open_picture
from ..layout.box import Box


def _numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    def read(text: str) -> tuple[float, ...]:
        values = tuple(float(part) for part in text.split(","))
        if len(values) != count:
            raise argparse.ArgumentTypeError(f"{text} holds {len(values)} numbers, give {count}")
        return values

    return read


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m contextgen_core.sam_check", description="Check SAM weights on a picture."
    )
    parser.add_argument("checkpoint", type=Path, help="a Segment Anything checkpoint, .pth or .safetensors")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--point", type=_numbers(2), action="append", default=[], metavar="X,Y", help="on the subject")
    parser.add_argument("--not", type=_numbers(2), action="append", default=[], metavar="X,Y", dest="out_points")
    parser.add_argument("--box", type=_numbers(4), metavar="X1,Y1,X2,Y2")
    parser.add_argument("--out", type=Path, default=Path("cutout.png"))
    return parser.parse_args(arguments)


def theirs(segmenter: Segmenter, pixels: np.ndarray, prompts: Prompts) -> Candidates:
    """The same prompts through SamPredictor, the package's own way."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(segmenter.sam)
    predictor.set_image(pixels)
    box = prompts.box
    masks, quality, _ = predictor.predict(
        point_coords=np.array([[p.x, p.y] for p in prompts.points]) if prompts.points else None,
        point_labels=np.array([int(p.keep) for p in prompts.points]) if prompts.points else None,
        box=None if box is None else np.array([box.x1, box.y1, box.x2, box.y2]),
    )
    return Candidates(np.asarray(masks), np.asarray(quality))


def run(arguments: Sequence[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> int:
    """The command. Returns 0 where both ways agree, 1 where they do not, 2 for an input error."""
    options = _arguments(arguments)
    points = [Point(x, y) for x, y in options.point] + [Point(x, y, keep=False) for x, y in options.out_points]
    prompts = Prompts(tuple(points), Box(*options.box) if options.box else None)
    try:
        pixels = np.asarray(open_picture(options.picture).convert("RGB"))
        segmenter = Segmenter.from_file(options.checkpoint)
        started = time.perf_counter()
        ours = segmenter.propose(pixels, box=prompts.box, points=prompts.points)
        between = time.perf_counter()
        made = by_model(segmenter, pixels, prompts, cleaning=Cleaning())
        ended = time.perf_counter()
        reference = theirs(segmenter, pixels, prompts)
    except (InputError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    alike = float((ours.masks == reference.masks).mean())
    apart = float(np.abs(ours.quality - reference.quality).max())
    Image.fromarray(rgba([made])[0]).save(options.out)
    write(
        f"{segmenter.shape.name}, pictures of {segmenter.shape.image_size} pixels\n"
        f"equal mask pixels {100 * alike:.4f} %, quality apart by at most {apart:.1e}\n"
        f"quality {made.quality:.3f}, box {made.box}\n"
        f"first click {between - started:.2f} s, further clicks {ended - between:.2f} s\n"
        f"wrote {options.out}\n"
    )
    return 0 if alike > 0.999 and apart < 1e-3 else 1
