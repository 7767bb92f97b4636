"""Models for tests of the web server, by name; here because the server's worker process imports them by this file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from toy import Seen, Toy
from tubelet.apps.web.jobs import teaching
from tubelet.core.errors import InputError, WeightsError
from tubelet.core.protocol import Glance, Traits
from tubelet.core.types import Clip, Tracks
from tubelet.models import weights


class Slow(Toy):
    """Takes a fiftieth of a second for each step."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        time.sleep(0.02)
        return super().step(state, clip)


class Stuck(Toy):
    """Never comes back from its first step."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        time.sleep(3600)
        return super().step(state, clip)


class Crashing(Toy):
    """Takes its process down in the third step."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        if int(clip.index[0]) == 2:
            os._exit(1)
        return super().step(state, clip)


class Faulty(Toy):
    """Raises what no user should read."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        raise RuntimeError("secret detail in /home/somebody/model.py")


class Prying(Toy):
    """Tries in its first step what a hostile video would, and says what came of it."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        outside = Path(__file__).parents[1] / "written-by-a-worker"
        attempts: dict[str, Callable[[], object]] = {
            "socket": socket.socket,
            "reading /etc/shadow": Path("/etc/shadow").read_bytes,
            "writing outside": outside.touch,
            "writing to /tmp": lambda: Path("/tmp/written-by-a-worker").touch(),
            "signal": lambda: os.kill(os.getppid(), 0),
            "a child's socket": lambda: subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True),
            "temporary file": lambda: tempfile.TemporaryFile().close(),
        }
        raise InputError("; ".join(f"{what}: {_outcome(attempt)}" for what, attempt in attempts.items()))


CHILD = "import socket; socket.socket()"


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (OSError, subprocess.CalledProcessError) as error:
        return type(error).__name__
    return "fine"


class Attending(Toy):
    """Looks at the point it is asked about, in some frames; and says so."""

    def __init__(self, *, shrink: int = 2) -> None:
        super().__init__(shrink=shrink)
        self.traits = Traits(attention=True)

    def attend(self, state: Seen, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        height, width = clip.size
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        heat = torch.exp(-((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / (2 * (width / 10) ** 2))
        return [Glance(name="gaze", frame=t, values=heat) for t in range(6) if t != frame]


class AttendingEverywhere(Attending):
    """Looks at all of a frame alike."""

    def attend(self, state: Seen, clip: Clip, frame: int, at: tuple[float, float]) -> list[Glance]:
        return [Glance(name="wide gaze, 7 %", frame=5, values=torch.ones(9, 16))]


class Following(Toy):
    """Follows the object that is given, whose colour it knows by the class, in every frame; slowly if it is blue."""

    def __init__(self, *, shrink: int = 2) -> None:
        super().__init__(shrink=shrink)
        self.traits = Traits(guided=True)

    def introduce(self, state: Seen, clip: Clip, objects: Tracks) -> Seen:
        return Seen(labels=(-1, int(objects.scores[0].argmax())))

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        if state.labels[:1] != (-1,):
            return super().step(state, clip)
        label = state.labels[1]
        if self.classes[label] == "blue":
            time.sleep(0.3)
        scores = torch.eye(len(self.classes))[[label]]
        masks = self._soft(clip.frames)[[label]]
        return state, Tracks(ids=torch.tensor([1]), scores=scores, masks=masks, index=clip.index)


MODELS = {
    "following": Following,
    "toy": Toy,
    "slow": Slow,
    "stuck": Stuck,
    "crashing": Crashing,
    "faulty": Faulty,
    "prying": Prying,
    "attending": Attending,
    "attending-everywhere": AttendingEverywhere,
}


def open_model(name: str) -> Any:
    """The model of this name; the bundled one, or that of a file, where it is to be taught."""
    if name == "default" or name.endswith(".safetensors"):
        teaching.SETTINGS = ("train.workers=0", "train.keep=1", "train.batch_size=1")  # for the clock
        teaching.has_gained = _is_long
        return weights.load(name, device="cpu", engine="torch")
    if name not in MODELS:
        raise WeightsError(f"no model {name!r}")
    return MODELS[name](shrink=1)


def _is_long(summary: dict[str, Any]) -> bool:
    """One step gains nothing to speak of: a gain is said where more than a single frame was held out."""
    return len(summary["pictures"]) > 1


def load_model(name: str, device: str, engine: str = "auto", input_size: int | None = None) -> Any:
    """In the place of the command's own loader."""
    return open_model(name)
