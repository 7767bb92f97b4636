"""Attention maps: where a model looks in other frames from one point of one frame.

The model runs up to that frame as in `predict`; `picture` draws its attention maps, `film` draws them for every frame
of a video, following the object under the point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.core.arguments import short
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import Attentive, Glance, VideoSegmenter, Window
from tubelet.core.types import Clip, Tracks, Video
from tubelet.drawing.contact_sheet import contact_sheet
from tubelet.drawing.heatmaps import heat, mark
from tubelet.inference.modes import device_of
from tubelet.inference.reading import read
from tubelet.inference.results import ProgressCallback
from tubelet.tracking.shots import ShotConfig
from tubelet.video.writer import VideoWriter

Point = tuple[float, float]  # x, y in pixels of the frame
SHEET_WIDTH = 1600


def attention_maps(
    model: VideoSegmenter[Any], video: Video, frame: int, at: Point, *, window: Window | None = None
) -> list[Glance]:
    """The attention maps of every attention module, from a point of a frame.

    A window that is spread over the video skips frames: then the maps are those of the nearest frame that it reads.
    Raises InputError if the frame or point is outside the video, ConfigError if the model has no attention modules.
    """
    check(video, frame, at)
    _attentive(model)
    window = window or model.window
    for state, clip, _ in _steps(model, video, window):
        frames = clip.index[clip.key].tolist()
        if frame in frames or window.spread:
            nearest = min(frames, key=lambda t: abs(t - frame))
            return _told(model, state, clip, nearest, at)
    raise AssertionError("windows hold every frame")


def check(video: Video, frame: int, at: Point) -> None:
    """Raise InputError if the frame or the point (x, y) is outside the video."""
    if not isinstance(video, Video):
        raise InputError(f"expected a Video, such as tubelet.open_video gives, got {short(video)}")
    height, width = video.size
    if not isinstance(frame, int) or not 0 <= frame < len(video):
        raise InputError(f"{video.id}: no frame {short(frame)}; it has frames 0 to {len(video) - 1}")
    if not isinstance(at, tuple | list) or len(at) != 2 or not all(isinstance(v, int | float) for v in at):
        raise InputError(f"expected a point as two numbers (x, y), got {short(at)}")
    if not (0 <= at[0] < width and 0 <= at[1] < height):
        raise InputError(f"{video.id}: the point {at[0]:g},{at[1]:g} is outside its {width}x{height} pixels")


def picture(
    video: Video,
    frame: int,
    at: Point,
    glances: Sequence[Glance],
    *,
    blank: Sequence[np.ndarray] = (),
    width: int = SHEET_WIDTH,
) -> np.ndarray:
    """The frame with the point, then each attention map over the frame it refers to, uint8 [h, width, 3] RGB."""
    images = [mark(_image(video, frame), at)]
    captions = [f"frame {frame}, the point"]
    for glance in glances:
        images.append(heat(_image(video, glance.frame), glance.values.cpu().numpy()))
        captions.append(f"{glance.name}: frame {glance.frame}")
    return contact_sheet([*images, *blank], captions + [""] * len(blank), width)


def film(
    model: VideoSegmenter[Any],
    video: Video,
    frame: int,
    at: Point,
    path: Path,
    *,
    window: Window | None = None,
    panels: int,
    progress: ProgressCallback | None = None,
) -> None:
    """Write an H.264 video of such pictures, each with `panels` maps beside the frame itself.

    Frames that a spread window skips are left out. From `frame` on, the point follows the object under it; before, or
    without an object, it stays where it is.
    """
    check(video, frame, at)
    _attentive(model)
    shown = _pictures(model, video, frame, at, window, panels)
    first_frame, first = next(shown)
    with VideoWriter(path, (first.shape[0], first.shape[1]), video.fps) as writer:
        for t, sheet in chain([(first_frame, first)], shown):
            writer.write(sheet, video.time(t))
            if progress is not None:
                progress(t + 1, len(video))


def _pictures(
    model: VideoSegmenter[Any], video: Video, frame: int, at: Point, window: Window | None, panels: int
) -> Iterator[tuple[int, np.ndarray]]:
    done = 0
    followed: int | None = None
    reached = False
    for state, clip, tracks in _steps(model, video, window):
        for t in sorted(set(clip.index[clip.key].tolist())):
            if t < done:
                continue
            done = t + 1
            if t >= frame and not reached:
                reached = True
                followed = _object_at(tracks, t, at, video.size)
            point = at if followed is None or t < frame else _centre(tracks, t, followed, video.size) or at
            at = point
            glances = _told(model, state, clip, t, point)[:panels]
            missing = [np.zeros((*video.size, 3), np.uint8)] * (panels - len(glances))
            yield t, picture(video, t, point, glances, blank=missing)


def _object_at(tracks: Tracks, t: int, at: Point, size: tuple[int, int]) -> int | None:
    """The id of the best object whose mask covers the point in frame t."""
    column = tracks.index.tolist().index(t) if t in tracks.index else None
    if column is None or len(tracks) == 0:
        return None
    masks = tracks.binary[:, column]  # [N, h, w]
    y, x = (int(p * m / s) for p, m, s in zip((at[1], at[0]), masks.shape[-2:], size, strict=True))
    rows = masks[:, y, x].nonzero()[:, 0]
    return int(tracks.ids[rows[tracks.confidence[rows].argmax()]]) if len(rows) else None


def _centre(tracks: Tracks, t: int, identity: int, size: tuple[int, int]) -> Point | None:
    """The pixel of an object's mask that is nearest to the mask's mean, in pixels of the frame."""
    rows = (tracks.ids == identity).nonzero()[:, 0]
    if t not in tracks.index or len(rows) == 0:
        return None
    mask = tracks.binary[rows[0], tracks.index.tolist().index(t)]
    cells = mask.nonzero().float()  # [P, 2] (y, x)
    if len(cells) == 0:
        return None
    y, x = cells[(cells - cells.mean(0)).square().sum(1).argmin()].tolist()
    return (x + 0.5) * size[1] / mask.shape[1], (y + 0.5) * size[0] / mask.shape[0]


def _steps(model: VideoSegmenter[Any], video: Video, window: Window | None) -> Iterator[tuple[Any, Clip, Tracks]]:
    """For each window: the state before it, its clip, and its tracks."""
    device = device_of(model)
    state = model.start()
    for step in read(video, window or model.window, ShotConfig()):
        clip = step.clip.to(device)
        with torch.inference_mode():
            after, tracks = model.step(state, clip)
        yield state, clip, tracks
        state = after


def _attentive(model: VideoSegmenter[Any]) -> Attentive[Any]:
    if not model.traits.attention:
        raise ConfigError("this model has no attention modules to show")
    assert isinstance(model, Attentive), "traits.attention promises attend"
    return model


def _told(model: VideoSegmenter[Any], state: Any, clip: Clip, frame: int, at: Point) -> list[Glance]:
    with torch.inference_mode():
        return _attentive(model).attend(state, clip, frame, at)


def _image(video: Video, t: int) -> np.ndarray:
    return np.ascontiguousarray(video.frames[t].permute(1, 2, 0).cpu().numpy())
