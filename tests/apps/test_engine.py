"""--engine: what cannot compute is one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tubelet.apps.cli import call
from tubelet.apps.demo import VIDEO
from tubelet.engines import choice


def test_an_engine_that_is_not_installed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(choice.PACKAGES, "openvino", ("no_such_openvino",))
    assert call(["predict", str(VIDEO), "--end", "0.1", "--engine", "openvino", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "engine openvino needs no_such_openvino: install the extra, pip install 'tubelet[openvino]'" in line
    assert not any(tmp_path.iterdir())


def test_another_engine_names_those_that_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["predict", str(VIDEO), "--engine", "tensorrt", "--out", str(tmp_path)]) == 2
    assert "engine: expected auto or torch or onnx or openvino, got 'tensorrt'" in capsys.readouterr().err
