"""Prepare a clip: resize and normalise frames, draw truth into one map of object numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TV

from tubelet.core.types import Clip
from tubelet.models.tags.encoder import PixelStatistics

NOTHING = -1  # background, in a map of object numbers
IGNORED = -2  # neither an object nor background


class TagTruth(NamedTuple):
    """Which object each cell shows, at the resolution of the tags.

    Example:
        >>> from tubelet.models.tags.inputs import NOTHING, TagTruth
        >>> truth = TagTruth(torch.full((1, 2, 2), NOTHING), torch.zeros(0, dtype=torch.int64))
        >>> int((truth.owners >= 0).sum())
        0
    """

    owners: Tensor  # int64 [T, h, w]: a row of the clip's tracks, NOTHING, or IGNORED
    labels: Tensor  # int64 [N]: the class of each row; an ignored row has no class and no cell


def prepare(
    frames: Tensor,
    size: tuple[int, int],
    statistics: PixelStatistics | None = None,
) -> Tensor:
    """uint8 [T, 3, H, W] -> float [3, T, *size], normalised (as for Kinetics by default).

    Frames are squeezed to `size` whatever their ratio, so the whole frame is seen and nothing is
    padded; a portrait frame swaps height and width.

    Example:
        >>> from tubelet.models.tags.inputs import prepare
        >>> prepare(torch.zeros(5, 3, 90, 60, dtype=torch.uint8), (32, 48)).shape
        torch.Size([3, 5, 48, 32])
    """
    statistics = statistics or PixelStatistics()
    target = upright(size, (frames.shape[-2], frames.shape[-1]))
    if tuple(frames.shape[-2:]) != target:
        frames = TV.resize(frames, list(target), antialias=True)

    mean = frames.new_tensor(statistics.mean, dtype=torch.float32).view(3, 1, 1)
    std = frames.new_tensor(statistics.std, dtype=torch.float32).view(3, 1, 1)
    return ((frames.float() / 255 - mean) / std).transpose(0, 1)


def upright(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    """The size with its longer side where the frame's longer side is.

    Example:
        >>> from tubelet.models.tags.inputs import upright
        >>> upright((32, 48), (720, 1280)), upright((32, 48), (1280, 720))
        ((32, 48), (48, 32))
    """
    short, long = sorted(size)
    height, width = frame
    if height > width:
        return long, short
    if height < width:
        return short, long
    return size


def draw_truth(clip: Clip, size: tuple[int, int]) -> TagTruth:
    """Draw the clip's tracks into one map.

    A pixel that several objects claim goes to the smallest, which would lose the most. Crowds (rows
    of zeros in the scores) and frames that are not key frames, such as the repeated frames of a short
    video, are ignored.

    Example:
        >>> from tubelet.core.types import Clip, Tracks
        >>> from tubelet.models.tags.inputs import draw_truth
        >>> index = torch.arange(1)
        >>> masks = torch.tensor([[[[1, 1, 1, 1]]], [[[0, 1, 1, 0]]]], dtype=torch.uint8)
        >>> tracks = Tracks(ids=torch.arange(2), scores=torch.eye(2), masks=masks, index=index)
        >>> frames = torch.zeros(1, 3, 1, 4, dtype=torch.uint8)
        >>> clip = Clip(frames=frames, index=index, key=torch.ones(1, dtype=torch.bool), tracks=tracks)
        >>> draw_truth(clip, (1, 4)).owners
        tensor([[[0, 1, 1, 0]]])
    """
    assert clip.tracks is not None, "training clips carry truth"
    tracks = clip.tracks
    is_object = tracks.scores.amax(1) > 0 if len(tracks) else torch.zeros(0, dtype=torch.bool)
    areas = tracks.binary.flatten(1).sum(1)

    owners = torch.full(tracks.masks.shape[1:], NOTHING, dtype=torch.int16, device=tracks.masks.device)
    # crowds first, then objects by falling area, so the smallest object is on top
    order = sorted(range(len(tracks)), key=lambda n: (bool(is_object[n]), -int(areas[n])))
    for n in order:
        owners[tracks.binary[n]] = n if is_object[n] else IGNORED

    small = F.interpolate(owners[None].float(), size, mode="nearest-exact")[0].long()
    small[~clip.key] = IGNORED
    return TagTruth(small, tracks.labels)
