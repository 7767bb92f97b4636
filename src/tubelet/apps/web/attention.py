"""Where a model looks in other frames when it decides about one point of one frame, for the page's third tab."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from tubelet.core.protocol import Glance, VideoSegmenter
from tubelet.core.types import Video
from tubelet.inference.attention_maps import attention_maps as maps_of

MAX_MAPS = 24
MAX_CELLS = 160  # on a side


def can_attend(model: VideoSegmenter[Any]) -> bool:
    """Whether a model has attention modules, and tells where they look."""
    return model.traits.attention


def attention_maps(model: VideoSegmenter[Any], video: Video, frame: int, at: tuple[float, float]) -> list[Glance]:
    """At most MAX_MAPS glances from a point (x, y in pixels); none where no module looks from there.

    The model reads the video up to that frame first. Raises InputError for a frame or point outside, ConfigError for a
    model that cannot tell.
    """
    return maps_of(model, video, frame, at)[:MAX_MAPS]


def described(glance: Glance) -> dict[str, object]:
    """A glance as the page takes it: 8 bits a cell, the largest value 255."""
    values = glance.values.detach().float().cpu().numpy()
    step = max(-(-max(values.shape) // MAX_CELLS), 1)
    values = np.nan_to_num(values[::step, ::step]).clip(min=0)
    peak = float(values.max(initial=0))
    levels = np.rint(values * (255 / peak if peak else 0)).astype(np.uint8)
    code = base64.b64encode(levels.tobytes()).decode("ascii")
    return {"name": glance.name, "frame": glance.frame, "size": list(levels.shape), "values": code}
