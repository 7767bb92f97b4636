"""Where a model looks in other frames when it decides about one point of one frame, for the page's third tab."""

from __future__ import annotations

import base64

import numpy as np
from torch import nn

from tubelet.core.protocol import Glance
from tubelet.core.types import Video
from tubelet.inference import attend

MODULES = "tubelet.attention."  # where every attention module of ours lives
MAX_MAPS = 24
MAX_CELLS = 160  # on a side


def can_attend(model: object) -> bool:
    """Whether a model has attention modules, and a method that tells where they look."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return hasattr(model, "attend") and any(type(module).__module__.startswith(MODULES) for module in modules)


def attention_maps(model: object, video: Video, frame: int, at: tuple[float, float]) -> list[Glance]:
    """At most MAX_MAPS glances from a point (x, y in pixels); none where no module looks from there.

    The model reads the video up to that frame first. Raises InputError for a frame or point outside, ConfigError for a
    model that cannot tell.
    """
    return attend.attention_maps(model, video, frame, at)[:MAX_MAPS]


def described(glance: Glance) -> dict[str, object]:
    """A glance as the page takes it: 8 bits a cell, the largest value 255."""
    values = glance.values.detach().float().cpu().numpy()
    step = max(-(-max(values.shape) // MAX_CELLS), 1)
    values = np.nan_to_num(values[::step, ::step]).clip(min=0)
    peak = float(values.max(initial=0))
    levels = np.rint(values * (255 / peak if peak else 0)).astype(np.uint8)
    code = base64.b64encode(levels.tobytes()).decode("ascii")
    return {"name": glance.name, "frame": glance.frame, "size": list(levels.shape), "values": code}
