"""A prediction in a notebook: a small player of the overlay above the table of objects."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Iterable
from html import escape
from pathlib import Path

import cv2
import numpy as np

from tubelet.core.text import printable
from tubelet.core.types import Frame, Video
from tubelet.core.untrusted.files import read
from tubelet.video.writer import VideoWriter

WIDEST = 480  # pixels of the player
MOST_FRAMES = 300  # of a longer video, each k-th is played


def player(video: Video, drawn: Iterable[tuple[Frame, np.ndarray]]) -> str:
    """An HTML video of some drawn frames, small enough to stay in a notebook.

    >>> from tubelet.inference.notebook import player
    >>> prediction = tubelet.predict(tubelet.load("default", device="cpu"), np.zeros((2, 48, 64, 3), np.uint8))
    >>> drawn = [(frame, prediction.draw(frame.index)) for frame in prediction.frames()]
    >>> player(prediction.source, drawn)[:38]
    '<video controls loop muted title="vide'
    """
    height, width = video.shown_size
    scale = min(WIDEST / width, 1.0)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "player.mp4")
        with VideoWriter(path, size, video.fps) as writer:
            for frame, picture in drawn:
                writer.write(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA), frame.time)
        data = base64.b64encode(read(path)).decode("ascii")

    title = escape(printable(video.id))
    source = f"data:video/mp4;base64,{data}"
    return f'<video controls loop muted title="{title}" width="{size[1]}" src="{source}"></video>'


def played(length: int) -> range:
    """Which frames of a video are played: all of a short one.

    >>> from tubelet.inference.notebook import played
    >>> played(5), len(played(3000))
    (range(0, 5), 300)
    """
    return range(0, length, math.ceil(length / MOST_FRAMES) or 1)
