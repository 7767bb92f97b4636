"""`make setup` chooses a PyTorch: tools that only write down how they were called stand for uv and nvidia-smi."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("make", "sh", "uname", "test", "touch", "mkdir")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the files that the set-up reads, and a bin/ of its own."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    return tmp_path


def tool(clone: Path, name: str, script: str) -> None:
    path = clone / "bin" / name
    path.unlink(missing_ok=True)
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> {clone}/calls\n{script}\n')
    path.chmod(0o755)


def set_up(clone: Path) -> tuple[str, list[str]]:
    """What `make setup` prints, and the installations that it has tried."""
    tool(clone, "uname", "echo Linux")
    environment = {**os.environ, "PATH": str(clone / "bin")}
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    (clone / ".venv").mkdir()
    outcome = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=True)
    calls = (clone / "calls").read_text().splitlines()
    assert (clone / ".venv" / ".installed").exists()
    return outcome.stdout, [call for call in calls if call.startswith("uv pip") and "--dry-run" not in call]


def test_without_an_nvidia_device_pytorch_is_the_one_for_cpus(clone: Path) -> None:
    tool(clone, "uv", "exit 0")
    said, (installed,) = set_up(clone)
    assert "no NVIDIA device: PyTorch for CPUs alone" in said
    assert "--torch-backend cpu" in installed
    assert installed.endswith("-c constraints.txt")


def test_with_one_it_is_the_usual_one(clone: Path) -> None:
    tool(clone, "uv", "exit 0")
    tool(clone, "nvidia-smi", "exit 0")
    said, (installed,) = set_up(clone)
    assert "NVIDIA" not in said
    assert "--torch-backend" not in installed


@pytest.mark.parametrize("fails", ["--dry-run*", "*--torch-backend*"])
def test_where_it_cannot_be_had_it_is_the_usual_one_too(clone: Path, fails: str) -> None:
    tool(clone, "uv", f'case "$*" in *{fails}) exit 1;; esac')
    said, installations = set_up(clone)
    assert "cannot be had: the usual one" in said
    assert "--torch-backend" not in installations[-1]
