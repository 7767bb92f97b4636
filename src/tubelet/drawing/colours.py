"""One colour per identity: the same id has the same colour in every frame, every video and every run.

Hues are spaced by the golden ratio, so that each new id falls into the widest gap between the others. This is done in
OKLCH, where equal steps look equal. Lightness changes from one id to the next, so that colour-blind people can tell
neighbours apart. OKLab: B. Ottosson, "A perceptual color space for image processing".
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
FIRST_HUE = 0.95  # in turns; chosen, with the lightness, so that the first eight differ for colour-blind people
LIGHTNESS = (0.61, 0.81, 0.64)
CHROMA = 0.19  # more than a screen can show in some hues, where it is reduced

Colour = tuple[int, int, int]  # red, green, blue, 0..255

# OKLab -> cube roots of cone responses; cone responses -> linear sRGB
_TO_CONES = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.707614701],
    ]
)


@lru_cache(maxsize=4096)
def colour(id: int) -> Colour:
    """The (red, green, blue) of an identity, 0..255 each.

    >>> from tubelet.drawing.colours import colour
    >>> colour(1) == colour(1), colour(1) == colour(2)
    (True, False)
    """
    hue = 2 * math.pi * ((FIRST_HUE + id * GOLDEN_RATIO) % 1)
    lightness = LIGHTNESS[id % len(LIGHTNESS)]
    chroma = CHROMA
    while (linear := _linear_rgb(lightness, chroma, hue)).min() < 0 or linear.max() > 1:
        chroma *= 0.95
    red, green, blue = (_to_srgb(float(value)) for value in linear)
    return red, green, blue


def readable_on(background: Colour) -> Colour:
    """Black or white, whichever has more contrast to a background (contrast ratio of WCAG 2).

    >>> from tubelet.drawing.colours import readable_on
    >>> readable_on((250, 240, 120))
    (0, 0, 0)
    """
    red, green, blue = (_to_linear(value) for value in background)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    black_contrast = (luminance + 0.05) / 0.05
    white_contrast = 1.05 / (luminance + 0.05)
    return (0, 0, 0) if black_contrast > white_contrast else (255, 255, 255)


def _linear_rgb(lightness: float, chroma: float, hue: float) -> np.ndarray:
    """OKLCH, hue in radians -> linear sRGB [3], outside 0..1 if a screen cannot show it."""
    oklab = np.array([lightness, chroma * math.cos(hue), chroma * math.sin(hue)])
    return _TO_RGB @ (_TO_CONES @ oklab) ** 3


def _to_srgb(linear: float) -> int:
    value = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * value)


def _to_linear(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
