"""The R-CNN family on an engine finds what it finds on torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tubelet
from model_fixtures import Build
from tubelet.core.errors import EngineError
from tubelet.engines.choice import absent, use_engine
from tubelet.models.rcnn.model import MaskTrackRCNN
from tubelet.models.tags.model import TagConfig

CPU = torch.device("cpu")


@pytest.fixture(params=["onnx", "openvino"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The name of each engine; skips one that is not installed."""
    if absent(request.param):
        pytest.skip(f"{', '.join(absent(request.param))} not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))  # both read the same files
    return request.param


def tracks(model: MaskTrackRCNN, frames: np.ndarray) -> list[tuple[int, int, float, int]]:
    prediction = tubelet.predict(model, frames, threshold=0.0)
    return [
        (track.id, track.label, round(float(track.score), 3), sum(int(track.mask(t).sum()) for t in range(len(frames))))
        for track in prediction
    ]


def test_every_network_of_the_two_stage_model_agrees(build: Build, engine: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    model = build('neck={"kind": "sta"}')
    expected = tracks(model, frames)
    use_engine(model.graphs(), engine, torch.float32, CPU)
    assert [graph.name for graph in model.graphs()] == ["pyramid", "proposals", "boxes", "masks", "descriptors"]
    assert expected == tracks(model, frames)
    assert len(expected) > 1


def test_the_bundled_model_finds_the_same_objects(engine: str) -> None:
    film = Path(tubelet.__file__).parent / "apps" / "demo.mp4"
    video = tubelet.open_video(film)
    frames = np.stack([video.frames[t].permute(1, 2, 0).numpy() for t in range(2)])
    expected = tracks(tubelet.load("default", device="cpu", precision="fp32", engine="torch"), frames)
    found = tracks(tubelet.load("default", device="cpu", precision="fp32", engine=engine), frames)
    assert [track[:3] for track in found] == [track[:3] for track in expected]
    assert [track[3] for track in found] == pytest.approx([track[3] for track in expected], rel=1e-3)
    assert len(expected) > 1


def test_a_model_that_no_engine_can_run_is_one_clear_line(engine: str) -> None:
    model = TagConfig().build(("dog",))
    with pytest.raises(EngineError, match="this kind of model runs with torch only"):
        use_engine(model.graphs(), engine, torch.float32, CPU)
