"""High dynamic range to a screen's: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67) to sRGB.

    light      PQ    nits = 10000 (max(v^(1/m2) - c1, 0) / (c2 - c3 v^(1/m2)))^(1/m1)      ITU-R BT.2100, table 4
               HLG   nits = 1000 E^1.2,  E = v^2 / 3  or  (exp((v - c) / a) + b) / 12      ITU-R BT.2100, table 5
    roll-off   the Hermite spline of ITU-R BT.2390, section 5.4.1, from MASTERED down to WHITE nits
    primaries  BT.2020 -> BT.709, ITU-R BT.2087
    encoding   sRGB, IEC 61966-2-1

The roll-off is done for each primary by itself, and HLG's exponent too, where BT.2100 takes the luminance of all three.
So light and roll-off are one table, and the encoding is another. Bright colours turn paler for it.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

PQ, HLG = 16, 18  # transfer characteristics in the numbering of ITU-T H.273
TRANSFERS = frozenset({PQ, HLG})
MASTERED = 1000.0  # nits of the brightest light that keeps its differences, as most films are mastered
WHITE = 203.0  # nits of a sheet of paper, ITU-R BT.2408
STEPS = 1 << 16

M1, M2 = 2610 / 16384, 2523 / 4096 * 128
C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
HLG_A = 0.17883277
HLG_B = 1 - 4 * HLG_A
HLG_C = 0.5 - HLG_A * np.log(4 * HLG_A)
BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def tone_mapped(codes: np.ndarray, transfer: int) -> np.ndarray:
    """Codes of full range, uint16 [H, W, 3] in BT.2020 primaries -> uint8 [H, W, 3] sRGB."""
    light = cv2.transform(_light_of_codes(transfer)[codes], BT2020_TO_BT709)
    steps = np.clip(light, 0, 1) * (STEPS - 1) + 0.5
    return _srgb_of_light()[steps.astype(np.uint16)]


@cache
def _light_of_codes(transfer: int) -> np.ndarray:
    """float32 [65536]: what a screen shows for each code, 0..1."""
    values = np.linspace(0, 1, STEPS)
    nits = pq_to_nits(values) if transfer == PQ else hlg_to_nits(values)
    return (rolled_off(nits) / WHITE).astype(np.float32)


@cache
def _srgb_of_light() -> np.ndarray:
    """uint8 [65536]."""
    light = np.linspace(0, 1, STEPS)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)


def pq_to_nits(values: np.ndarray) -> np.ndarray:
    """PQ's electro-optical transfer function; values 0..1."""
    root = values ** (1 / M2)
    return 10_000 * (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """The inverse of `pq_to_nits`."""
    power = (nits / 10_000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def hlg_to_nits(values: np.ndarray) -> np.ndarray:
    """HLG's light on a screen of 1000 nits; values 0..1."""
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - HLG_C) / HLG_A) + HLG_B) / 12)
    return 1000 * scene**1.2


def rolled_off(nits: np.ndarray) -> np.ndarray:
    """Light as it is up to a knee, then compressed so that MASTERED becomes WHITE."""
    mastered = nits_to_pq(np.array(MASTERED))
    white = nits_to_pq(np.array(WHITE)) / mastered
    knee = 1.5 * white - 0.5
    values = np.minimum(nits_to_pq(nits) / mastered, 1)
    t = np.maximum(values - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * white
    return pq_to_nits(np.where(values < knee, values, spline) * mastered)
