"""Follow an object from one mask, forwards or backwards, by a model's own memory and mask head.

What a person drew in one frame is introduced to the model, with the other objects of that frame, so that they are not
confused; then the model goes on from frame to frame as in `predict`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tubelet.core import masks
from tubelet.core.errors import ConfigError
from tubelet.core.masks import RLE
from tubelet.core.protocol import Guided, VideoSegmenter
from tubelet.core.records import Track
from tubelet.core.types import Clip, Tracks
from tubelet.editing.edits import Fill
from tubelet.inference.modes import device_of, evaluating
from tubelet.inference.results import ProgressCallback, VideoPrediction
from tubelet.inference.stitch import Stitcher


class Followed(NamedTuple):
    """A frame, and the object's mask in it; None where the model does not find it."""

    frame: int
    mask: RLE | None


def follow(
    model: VideoSegmenter[Any], prediction: VideoPrediction, track: int, start: int, end: int
) -> Iterator[Followed]:
    """Follow a track from its mask in frame `start` to frame `end`, yielding every frame after `start`.

    Args:
        model: One with a memory, such as "default".
        prediction: The result, edited or not, on its video.
        track: The object's id.
        start: A frame in which the object has a mask.
        end: The last frame; one before `start` means backwards.

    Raises:
        ConfigError: if the model cannot follow, or if there is no such track, frame or mask.

    Example:
        >>> from tubelet.inference.following import follow
        >>> frames = np.zeros((3, 48, 64, 3), np.uint8)
        >>> frames[:, 10:40, 20:50] = 200
        >>> model = tubelet.load("default", device="cpu")
        >>> editing = tubelet.predict(model, frames).edit()
        >>> box = editing.add("box", 0, [(20, 10), (50, 10), (50, 40), (20, 40)])
        >>> [frame for frame, mask in follow(model, editing.result, box, start=0, end=2)]
        [1, 2]
    """
    guided = _guided(model)
    _check_frame(prediction, start)
    _check_frame(prediction, end)
    if prediction[track].rles[start] is None:
        raise ConfigError(f"track {track} has no mask in frame {start} to start from")
    return _follow(guided, prediction, track, start, end)


def filled(
    model: VideoSegmenter[Any],
    prediction: VideoPrediction,
    track: int,
    start: int,
    end: int,
    progress: ProgressCallback | None = None,
) -> Fill:
    """Follow a track and return what was found as an edit, for `Editing.do`. The arguments are those of `follow`."""
    found: dict[int, RLE] = {}
    total = abs(end - start)
    for done, (frame, mask) in enumerate(follow(model, prediction, track, start, end), start=1):
        if mask is not None:
            found[frame] = mask
        if progress is not None:
            progress(done, total)
    first, last = (start + 1, end) if end > start else (end, start - 1)
    return Fill(track=track, first=first, last=last, found=found)


def _follow(model: Guided[Any], prediction: VideoPrediction, track: int, start: int, end: int) -> Iterator[Followed]:
    present = [other for other in prediction if other.rles[start] is not None]
    present.sort(key=lambda other: other.id != track)  # the followed one first: its id will be 1
    device = device_of(model)
    frames = prediction.source.frames

    with evaluating(model):
        given = _given(present, start, prediction.classes, model.classes)
        state = model.introduce(model.start(), _clip(frames[start], 0).to(device), given)

    step = 1 if end > start else -1
    for count, t in enumerate(range(start + step, end + step, step), start=1):
        clip = _clip(frames[t], count)
        with evaluating(model):
            state, tracks = model.step(state, clip.to(device))
        yield Followed(t, _mask(tracks, clip, model))


def _given(tracks: list[Track], t: int, names: tuple[str, ...], known: tuple[str, ...]) -> Tracks:
    """The tracks' masks in frame t; a class that the model does not know has scores of 0."""
    scores = torch.zeros(len(tracks), len(known))
    for row, track in enumerate(tracks):
        name = names[track.label]
        if name in known:
            scores[row, known.index(name)] = 1.0

    binary = np.stack([track.mask(t) for track in tracks])
    ids = torch.arange(1, len(tracks) + 1)
    return Tracks(ids=ids, scores=scores, masks=torch.from_numpy(binary)[:, None], index=torch.zeros(1).long())


def _clip(image: Tensor, t: int) -> Clip:
    return Clip(frames=image[None], index=torch.tensor([t]), key=torch.ones(1, dtype=torch.bool))


def _mask(tracks: Tracks, clip: Clip, model: VideoSegmenter[Any]) -> RLE | None:
    """The mask of object 1 in the clip's frame."""
    stitcher = Stitcher(clip.size, model.traits.average)
    stitcher.add(tracks[tracks.ids == 1])
    for frame in stitcher.rest():
        if len(frame.ids) and frame.masks[0].any():
            return masks.encode(np.ascontiguousarray(frame.masks[:1]))[0]
    return None


def _guided(model: VideoSegmenter[Any]) -> Guided[Any]:
    if not model.traits.guided:
        raise ConfigError("this model cannot follow an object that is given; choose one with a memory: default")
    assert isinstance(model, Guided), "a trait of a model is a promise"
    return model


def _check_frame(prediction: VideoPrediction, t: int) -> None:
    if not 0 <= t < prediction.length:
        raise ConfigError(f"no frame {t}; the video has frames 0 to {prediction.length - 1}")
