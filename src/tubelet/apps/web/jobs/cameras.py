"""The worker's side of cameras of browsers: each is a stream that a model looks at, one picture at a time.

A picture goes in and its objects come out, although `stream` itself takes frames as it needs them: it runs in a thread
that waits for the next picture.
"""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

from tubelet.apps.web.documents import Document, track_json
from tubelet.apps.web.limits import BASE_THRESHOLD
from tubelet.core import masks
from tubelet.core.errors import InputError
from tubelet.core.records import Track
from tubelet.core.types import Frame
from tubelet.core.untrusted.image_headers import read_header
from tubelet.core.untrusted.images import decode_rgb
from tubelet.inference.predict import Model, stream

MOST = 2  # cameras at the same time; of more, the one that was silent longest begins anew
LARGEST_SIDE = 1280  # pixels
WHERE = "the camera's picture"


class Cameras:
    """The cameras whose pictures a worker looks at."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}  # the one that was heard last is at the end

    def look(self, model: Model, order: dict[str, Any]) -> Document:
        """Find the objects of the next picture of a camera; a document of one frame. Raises InputError for no JPEG."""
        image = _decoded(base64.b64decode(order["image"]))
        id = order["session"]
        session = self._sessions.pop(id, None) or _Session(model, order["classes"])
        self._sessions[id] = session
        while len(self._sessions) > MOST:
            self.end(next(iter(self._sessions)))
        try:
            frame = session.look(image)
        except Exception:
            self.end(id)
            raise
        return _document(frame, model)

    def end(self, id: str) -> None:
        """Forget a camera."""
        session = self._sessions.pop(id, None)
        if session is not None:
            session.close()


class _Session:
    """One camera: its identities live in the generator of `stream`, which a thread runs."""

    def __init__(self, model: Model, classes: Collection[str] | None) -> None:
        self._pictures: queue.SimpleQueue[torch.Tensor | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Frame | Exception] = queue.SimpleQueue()
        self._frames = stream(model, self._next(), threshold=BASE_THRESHOLD, classes=classes)
        threading.Thread(target=self._run, name="camera", daemon=True).start()

    def look(self, image: np.ndarray) -> Frame:
        """The objects of a picture, as soon as they are found."""
        self._pictures.put(torch.from_numpy(image).permute(2, 0, 1))
        answer = self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the thread."""
        self._pictures.put(None)

    def _next(self) -> Iterator[torch.Tensor]:
        while (picture := self._pictures.get()) is not None:
            yield picture

    def _run(self) -> None:
        try:
            for frame in self._frames:
                self._answers.put(frame)
        except Exception as error:
            self._answers.put(error)


def _decoded(data: bytes) -> np.ndarray:
    """A JPEG as RGB, uint8 [H, W, 3]."""
    header = read_header(data, WHERE)
    if header.form != "JPEG" or max(header.size) > LARGEST_SIDE:
        raise InputError(f"{WHERE}: expected a JPEG of at most {LARGEST_SIDE} pixels on a side")
    return decode_rgb(data, WHERE)


def _document(frame: Frame, model: Model) -> Document:
    """A frame as a result of one frame."""
    height, width = frame.image.shape[1:]
    tracks = [
        Track(id=id, label=label, score=score, rles=(rle,))
        for id, label, score, rle in zip(
            frame.ids.tolist(),
            frame.labels.tolist(),
            frame.scores.tolist(),
            masks.encode(frame.masks.cpu().numpy()),
            strict=True,
        )
    ]
    return {
        "size": [height, width],
        "length": 1,
        "times": [0],
        "classes": list(model.classes),
        "tracks": [track_json(track, model.classes) for track in tracks],
    }
