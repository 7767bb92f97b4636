"""Made-up videos for fingerprints: rectangles and a disc that move before noise, with their truth.

Drawn here and not by the package, whose own generator is among the things that are compared.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import torch
from torch import Tensor

from tubelet.core.types import Clip, Tracks

CLASSES = ("fish", "beetle", "duck", "car")
HEIGHT = 96
WIDTH = 160
AWAY = 4  # the disc is hidden in this and the next frame


def video(seed: int, length: int) -> tuple[Tensor, Tensor]:
    """Frames uint8 [T, 3, H, W] and masks bool [3, T, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(3, HEIGHT, WIDTH, generator=generator)
    starts = torch.rand(3, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT]) * 0.4
    speeds = 1 + 3 * torch.rand(3, 2, generator=generator)
    colours = torch.rand(3, 3, generator=generator)
    masks = torch.stack([outline(n, starts[n] + t * speeds[n]) for n in range(3) for t in range(length)])
    masks = masks.view(3, length, HEIGHT, WIDTH)
    masks[2, AWAY : AWAY + 2] = False

    frames = (0.4 * noise + 0.3).repeat(length, 1, 1, 1)
    for mask, colour in zip(masks, colours, strict=True):
        painted = (0.8 * colour[:, None, None] + 0.2 * noise)[None]
        frames = torch.where(mask[:, None], painted, frames)
    return (255 * frames).to(torch.uint8), masks


def outline(n: int, corner: Tensor) -> Tensor:
    """Two rectangles and a disc, each with its upper left corner there, bool [H, W]."""
    x = torch.arange(WIDTH)[None] - float(corner[0])
    y = torch.arange(HEIGHT)[:, None] - float(corner[1])
    if n == 2:
        return (x - 20) ** 2 + (y - 20) ** 2 <= 20**2
    across, down = (48, 30) if n == 0 else (28, 44)
    return (x >= 0) & (x < across) & (y >= 0) & (y < down)


def clip(seed: int, key: tuple[bool, ...]) -> Clip:
    """A training clip with so many frames; the second clip's first rectangle is a crowd."""
    frames, masks = video(seed, len(key))
    index = torch.arange(len(key))
    scores = torch.eye(len(CLASSES))[torch.arange(3) + seed % 2]
    if seed % 2:
        scores[0] = 0
    tracks = Tracks(ids=torch.arange(3) + 1, scores=scores, masks=masks, index=index)
    return Clip(frames=frames, index=index, key=torch.tensor(key), tracks=tracks)


def write_frames(frames: Tensor, folder: Path) -> None:
    """Frames as a folder of PNG images."""
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        bgr = frame.permute(1, 2, 0).flip(2).contiguous().numpy()
        cv2.imwrite(str(folder / f"{t:05d}.png"), bgr)
