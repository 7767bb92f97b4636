"""The bundled video, and the demo from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toy import Toy
from tubelet.apps.cli import call
from tubelet.apps.demo import VIDEO
from tubelet.models import weights
from tubelet.video.reader import open_video


def test_the_bundled_video_is_small_and_short() -> None:
    video = open_video(VIDEO)
    assert VIDEO.stat().st_size < 500_000
    assert (len(video), video.size) == (144, (360, 640))
    assert video.fps == pytest.approx(24)


def test_the_bundled_video_moves_from_frame_to_frame() -> None:
    frames = np.stack([frame.numpy()[:, ::8, ::8] for frame in open_video(VIDEO).frames]).astype(int)
    assert (np.abs(np.diff(frames, axis=0)).mean((1, 2, 3)) > 0.2).all()


def test_the_demo_says_where_its_results_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "load", lambda name="default", **how: Toy(shrink=4))
    assert call(["demo", "--out", str(tmp_path / "demo")]) == 0
    told = capsys.readouterr().out
    for name in ("overlay.mp4", "predictions.json", "contact_sheet.png"):
        assert (tmp_path / "demo" / name).is_file()
        assert str(tmp_path / "demo" / name) in told
