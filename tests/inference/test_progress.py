"""`progress=True`: a bar on the terminal, or one of HTML in a notebook."""

from __future__ import annotations

from typing import Any

import IPython.display
import pytest

from toy import Toy, moving_patches
from tubelet.inference import progress
from tubelet.inference.predict import predict


def test_on_a_terminal_a_line_is_written_anew(capsys: pytest.CaptureFixture[str]) -> None:
    predict(Toy(), moving_patches(3), progress=True)
    told = capsys.readouterr().err
    assert told.count("\r") == 3
    assert told.endswith(f"{'#' * 30} 3 of 3 frames\n")


def test_in_a_notebook_one_bar_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, bar: Any) -> None:
            shown.append(bar.data)

    def display(bar: Any, *, display_id: bool) -> Handle:
        shown.append(f"new {bar.data}")
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    predict(Toy(), moving_patches(2), progress=True)
    assert shown == [
        "new <progress value='1' max='2'></progress> 1 of 2 frames",
        "<progress value='2' max='2'></progress> 2 of 2 frames",
    ]


def test_false_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    predict(Toy(), moving_patches(2), progress=False)
    assert capsys.readouterr().err == ""
