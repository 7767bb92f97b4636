"""Validation on videos: predict them, measure the predictions, and draw a contact sheet of a few.

Which videos: `data.validation=PATH` names a data set in any format that is read here, and
`data.hold_out=0.1` keeps a part of the training videos out of the training.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field, field_validator
from torch import nn

from tubelet.core.atomic import replacing
from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.masks import RLE
from tubelet.core.records import Prediction
from tubelet.core.types import Video, VideoSet
from tubelet.data.clips import require_objects
from tubelet.data.tools.splitting import split, subset
from tubelet.drawing.contact_sheet import contact_sheet
from tubelet.evaluation import measures
from tubelet.formats.classes import CLASS_LISTS, class_map, translate
from tubelet.formats.ytvis.numbering import video_names
from tubelet.inference.predict import predict
from tubelet.inference.results import VideoPrediction, render
from tubelet.models.weights import ready_to_predict
from tubelet.training.checkpoint import writing
from tubelet.training.distributed import Processes
from tubelet.training.validation import Judgement
from tubelet.video.windows import evenly

FOLDER = "validation"  # of the contact sheets, in that of a training
SHOWN = 0.3  # score from which an object is drawn and counted
SHEET_VIDEOS = 3
SHEET_FRAMES = 4  # of each
SHEET_WIDTH = 1600

logger = logging.getLogger("tubelet.training")


class ValidationConfig(Config):
    """How often to validate, on how many videos, and what to measure; the first number decides which weights are best.

    Example:
        >>> from tubelet.recipes.validation import ValidationConfig
        >>> ValidationConfig(every=500, metrics=("ap", "identity")).videos
        20
    """

    every: int | None = Field(default=None, ge=1)  # steps; null is a tenth of the training, at least 250
    start: bool = False  # judge the weights before the first step too: the best are these where nothing is gained
    videos: int = Field(default=20, ge=1)  # at most so many, spread over the set
    metrics: tuple[str, ...] = Field(default=("ap",), min_length=1)  # evaluation/measures.py

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        measures.check(metrics)
        return metrics


class VideoValidation:
    """Judges a model by what it predicts on videos with truth; the processes of a run share the videos."""

    def __init__(self, videos: VideoSet, config: ValidationConfig, out: Path) -> None:
        chosen = subset(videos, evenly(len(videos.videos), config.videos))
        self.videos = chosen.videos
        self.names = dict(zip((video.id for video in self.videos), video_names(chosen), strict=True))
        self.classes = videos.classes
        self.config = config
        self.folder = out / FOLDER

    @property
    def every(self) -> int | None:
        """Steps from one validation to the next; None is a tenth of the training, at least 250."""
        return self.config.every

    @property
    def start(self) -> bool:
        """Whether the weights before the first step are judged too."""
        return self.config.start

    @property
    def settings(self) -> str:
        """The videos and metrics, as a text: numbers of others cannot be compared with these."""
        about = [(video.id, *video.size, len(video), len(video.tracks or ())) for video in self.videos]
        return json.dumps({"metrics": self.config.metrics, "videos": about, "classes": self.classes})

    def judge(self, model: nn.Module, step: int, world: Processes) -> Judgement:
        """Predict this process's share of the videos, gather the others', and measure them all."""
        ready_to_predict(model, world.device)
        share = self.videos[world.rank :: world.size]
        # mypy: a module is no VideoSegmenter by its type; `predict` checks that it is one
        predictions = [predict(model, video, threshold=0.0) for video in share]  # type: ignore[arg-type]
        if world.main:
            self._draw(step, predictions)

        plain = [_without_source(prediction) for prediction in predictions]
        everyone = _interleaved(world.gather(plain))
        judgement = self._measure(everyone) if world.main else None
        return world.gather(judgement)[0]

    def keep_sheets(self, steps: set[int]) -> None:
        """Remove the contact sheets of other steps."""
        wanted = {_sheet_name(step) for step in steps}
        for path in self.folder.glob("step_*.jpg"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def _measure(self, predictions: Sequence[Prediction]) -> Judgement:
        shown = [track for prediction in predictions for track in prediction.tracks if track.score >= SHOWN]
        truth = [track for video in self.videos for track in video.tracks or () if not track.ignore]
        return Judgement(
            numbers=measures.measure(self.videos, predictions, self.config.metrics),
            objects=len(shown),
            classes=len({track.label for track in shown}),
            true_classes=len({track.label for track in truth}),
        )

    def _draw(self, step: int, predictions: Sequence[VideoPrediction]) -> None:
        pictures = []
        captions = []
        for prediction in predictions[:SHEET_VIDEOS]:
            shown = prediction.above(SHOWN)
            for t in evenly(shown.length, SHEET_FRAMES):
                pictures.append(render(shown.at(t)))
                captions.append(f"{self.names[shown.video]}, frame {t}")
        if not pictures:
            return
        sheet = contact_sheet(pictures, captions, SHEET_WIDTH)
        done, data = cv2.imencode(".jpg", np.ascontiguousarray(sheet[..., ::-1]))
        assert done, "OpenCV knows JPEG"

        path = self.folder / _sheet_name(step)
        with writing(path):
            self.folder.mkdir(exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(data.tobytes())


def hold_out(videos: VideoSet, share: float, seed: int) -> tuple[VideoSet, VideoSet]:
    """Split a set by video into training and validation; `share` of the videos, at least one, are validated on.

    Raises InputError for a set of one video.

    Example:
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.recipes.validation import hold_out
        >>> videos = [tubelet.Video(id=str(n), size=(8, 8), frames=[], tracks=()) for n in range(10)]
        >>> training, validation = hold_out(VideoSet(videos=videos, classes=("dog",)), share=0.2, seed=0)
        >>> len(training.videos), len(validation.videos)
        (8, 2)
    """
    count = len(videos.videos)
    if count < 2:
        raise InputError(f"data.hold_out={share:g} needs at least two videos, found {count}")
    return split(videos, min(max(round(share * count), 1), count - 1), seed)


def with_classes_of(validation: VideoSet, classes: tuple[str, ...], where: str) -> VideoSet:
    """The validation set with the training's classes: renamed by name, or by the map of two known data sets.

    Raises ConfigError where neither is certain.

    Example:
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.recipes.validation import with_classes_of
        >>> track = tubelet.Track(id=1, label=1, score=1.0, rles=())
        >>> video = tubelet.Video(id="v", size=(8, 8), frames=[], tracks=(track,))
        >>> renamed = with_classes_of(VideoSet(videos=[video], classes=("cat", "dog")), ("dog", "cat"), "a set")
        >>> renamed.videos[0].tracks[0].label
        0
    """
    if validation.classes == classes:
        return validation
    if set(validation.classes) <= set(classes):
        return translate(validation, classes, {name: name for name in validation.classes})

    source = _list_of(validation.classes)
    target = _list_of(classes)
    if source is not None and target is not None:
        with suppress(ConfigError):  # two known lists without a map between them
            return translate(validation, classes, class_map(source, target))
    strange = [name for name in validation.classes if name not in classes]
    raise ConfigError(
        f"{where}: expected the classes of the training videos ({_few(classes)}), "
        f"found {len(strange)} others ({_few(strange)})"
    )


def videos_in_both(training: VideoSet, validation: VideoSet) -> list[str]:
    """Ids of the validation videos whose annotations are, mask for mask, also in the training set.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.recipes.validation import videos_in_both
        >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=masks.encode(np.ones((1, 4, 4))))
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=[None], tracks=(track,))
        >>> videos = VideoSet(videos=[video], classes=("dog",))
        >>> videos_in_both(videos, videos)
        ['v']
    """
    looked_for = {_outlines(video): video.id for video in validation.videos if video.tracks}
    shapes = {(video.size, len(video)) for video in validation.videos}
    similar = (video for video in training.videos if (video.size, len(video)) in shapes)
    return [looked_for[outlines] for outlines in map(_outlines, similar) if outlines in looked_for]


def check(training: VideoSet, validation: VideoSet, where: str) -> None:
    """Raise InputError for a validation set without objects, and warn where it has videos of the training set."""
    try:
        require_objects(validation)
    except InputError as error:
        raise InputError(f"{where}: to validate on, {error}") from None
    both = videos_in_both(training, validation)
    if both:
        logger.warning(
            "%d of %d validation videos are also trained on (%s): their figures will be too good",
            len(both),
            len(validation.videos),
            _few(both),
        )


def _outlines(video: Video) -> frozenset[tuple[RLE | None, ...]]:
    """The masks of a video, which hardly any two videos share."""
    return frozenset(tuple(track.rles) for track in video.tracks or ())


def _list_of(classes: tuple[str, ...]) -> str | None:
    return next((name for name, known in CLASS_LISTS.items() if known == classes), None)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _sheet_name(step: int) -> str:
    return f"step_{step:06d}.jpg"


def _without_source(prediction: VideoPrediction) -> Prediction:
    """What can be sent to another process: the tracks, without the open video."""
    return Prediction(
        video=prediction.video,
        size=prediction.size,
        length=prediction.length,
        tracks=prediction.tracks,
        classes=prediction.classes,
    )


def _interleaved(shares: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """The predictions in the order of the videos, of which process r of n had every n-th from r on."""
    total = sum(len(share) for share in shares)
    return [shares[n % len(shares)][n // len(shares)] for n in range(total)]
