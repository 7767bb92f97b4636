"""Made scenes to be cut together: coloured patches at random, over which a camera pans."""

from __future__ import annotations

import cv2
import numpy as np

SIZE = (90, 160)


def scene(seed: int, length: int, *, pan: int = 2, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A scene of its own for each seed, uint8 [length, H, W, 3]; the camera moves `pan` pixels a frame."""
    rng = np.random.default_rng(seed)
    height, width = size
    palette = rng.integers(0, 256, (6, 3))
    patches = palette[rng.integers(0, 6, (9, 16 + 2 * length))].astype(np.uint8)
    wall = cv2.resize(patches, (width * patches.shape[1] // 16, height), interpolation=cv2.INTER_NEAREST)
    return np.stack([wall[:, pan * t : pan * t + width] for t in range(length)])


def faded(frames: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Each frame with a share of its brightness."""
    return (frames * shares[:, None, None, None]).astype(np.uint8)
