"""The shapes of CVAT's XML: masks and polygons, and the numbers in their attributes."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np

from tubelet.core import masks
from tubelet.core.errors import FormatError
from tubelet.core.masks import RLE
from tubelet.core.untrusted.documents import Element
from tubelet.formats.files import FormatWarning

CROWD = "iscrowd"  # name of the attribute that marks regions to ignore
WITH_MASK = ("mask", "polygon")


def mask_of(shape: Element, size: tuple[int, int], where: str) -> RLE | None:
    """Read a <mask> or <polygon> of an image of (height, width); None if it covers no pixel.

    Raises FormatError, with `where`, if it does not fit.

    Example:
        >>> from tubelet.core.untrusted.documents import parse_xml
        >>> from tubelet.formats.cvat.shapes import mask_of
        >>> shape = parse_xml(b"<mask rle='0, 4' left='1' top='1' width='2' height='2'/>", "a file")
        >>> mask_of(shape, (4, 6), "a file").size
        (4, 6)
    """
    if shape.tag == "polygon":
        return masks.from_json([_points(shape, where)], size, where)

    left, top, width, height = (
        integer(shape.get(side, ""), f"{where}: {side}") for side in ("left", "top", "width", "height")
    )
    runs = [integer(run, f"{where}: rle") for run in shape.get("rle", "").split(",")]
    is_inside = left + width <= size[1] and top + height <= size[0]
    if not is_inside or sum(runs) != width * height:
        given = f"{sum(runs)} pixels for {width}x{height} at {left}, {top}"
        raise FormatError(f"{where}: a mask that does not fit: {given}")

    values = np.arange(len(runs)) % 2 == 1  # runs alternate, background first
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = np.repeat(values, runs).reshape(height, width)
    return masks.encode(mask[None])[0] if mask.any() else None


def is_crowd(shape: Element) -> bool:
    """Whether a shape is a region to ignore.

    Example:
        >>> from tubelet.core.untrusted.documents import parse_xml
        >>> from tubelet.formats.cvat.shapes import is_crowd
        >>> is_crowd(parse_xml(b"<mask><attribute name='iscrowd'>true</attribute></mask>", "a file"))
        True
    """
    return any(attribute.get("name") == CROWD and attribute.text == "true" for attribute in shape)


def integer(text: str, where: str) -> int:
    """Read a number that is whole and not negative.

    Raises FormatError, with `where`, for any other text.

    Example:
        >>> from tubelet.formats.cvat.shapes import integer
        >>> integer(" 7", "a file")
        7
    """
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 12):
        raise FormatError(f"{where}: expected a whole number, got {text!r}")
    return int(text)


def warn(counts: Counter[str], where: str) -> None:
    """Give one warning per kind of departure, with its count.

    Example:
        >>> from collections import Counter
        >>> from tubelet.formats.cvat.shapes import warn
        >>> warn(Counter(), "a file")  # nothing to say
    """
    for kind, count in counts.items():
        warnings.warn(f"{where}: {kind}: {count}", FormatWarning, stacklevel=3)


def _points(shape: Element, where: str) -> list[float]:
    pairs = shape.get("points", "").split(";")
    return [_number(value, where) for pair in pairs for value in pair.split(",")]


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FormatError(f"{where}: expected points as x,y;x,y;..., got {text!r}") from None
