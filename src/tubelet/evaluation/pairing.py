"""Pair each video's truth with its prediction: the first step of every evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tubelet.core.errors import InputError, nearest
from tubelet.core.masks.packed import Tube, pack
from tubelet.core.records import Prediction, Track, Video


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One video's true and predicted tracks, in the order of the files; made by `pair`.

    Example:
        >>> from tubelet.evaluation.pairing import pair
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=[torch.zeros(3, 4, 4)] * 2, tracks=())
        >>> (only,) = pair([video], [])
        >>> only.video, only.size, only.length, only.predictions
        ('v', (4, 4), 2, ())
    """

    video: str
    size: tuple[int, int]  # height, width
    length: int  # frames
    truths: tuple[Track, ...]
    predictions: tuple[Track, ...]  # predicted tracks
    truth_tubes: tuple[Tube, ...]
    guess_tubes: tuple[Tube, ...]


def pair(truth: Iterable[Video], predictions: Iterable[Prediction]) -> list[Pair]:
    """Pair videos with their predictions, in the order of the truth.

    A video without a prediction is paired with no tracks.

    Raises:
        InputError: if a prediction is of an unknown video, of another size or length, or the second
            one of its video; if a score is not finite; if a mask is broken; if a video has no
            annotations.

    Example:
        >>> from tubelet.evaluation.pairing import pair
        >>> video = tubelet.Video(id="v", size=(4, 4), frames=[torch.zeros(3, 4, 4)] * 2, tracks=())
        >>> prediction = tubelet.Prediction(video="v", size=(4, 4), length=2, tracks=())
        >>> [each.video for each in pair([video], [prediction])]
        ['v']
    """
    videos = {video.id: video for video in truth}

    by_video: dict[str, Prediction] = {}
    for prediction in predictions:
        name = prediction.video
        if name not in videos:
            raise InputError(f"prediction of video {name!r}, which has no truth; {nearest(name, videos)}")
        if name in by_video:
            raise InputError(f"two predictions of video {name!r}")
        by_video[name] = prediction

    return [_pair(video, by_video.get(video.id)) for video in videos.values()]


def _pair(video: Video, prediction: Prediction | None) -> Pair:
    if video.tracks is None:
        raise InputError(f"video {video.id!r} has no annotations to evaluate against")
    if prediction is not None:
        _check_extent(video, prediction)

    predicted = prediction.tracks if prediction is not None else ()
    for track in predicted:
        if not math.isfinite(track.score):
            raise InputError(f"video {video.id!r}, track {track.id}: expected a finite score, got {track.score}")

    return Pair(
        video=video.id,
        size=video.size,
        length=len(video),
        truths=video.tracks,
        predictions=predicted,
        truth_tubes=_tubes(video.tracks, video, "truth"),
        guess_tubes=_tubes(predicted, video, "track"),
    )


def _check_extent(video: Video, prediction: Prediction) -> None:
    """Raise InputError unless the prediction has the video's size and number of frames."""
    same_size = tuple(prediction.size) == tuple(video.size)
    if same_size and prediction.length == len(video):
        return
    expected = f"{len(video)} frames of {video.size[1]}x{video.size[0]}"
    came = f"{prediction.length} of {prediction.size[1]}x{prediction.size[0]}"
    raise InputError(f"video {video.id!r}: expected a prediction of {expected}, got {came}")


def _tubes(tracks: Sequence[Track], video: Video, kind: str) -> tuple[Tube, ...]:
    """Pack the masks of each track; `kind` names the track in errors."""
    tubes: list[Tube] = []
    length = len(video)
    for track in tracks:
        if len(track.rles) != length:
            expected = f"expected {length} masks, one per frame, got {len(track.rles)}"
            raise InputError(f"video {video.id!r}, {kind} {track.id}: {expected}")

        if isinstance(track.rles, Tube) and track.rles.size == video.size:
            tubes.append(track.rles)
            continue

        try:
            tubes.extend(pack([track.rles], video.size))
        except ValueError as error:
            raise InputError(f"video {video.id!r}, {kind} {track.id}, {error}") from None
    return tuple(tubes)
