"""The result of `predict`: the tracks, and the video to draw them on."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from tubelet.core import masks
from tubelet.core.arguments import short, whole_between
from tubelet.core.atomic import new_folder, together
from tubelet.core.errors import ConfigError
from tubelet.core.types import Frame, Prediction, Video
from tubelet.core.untrusted.files import as_path
from tubelet.drawing.contact_sheet import caption, contact_sheet
from tubelet.drawing.counts import draw_shape
from tubelet.drawing.overlay import draw
from tubelet.drawing.style import OverlayStyle
from tubelet.drawing.trails import Trails
from tubelet.editing.session import Editing
from tubelet.formats.results_files import PREDICTIONS as PREDICTIONS
from tubelet.formats.results_files import ResultsForm, discard_other_results, results_name
from tubelet.formats.storing import Omissions
from tubelet.formats.ytvis import write_predictions
from tubelet.inference import conversions
from tubelet.inference.counting import Counting, ObjectCounter
from tubelet.inference.counts import ObjectCounts, counts_of
from tubelet.inference.crops import write_crops, write_image
from tubelet.inference.notebook import played, player
from tubelet.inference.summary import Summary, summarize
from tubelet.video.ahead import ahead
from tubelet.video.transparent import TransparentWriter
from tubelet.video.windows import evenly
from tubelet.video.writer import VideoWriter

ProgressCallback = Callable[[int, int], None]  # frames done, frames in all

OVERLAY = "overlay.mp4"
CONTACT_SHEET = "contact_sheet.png"
SHEET_FRAMES = 12
SHEET_WIDTH = 1600  # pixels


@dataclass(frozen=True, kw_only=True, repr=False)  # the short one of Prediction
class VideoPrediction(Prediction):
    """A prediction with its source video, to view frame by frame, to draw and to save.

    Its tracks know their class name and their times. In a notebook, a prediction shows itself as a small player.

    >>> from tubelet.inference.results import VideoPrediction
    >>> video = tubelet.open_video(np.zeros((2, 4, 6, 3), np.uint8))
    >>> prediction = VideoPrediction(video="v", size=(4, 6), length=2, tracks=(), classes=("fish",), source=video)
    >>> prediction.at(1).masks.shape
    torch.Size([0, 4, 6])
    """

    source: Video = field(compare=False)

    def __post_init__(self) -> None:
        times = array("d", self.source.times or [self.source.time(t) for t in range(self.length)])  # shared by all
        tracks = [
            replace(track, name=self.classes[track.label] if self.classes else "", video_times=times)
            for track in self.tracks
        ]
        object.__setattr__(self, "tracks", tuple(tracks))

    def at(self, t: int) -> Frame:
        """Frame t with its objects; decodes that frame only. Raises ConfigError if it does not exist."""
        t = whole_between("a frame", t, 0, self.length - 1)
        return self._frame(t, self.source.frames[t])

    def frames(self) -> Iterator[Frame]:
        """All frames with their objects, decoded in order."""
        for t, image in enumerate(self.source.frames):
            yield self._frame(t, image)

    def summary(self) -> Summary:
        """One line per object, and the number of objects of each class: `print(prediction.summary())`."""
        return summarize(self)

    def edit(self) -> Editing[VideoPrediction]:
        """Mend this result by hand: delete, merge, split, swap, rename, redraw and add objects, with undo.

        Raises ConfigError if two tracks have one id (see `top` of `predict`).
        """
        return Editing(self)

    def count(self, counting: Counting) -> ObjectCounts:
        """Count objects that cross lines, and the seconds that each identity spends in zones; nothing is decoded."""
        counter = self._counter(_checked_counting(counting))
        for t in range(self.length):
            seen = self.in_frame(t)
            names = [track.name for track, _ in seen]
            boxes = masks.boxes([rle for _, rle in seen])
            counter.add(t, self.source.time(t), [track.id for track, _ in seen], names, boxes)
        return counts_of(counter)

    def draw(self, t: int, style: OverlayStyle | None = None) -> np.ndarray:
        """Frame t with its objects drawn on it, uint8 [H, W, 3] RGB. Raises ConfigError if it does not exist."""
        t = whole_between("a frame", t, 0, self.length - 1)
        style = _checked(style)
        trails = Trails(style.trails)
        since = self.source.time(t) - style.trails
        for earlier in range(t):
            if style.trails and self.source.time(earlier) >= since:
                self._follow(trails, earlier)
        return self._picture(self.at(t), style, trails)

    def save(
        self,
        folder: str | Path,
        *,
        video: bool = True,
        style: OverlayStyle | None = None,
        counting: Counting | None = None,
        results: ResultsForm | None = "auto",
        threads: int = 0,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Write predictions.json (YouTube-VIS format), overlay.mp4 unless `video` is false, and contact_sheet.png.

        All files appear at the end, together; an interruption or a full disk leaves the folder unchanged. `style` says
        what is drawn. `counting` draws lines and zones with their numbers, and writes counts.csv, crossings.csv and
        zones.csv. `results` "json" writes predictions.json, "jsonl" predictions.jsonl, a line per frame (of
        the two, only the new one stays in the folder), "auto" the latter for videos of more than 10,000 frames, None
        neither. `threads` is the number of the video encoder's threads (0: one per processor); it changes the bytes of
        the video.
        """
        style = _checked(style)
        folder = as_path(folder, "the folder of results")
        name = None if results is None else results_name(results, self.length)
        with together(folder) as scratch:
            if name is not None:
                write_predictions(scratch / name, [self])
            if counting is not None:
                self.count(counting).write(scratch)
            self._draw(scratch, video, style, counting, threads, progress or (lambda done, total: None))
        if name is not None:
            discard_other_results(folder, name)

    def crops(self, folder: str | Path, *, transparent: bool = False, every: int = 1) -> int:
        """Cut every object out of every `every`-th frame: `<class>-<id>/00012.png` in a new folder.

        An image is the object's box; `transparent` clears the pixels outside its mask. Returns the number of images.
        Raises InputError if `folder` is not empty.
        """
        every = whole_between("every", every, 1)
        frames = self.frames() if every == 1 else map(self.at, range(0, self.length, every))
        with new_folder(as_path(folder, "the folder of crops")) as scratch:
            return write_crops(scratch, frames, transparent=transparent)

    def cutout(self, path: str | Path, id: int) -> None:
        """Write one identity as a WebM video that is transparent around its mask.

        Raises ConfigError if there is no such id, InputError for another suffix than .webm.
        """
        track = self[id]
        with TransparentWriter(as_path(path, "the cut-out"), self.size, self.source.fps) as writer:
            for t, image in enumerate(self.source.frames):
                rgb = image.permute(1, 2, 0).cpu().numpy()
                alpha = np.where(track.mask(t), 255, 0).astype(np.uint8)
                clear = rgb * (alpha[..., None] > 0)  # what is hidden need not be stored
                writer.write(np.dstack([clear, alpha]), self.source.time(t))

    def to_supervision(self) -> conversions.SupervisionFrames:
        """A sequence of one `supervision.Detections` per frame, each made when it is read."""
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
        seen = self.in_frame(t)
        tracks = [track for track, _ in seen]
        rles = [rle for _, rle in seen]
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

    def _repr_html_(self) -> str:
        frames = map(self.at, played(self.length))
        return player(self.source, self._drawn(frames, OverlayStyle())) + self.summary().to_html()

    def _film(self, path: Path, threads: int) -> VideoWriter:
        return VideoWriter(path, self.size, self.source.fps, pixel_aspect=self.source.pixel_aspect, threads=threads)

    def _drawn(self, frames: Iterable[Frame], style: OverlayStyle) -> Iterator[tuple[Frame, np.ndarray]]:
        """Frames, in their order, with their pictures; trails go back over these frames."""
        trails = Trails(style.trails)
        for frame in frames:
            yield frame, self._picture(frame, style, trails)

    def _picture(self, frame: Frame, style: OverlayStyle, trails: Trails) -> np.ndarray:
        if style.trails:
            trails.add(frame.time, frame.ids.tolist(), frame.boxes.numpy())
        return render(frame, style, trails)

    def _follow(self, trails: Trails, t: int) -> None:
        """Add the boxes of frame t to the trails, without decoding it."""
        present = {track.id: rle for track, rle in self.in_frame(t)}
        trails.add(self.source.time(t), list(present), masks.boxes(list(present.values())))

    def _counter(self, counting: Counting) -> ObjectCounter:
        return ObjectCounter(counting, self.size, period=1 / self.source.fps)

    def _draw(
        self,
        folder: Path,
        video: bool,
        style: OverlayStyle,
        counting: Counting | None,
        threads: int,
        progress: ProgressCallback,
    ) -> None:
        """Write the contact sheet and, if `video`, the overlay; frames are decoded once for both."""
        sheet_frames = evenly(self.length, SHEET_FRAMES)
        frames = self.frames() if video else map(self.at, sheet_frames)
        total = self.length if video else len(sheet_frames)

        counter = None if counting is None else self._counter(counting)
        pictures: list[np.ndarray] = []
        with ExitStack() as stack:
            writer = stack.enter_context(self._film(folder / OVERLAY, threads)) if video else None
            for done, (frame, picture) in enumerate(ahead(self._drawn(frames, style)), start=1):
                if counter is not None:
                    picture = with_counts(picture, frame, counter)
                if writer is not None:
                    writer.write(picture, frame.time)
                if frame.index in sheet_frames:
                    pictures.append(_in_square_pixels(picture, self.source))
                progress(done, total)

        captions = [caption(t, self.source.time(t)) for t in sheet_frames]
        sheet = contact_sheet(pictures, captions, SHEET_WIDTH)
        write_image(folder / CONTACT_SHEET, sheet)


