"""A detector that says what it is told, so that what follows can be tested frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from tubelet.core.config import Config
from tubelet.core.types import Clip
from tubelet.engines.graph import Graph
from tubelet.models.inputs import Images, InputConfig, Stretch
from tubelet.models.rcnn.detectors.detector import Detections, Features
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN

Answer = tuple[tuple[float, ...], int, float]  # box, label, score
Follow = Callable[..., tuple[MaskTrackRCNN, Clip]]


class ScriptInput(Config):
    """The frames' own size and colours."""

    input: InputConfig = InputConfig(resize=Stretch(height=64, width=96), mean=(0, 0, 0), std=(1, 1, 1))


class Scripted(nn.Module):
    """Answers frame t, painted in the colour t, with the t-th list; every region looks the same."""

    channels, strides = 1, [4]
    attention = None

    def __init__(self, *script: Sequence[Answer]) -> None:
        super().__init__()
        self.config, self.script = ScriptInput(), script

    def graphs(self) -> list[Graph]:
        return []

    def extract(self, images: Images) -> Features:
        return Features(maps=[images.pixels[:, :1]], taps=[])

    def detect(self, features: Features, images: Images) -> list[Detections]:
        return [self._answer(int(pixels[0, 0, 0])) for pixels in images.pixels]

    def _answer(self, t: int) -> Detections:
        scores = torch.zeros(len(self.script[t]), 3)
        for row, (_, label, score) in zip(scores, self.script[t], strict=True):
            row[label] = score
        return Detections(boxes=torch.tensor([b for b, _, _ in self.script[t]]).view(-1, 4).float(), scores=scores)

    def cells(self, features: Features, boxes: list[Tensor], resolution: int) -> Tensor:
        return torch.ones(len(boxes[0]), 1, resolution, resolution)


@pytest.fixture(scope="session")
def follow(small_config: MaskTrackConfig) -> Follow:
    """A model with scripted detections, a match head that tells nobody apart and masks that fill their boxes."""

    def one(*script: Sequence[Answer], overrides: Sequence[str] = ()) -> tuple[MaskTrackRCNN, Clip]:
        config = small_config.override(*overrides)
        with torch.device("meta"):  # its parts are replaced
            model = config.build(("dog", "cat", "car")).eval()
        model.detector = Scripted(*script)  # type: ignore[assignment]
        model.match = config.match.build(1)
        model.mask = config.mask.build(1, 3)
        nn.init.zeros_(model.match.layers[-1].weight)
        nn.init.zeros_(model.mask.logits.weight)
        nn.init.constant_(model.mask.logits.bias, 9.0)
        length = len(script)
        frames = torch.arange(length, dtype=torch.uint8).view(-1, 1, 1, 1).expand(length, 3, 64, 96).contiguous()
        return model, Clip(frames=frames, index=torch.arange(length), key=torch.ones(length, dtype=torch.bool))

    return one
