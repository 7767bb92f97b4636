"""Glances as the page takes them, and which models are said to have any."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

from toy import Toy, moving_patches
from tubelet.apps.web.attention import MAX_CELLS, MAX_MAPS, attention_maps, can_attend, described
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import Glance
from tubelet.models import weights
from tubelet.video.reader import open_video
from web_models import Attending


def levels(told: dict[str, object]) -> np.ndarray:
    size = told["size"]
    assert isinstance(size, list)
    return np.frombuffer(base64.b64decode(str(told["values"])), np.uint8).reshape(size)


def test_the_largest_weight_is_255_and_the_others_keep_their_share() -> None:
    told = described(Glance(name="STA", frame=3, values=torch.tensor([[0.0, 0.1], [0.2, 0.05]])))
    assert (told["name"], told["frame"]) == ("STA", 3)
    assert levels(told).tolist() == [[0, 128], [255, 64]]


def test_no_weight_at_all_and_what_is_no_number_are_dark() -> None:
    assert levels(described(Glance(name="", frame=0, values=torch.zeros(2, 2)))).max() == 0
    assert levels(described(Glance(name="", frame=0, values=torch.tensor([[float("nan"), -1.0]])))).max() == 0


def test_a_large_map_is_thinned_out() -> None:
    told = described(Glance(name="", frame=0, values=torch.rand(700, 1000)))
    assert max(levels(told).shape) <= MAX_CELLS


def test_the_bundled_model_has_no_attention_modules_and_says_so() -> None:
    assert not can_attend(weights.load("default", device="cpu"))
    assert not can_attend(Toy())
    assert can_attend(Attending())


def test_maps_are_bounded_and_points_outside_refused() -> None:
    video = open_video(moving_patches(4))
    maps = attention_maps(Attending(), video, 1, (10.0, 20.0))
    assert 0 < len(maps) <= MAX_MAPS
    peak = int(maps[0].values.argmax())
    assert (peak % 64, peak // 64) == (10, 20)
    with pytest.raises(InputError):
        attention_maps(Attending(), video, 9, (10.0, 20.0))
    with pytest.raises(ConfigError, match="no attention modules"):
        attention_maps(Toy(), video, 1, (10.0, 20.0))
