"""`import tubelet` costs nothing; its names arrive when they are asked for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tubelet

HEAVY = ("torch", "torchvision", "timm", "numpy", "matplotlib", "av", "cv2", "scipy", "pydantic", "pycocotools")


def modules_after(*lines: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after some lines."""
    code = "\n".join(["import json, sys", *lines, f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_tubelet_loads_nothing_heavy() -> None:
    assert modules_after("import tubelet", "dir(tubelet)", "tubelet.__version__") == set()


def test_errors_need_no_tensors() -> None:
    assert modules_after("from tubelet import TubeletError") == set()


def test_a_name_arrives_when_it_is_asked_for() -> None:
    assert "torch" in modules_after("import tubelet", "tubelet.Tracks")


def test_every_public_name_is_listed_once_and_described() -> None:
    names = [name for name in tubelet.__all__ if name != "__version__"]
    assert len(set(tubelet.__all__)) == len(tubelet.__all__)
    assert dir(tubelet) == sorted(tubelet.__all__)
    for name in names:
        assert getattr(tubelet, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        tubelet.laod  # noqa: B018
