"""Validation on videos: whose, by which classes, and that its figures are those of the saved weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tubelet.apps.cli import call
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.types import VideoSet
from tubelet.evaluation.measures import measure
from tubelet.formats.classes import COCO, YTVIS_2019, YTVIS_2021
from tubelet.formats.registry import FORMS, open_set
from tubelet.inference.predict import predict
from tubelet.models import weights
from tubelet.recipes import find, validation
from tubelet.recipes.experiment import Experiment, Generated
from tubelet.recipes.validation import ValidationConfig, VideoValidation, check, hold_out, with_classes_of
from tubelet.training.log import read_metrics

SMALL = ("data.world.frames=3", "data.world.height=48", "data.world.width=64", "data.videos=10")
SHORT = ("train.iterations=4", "train.log_every=2", "train.workers=0", "train.batch_size=1", "train.threads=1")


@pytest.fixture
def recipe() -> Experiment:
    return find("masktrack/generated").override(
        *SMALL,
        *SHORT,
        "model.detector.proposals=8",
        "model.detector.score_threshold=0.0",
        "validation.every=2",
    )


def generated(videos: int = 4, seed: int = 0) -> VideoSet:
    return find("masktrack/generated").override(*SMALL, f"data.videos={videos}", f"data.seed={seed}").data.read()


def stored(folder: Path, videos: VideoSet) -> Path:
    write = FORMS["ytvis"].write
    assert write is not None
    write(folder, videos, True)
    return folder


def test_the_figures_in_the_log_are_those_of_the_saved_weights(recipe: Experiment, tmp_path: Path) -> None:
    outcome = recipe.override("data.hold_out=0.3").run(tmp_path / "run", device="cpu")
    assert outcome.best is not None
    lines = [line for line in read_metrics(tmp_path / "run/metrics.jsonl") if "validation_AP" in line]
    assert [line["step"] for line in lines] == [2, 4]
    _, others = recipe.override("data.hold_out=0.3").data.read_both(recipe.train.seed)
    assert others is not None
    assert len(others.videos) == 3
    model = weights.load(tmp_path / "run/model.safetensors", device="cpu")
    predictions = [predict(model, video, threshold=0.0) for video in others.videos]
    again = measure(others.videos, predictions)
    assert {name.removeprefix("validation_"): value for name, value in lines[1].items() if name != "step"} == again
    assert weights.load(outcome.best, device="cpu").classes == others.classes


def test_contact_sheets_of_the_latest_and_the_best_are_kept(recipe: Experiment, tmp_path: Path) -> None:
    recipe.override("data.hold_out=0.3", "validation.every=1").run(tmp_path, device="cpu")
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "validation_AP" in line]
    best = max(reversed(lines), key=lambda line: line["validation_AP"])["step"]
    assert {path.name for path in (tmp_path / "validation").iterdir()} == {f"step_{best:06d}.jpg", "step_000004.jpg"}
    assert cv2.imread(str(tmp_path / "validation/step_000004.jpg")).shape[1] == 1600


@pytest.mark.parametrize("same_classes", [True, False])
def test_contact_sheets_name_videos_as_the_user_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_classes: bool
) -> None:
    videos = generated(2)
    named = replace(videos, videos=[replace(v, id=f"kitchen {n}") for n, v in enumerate(videos.videos)])
    others = open_set(stored(tmp_path / "set", named))
    classes = others.classes if same_classes else ("snail", *others.classes)
    captions: list[str] = []
    monkeypatch.setattr(
        validation, "contact_sheet", lambda _, said, width: captions.extend(said) or np.zeros((8, width, 3), np.uint8)
    )
    model = weights.load("default", device="cpu")
    judge = VideoValidation(with_classes_of(others, classes, "a set"), ValidationConfig(), tmp_path)
    judge._draw(1, [predict(model, video) for video in judge.videos])
    assert captions[0] == "kitchen 0, frame 0"
    assert captions[-1] == "kitchen 1, frame 2"


def test_any_known_format_is_validated_on(recipe: Experiment, tmp_path: Path) -> None:
    folder = stored(tmp_path / "set", generated(seed=5))
    recipe.override(f"data.validation={folder}", "validation.videos=2").run(tmp_path / "run", device="cpu")
    assert (tmp_path / "run/best.safetensors").is_file()


def test_held_out_videos_are_not_trained_on_and_follow_from_the_seed() -> None:
    videos = generated(10)
    training, validation = hold_out(videos, 0.2, seed=3)
    assert len(validation.videos) == 2
    ids = {video.id for video in training.videos}
    assert ids.isdisjoint(video.id for video in validation.videos)
    assert [video.id for video in hold_out(videos, 0.2, seed=3)[1].videos] == [v.id for v in validation.videos]
    assert len(hold_out(videos, 0.01, seed=3)[1].videos) == 1
    with pytest.raises(InputError, match="at least two videos, found 1"):
        hold_out(generated(1), 0.5, seed=0)


def test_a_share_and_a_set_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.validation or data\.hold_out, got both"):
        Generated(videos=2, hold_out=0.5, validation="there").read_both(0)


def test_only_so_many_videos_are_validated_on_spread_over_the_set(tmp_path: Path) -> None:
    validation = VideoValidation(generated(5), ValidationConfig(videos=3), tmp_path)
    assert [video.id for video in validation.videos] == [generated(5).videos[n].id for n in (0, 2, 4)]


def test_classes_in_another_order_are_mapped_by_name() -> None:
    videos = generated()
    turned = tuple(reversed(videos.classes))
    mapped = with_classes_of(videos, turned, "a set")
    for before, after in zip(videos.videos, mapped.videos, strict=True):
        names = [videos.classes[track.label] for track in before.tracks or ()]
        assert [turned[track.label] for track in after.tracks or ()] == names


def test_classes_of_known_sets_are_mapped_where_that_is_certain() -> None:
    empty = VideoSet(videos=[], classes=YTVIS_2019)
    assert with_classes_of(empty, YTVIS_2021, "a set").classes == YTVIS_2021
    with pytest.raises(ConfigError, match=r"a set: expected the classes of the training videos \(person, bicycle"):
        with_classes_of(empty, COCO, "a set")


def test_other_classes_are_refused_in_one_line(
    recipe: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = replace(generated(), classes=tuple(f"moth {n}" for n in range(len(generated().classes))))
    folder = stored(tmp_path / "set", others)
    assert call(["train", "masktrack/generated", f"data.validation={folder}", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "found" in told
    assert "moth 0, moth 1, moth 2, ..." in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_validation_set_without_objects_is_refused() -> None:
    bare = VideoSet(videos=[replace(video, tracks=()) for video in generated().videos], classes=generated().classes)
    with pytest.raises(InputError, match="val: to validate on, expected videos or images with at least one object"):
        check(generated(), bare, "val")
    with pytest.raises(InputError, match="found 0 without any"):
        check(generated(), replace(bare, videos=[]), "val")


def test_videos_in_both_sets_are_said(caplog: pytest.LogCaptureFixture) -> None:
    check(generated(6), generated(4, seed=9), "val")
    assert not caplog.records
    some = replace(generated(6), videos=generated(6).videos[1:3])
    check(generated(6), some, "val")
    assert "2 of 2 validation videos are also trained on" in caplog.text


def test_patience_without_videos_to_validate_on_is_refused(recipe: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.patience needs videos to validate on"):
        recipe.override("train.patience=3").run(tmp_path / "out", device="cpu")


def test_an_unknown_metric_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown metric 'identty'"):
        find("masktrack/generated").override('validation.metrics=["identty"]')
