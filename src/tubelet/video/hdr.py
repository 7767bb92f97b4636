"""Convert high dynamic range video, PQ (SMPTE ST 2084) and HLG (ARIB STD-B67), to sRGB.

    light      PQ    nits = 10000 (max(v^(1/m2) - c1, 0) / (c2 - c3 v^(1/m2)))^(1/m1)      ITU-R BT.2100, table 4
               HLG   nits = 1000 E^1.2,  E = v^2 / 3  or  (exp((v - c) / a) + b) / 12      ITU-R BT.2100, table 5
    roll-off   the Hermite spline of ITU-R BT.2390, section 5.4.1, from MASTERED down to WHITE nits
    primaries  BT.2020 -> BT.709, ITU-R BT.2087
    encoding   sRGB, IEC 61966-2-1

The roll-off and HLG's exponent are applied to each primary separately, where BT.2100 uses the luminance of all three.
So light and roll-off are one lookup table, and the encoding is another. In return, bright colours turn paler.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

# transfer characteristics in the numbering of ITU-T H.273
PQ = 16
HLG = 18
TRANSFERS = frozenset({PQ, HLG})

MASTERED = 1000.0  # nits; brighter light is clipped, since most films are mastered at 1000 nits
WHITE = 203.0  # nits of diffuse white, ITU-R BT.2408
STEPS = 1 << 16  # size of the lookup tables

M1 = 2610 / 16384
M2 = 2523 / 4096 * 128
C1 = 3424 / 4096
C2 = 2413 / 4096 * 32
C3 = 2392 / 4096 * 32
HLG_A = 0.17883277
HLG_B = 1 - 4 * HLG_A
HLG_C = 0.5 - HLG_A * np.log(4 * HLG_A)
BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def tone_mapped(codes: np.ndarray, transfer: int) -> np.ndarray:
    """Convert full-range code values, uint16 [H, W, 3] in BT.2020 primaries, to sRGB, uint8 [H, W, 3].

    Args:
        codes: The code values.
        transfer: PQ or HLG.

    Example:
        >>> from tubelet.video import hdr
        >>> codes = np.array([[[0, 0, 0], [65535, 65535, 65535]]], np.uint16)
        >>> hdr.tone_mapped(codes, hdr.PQ).tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    light = cv2.transform(_light_of_codes(transfer)[codes], BT2020_TO_BT709)
    steps = np.clip(light, 0, 1) * (STEPS - 1) + 0.5
    return _srgb_of_light()[steps.astype(np.uint16)]


@cache
def _light_of_codes(transfer: int) -> np.ndarray:
    """The displayed light of each code value, 0 to 1, float32 [65536]."""
    values = np.linspace(0, 1, STEPS)
    nits = pq_to_nits(values) if transfer == PQ else hlg_to_nits(values)
    return (rolled_off(nits) / WHITE).astype(np.float32)


@cache
def _srgb_of_light() -> np.ndarray:
    """The sRGB value of each step of light, uint8 [65536]."""
    light = np.linspace(0, 1, STEPS)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)


def pq_to_nits(values: np.ndarray) -> np.ndarray:
    """Convert PQ values, 0 to 1, to light in nits.

    Example:
        >>> from tubelet.video.hdr import pq_to_nits
        >>> pq_to_nits(np.array([0.0, 1.0])).round().tolist()
        [0.0, 10000.0]
    """
    root = values ** (1 / M2)
    return 10_000 * (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """Convert light in nits to PQ values, 0 to 1: the inverse of `pq_to_nits`.

    Example:
        >>> from tubelet.video.hdr import nits_to_pq
        >>> nits_to_pq(np.array([100.0, 10000.0])).round(3).tolist()
        [0.508, 1.0]
    """
    power = (nits / 10_000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def hlg_to_nits(values: np.ndarray) -> np.ndarray:
    """Convert HLG values, 0 to 1, to light in nits on a display of 1000 nits.

    Example:
        >>> from tubelet.video.hdr import hlg_to_nits
        >>> hlg_to_nits(np.array([0.0, 0.75, 1.0])).round().tolist()
        [0.0, 203.0, 1000.0]
    """
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - HLG_C) / HLG_A) + HLG_B) / 12)
    return 1000 * scene**1.2


def rolled_off(nits: np.ndarray) -> np.ndarray:
    """Compress light in nits: unchanged up to a knee, then on a smooth curve so that MASTERED becomes WHITE.

    Example:
        >>> from tubelet.video.hdr import rolled_off
        >>> rolled_off(np.array([10.0, 1000.0, 4000.0])).round().tolist()
        [10.0, 203.0, 203.0]
    """
    mastered = nits_to_pq(np.array(MASTERED))
    white = nits_to_pq(np.array(WHITE)) / mastered
    knee = 1.5 * white - 0.5

    values = np.minimum(nits_to_pq(nits) / mastered, 1)
    t = np.maximum(values - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * white
    return pq_to_nits(np.where(values < knee, values, spline) * mastered)
