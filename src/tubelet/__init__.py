"""tubelet: detect, segment and track objects in videos.

    import tubelet
    model = tubelet.load("default")
    prediction = tubelet.predict(model, "dog.mp4")
    prediction.save("out/")

Names are imported when they are first used, so that `import tubelet` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load": "tubelet.models.weights.loading",
    "predict": "tubelet.inference.predict",
    "stream": "tubelet.inference.predict",
    "evaluate": "tubelet.inference.evaluate",
    "train": "tubelet.recipes.training",
    "open_video": "tubelet.video.reader",
    "open_prediction": "tubelet.inference.reopening",
    "Video": "tubelet.core.types",
    "Clip": "tubelet.core.types",
    "Track": "tubelet.core.types",
    "Tracks": "tubelet.core.types",
    "Frame": "tubelet.core.types",
    "Prediction": "tubelet.core.types",
    "Counting": "tubelet.inference.counting",
    "Editing": "tubelet.editing.session",
    "OverlayStyle": "tubelet.drawing.style",
    "VideoPrediction": "tubelet.inference.results",
    "Window": "tubelet.core.protocol",
    "VideoSegmenter": "tubelet.core.protocol",
    "TubeletError": "tubelet.core.errors",
}

if TYPE_CHECKING:
    from tubelet.core.errors import TubeletError as TubeletError
    from tubelet.core.protocol import VideoSegmenter as VideoSegmenter
    from tubelet.core.protocol import Window as Window
    from tubelet.core.types import Clip as Clip
    from tubelet.core.types import Frame as Frame
    from tubelet.core.types import Prediction as Prediction
    from tubelet.core.types import Track as Track
    from tubelet.core.types import Tracks as Tracks
    from tubelet.core.types import Video as Video
    from tubelet.drawing.style import OverlayStyle as OverlayStyle
    from tubelet.editing.session import Editing as Editing
    from tubelet.inference.counting import Counting as Counting
    from tubelet.inference.evaluate import evaluate as evaluate
    from tubelet.inference.predict import predict as predict
    from tubelet.inference.predict import stream as stream
    from tubelet.inference.reopening import open_prediction as open_prediction
    from tubelet.inference.results import VideoPrediction as VideoPrediction
    from tubelet.models.weights import load as load
    from tubelet.recipes.training import train as train
    from tubelet.video.reader import open_video as open_video

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tubelet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