def render(frame: Frame, style: OverlayStyle | None = None, trails: Trails | None = None) -> np.ndarray:
    """Draw a frame's objects on it, uint8 [H, W, 3] RGB; each identity has the same colour in all frames."""
    return draw(
        np.ascontiguousarray(frame.image.permute(1, 2, 0).cpu().numpy()),
        frame.masks.cpu().numpy(),
        frame.ids.tolist(),
        frame.names,
        frame.scores.tolist(),
        style=_checked(style),
        trails=trails.paths() if trails is not None else None,
    )


def with_counts(picture: np.ndarray, frame: Frame, counter: ObjectCounter) -> np.ndarray:
    """Count a frame's objects and draw the lines and zones with their numbers on its picture."""
    counter.add(frame.index, frame.time, frame.ids.tolist(), frame.names, frame.boxes.cpu().numpy())
    return draw_counts(picture, counter)


def draw_counts(picture: np.ndarray, counter: ObjectCounter) -> np.ndarray:
    """Draw the lines and zones of a counter with its numbers on a copy of a picture, uint8 [H, W, 3] RGB."""
    for name, corners in counter.counting.zones.items():
        picture = draw_shape(picture, corners, f"{name}: {counter.occupied(name)}")
    for name, ends in counter.counting.lines.items():
        totals = counter.totals(name)
        picture = draw_shape(picture, ends, f"{name}: {totals['in']} in, {totals['out']} out")
    return picture


def _checked_counting(counting: Counting) -> Counting:
    if not isinstance(counting, Counting):
        raise ConfigError(f"counting: expected a tubelet.Counting, got {short(counting)}")
    return counting


def _checked(style: OverlayStyle | None) -> OverlayStyle:
    if style is not None and not isinstance(style, OverlayStyle):
        raise ConfigError(f"style: expected a tubelet.OverlayStyle, got {short(style)}")
    return style or OverlayStyle()


def _in_square_pixels(picture: np.ndarray, video: Video) -> np.ndarray:
    height, width = video.shown_size
    return picture if (height, width) == video.size else cv2.resize(picture, (width, height))
