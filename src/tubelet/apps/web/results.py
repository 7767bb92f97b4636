"""Write and read the result of a job; its form stands in `documents`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tubelet.apps.web import documents
from tubelet.apps.web.limits import MAX_TRACKS, SHOWN_THRESHOLD
from tubelet.core.types import Video
from tubelet.inference.results import VideoPrediction
from tubelet.video.reader import open_video

RESULT = documents.RESULT


def write(path: Path, prediction: VideoPrediction) -> int:
    """Write the best MAX_TRACKS tracks; returns how many of them reach SHOWN_THRESHOLD."""
    best = sorted(prediction.tracks, key=lambda track: -track.score)[:MAX_TRACKS]
    tracks = sorted(best, key=lambda track: track.id)
    document = {
        "size": list(prediction.size),
        "length": prediction.length,
        "fps": prediction.source.fps,
        "times": [round(prediction.source.time(t), 6) for t in range(prediction.length)],
        "shots": list(prediction.shots),
        "classes": list(prediction.classes),
        "tracks": [documents.track_json(track, prediction.classes) for track in tracks],
    }
    documents.write(path, document)
    return sum(track.score >= SHOWN_THRESHOLD for track in tracks)


def read(path: Path, source: Path, name: str, threshold: float) -> VideoPrediction:
    """Read a result as a prediction on the video `source`, called `name`; only tracks that reach the threshold."""
    result = documents.prediction_of(documents.read(path), name)
    video: Video = replace(open_video(source), id=name)
    return VideoPrediction(
        video=name,
        size=result.size,
        length=result.length,
        tracks=tuple(track for track in result.tracks if track.score >= threshold),
        classes=result.classes,
        shots=result.shots,
        source=video,
    )
