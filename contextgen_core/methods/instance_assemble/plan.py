"""The instances of one picture on the token grid: plain numbers and bytes, hashable, free of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ...composite.placement import placed
from ...errors import InputError
from ...input.checks import finite_number, shorten
from ...layout.box import Box
from ...layout.layout import Instance, box_name, sine_cosine
from ...layout.tokens import TOKEN, TokenBox
from ..plan_values import check_bits, check_inside_grid, check_whole, check_windows, records
from .cells import Corners, box_cells, cell_ends, corners_of, grid_points
from .content import Place, read_picture

if TYPE_CHECKING:
    from ...composite.compose import Scene

_PLAN_TAG = "instance-assemble-plan-2"
CONTENTS = ("phrases", "pictures", "both")
MAX_STRENGTH = 4.0
WHITE = 128  # a mask value from here on belongs to the instance


class PhraseBox(NamedTuple):
    """One instance: a box with a phrase, a picture, or both.

    name      how sentences and reports call it
    corners   left, top, right, bottom in shares of the canvas, float32 values: what the layout encoder reads
    centre    (row, column) of its layout token
    cells     its tokens on the grid
    chosen    one byte (0 or 1) per token of ``cells``, row-major: which of them count; empty: all
    strength  factor on what it adds to the picture (0..4, 1 = as trained), and its weight where boxes overlap
    start, end  shares of the sampling run (0..1) between which it acts
    phrase    whether it has one
    picture   where its picture lies, None without one
    """

    name: str
    corners: Corners
    centre: tuple[float, float]
    cells: TokenBox
    chosen: bytes = b""
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    phrase: bool = True
    picture: Place | None = None

    def indices(self, columns: int) -> np.ndarray:
        """Its tokens as indices of the grid, ascending."""
        rows = np.arange(self.cells.y1, self.cells.y2)[:, None] * columns
        flat = (rows + np.arange(self.cells.x1, self.cells.x2)[None, :]).reshape(-1)
        return flat[np.frombuffer(self.chosen, np.uint8).astype(bool)] if self.chosen else flat

    @property
    def size(self) -> int:
        """How many tokens it has."""
        if self.cells.empty:
            return 0
        if self.chosen:
            return sum(self.chosen)
        return (self.cells.x2 - self.cells.x1) * (self.cells.y2 - self.cells.y1)


@dataclass(frozen=True)
class PhrasePlan:
    """A picture's grid of ``rows`` x ``columns`` tokens and its instances, in the layout's order: the last in front.

    pooled  how many numbers its phrases were encoded to, 0 while they are not

    Encoded phrases stand in the order of the boxes that have one, packed pictures in that of the boxes that have one.
    """

    rows: int
    columns: int
    boxes: tuple[PhraseBox, ...] = ()
    pooled: int = 0

    def as_tuple(self) -> tuple[object, ...]:
        boxes = tuple(
            (b.name, b.corners, b.centre, tuple(b.cells), *b[4:-1], b.picture and tuple(b.picture)) for b in self.boxes
        )
        return (_PLAN_TAG, self.rows, self.columns, boxes, self.pooled)

    @classmethod
    def from_tuple(cls, value: object) -> PhrasePlan:
        """Inverse of :meth:`as_tuple`. Raises InputError for anything that it cannot have given."""
        try:
            tag, rows, columns, entries, pooled = cast(tuple[Any, ...], value)
            if tag != _PLAN_TAG:
                raise ValueError(tag)
            check_whole(rows, columns)
            check_whole(pooled, low=0, high=1 << 16)
            plan = cls(rows, columns, records(PhraseBox, entries), pooled)
            for box in plan.boxes:
                check_inside_grid(box.cells, columns, rows)
                if box.chosen:
                    check_bits(box.chosen, (box.cells.x2 - box.cells.x1) * (box.cells.y2 - box.cells.y1))
                if not box.phrase and box.picture is None:
                    raise ValueError("a box with nothing in it")
                if box.picture is not None:
                    check_whole(box.picture.rows, box.picture.columns)
            check_windows(plan.boxes)
        except (TypeError, ValueError) as error:
            raise InputError(
                "The phrases in this conditioning come from another version of the pack; run the graph again from"
                " InstanceAssembleConditioning."
            ) from error
        return plan


@dataclass(frozen=True)
class BoxOptions:
    """What one box may have besides its phrase; the defaults are the authors' method."""

    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, eq=False)
