"""A clip on its way in: frames squeezed to one size and normalised, truth drawn into one map of labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TV

from tubelet.core.types import Clip
from tubelet.models.tags.encoder import MEAN, STD

NOTHING, IGNORED = -1, -2  # beside the numbers of objects, in a map of who is where


class TagTruth(NamedTuple):
    """Whose each cell is: at the resolution of the tags."""

    owners: Tensor  # int64 [T, h, w]: a row of the clip's tracks, NOTHING, or IGNORED
    labels: Tensor  # int64 [N]: the class of each row; an ignored one has none, and no cell


def prepare(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [T, 3, H, W] -> float [3, T, *size], normalised as for Kinetics.

    Frames are squeezed to `size` whatever their ratio, so that all of the frame is seen and nothing is padded; an
    upright frame swaps height and width, so that a size made for lying frames serves both.
    """
    wanted = upright(size, (frames.shape[-2], frames.shape[-1]))
    if tuple(frames.shape[-2:]) != wanted:
        frames = TV.resize(frames, list(wanted), antialias=True)
    mean, std = (frames.new_tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (MEAN, STD))
    return ((frames.float() / 255 - mean) / std).transpose(0, 1)


def upright(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    """The size with its longer side where the frame's longer side is."""
    low, high = sorted(size)
    return (high, low) if frame[0] > frame[1] else (low, high) if frame[0] < frame[1] else size


def draw_truth(clip: Clip, size: tuple[int, int]) -> TagTruth:
    """The clip's tracks as one map.

    A pixel that several objects claim is the smaller one's, of whom more would be lost. Crowds (rows of zeros in the
    scores) and frames that are not to be predicted, among them the repeated ones of a short video, are ignored.
    """
    assert clip.tracks is not None, "training clips carry truth"
    tracks = clip.tracks
    real = tracks.scores.amax(1) > 0 if len(tracks) else torch.zeros(0, dtype=torch.bool)
    owners = torch.full(tracks.masks.shape[1:], NOTHING, dtype=torch.int16, device=tracks.masks.device)
    areas = tracks.binary.flatten(1).sum(1)
    for n in sorted(range(len(tracks)), key=lambda n: (bool(real[n]), -int(areas[n]))):  # the smallest on top
        owners[tracks.binary[n]] = n if real[n] else IGNORED
    small = F.interpolate(owners[None].float(), size, mode="nearest-exact")[0].long()
    small[~clip.key] = IGNORED
    return TagTruth(small, tracks.labels)
