"""Attention maps for the page's attention tab: where a model looks in other frames from one point of one frame."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from tubelet.core.protocol import Glance, VideoSegmenter
from tubelet.core.types import Video
from tubelet.inference.attention_maps import attention_maps as maps_of

MAX_MAPS = 24
MAX_CELLS = 160  # on a side of a map


def can_attend(model: VideoSegmenter[Any]) -> bool:
    """Whether a model has attention maps to show."""
    return model.traits.attention


def attention_maps(model: VideoSegmenter[Any], video: Video, frame: int, at: tuple[float, float]) -> list[Glance]:
    """The first MAX_MAPS attention maps from a point (x, y in pixels) of a frame; may be empty.

    The model reads the video up to that frame first. Raises InputError if the frame or point is outside the video,
    ConfigError if the model has no attention modules.
    """
    return maps_of(model, video, frame, at)[:MAX_MAPS]


def described(glance: Glance) -> dict[str, object]:
    """Convert an attention map to JSON: base64 of 8 bits a cell, scaled so that the largest value is 255.

    Maps of more than MAX_CELLS on a side are subsampled.
    """
    values = glance.values.detach().float().cpu().numpy()
    step = max(-(-max(values.shape) // MAX_CELLS), 1)
    values = np.nan_to_num(values[::step, ::step]).clip(min=0)

    peak = float(values.max(initial=0))
    scale = 255 / peak if peak else 0
    levels = np.rint(values * scale).astype(np.uint8)

    encoded = base64.b64encode(levels.tobytes()).decode("ascii")
    return {"name": glance.name, "frame": glance.frame, "size": list(levels.shape), "values": encoded}
