"""Picture files from strangers: a few formats, bounded in size, and one sentence for what cannot be read."""

from __future__ import annotations

from typing import BinaryIO, Literal, Protocol

from PIL import Image, ImageOps

from ..errors import InputError
from .checks import shorten

# Not all that Pillow opens: it reads EPS by starting another program, and some old forms without bounds.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
MAX_PIXELS = 1 << 26  # 8192 x 8192; as RGBA 256 MiB


class OpensFile(Protocol):
    """A path, or what opens like one."""

    @property
    def name(self) -> str: ...

    def open(self, mode: Literal["rb"], /) -> BinaryIO: ...


def open_picture(file: OpensFile, *, upright: bool = True) -> Image.Image:
    """The first frame of a picture file, decoded, in the file's mode, with its colour key in `info`.

    upright  turned as the file says; without, as it is stored, which is what data sets count their boxes in

    Raises InputError for a file that is missing, damaged, of another format or larger than MAX_PIXELS.
    """
    name = shorten(file.name, 80)
    Image.init()
    try:
        forms = [form for form in FORMATS if form in Image.OPEN]
        with file.open("rb") as stream, Image.open(stream, formats=forms) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(
                    f"the picture {name} is {picture.width} x {picture.height} pixels; give one of at most {MAX_PIXELS}"
                    " pixels in all."
                )
            picture.load()
            return ImageOps.exif_transpose(picture) if upright else picture
    except InputError:
        raise
    except OSError as error:  # also what is no picture of these formats
        raise InputError(f"the picture {name} cannot be read ({_reason(error)}); give a PNG, JPEG or WebP.") from None
    except Exception as error:  # decoders of damaged files raise whatever they come upon
        raise InputError(f"the picture {name} is damaged ({_reason(error)}); save it again.") from None


def _reason(error: Exception) -> str:
    """What went wrong, without the path that Pillow puts in."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "no picture of a known format"
    return shorten(str(getattr(error, "strerror", None) or error or type(error).__name__), 80)
