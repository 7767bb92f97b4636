"""Frames to network input: sizes, padding, normalisation, and boxes that follow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tubelet.core.errors import ConfigError, InputError
from tubelet.models.inputs import Fit, InputConfig, KeepRatio, Stretch

sides = st.integers(16, 4000)


def frames(t: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (t, 3, height, width), generator=generator).to(torch.uint8)


@pytest.mark.parametrize(
    ("frame", "target"),
    [
        ((360, 640), (360, 640)),
        ((720, 1280), (360, 640)),
        ((1280, 720), (640, 360)),
        ((480, 640), (360, 480)),
        ((500, 500), (360, 360)),
        ((180, 320), (360, 640)),
        ((100, 2000), (32, 640)),
        ((1, 10_000), (1, 640)),
    ],
)
def test_the_long_side_is_640_or_the_short_side_360_whichever_is_smaller(
    frame: tuple[int, int], target: tuple[int, int]
) -> None:
    assert KeepRatio().target(*frame) == target


@given(height=sides, width=sides, long=st.integers(64, 1400), short=st.integers(64, 800))
def test_the_ratio_is_kept_to_half_a_pixel_and_neither_bound_is_passed(
    height: int, width: int, long: int, short: int
) -> None:
    new = KeepRatio(long=long, short=short).target(height, width)
    assert max(new) <= long
    assert min(new) <= short
    scale = min(long / max(height, width), short / min(height, width))
    for before, after in zip((height, width), new, strict=True):
        assert abs(after - before * scale) <= 0.5 or after == 1


@pytest.mark.parametrize(
    "assignment",
    [
        "resize.long=0",
        "resize.short=-5",
        "resize.long=1000000",
        "resize.multiple=0",
        'resize={"kind": "stretch", "height": -1}',
        'resize={"kind": "stretch", "width": 1000000}',
        "std=[1, 0, 1]",
    ],
)
def test_sizes_that_no_input_has_are_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match=assignment.split("=")[0].split(".")[0]):
        InputConfig().override(assignment)


def test_a_frame_of_the_right_size_is_only_normalised_and_padded_right_and_below() -> None:
    config = InputConfig()
    some = frames(2, 360, 640)
    images = config.prepare([some])
    assert images.pixels.shape == (2, 3, 384, 640)
    assert images.sizes == [(360, 640)] * 2
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.mean, config.std))
    torch.testing.assert_close(images.pixels[:, :, :360], (some.float() - mean) / std)
    assert not images.pixels[:, :, 360:].any()
    assert torch.equal(images.scales, torch.ones(2, 4))


def test_the_mean_colour_becomes_zero_and_one_deviation_becomes_one() -> None:
    config = InputConfig(resize=Stretch(height=32, width=32), mean=(10, 20, 30), std=(2, 4, 8))
    plain = torch.tensor([12, 24, 38], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(config.prepare([plain]).pixels, torch.ones(1, 3, 32, 32))


def test_clips_of_several_sizes_share_one_batch() -> None:
    config = InputConfig(resize=KeepRatio(long=96, short=64, multiple=32))
    images = config.prepare([frames(2, 64, 96), frames(1, 128, 128), frames(3, 300, 100)])
    assert images.pixels.shape == (6, 3, 96, 96)
    assert images.sizes == [(64, 96)] * 2 + [(64, 64)] + [(96, 32)] * 3
    for pixels, (height, width) in zip(images.pixels, images.sizes, strict=True):
        assert not pixels[:, height:].any()
        assert not pixels[:, :, width:].any()
    torch.testing.assert_close(images.scales[2], torch.tensor([0.5, 0.5, 0.5, 0.5]))
    torch.testing.assert_close(images.scales[5], torch.tensor([0.32, 0.32, 0.32, 0.32]))


def test_each_image_is_the_same_alone_and_in_a_batch() -> None:
    config = InputConfig(resize=KeepRatio(long=96, short=64))
    first, second = frames(1, 100, 200), frames(2, 60, 80, seed=1)
    together = config.prepare([first, second])
    alone = config.prepare([second])
    height, width = alone.sizes[0]
    assert torch.equal(together.pixels[1:, :, :height, :width], alone.pixels[:, :, :height, :width])
    assert torch.equal(together.scales[1:], alone.scales)


@given(height=st.integers(20, 120), width=st.integers(20, 120))
def test_the_box_of_the_whole_frame_becomes_the_box_of_the_whole_input(height: int, width: int) -> None:
    for resize in (KeepRatio(long=96, short=64), Stretch(height=50, width=70)):
        images = InputConfig(resize=resize).prepare([torch.zeros(1, 3, height, width, dtype=torch.uint8)])
        box = torch.tensor([0.0, 0.0, width, height]) * images.scales[0]
        torch.testing.assert_close(box, torch.tensor([0.0, 0.0, images.sizes[0][1], images.sizes[0][0]]))


def test_boxes_stay_on_their_object_when_a_frame_is_squeezed() -> None:
    frame = torch.zeros(1, 3, 120, 200, dtype=torch.uint8)
    frame[:, :, 30:90, 120:180] = 255
    config = InputConfig(resize=Stretch(height=60, width=50), mean=(0, 0, 0), std=(255, 255, 255))
    images = config.prepare([frame])
    assert images.pixels.shape == (1, 3, 60, 50)
    bright = (images.pixels[0, 0] > 0.5).nonzero()
    found = [*bright.amin(0).flip(0).tolist(), *(bright.amax(0) + 1).flip(0).tolist()]
    assert found == (torch.tensor([120.0, 30.0, 180.0, 90.0]) * images.scales[0]).tolist()


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (1, 500), (64, 96), (97, 61)])
def test_a_frame_that_is_fitted_touches_two_sides_and_keeps_its_ratio(size: tuple[int, int]) -> None:
    height, width = Fit(height=64, width=96).target(*size)
    assert height <= 64
    assert width <= 96
    assert height == 64 or width == 96
    assert height / width == pytest.approx(size[0] / size[1], rel=0.05) or min(height, width) == 1


def test_a_fitted_frame_has_no_other_short_side() -> None:
    with pytest.raises(InputError, match="keep_ratio"):
        InputConfig(resize=Fit()).at_short(360)
