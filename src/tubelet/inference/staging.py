"""The steps of a model, with the first part of each computed in a thread while the one before is finished.

For the bundled model, that part is the detector: on two cores it then runs beside the masks of the frame before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from tubelet.core.protocol import Staged, VideoSegmenter, is_staged
from tubelet.core.types import Clip, Tracks
from tubelet.engines.threads import one_thread_here
from tubelet.inference.modes import device_of, is_training
from tubelet.inference.reading import WindowStep
from tubelet.video.ahead import ahead


class ReadyStep(NamedTuple):
    """A window, and what is left to do: from the state before it to the state after it, and the tracks in it."""

    window: WindowStep
    finish: Callable[[Any], tuple[Any, Tracks]]


def steps_of(model: VideoSegmenter[Any], windows: Iterator[WindowStep]) -> Iterator[ReadyStep]:
    """The model's steps, each computed as a whole when it is finished.

    >>> list(steps_of(tubelet.load("default", device="cpu"), iter([])))
    []
    """
    device = device_of(model)
    for window in windows:
        yield ReadyStep(window, partial(_step, model, window.clip.to(device)))


def steps_ahead(model: VideoSegmenter[Any], windows: Iterator[WindowStep]) -> Iterator[ReadyStep]:
    """The model's steps, each prepared in a thread while the one before is finished, if that saves time.

    It may where the model computes on several cores of a CPU. Of windows that overlap, some frames would be
    prepared twice.

    >>> list(steps_ahead(tubelet.load("default", device="cpu"), iter([])))
    []
    """
    if is_training(model) or device_of(model).type != "cpu" or torch.get_num_threads() == 1:
        return steps_of(model, windows)

    if not is_staged(model) or not model.worth_preparing:
        return steps_of(model, windows)
    return ahead(_prepared(model, windows), most=1)


def _prepared(model: Staged[Any], windows: Iterator[WindowStep]) -> Iterator[ReadyStep]:
    with one_thread_here():
        for window in windows:
            with torch.inference_mode():
                prepared = model.prepare(window.clip)
            yield ReadyStep(window, partial(_finish, model, window.clip, prepared))


def _step(model: VideoSegmenter[Any], clip: Clip, state: Any) -> tuple[Any, Tracks]:
    return model.step(state, clip)


def _finish(model: Staged[Any], clip: Clip, prepared: Any, state: Any) -> tuple[Any, Tracks]:
    return model.finish(state, clip, prepared)
