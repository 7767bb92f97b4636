"""Models that other processes can open, for tests of batches."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from toy import Seen, Toy
from tubelet.core.errors import WeightsError
from tubelet.core.types import Clip, Tracks
from tubelet.inference.many import workers


class Fatal(Toy):
    """Ends its own process, as the system does when memory is short, in the second frame of a video with yellow."""

    def __init__(self, fuses: Path) -> None:
        super().__init__()
        self.fuses = fuses  # a folder; each file in it is good for one death

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        state, tracks = super().step(state, clip)
        if 3 in state.labels and int(clip.index[0]) > 0:
            for fuse in sorted(self.fuses.iterdir()):
                fuse.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return state, tracks


class Slow(Toy):
    """Takes its time with each frame."""

    def step(self, state: Seen, clip: Clip) -> tuple[Seen, Tracks]:
        time.sleep(0.2)
        return super().step(state, clip)


def open_toy(device: str) -> Toy:
    return Toy()


def open_slow(device: str) -> Slow:
    return Slow()


def open_named(name: str, device: str, engine: str = "auto", input_size: int | None = None) -> Toy:
    return Toy()


def open_fatal(fuses: str, device: str) -> Fatal:
    return Fatal(Path(fuses))


def open_nothing(device: str) -> Toy:
    raise WeightsError("there is no such model")


def end_at_once(device: str) -> Toy:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def open_ending(device: str) -> Toy:
    """Makes this worker end after a message has come and before its video is begun."""
    workers.decode_job = lambda message: os._exit(3)  # type: ignore[assignment, return-value]
    return Toy()


def open_unsendable(device: str) -> Toy:
    """Makes this worker fail when it sends an outcome."""

    def refuse(outcome: object) -> str:
        raise TypeError("this outcome cannot\nbe sent")

    workers.encode_outcome = refuse
    return Toy()


def open_broken(device: str) -> Toy:
    raise RuntimeError("no memory left on the device")
