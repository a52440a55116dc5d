"""Fonts for names that people give: any script that the machine has a font for, and code points where it has none.

Pillow's built-in font knows Latin letters alone and draws one empty square for everything else: two Chinese
names look alike. Nothing ships with the pack: the fonts are those of the system.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

MAX_FONTS = 48  # opened at most in search of a letter
ENDINGS = (".ttf", ".ttc", ".otf")
NOBODY = "\U0010ffff"  # no character: what a font draws for it is what it draws for all that it lacks
# Parts of file names of fonts with many scripts, best first: Chinese, Japanese and Korean, then the rest.
WIDE = (
    "notosanscjk", "sourcehansans", "pingfang", "hiragino", "msyh", "yugoth", "malgun", "simhei", "simsun", "wqy",
    "droidsansfallback", "arialunicode", "arial unicode", "unifont", "notosans-", "dejavusans.", "segoeui.", "arial.",
    "freesans.", "liberationsans-regular", "noto",
)  # fmt: skip


def lettering(text: str, height: int) -> tuple[str, Font]:
    """What to draw for a name, and with which font, its letters about ``height`` pixels high.

    Characters that no font here knows come as their code points: <732B>. Marks that turn the direction are left out.
    """
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc", "Cs"))
    return _lettering(text, height)


@lru_cache(maxsize=128)
def _lettering(text: str, height: int) -> tuple[str, Font]:
    best = _built_in(height)
    lacking = _lacking(best, text)
    for path in _files() if lacking else ():
        font = _opened(path, height)
        missing = lacking if font is None else _lacking(font, text)
        if font is not None and len(missing) < len(lacking):
            best, lacking = font, missing
        if not lacking:
            break
    return "".join(f"<{ord(c):04X}>" if c in lacking else c for c in text), best


@lru_cache(maxsize=32)
def _built_in(height: int) -> Font:
    """Pillow's, once for all names of a height: each opening takes 50 KB."""
    return ImageFont.load_default(height)


def _lacking(font: Font, text: str) -> frozenset[str]:
    """The characters that the font has no picture of."""
    if not isinstance(font, ImageFont.FreeTypeFont):  # the bitmap font of a Pillow without FreeType
        return frozenset(c for c in text if ord(c) > 255)
    empty = _picture(font, NOBODY)
    return frozenset(c for c in set(text) if not c.isspace() and _picture(font, c) == empty)


def _picture(font: ImageFont.FreeTypeFont, character: str) -> tuple[tuple[int, int], bytes]:
    mask: Any = font.getmask(character)
    return mask.size, bytes(mask)


@lru_cache(maxsize=64)
def _opened(path: Path, height: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(str(path), height)
    except OSError:
        return None


@lru_cache(maxsize=1)
def _files() -> tuple[Path, ...]:
    """The system's fonts, those with many scripts first."""

    def place(path: Path) -> tuple[int, str]:
        name = path.name.casefold()
        return next((n for n, part in enumerate(WIDE) if part in name), len(WIDE)), name

    return tuple(sorted(_walk(_folders()), key=place)[:MAX_FONTS])


def _walk(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        for where, _, names in os.walk(folder):
            yield from (Path(where) / name for name in names if name.casefold().endswith(ENDINGS))


def _folders() -> list[Path]:
    home = Path.home()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", str(home))
        return [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", Path(local) / "Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    shared = [
        Path(folder) / "fonts" for folder in os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    ]
    return [*shared, home / ".local/share/fonts", home / ".fonts"]
