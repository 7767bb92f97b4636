"""Render text as small images, once each, in any script for which this machine has a font."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tubelet.core.text import printable
from tubelet.drawing.colours import Colour, readable_on

LONGEST = 64  # characters; class names from files may be of any length
FIRST_EAST_ASIAN = 0x2E80  # DejaVu has no glyphs from this character on
EAST_ASIAN_FONTS = (  # on Linux, macOS and Windows, by the names that Pillow finds them by
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
    """Render a line of text on a coloured plate, uint8 [h, w, 3] RGB, read-only; letters are `height` pixels high.

    The text is black or white, whichever is readable on the background. Long text is cut.

    >>> from tubelet.drawing.labels import label
    >>> plate = label("dog", 20, (250, 240, 120))
    >>> plate[0, 0].tolist(), int(plate.min())
    ([250, 240, 120], 0)
    """
    text = printable(text, LONGEST)  # without line breaks, so that it is one line
    is_east_asian = any(ord(character) >= FIRST_EAST_ASIAN for character in text)
    font = _font(height, is_east_asian)
    margin = max(round(0.3 * height), 2)
    left, _, right, _ = font.getbbox(text)
    top, bottom = _extent(height, font)

    width = int(np.ceil(right - left)) + 2 * margin
    plate = Image.new("RGB", (width, bottom - top + margin), background)
    corner = (margin - left, margin // 2 - top)
    ImageDraw.Draw(plate).text(corner, text, fill=readable_on(background), font=font)
    image = np.array(plate)
    image.flags.writeable = False  # the cache returns the same array for the same text
    return image


def text_height(frame: tuple[int, int]) -> int:
    """Height of letters in pixels that are readable on a frame of (height, width), from 360 lines to 4K.

    >>> from tubelet.drawing.labels import text_height
    >>> text_height((720, 1280))
    22
    """
    return max(round(0.03 * min(frame)), 11)


@lru_cache(maxsize=64)
def _extent(height: int, font: Font) -> tuple[int, int]:
    # top and bottom, the same for every text of a size, so that plates in a row have the same height
    _, top, _, bottom = font.getbbox("Ågjy|")
    return int(np.floor(top)), int(np.ceil(bottom))


@lru_cache(maxsize=64)
def _font(height: int, east_asian: bool) -> Font:
    names = [*EAST_ASIAN_FONTS] if east_asian else []
    # matplotlib ships DejaVu, which has Latin, Greek, Cyrillic, Arabic, Hebrew and more; importing it would be slow
    matplotlib = find_spec("matplotlib")
    if matplotlib:
        names.append(str(Path(matplotlib.origin or "").parent / "mpl-data/fonts/ttf/DejaVuSans-Bold.ttf"))

    for name in names:
        try:
            return ImageFont.truetype(name, height)
        except OSError:
            continue
    return ImageFont.load_default(height)
