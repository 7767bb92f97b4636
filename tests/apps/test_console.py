"""Progress off a terminal, and none where that is asked for."""

from __future__ import annotations

import logging
import time

import pytest

from tubelet.apps import console
from tubelet.apps.cli import call
from tubelet.apps.console import ProgressLines, progress_bar


def test_off_a_terminal_a_line_every_ten_seconds_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def work() -> None:
        nonlocal now
        with progress_bar("segmenting") as progress:
            assert isinstance(progress, ProgressLines)
            for done in range(1, 61):
                now += 0.5
                progress(done, 100)

    assert console.run(work) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "tubelet: segmenting: 20 of 100 frames, 2 frames/s, 0:40 left",
        "tubelet: segmenting: 40 of 100 frames, 2 frames/s, 0:30 left",
        "tubelet: segmenting: 60 of 100 frames, 2 frames/s, 0:20 left",
    ]


def test_quiet_says_nothing_of_progress_and_still_warns(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        assert console.is_quiet()
        with progress_bar("segmenting") as progress:
            progress(1, 2)
        logging.getLogger("tubelet.progress").info("step 1")
        logging.getLogger("tubelet.training").warning("careful")

    console.run(work, quiet=True)
    assert capsys.readouterr().err == "tubelet: careful\n"
    console.run(lambda: logging.getLogger("tubelet.progress").info("step 1"))
    assert capsys.readouterr().err == "tubelet: step 1\n"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_quiet_may_stand_anywhere(place: int, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["list", "backbones"]
    arguments.insert(place, "--quiet")
    assert call(arguments) == 0
    assert "resnet50" in capsys.readouterr().out
