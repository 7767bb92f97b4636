"""The bundled model on films that show nothing, and on frames of unusual sizes."""

from __future__ import annotations

import pytest
import torch

from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.models.rcnn.model import MaskTrackRCNN


@pytest.fixture(scope="module")
def bundled() -> MaskTrackRCNN:
    model = weights.load("default", device="cpu")
    assert isinstance(model, MaskTrackRCNN)
    return model


def film(colour: tuple[int, int, int], height: int = 90, width: int = 160, length: int = 4) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).repeat(length, 1, height, width)


COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (127, 127, 127),
    "red": (200, 20, 30),
    "green": (40, 180, 60),
    "blue": (30, 60, 220),
}


@pytest.mark.parametrize("colour", COLOURS)
def test_a_film_of_one_colour_has_no_objects(bundled: MaskTrackRCNN, colour: str) -> None:
    assert predict(bundled, film(COLOURS[colour]), threshold=0.3).tracks == ()


def test_noise_and_a_slow_fade_have_no_objects(bundled: MaskTrackRCNN) -> None:
    noise = torch.randint(0, 256, (4, 3, 90, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert predict(bundled, noise, threshold=0.3).tracks == ()
    fade = torch.arange(0, 240, 40, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 90, 160)
    assert predict(bundled, fade, threshold=0.3).tracks == ()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 256), (256, 32), (1, 1), (2160, 3840)])
def test_frames_of_any_size_are_read(bundled: MaskTrackRCNN, height: int, width: int) -> None:
    prediction = predict(bundled, film((90, 120, 60), height, width, length=1), threshold=0.3)
    assert prediction.size == (height, width)
    assert prediction.tracks == ()
