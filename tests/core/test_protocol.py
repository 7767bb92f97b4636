"""Windows refuse what leaves frames out; a segmenter is known by its methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tubelet.core.errors import ConfigError
from tubelet.core.protocol import Traits, VideoSegmenter, Window
from tubelet.core.types import Clip, Losses, Tracks


@pytest.mark.parametrize(
    "values",
    [
        {"length": 0},
        {"length": -1},
        {"stride": 0},
        {"context": -1},
        {"length": 2, "stride": 3},
        {"length": 1.5},
        {"lenght": 2},
    ],
)
def test_a_window_that_cannot_read_a_video_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Window(**values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"length": None},
        {"length": None, "stride": 100},
        {"length": 8, "stride": 8},
        {"length": 8, "stride": 1, "context": 3, "causal": True},
        {"length": 32, "spread": True},
    ],
)
def test_a_window_without_gaps_is_accepted(values: dict[str, Any]) -> None:
    window = Window(**values)
    assert {key: getattr(window, key) for key in values} == values


def test_the_default_window_reads_frame_by_frame() -> None:
    assert Window() == Window(length=1, stride=1, context=0, causal=False, spread=False)


def test_a_segmenter_is_known_by_its_methods_not_by_its_base() -> None:
    class Some:
        window = Window()
        classes = ("dog",)
        traits = Traits(vote="score")
        precision = torch.float32

        def forward(self, clips: list[Any]) -> dict[str, Any]:
            return {}

        def start(self) -> None:
            return None

        def step(self, state: None, clip: Any) -> tuple[None, Any]:
            return None, clip

    assert isinstance(Some(), VideoSegmenter)
    assert not isinstance(object(), VideoSegmenter)


class Bare(nn.Module, VideoSegmenter[None]):
    """The least that a model can be."""

    window = Window()
    classes = ("dog",)

    def forward(self, clips: list[Clip]) -> Losses:
        return {}

    def start(self) -> None:
        return None

    def step(self, state: None, clip: Clip) -> tuple[None, Tracks]:
        return None, Tracks.empty(clip.index, 1, clip.size)


def test_a_model_that_names_the_protocol_as_its_base_has_the_usual_traits() -> None:
    model = Bare()
    assert isinstance(model, VideoSegmenter)
    assert model.traits == Traits(vote="majority", average="probabilities", min_frames=1)
    assert (model.traits.semantic, model.traits.attention, model.traits.resizable) == (False, False, False)
    assert model.precision == torch.float32


@pytest.mark.parametrize("values", [{"vot": "mean"}, {"vote": "means"}, {"min_frames": 0}, {"attend": True}])
def test_a_trait_that_does_not_exist_is_an_error(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Traits(**values)
