"""Pair the class maps of truth and prediction per video, for `tubelet evaluate semantic`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tubelet.core.errors import InputError
from tubelet.core.records import Prediction, Track, Video
from tubelet.evaluation.semantic import ClassMaps, class_map
from tubelet.formats.davis_masks import Maps
from tubelet.formats.storing import folder_names
from tubelet.formats.ytvis.numbering import AnnotatedSet


def class_maps(videos: AnnotatedSet, answers: Path | Sequence[Prediction]) -> Iterator[ClassMaps]:
    """Yield the class maps of each video, truth beside prediction.

    Args:
        videos: with truth.
        answers: predicted instances, or a folder with one folder of maps per video. With a single video, its maps
            may also be directly in the folder.

    Raises InputError if the maps of a video are missing.
    """
    names = folder_names(videos)
    for name, video in zip(names, videos.videos, strict=True):
        answer = _stored(answers, name, len(names)) if isinstance(answers, Path) else _of(answers, video)
        yield ClassMaps(name, _drawn(video.tracks or (), video), answer)


def _stored(folder: Path, name: str, videos: int) -> Maps:
    maps_folder = folder if videos == 1 and any(folder.glob("*.png")) else folder / name
    maps = Maps(name, tuple(sorted(maps_folder.glob("*.png"))))
    if not len(maps):
        raise InputError(f"{maps_folder}: expected the class maps of video {name}, found none")
    return maps


def _of(answers: Sequence[Prediction], video: Video) -> Iterator[np.ndarray]:
    return _drawn([track for answer in answers if answer.video == video.id for track in answer.tracks], video)


def _drawn(tracks: Sequence[Track], video: Video) -> Iterator[np.ndarray]:
    return (class_map(tracks, video.size, t) for t in range(len(video)))
