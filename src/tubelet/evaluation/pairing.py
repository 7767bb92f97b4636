"""The door of every evaluation: each video's truth beside what was predicted of it, agreed on size and length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tubelet.core.errors import InputError, nearest
from tubelet.core.masks.packed import Tube, pack
from tubelet.core.records import Prediction, Track, Video


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One video: its truth and what was predicted, in the order of the file."""

    video: str
    size: tuple[int, int]  # height, width
    length: int  # frames
    truths: tuple[Track, ...]
    guesses: tuple[Track, ...]
    truth_tubes: tuple[Tube, ...]
    guess_tubes: tuple[Tube, ...]


def pair(truth: Iterable[Video], guesses: Iterable[Prediction]) -> list[Pair]:
    """In the order of the truth; a video without prediction is paired with none.

    Raises InputError for a prediction of an unknown video, of another size or length, two of one video, scores that are
    no numbers, and a video without annotations.
    """
    videos = {video.id: video for video in truth}
    by_video: dict[str, Prediction] = {}
    for guess in guesses:
        if guess.video not in videos:
            raise InputError(f"prediction of video {guess.video!r}, which has no truth; {nearest(guess.video, videos)}")
        if guess.video in by_video:
            raise InputError(f"two predictions of video {guess.video!r}")
        by_video[guess.video] = guess
    return [_pair(video, by_video.get(video.id)) for video in videos.values()]


def _pair(video: Video, guess: Prediction | None) -> Pair:
    if video.tracks is None:
        raise InputError(f"video {video.id!r} has no annotations to evaluate against")
    if guess is not None and (tuple(guess.size), guess.length) != (tuple(video.size), len(video)):
        expected = f"{len(video)} frames of {video.size[1]}x{video.size[0]}"
        came = f"{guess.length} of {guess.size[1]}x{guess.size[0]}"
        raise InputError(f"video {video.id!r}: expected a prediction of {expected}, got {came}")
    guesses = guess.tracks if guess is not None else ()
    for track in guesses:
        if not math.isfinite(track.score):
            raise InputError(f"video {video.id!r}, track {track.id}: expected a finite score, got {track.score}")
    return Pair(
        video=video.id,
        size=video.size,
        length=len(video),
        truths=video.tracks,
        guesses=guesses,
        truth_tubes=_tubes(video.tracks, video, "truth"),
        guess_tubes=_tubes(guesses, video, "track"),
    )


def _tubes(tracks: Sequence[Track], video: Video, kind: str) -> tuple[Tube, ...]:
    tubes, length = [], len(video)
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
