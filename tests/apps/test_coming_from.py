"""The tables of docs/coming-from.md: what they say of tubelet runs as it is printed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import tubelet
from tubelet.apps.cli import call
from tubelet.apps.demo import VIDEO
from tubelet.core import masks
from tubelet.core.types import VideoSet
from tubelet.data.tools.splitting import split
from tubelet.formats import registry, ytvis
from tubelet.synthetic.config import Synthetic
from tubelet.synthetic.generator import write
from tubelet.video.writer import VideoWriter

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
ONE_STEP = ["train.iterations=1", "train.batch_size=1", "train.workers=0", "train.precision=fp32"]
# they need devices, or minutes: tests/apps/test_export.py and test_evaluate_model.py run what the last two do
ONLY_READ = ("torchrun", "tubelet stream 0", "tubelet export", "tubelet evaluate model")


def tables() -> dict[str, list[list[str]]]:
    """The rows of each section's table, without the head."""
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    rows = {name: [line for line in text.splitlines() if line.startswith("| ")][1:] for name, text in sections}
    return {name: [line.strip("| ").split(" | ") for line in lines] for name, lines in rows.items()}


TABLES = tables()
SAID = [row[-1] for rows in TABLES.values() for row in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page speaks of."""
    folder = tmp_path_factory.mktemp("coming-from")
    whole = tubelet.open_video(VIDEO)
    (folder / "frames").mkdir()
    with VideoWriter(folder / "shop.mp4", whole.size, whole.fps) as writer:
        for t, frame in enumerate(islice(whole.frames, 3)):
            picture = frame.permute(1, 2, 0).numpy()
            writer.write(picture)
            Image.fromarray(picture).save(folder / "frames" / f"{t:05d}.png")

    world = Synthetic(height=96, width=160, frames=3, objects=(1, 1), classes=("fish", "duck"))
    write(folder / "boats", world, seed=0, videos=3)
    registry.convert(folder / "boats", folder / "pets", to="yolo-seg")
    _, held_out = split(registry.open_set(folder / "boats"), held_out=1)
    write_as_predictions(held_out, folder / "measured")
    write_sav(folder / "sa-v")
    return folder


def write_as_predictions(videos: VideoSet, folder: Path) -> None:
    """What `tubelet evaluate model` would leave there, of a model that is always right."""
    folder.mkdir()
    predictions = [
        tubelet.Prediction(video=v.id, size=v.size, length=len(v), tracks=v.tracks or (), classes=videos.classes)
        for v in videos.videos
    ]
    ytvis.write_predictions(folder / "predictions.json", predictions)


def write_sav(folder: Path) -> None:
    """One film with one masklet."""
    folder.mkdir()
    with av.open(str(folder / "sav_000001.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=24)
        stream.height, stream.width = 32, 48
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    rle = masks.to_json(masks.encode(np.ones((1, 32, 48), bool))[0])
    (folder / "sav_000001_manual.json").write_text(json.dumps({"masklet": [[rle]], "masklet_id": [0]}))


def test_each_table_has_fifteen_tasks() -> None:
    assert {name: len(rows) for name, rows in TABLES.items()} == dict.fromkeys(TABLES, 15)
    assert list(TABLES) == ["Ultralytics", "supervision", "mmdetection and mmtracking", "SAM 2"]
    assert all(len(row) == 3 for rows in TABLES.values() for row in rows)


def test_what_is_said_of_tubelet_runs_as_it_is_printed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (prelude,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(prelude, names)
    done: set[str] = set()
    for cell in SAID:
        (code,) = re.fullmatch(r"`([^`]+)`", cell).groups()
        is_possible = "to_supervision" not in code or importlib.util.find_spec("supervision")
        if code in done or code.startswith(ONLY_READ) or not is_possible:
            continue
        done.add(code)
        if code.startswith("tubelet "):
            words = shlex.split(code.removeprefix("tubelet "))
            assert call([*words, *(ONE_STEP if words[0] == "train" else [])]) == 0, code
        else:
            exec(code, names)
    assert len(done) > 50
