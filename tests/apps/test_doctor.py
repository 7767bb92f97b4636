"""`tubelet doctor` and the shell's completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tubelet
from tubelet.apps import doctor
from tubelet.apps.cli import call


def test_the_doctor_tells_versions_devices_codecs_and_extras(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["doctor"]) == 0
    told = capsys.readouterr().out
    for what in (
        tubelet.__version__,
        "torch",
        "CUDA",
        "decoders",
        "libx264",
        "bundled model",
        "auto takes",
        "extra web",
        "supervision",
    ):
        assert what in told
    assert "all that is needed is here" in told


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tubelet"] == tubelet.__version__


def test_what_is_missing_is_said_and_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("numpy", "no-such-package"))
    monkeypatch.setitem(doctor.EXTRAS, "web", (("no-such-web",), "the page"))
    assert call(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "missing: no-such-package" in told
    assert "no no-such-web: pip install 'tubelet[web]'" in told


def test_every_extra_is_looked_for() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"])


@pytest.mark.parametrize(("typed", "expected"), [("tubelet pre", "predict"), ("tubelet predict --cl", "--classes")])
def test_the_shell_completes_commands_and_options(typed: str, expected: str) -> None:
    words = {"_TUBELET_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    command = [sys.executable, "-m", "tubelet"]
    done = subprocess.run(command, env={**os.environ, **words}, capture_output=True, text=True, check=False)
    assert expected in done.stdout.split()
