"""Text as small images that are rendered once: any script that a font on this machine holds, not ASCII alone."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tubelet.core.text import printable
from tubelet.drawing.colours import Colour, readable_on

LONGEST = 64  # characters; a class name from outside may be of any length
FIRST_EAST_ASIAN = 0x2E80  # from this character on DejaVu has no glyphs
EAST_ASIAN_FONTS = (  # of Linux, macOS and Windows, by the names under which Pillow finds them
    "NotoSansCJK-Bold.ttc",
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "malgun.ttf",
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=256)
def label(text: str, height: int, background: Colour) -> np.ndarray:
    """A line of text on a plate, uint8 [h, w, 3] RGB, read-only; `height` of the letters in pixels.

    The text is black or white, whichever is readable on the background.
    """
    text = printable(text, LONGEST)  # a line break would make it two lines
    font = _font(height, any(ord(character) >= FIRST_EAST_ASIAN for character in text))
    margin = max(round(0.3 * height), 2)
    left, _, right, _ = font.getbbox(text)
    top, bottom = _extent(height, font)
    width = int(np.ceil(right - left)) + 2 * margin
    plate = Image.new("RGB", (width, bottom - top + margin), background)
    at = (margin - left, margin // 2 - top)
    ImageDraw.Draw(plate).text(at, text, fill=readable_on(background), font=font)
    image = np.array(plate)
    image.flags.writeable = False  # it is shared by all who ask for the same text
    return image


def text_height(frame: tuple[int, int]) -> int:
    """Letters that are readable on a frame of (height, width), from 360 lines to 4K."""
    return max(round(0.03 * min(frame)), 11)


@lru_cache(maxsize=64)
def _extent(height: int, font: Font) -> tuple[int, int]:
    # the same for every text of a size, so that plates in a row are equally high
    _, top, _, bottom = font.getbbox("Ågjy|")
    return int(np.floor(top)), int(np.ceil(bottom))


@lru_cache(maxsize=64)
def _font(height: int, east_asian: bool) -> Font:
    # matplotlib ships DejaVu, which knows Latin, Greek, Cyrillic, Arabic, Hebrew and more; importing it would be slow
    home = find_spec("matplotlib")
    dejavu = Path(home.origin or "").parent / "mpl-data/fonts/ttf/DejaVuSans-Bold.ttf" if home else Path()
    for name in (*(EAST_ASIAN_FONTS if east_asian else ()), str(dejavu)):
        try:
            return ImageFont.truetype(name, height)
        except OSError:
            continue
    return ImageFont.load_default(height)
