"""Where attention looks: the right frames, weights that sum to what they should, pictures and films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toy import Toy, moving_patches
from tubelet.attention.ifr import RecurrentConfig
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import Attentive, Glance, Traits, Window
from tubelet.core.types import Video
from tubelet.inference.attention_maps import attention_maps, film, picture
from tubelet.models.backbones import BackboneConfig
from tubelet.models.inputs import InputConfig, KeepRatio
from tubelet.models.mask2former.decoder import JointConfig, QueryDecoderConfig
from tubelet.models.mask2former.inter_frame import InterFrameConfig
from tubelet.models.mask2former.model import Mask2FormerConfig
from tubelet.models.mask2former.pixel_decoder import PixelDecoderConfig
from tubelet.models.rcnn.detectors.two_stage import TwoStageConfig
from tubelet.models.rcnn.heads.standard import FullyConnectedMatchConfig, MaskHeadConfig
from tubelet.models.rcnn.model import MaskTrackConfig, MaskTrackRCNN
from tubelet.models.tags.model import TagConfig
from tubelet.video.reader import open_video

SMALL = MaskTrackConfig(
    detector=TwoStageConfig(
        input=InputConfig(resize=KeepRatio(long=64, short=48)),
        backbone=BackboneConfig(name="resnet18"),
        channels=16,
        box_channels=32,
        proposals=20,
        proposals_per_level=20,
        score_threshold=0.0,
    ),
    mask=MaskHeadConfig(convs=1, channels=16),
    match=FullyConnectedMatchConfig(channels=16),
)
INTER_FRAME = InterFrameConfig(layers=3, layer=RecurrentConfig(heads=2, feed_forward=16))
AT = (20.0, 12.0)


@pytest.fixture(scope="module")
def video() -> Video:
    return open_video(moving_patches(6))


def model(*overrides: str) -> MaskTrackRCNN:
    torch.manual_seed(0)
    return SMALL.override(*overrides).build(("red", "blue")).eval()


def looked(glances: list[Glance]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for glance in glances:
        out.setdefault(glance.name, []).append(glance.frame)
    return out


def test_sta_looks_at_the_frame_before(video: Video) -> None:
    sta = model('neck={"kind": "sta", "levels": ["P3"]}')
    assert isinstance(sta, Attentive)
    glances = attention_maps(sta, video, 4, AT)
    assert looked(glances) == {"STA, stride 8": [3]}
    assert glances[0].values.shape == (6, 8)
    assert float(glances[0].values.sum()) == pytest.approx(1, abs=1e-4)
    assert looked(attention_maps(sta, video, 0, AT)) == {"STA, stride 8": [0]}  # itself


def test_compfeat_looks_at_its_supports_and_at_the_object(video: Video) -> None:
    compfeat = model('neck={"kind": "dual", "levels": ["P3"]}', "regions={}", 'match={"kind": "correlation"}')
    names = looked(attention_maps(compfeat, video, 2, AT, window=Window(context=3)))
    supports = [1, 3, 5]
    assert names.pop("temporal attention of frames, stride 8") == supports
    assert names.pop("spatial attention, stride 8") == [2]
    assert names.pop("temporal attention of the object") == supports
    (rest,) = names
    assert rest.startswith("correlation map of object")


def test_objprop_looks_at_the_last_frame_by_affinity(video: Video) -> None:
    (glance,) = attention_maps(model('propagation={"channels": 8, "convs": 1}'), video, 3, AT)
    assert (glance.name, glance.frame) == ("inter-frame affinity", 2)
    assert float(glance.values.sum()) == pytest.approx(1, abs=1e-4)


def test_windows_of_several_frames_are_asked_about_any_of_them(video: Video) -> None:
    sta = model('neck={"kind": "sta", "levels": ["P3"]}')
    single = attention_maps(sta, video, 4, AT)
    for window in (Window(length=3, stride=3), Window(length=None)):
        (other,) = attention_maps(sta, video, 4, AT, window=window)
        assert other.frame == 3
        torch.testing.assert_close(other.values, single[0].values, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("frame", "at", "message"),
    [
        (6, AT, "no frame 6"),
        (-1, AT, "no frame -1"),
        (0, (64.0, 3.0), "outside its 64x48"),
        (0, (3.0, -1.0), "outside"),
    ],
)
def test_frames_and_points_outside_are_told(video: Video, frame: int, at: tuple[float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attention_maps(model(), video, frame, at)


def test_a_model_that_cannot_be_asked_is_told(video: Video) -> None:
    with pytest.raises(ConfigError, match="no attention modules"):
        attention_maps(Toy(), video, 0, AT)
    with pytest.raises(ConfigError, match="no attention modules"):
        attention_maps(model(), video, 0, AT)


def test_a_picture_shows_the_frame_and_each_glance(video: Video) -> None:
    glances = [
        Glance(name="one", frame=0, values=torch.zeros(3, 4)),
        Glance(name="two", frame=1, values=torch.eye(4)),
    ]
    sheet = picture(video, 2, AT, glances, width=640)
    assert sheet.shape[1:] == (640, 3)
    assert sheet.dtype == np.uint8
    taller = picture(video, 2, AT, glances * 3, width=640)
    assert not np.array_equal(sheet, taller)


def test_a_film_has_every_frame(video: Video, tmp_path: Path) -> None:
    path = tmp_path / "attention.mp4"
    done: list[int] = []
    film(
        model('neck={"kind": "sta", "levels": ["P3"]}'), video, 1, AT, path, panels=1,
        progress=lambda n, total: done.append(n),
    )  # fmt: skip
    assert len(open_video(path).frames) == len(video)
    assert done == list(range(1, 7))


def test_the_point_goes_with_the_object_it_lies_on(tmp_path: Path, video: Video) -> None:
    """A model that only tells where it was asked: the asked points move with the red patch."""
    asked: dict[int, tuple[float, float]] = {}

    class Asked(Toy):
        traits = Traits(attention=True)

        def attend(self, state: object, clip: object, frame: int, at: tuple[float, float]) -> list[Glance]:
            asked[frame] = at
            return [Glance(name="asked", frame=frame, values=torch.ones(2, 2))]

    patch = (video.frames[2][0] == 255).nonzero().float().mean(0).flip(0)  # x, y of the red patch in frame 2
    film(Asked(), video, 2, (float(patch[0]), float(patch[1])), tmp_path / "film.mp4", panels=1)
    assert asked[0] == asked[1]
    for t in range(2, 6):
        x, y = (video.frames[t][0] == 255).nonzero().float().mean(0).flip(0).tolist()
        assert asked[t] == pytest.approx((x + 0.5, y + 0.5), abs=2)


@pytest.mark.parametrize("decoder", [JointConfig(layers=3, heads=2, feed_forward=16), INTER_FRAME])
def test_mask_transformers_have_a_picture_and_a_film(decoder: QueryDecoderConfig, video: Video, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone=BackboneConfig(name="resnet18"),
        input=InputConfig(resize=KeepRatio(long=64, short=48)),
        pixel_decoder=PixelDecoderConfig(channels=16, layers=1, feed_forward=16, groups=4),
        decoder=decoder,
        queries=5,
    )
    transformer = config.build(("red", "blue")).eval()
    glances = attention_maps(transformer, video, 3, AT, window=Window(length=2, stride=2))
    assert {glance.frame for glance in glances} == {2, 3}
    assert picture(video, 3, AT, glances, width=640).shape[1] == 640

    path = tmp_path / "attention.mp4"
    film(transformer, video, 3, AT, path, window=Window(length=3, stride=3), panels=len(glances))
    assert len(open_video(path).frames) == len(video)


def test_a_window_that_skips_frames_shows_the_nearest_that_it_reads(video: Video, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = ("input_size=[32,48]", "channels=8", "bottleneck=8", "encoder.width=4", "encoder.blocks=[1,1,1]")
    tags = TagConfig(window=Window(length=3, spread=True)).override(*small).build(("red", "blue")).eval()
    read = {glance.frame for glance in attention_maps(tags, video, 0, AT)}
    assert len(read) == 3
    assert {glance.frame for glance in attention_maps(tags, video, 2, AT)} == read

    path = tmp_path / "attention.mp4"
    film(tags, video, 2, AT, path, panels=2)
    assert len(open_video(path).frames) == 3
