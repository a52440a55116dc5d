"""Scores of a whole run from a file of results, one JSON object a line::

    {"id": "0001", "instances": [{"label": "red cup", "box": [x1, y1, x2, y2], "colour_right": true,
                                  "answers": {"spatial": true, "colour": true, "texture": true, "shape": false},
                                  "identity": 0.83}],
     "detections": [{"box": [x1, y1, x2, y2], "label": "cup", "score": 0.9}]}

Everything but `instances` and their `box` may be left out; without `detections` no detector was run, an empty list
means it found nothing. All boxes of a line share one pixel grid. Unknown keys are ignored.

With the authors' request file (layout/request_file.py) line n belongs to request n: the boxes and labels that were
asked for come from there, and `instances` may be left out, or hold only what a model said about each.
`"size": [width, height]` is the grid in which the detections are given; without it, the request's square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..input.bounded_json import parse
from ..input.checks import MAX_LABEL, finite_number, shorten
from ..layout.box import Box
from ..layout.foreign_boxes import LabelledBox
from ..layout.layout import Layout
from ..layout.request_file import Request
from .figures import Answers, Expected, Scored, judge

MAX_LINE = 1 << 20
MAX_ENTRIES = 1000


def _entries(document: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    values = document.get(name)
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise InputError(f"{name} = {shorten(values)}; give a list of objects.")
    if len(values) > MAX_ENTRIES:
        raise InputError(f"there are {len(values)} {name}, the limit is {MAX_ENTRIES}.")
    return values


def _box(entry: Mapping[str, object], where: str) -> Box:
    value = entry.get("box")
    if not isinstance(value, list) or len(value) != 4:
        raise InputError(f"{where} has box = {shorten(value)}; give [left, top, right, bottom] in pixels.")
    return Box(*(finite_number(number, where, "box") for number in value))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_LABEL:
        raise InputError(f"{where} has label = {shorten(value)}; give text of at most {MAX_LABEL} characters.")
    return value


def _flag(value: object, where: str, name: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{where} has {name} = {shorten(value)}; give true or false.")
    return value


def read_answers(value: object, where: str) -> Answers | None:
    """The answers of a model about one crop, None for null. `where` names the instance in an InputError."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InputError(f'{where} has answers = {shorten(value)}; give an object with "spatial".')
    spatial = _flag(value.get("spatial"), where, "spatial")
    # Whoever follows the benchmark asks the rest only where the thing is there, and then writes null or nothing.
    rest = [_flag(value.get(name) or False, where, name) for name in ("colour", "texture", "shape")]
    return Answers(spatial, *rest)


def _expected(number: int, entry: Mapping[str, object], asked: tuple[Box, str] | None = None) -> Expected:
    where = f"instance {number}"
    colour, identity = entry.get("colour_right"), entry.get("identity")
    box, label = asked or (_box(entry, where), _text(entry.get("label", ""), where))
    return Expected(
        box,
        label,
        None if colour is None else _flag(colour, where, "colour_right"),
        read_answers(entry.get("answers"), where),
        None if identity is None else finite_number(identity, where, "identity", 1.0),
    )


def _asked(request: Request, size: object) -> list[tuple[Box, str]]:
    """The boxes and labels of a request, on the pixel grid of the picture that was made for it."""
    layout = Layout.from_request(request)
    if size is not None:
        if not isinstance(size, list) or len(size) != 2:
            raise InputError(f"size = {shorten(size)}; give [width, height] in pixels.")
        layout = layout.scaled_to(*(int(finite_number(side, "the line", "size")) for side in size))
    return [(instance.box, instance.label) for instance in layout.instances]


def read_line(text: str, threshold: float, one_to_one: bool, request: Request | None = None) -> Scored:
    """Judge one line of a results file. Raises InputError without saying which line it is."""
    document, literals = parse(text, "the line", MAX_LINE)
    if not isinstance(document, Mapping):
        raise InputError(f"the line is {shorten(document)}; give a JSON object.")
    if literals:
        raise InputError(f"the line contains {literals[0]}, which is not JSON; give finite numbers.")
    if request is None:
        expected = [_expected(number, entry) for number, entry in enumerate(_entries(document, "instances"), 1)]
    else:
        asked = _asked(request, document.get("size"))
        entries = _entries(document, "instances") if "instances" in document else [{}] * len(asked)
        if len(entries) != len(asked):
            raise InputError(f"there are {len(entries)} instances and the request has {len(asked)}; give one for each.")
        expected = [_expected(n, entry, one) for n, (entry, one) in enumerate(zip(entries, asked, strict=True), 1)]
    found = None
    if document.get("detections") is not None:
        found = [
            LabelledBox(_box(entry, f"detection {n}"), _text(entry.get("label", ""), f"detection {n}"))
            for n, entry in enumerate(_entries(document, "detections"), 1)
        ]
    return judge(expected, found, name=str(document.get("id", ""))[:100], threshold=threshold, one_to_one=one_to_one)


def read_results(
    path: Path,
    threshold: float = 0.5,
    one_to_one: bool = False,
    progress: Callable[[float], None] | None = None,
    requests: Sequence[Request] | None = None,
) -> Iterator[Scored]:
    """Judges each line of a results file, empty lines skipped.

    progress: called with the share of the file read, 0..1. requests: what was asked for, one for each line. Raises
    InputError naming the file and the line.
    """
    size = max(1, path.stat().st_size)
    done = read = 0
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            done += len(line)
            try:
                if len(line) > MAX_LINE:
                    raise InputError(f"the line is longer than {MAX_LINE} bytes.")
                if line.strip():
                    if requests is not None and read >= len(requests):
                        raise InputError(f"there are only {len(requests)} requests; give one for each line.")
                    request = None if requests is None else requests[read]
                    read += 1
                    yield read_line(line.decode("utf-8"), threshold, one_to_one, request)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path.name} line {number} is not UTF-8 text (byte {error.start}); save it as UTF-8."
                ) from None
            except InputError as error:
                raise InputError(f"{path.name} line {number}: {error}") from None
            if progress is not None:
                progress(done / size)
    if requests is not None and read < len(requests):
        raise InputError(f"{path.name} holds {read} results for {len(requests)} requests; write one line for each.")
