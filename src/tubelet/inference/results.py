"""The result of `predict`: the tracks, and the video to draw them on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from tubelet.core import masks
from tubelet.core.arguments import whole_between
from tubelet.core.atomic import together
from tubelet.core.masks import RLE
from tubelet.core.types import Frame, Prediction, Track, Video
from tubelet.core.untrusted.files import as_path
from tubelet.drawing.contact_sheet import caption, contact_sheet
from tubelet.drawing.overlay import draw
from tubelet.formats.storing import Omissions
from tubelet.formats.ytvis import write_predictions
from tubelet.inference import conversions
from tubelet.video.windows import evenly
from tubelet.video.writer import VideoWriter

ProgressCallback = Callable[[int, int], None]  # frames done, frames in all

PREDICTIONS = "predictions.json"
OVERLAY = "overlay.mp4"
CONTACT_SHEET = "contact_sheet.png"
SHEET_FRAMES = 12
SHEET_WIDTH = 1600  # pixels


@dataclass(frozen=True, kw_only=True, repr=False)  # the short one of Prediction
class VideoPrediction(Prediction):
    """A prediction with its source video, to view frame by frame and to save.

    >>> from tubelet.inference.results import VideoPrediction
    >>> video = tubelet.open_video(np.zeros((2, 4, 6, 3), np.uint8))
    >>> prediction = VideoPrediction(video="v", size=(4, 6), length=2, tracks=(), classes=("fish",), source=video)
    >>> prediction.at(1).masks.shape
    torch.Size([0, 4, 6])
    """

    source: Video = field(compare=False)

    def at(self, t: int) -> Frame:
        """Frame t with its objects; decodes that frame only. Raises ConfigError if it does not exist."""
        t = whole_between("a frame", t, 0, self.length - 1)
        return self._frame(t, self.source.frames[t])

    def frames(self) -> Iterator[Frame]:
        """All frames with their objects, decoded in order."""
        for t, image in enumerate(self.source.frames):
            yield self._frame(t, image)

    def save(
        self, folder: str | Path, *, video: bool = True, threads: int = 0, progress: ProgressCallback | None = None
    ) -> None:
        """Write predictions.json (YouTube-VIS format), overlay.mp4 unless `video` is false, and contact_sheet.png.

        All files appear at the end, together; an interruption or a full disk leaves the folder unchanged. `threads` is
        the number of the video encoder's threads (0: one per processor); it changes the bytes of the video.
        """
        with together(as_path(folder, "the folder of results")) as scratch:
            write_predictions(scratch / PREDICTIONS, [self])
            self._draw(scratch, video, threads, progress or (lambda done, total: None))

    def to_supervision(self) -> Iterator[Any]:
        """One `supervision.Detections` per frame."""
        return conversions.to_supervision(self)

    def to_coco(self) -> dict[str, Any]:
        """COCO's format with a track_id, a score and an image for each (object, frame)."""
        return conversions.to_coco(self)

    def to_ytvis(self) -> dict[str, Any]:
        """The content of predictions.json."""
        return conversions.to_ytvis(self)

    def to_davis(self, folder: str | Path) -> Omissions:
        """Write label maps as PNG into a new folder; returns what the format cannot store."""
        return conversions.to_davis(self, self.source, folder)

    def to_pandas(self) -> Any:
        """A DataFrame with one row per (object, frame)."""
        return conversions.to_pandas(self, self.source)

    def _frame(self, t: int, image: Tensor) -> Frame:
        tracks: list[Track] = []
        rles: list[RLE] = []
        for track in self.tracks:
            rle = track.rles[t]
            if rle is not None:
                tracks.append(track)
                rles.append(rle)

        binary = np.ascontiguousarray(masks.decode(rles)) if rles else np.zeros((0, *self.size), np.uint8)
        return Frame(
            index=t,
            time=self.source.time(t),
            image=image,
            ids=torch.tensor([track.id for track in tracks], dtype=torch.int64),
            labels=torch.tensor([track.label for track in tracks], dtype=torch.int64),
            scores=torch.tensor([track.score for track in tracks], dtype=torch.float32),
            masks=torch.from_numpy(binary.view(bool)),
            boxes=torch.from_numpy(masks.boxes(rles).astype(np.float32)),
            names=tuple(self.classes[track.label] for track in tracks),
            shot=max(bisect_right(self.shots, t) - 1, 0),
        )

    def _film(self, path: Path, threads: int) -> VideoWriter:
        return VideoWriter(path, self.size, self.source.fps, pixel_aspect=self.source.pixel_aspect, threads=threads)

    def _draw(self, folder: Path, video: bool, threads: int, progress: ProgressCallback) -> None:
        """Write the contact sheet and, if `video`, the overlay; frames are decoded once for both."""
        sheet_frames = evenly(self.length, SHEET_FRAMES)
        frames = self.frames() if video else map(self.at, sheet_frames)
        total = self.length if video else len(sheet_frames)

        pictures: list[np.ndarray] = []
        with ExitStack() as stack:
            writer = stack.enter_context(self._film(folder / OVERLAY, threads)) if video else None
            for done, frame in enumerate(frames, start=1):
                picture = render(frame)
                if writer is not None:
                    writer.write(picture, frame.time)
                if frame.index in sheet_frames:
                    pictures.append(_in_square_pixels(picture, self.source))
                progress(done, total)

        captions = [caption(t, self.source.time(t)) for t in sheet_frames]
        sheet = contact_sheet(pictures, captions, SHEET_WIDTH)
        _write_image(folder / CONTACT_SHEET, sheet)


def render(frame: Frame) -> np.ndarray:
    """Draw a frame's objects on it, uint8 [H, W, 3] RGB; each identity has the same colour in all frames."""
    image = np.ascontiguousarray(frame.image.permute(1, 2, 0).cpu().numpy())
    return draw(image, frame.masks.cpu().numpy(), frame.ids.tolist(), frame.names, frame.scores.tolist())


def _in_square_pixels(picture: np.ndarray, video: Video) -> np.ndarray:
    height, width = video.shown_size
    return picture if (height, width) == video.size else cv2.resize(picture, (width, height))


def _write_image(path: Path, image: np.ndarray) -> None:
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]))
    assert done, "OpenCV knows PNG"
    path.write_bytes(data.tobytes())
