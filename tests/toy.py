"""A segmenter without learning, for tests: an object is a patch of a known pure colour, its identity is its colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.core.protocol import VideoSegmenter, Window
from tubelet.core.types import Clip, Losses, Tracks

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Colours in the order in which they appeared: the position is the identity."""

    labels: tuple[int, ...] = ()


class Toy(nn.Module, VideoSegmenter[Seen]):
    """Finds each colour of COLOURS, at `1/shrink` of the frame's resolution; ids count up as colours appear."""

    classes = tuple(COLOURS)

    def __init__(self, window: Window | None = None, *, shrink: int = 2, confidence: float = 0.9) -> None:
        super().__init__()
        self.window = window or Window()
        self.shrink = shrink
        self.confidence = confidence
        self.gain = nn.Parameter(torch.ones(()))
        self.register_buffer("palette", torch.tensor(list(COLOURS.values()), dtype=torch.float32))
        self.steps: list[list[int]] = []  # which frames each step was given to predict

    def forward(self, clips: list[Clip]) -> Losses:
        brightness = torch.stack([clip.frames.float().mean() / 255 for clip in clips])
        return {"gain": (self.gain - brightness).square().mean()}

    def start(self) -> Seen:
        return Seen()

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        index = clip.index[clip.key]
        self.steps.append(index.tolist())
        masks = self._soft(clip.frames[clip.key])  # [K, T, h, w]
        visible = [label for label in range(len(masks)) if bool((masks[label] > 0.5).any())]
        labels = state.labels + tuple(label for label in visible if label not in state.labels)
        scores = torch.full((len(visible), len(masks)), (1 - self.confidence) / (len(masks) - 1))
        scores[range(len(visible)), visible] = self.confidence
        ids = torch.tensor([labels.index(label) for label in visible], dtype=torch.int64)
        return Seen(labels=labels), Tracks(ids=ids, scores=scores, masks=masks[visible], index=index)

    def _soft(self, frames: Tensor) -> Tensor:
        distance = (frames[None].float() - self.palette[:, None, :, None, None]).abs().amax(2)
        exact = (distance < 100).float()
        return F.avg_pool2d(exact, self.shrink, ceil_mode=True) if self.shrink > 1 else exact


def moving_patches(
    length: int, size: tuple[int, int] = (48, 64), colours: Sequence[str] = ("red", "blue"), patch: int = 14
) -> np.ndarray:
    """Squares on grey that drift apart, wrap around the frame's edge, one per colour; uint8 [T, H, W, 3]."""
    height, width = size
    video = np.full((length, height, width, 3), 90, np.uint8)
    for k, colour in enumerate(colours):
        lane = height // len(colours)
        top = k * lane + (lane - patch) // 2
        for t in range(length):
            left = (5 + 17 * k + (2 if k % 2 else 3) * t) % (width - patch)
            video[t, top : top + patch, left : left + patch] = COLOURS[colour]
    return video
