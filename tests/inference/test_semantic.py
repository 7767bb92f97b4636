"""Class maps of a video, from a model's semantic branch or from its objects, and the files they become."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from toy import COLOURS, Toy, moving_patches
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.protocol import Traits, Window
from tubelet.core.types import Clip
from tubelet.drawing.semantic import tint
from tubelet.inference.predict import predict
from tubelet.inference.results import VideoPrediction
from tubelet.inference.semantic import most_probable, save_semantic, semantic_maps


class Branched(Toy):
    """The toy with a semantic branch: pure colours are classes, all else is background."""

    traits = Traits(semantic=True)

    def semantic_maps(self, clip: Clip) -> Tensor:
        soft = self._soft(clip.frames[clip.key])  # [K, T, h, w]
        return torch.cat([1 - soft.sum(0)[None], soft]).transpose(0, 1)


def expected(video: np.ndarray) -> np.ndarray:
    maps = np.zeros(video.shape[:3], np.uint8)
    for k, colour in enumerate(COLOURS.values()):
        maps[(video == colour).all(-1)] = k + 1
    return maps


@pytest.mark.parametrize("model", [Toy(shrink=1), Branched(shrink=1)])
@pytest.mark.parametrize("window", [Window(), Window(length=5, stride=2), Window(length=None)])
def test_every_pixel_gets_the_class_it_shows(model: Toy, window: Window) -> None:
    video = moving_patches(9)
    maps = list(semantic_maps(model, predict(model, video, window=window), window=window))
    assert (np.stack(maps) == expected(video)).all()


def test_frames_that_a_spread_window_leaves_out_lie_between_their_neighbours() -> None:
    video = np.repeat(moving_patches(1), 7, axis=0)
    model = Branched(Window(length=3, spread=True), shrink=1)
    maps = np.stack(list(semantic_maps(model, predict(model, video))))
    assert (maps == expected(video)).all()


def test_the_branch_speaks_where_no_object_is_sure_enough() -> None:
    video = moving_patches(2)
    none = predict(Branched(shrink=1), video, threshold=1.0)
    assert none.tracks == ()
    assert (np.stack(list(semantic_maps(Branched(shrink=1), none))) == expected(video)).all()
    assert not np.stack(list(semantic_maps(Toy(shrink=1), none))).any()


@pytest.mark.parametrize("classes", [1, 3, 40])
@pytest.mark.parametrize("size", [(20, 30), (45, 70), (10, 15)])
def test_classes_are_resized_before_the_best_is_chosen(classes: int, size: tuple[int, int]) -> None:
    logits = 3 * torch.randn(1, classes + 1, 10, 15, generator=torch.Generator().manual_seed(classes))
    probabilities = logits.softmax(1)
    resized = F.interpolate(probabilities, size, mode="bilinear")[0]
    best = most_probable(probabilities[0].numpy(), size)
    at_best = resized.numpy()[best, np.arange(size[0])[:, None], np.arange(size[1])]
    assert np.allclose(at_best, resized.amax(0).numpy(), atol=1e-5)


def saved(folder: Path, *, video: bool = True) -> VideoPrediction:
    model = Branched(shrink=1)
    prediction = predict(model, moving_patches(3))
    save_semantic(prediction, semantic_maps(model, prediction), folder, video=video)
    return prediction


def test_maps_legend_and_overlay_are_written_and_a_second_run_replaces_them(tmp_path: Path) -> None:
    for _ in range(2):
        saved(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["semantic", "semantic.mp4"]
        maps = sorted((tmp_path / "semantic").glob("*.png"))
        assert [path.name for path in maps] == ["00000.png", "00001.png", "00002.png"]
        assert (np.stack([np.asarray(Image.open(path)) for path in maps]) == expected(moving_patches(3))).all()
    legend = json.loads((tmp_path / "semantic" / "classes.json").read_text())
    assert legend == {str(k): name for k, name in enumerate(["background", *COLOURS])}


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "semantic").mkdir()
    (tmp_path / "semantic" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        saved(tmp_path, video=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["semantic", "thesis.tex"]


def test_a_fault_on_the_way_leaves_the_maps_of_before(tmp_path: Path) -> None:
    prediction = saved(tmp_path, video=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "semantic").iterdir()}

    def broken() -> object:
        yield np.zeros(prediction.size, np.uint8)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="full"):
        save_semantic(prediction, broken(), tmp_path)  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in (tmp_path / "semantic").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["semantic"]


def test_more_classes_than_a_byte_holds_are_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Many(VideoPrediction):
        pass

    prediction = predict(Toy(), moving_patches(1))
    many = Many(**{**vars(prediction), "classes": tuple(str(n) for n in range(255))})
    with pytest.raises(ConfigError, match="254"):
        semantic_maps(Toy(), many)


def test_the_background_is_not_tinted_and_each_class_is_named_once() -> None:
    image = np.full((90, 120, 3), 100, np.uint8)
    classes = np.zeros((90, 120), np.uint8)
    classes[50:, 60:] = 2
    palette = np.zeros((256, 3), np.uint8)
    palette[2] = (0, 200, 0)
    drawn = tint(image, classes, palette, ["background", "dog", "cat"])
    assert (drawn[60:, 80:] == (50, 150, 50)).all()
    assert (drawn[60:, :50] == 100).all()
    assert (drawn[2, 2] == (0, 200, 0)).all()
    with pytest.raises(ValueError, match=r"\[90, 120\]"):
        tint(image, classes.T, palette, [])
