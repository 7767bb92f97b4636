"""`tubelet predict --semantic` and `tubelet evaluate semantic` as a user meets them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.apps import cli
from tubelet.core import masks
from tubelet.core.types import Prediction, Track, Video, VideoSet
from tubelet.formats import ytvis
from tubelet.formats.label_maps import encode_map
from tubelet.models.tags.model import TagConfig
from tubelet.training.checkpoint import save_model
from tubelet.video.writer import ImageWriter

SIZE = (48, 64)


def block(left: int) -> masks.RLE:
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 10:30, left : left + 16] = True
    return masks.encode(mask)[0]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.call(list(arguments))
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """One video, a cow beside a dog."""
    tracks = (
        Track(id=1, label=0, score=1.0, rles=(block(4),) * 3),
        Track(id=2, label=1, score=1.0, rles=(block(40),) * 3),
    )
    video = Video(id="1", size=SIZE, frames=[None] * 3, tracks=tracks)
    ytvis.write_set(tmp_path / "truth.json", VideoSet(videos=[video], classes=("cow", "dog")))
    return tmp_path / "truth.json"


def classes(left: bool, right: bool) -> np.ndarray:
    drawn = np.zeros(SIZE, np.uint8)
    drawn[10:30, 4:20] = 1 if left else 0
    drawn[10:30, 40:56] = 2 if right else 0
    return drawn


def test_class_maps_are_measured_against_the_truths_objects(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "semantic"
    folder.mkdir()
    for t in range(3):
        (folder / f"{t:05d}.png").write_bytes(encode_map(classes(True, right=t < 2)))
    out = tmp_path / "numbers.json"
    code, table, _ = run(capsys, "evaluate", "semantic", str(truth), str(folder), "--json", str(out), "--details")
    numbers = json.loads(out.read_text())
    background = 1 - (640 / SIZE[0] / SIZE[1])
    assert code == 0
    assert "mIoU" in table
    assert numbers["mIoU_classes"] == pytest.approx((1 + 2 / 3) / 2)
    assert numbers["classes"]["dog"]["IoU"] == pytest.approx(2 / 3)
    assert numbers["IoU_background"] == pytest.approx(background * 3 / (background * 3 + 320 / SIZE[0] / SIZE[1]))


def test_instances_are_measured_as_the_classes_they_show(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (video,) = ytvis.read(truth).videos
    guess = tuple(replace(track, score=0.9) for track in video.tracks or ())
    answer = Prediction(video=video.id, size=SIZE, length=3, tracks=guess, classes=("cow", "dog"))
    ytvis.write_predictions(tmp_path / "guess.json", [answer])
    out = tmp_path / "numbers.json"
    code, _, _ = run(capsys, "evaluate", "semantic", str(truth), str(tmp_path / "guess.json"), "--json", str(out))
    assert code == 0
    assert json.loads(out.read_text())["mIoU"] == 1


def test_missing_maps_are_one_line(truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    code, _, told = run(capsys, "evaluate", "semantic", str(truth), str(tmp_path / "empty"))
    assert code == 2
    assert "expected the class maps" in told
    assert "Traceback" not in told


def test_predict_writes_class_maps_beside_the_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TagConfig(input_size=(32, 48)).override("encoder.width=4", "encoder.blocks=[1,1,1]", "channels=8")
    torch.manual_seed(0)
    model = config.build(("cow", "dog"))
    described = {"config": config.model_dump_json(), "classes": '["cow", "dog"]'}
    save_model(tmp_path / "model.safetensors", model.state_dict(), described)
    noise = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3)).astype(np.uint8)
    with ImageWriter(tmp_path / "frames") as writer:
        for frame in noise:
            writer.write(frame)
    arguments = ["predict", str(tmp_path / "frames"), "--model", str(tmp_path / "model.safetensors"), "--semantic"]
    code, told, error = run(capsys, *arguments, "--out", str(tmp_path / "out"), "--device", "cpu")
    assert code == 0, error
    assert "semantic" in told
    drawn = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out" / "semantic").glob("*.png"))]
    assert [one.shape for one in drawn] == [SIZE] * 3
    assert max(int(one.max()) for one in drawn) <= 2
    assert (tmp_path / "out" / "semantic.mp4").stat().st_size > 0
    assert json.loads((tmp_path / "out" / "semantic" / "classes.json").read_text())["2"] == "dog"