class PhraseOptions:
    """How a scene becomes a plan.

    boxes   options by 1-based number of the box in the layout
    masks   masks by that number, uint8 (H, W) of any size, 255 = the instance: they take the place of the box
    sliced  take cells as the authors' code does, also beyond the canvas (:func:`.cells.box_cells`)
    content what fills the boxes: their "phrases", their "pictures" (and phrases where a box has no picture), or "both"
    """

    boxes: Mapping[int, BoxOptions] = field(default_factory=dict)
    masks: Mapping[int, np.ndarray] = field(default_factory=dict)
    sliced: bool = False
    content: str = CONTENTS[0]


class BoundPhrases(NamedTuple):
    """A plan with its phrases and pictures (uint8 (h, w, 3), sides of whole tokens), and sentences for the user."""

    plan: PhrasePlan
    phrases: tuple[str, ...]
    pictures: tuple[np.ndarray, ...] = ()
    warnings: tuple[str, ...] = ()


def bind(scene: Scene, options: PhraseOptions | None = None) -> BoundPhrases:
    """The plan of a scene's boxes. What has no content of the chosen kind, and a hidden box, is left to other methods.

    Raises InputError for a box with neither words nor a reference, for a layout without any content, and for options
    that name no such box or are out of range.
    """
    options = options or PhraseOptions()
    layout = scene.layout
    instances = layout.instances
    for what, numbers in (("options", options.boxes), ("masks", options.masks)):
        wrong = [number for number in numbers if not 1 <= number <= len(instances)]
        if wrong:
            raise InputError(
                f"the {what} speak of box {wrong[0]}, but the layout has {len(instances)}; correct it.",
                input="box_options" if what == "options" else what,
            )
    boxes: list[PhraseBox] = []
    phrases: list[str] = []
    pictures: list[np.ndarray] = []
    warnings: list[str] = []
    for number, instance in enumerate(instances, 1):
        name = box_name(number, instance.id)
        phrase = instance.label.strip()
        if instance.hidden:
            continue
        if not phrase and instance.reference is None:
            raise InputError(f"{name} has no words; type what it shows into its label, or delete it.")
        read = _picture(scene, number - 1) if options.content != "phrases" else None
        if read is not None and options.content == "pictures":
            phrase = ""
        if not phrase and read is None:
            continue
        own = _checked(options.boxes.get(number, BoxOptions()), name)
        mask = options.masks.get(number)
        box = _instance_box(name, instance, layout.width, layout.height, own, mask=mask, sliced=options.sliced)
        boxes.append(box._replace(phrase=bool(phrase), picture=read and read[1]))
        if phrase:
            phrases.append(phrase)
        if read is not None:
            pictures.append(read[0])
        warnings.extend(_warnings(box, instance.region, mask is not None))
    if not boxes:
        what = "words" if options.content == "phrases" else "words and no pictures"
        raise InputError(f"the layout has no {what}; type into the label of each box what it shows.")
    plan = PhrasePlan(layout.height // TOKEN, layout.width // TOKEN, tuple(boxes))
    return BoundPhrases(plan, tuple(phrases), tuple(pictures), tuple(warnings))


def _picture(scene: Scene, index: int) -> tuple[np.ndarray, Place] | None:
    """The picture of an instance as content; None without one, or where nothing of it is to be read."""
    reference, layout = scene.references[index], scene.layout
    if reference is None or not reference.strength:
        return None
    cutout = placed(layout.instances[index], reference, layout, scene.fit)
    return read_picture(cutout, layout.width, layout.height, reference.tokens, reference.strength)


def _instance_box(name: str, instance: Instance, width: int, height: int, *words: Any, **options: Any) -> PhraseBox:
    """The box of an instance; a turned one has the bounds of its outline, and of their tokens those that it touches."""
    box = phrase_box(name, instance.region, width, height, *words, **options)
    if not instance.rotation or box.chosen or box.cells.empty:
        return box
    (cx, cy), (sin, cos) = instance.box.center, sine_cosine(instance.rotation)
    x = (np.arange(box.cells.x1, box.cells.x2)[None, :] + 0.5) * TOKEN - cx
    y = (np.arange(box.cells.y1, box.cells.y2)[:, None] + 0.5) * TOKEN - cy
    reach = TOKEN / 2 * (abs(sin) + abs(cos))  # of a token along the sides of the turned box
    along = np.abs(x * cos + y * sin) < instance.box.width / 2 + reach
    across = np.abs(y * cos - x * sin) < instance.box.height / 2 + reach
    return box._replace(chosen=(along & across).astype(np.uint8).tobytes())


def phrase_box(
    name: str,
    box: Box,
    width: int,
    height: int,
    options: BoxOptions | None = None,
    *,
    mask: np.ndarray | None = None,
    sliced: bool = False,
) -> PhraseBox:
    """A box of a canvas of width x height pixels. The grid floors where these are no multiples of 16.

    mask    uint8 (H, W) over the whole canvas; the box is then the mask's bounding box
    sliced  see :func:`.cells.box_cells`
    """
    options = options or BoxOptions()
    rows, columns = height // TOKEN, width // TOKEN
    if mask is not None:
        box = _mask_box(mask, width, height, name)
    made = at_corners(name, corners_of(box.x1, box.y1, box.x2, box.y2, width, height), rows, columns, sliced=sliced)
    chosen = b"" if mask is None else _chosen(mask, rows, columns, made.cells)
    return made._replace(chosen=chosen, strength=options.strength, start=options.start, end=options.end)


def at_corners(name: str, corners: Corners, rows: int, columns: int, *, sliced: bool = False) -> PhraseBox:
    """A box from its corners in shares of the canvas, in any order: a reversed one has no tokens."""
    points = grid_points(corners)
    centre = cell_ends(points, rows, columns).centre
    return PhraseBox(name, corners, centre, box_cells(points, rows, columns, sliced=sliced))


def _mask_box(mask: np.ndarray, width: int, height: int, name: str) -> Box:
    if mask.ndim != 2:
        raise InputError(f"{name} has a mask of shape {mask.shape}; give one of height x width.")
    inside = mask >= WHITE
    ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(ys):
        raise InputError(f"{name} has an empty mask; paint the part of the picture that it takes.")
    sy, sx = height / mask.shape[0], width / mask.shape[1]
    return Box(xs[0] * sx, ys[0] * sy, (xs[-1] + 1) * sx, (ys[-1] + 1) * sy)


def _chosen(mask: np.ndarray, rows: int, columns: int, cells: TokenBox) -> bytes:
    """Which tokens of a box the mask touches."""
    inside = mask >= WHITE
    # The rows of the mask that lie in each row of tokens; at least one where the mask is coarser than the grid.
    tops, lefts = (np.arange(n) * side // n for n, side in ((rows, mask.shape[0]), (columns, mask.shape[1])))
    touched = np.maximum.reduceat(np.maximum.reduceat(inside, tops, axis=0), lefts, axis=1)
    return touched[cells.y1 : cells.y2, cells.x1 : cells.x2].astype(np.uint8).tobytes()


def _checked(options: BoxOptions, name: str) -> BoxOptions:
    for what, value, high in (
        ("strength", options.strength, MAX_STRENGTH),
        ("start", options.start, 1.0),
        ("end", options.end, 1.0),
    ):
        number = finite_number(value, name, what)
        if not 0 <= number <= high:
            raise InputError(
                f"{name} has {what} = {shorten(value)}; give a number from 0 to {high:g}.", input="box_options"
            )
    if options.start > options.end:
        raise InputError(
            f"{name} starts at {options.start:g} and ends at {options.end:g}; start it before it ends.",
            input="box_options",
        )
    return options


def _warnings(box: PhraseBox, drawn: Box, masked: bool) -> Sequence[str]:
    if not box.size:
        return [f"{box.name} covers no token of the canvas and has no effect; move it inside or enlarge it."]
    if not masked and (drawn.x1 <= -TOKEN or drawn.y1 <= -TOKEN):
        return [
            f"{box.name} begins beyond the left or upper border; its part inside the canvas counts, where the authors'"
            " code would lose it."
        ]
    return []
