"""Write and read the result of a job: one gzipped JSON file, which the page draws and downloads are made from.

{"size": [H, W], "length": T, "fps": float, "times": [seconds of each frame],
 "shots": [first frame of each shot], "classes": [name of each class],
 "tracks": [{"id", "label", "name", "score", "colour": "#rrggbb",
             "counts": [COCO's compressed RLE counts or null, for each frame]}]}
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tubelet.apps.web.limits import MAX_TRACKS, SHOWN_THRESHOLD
from tubelet.core.atomic import replacing
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video
from tubelet.drawing.colours import colour
from tubelet.inference.results import VideoPrediction
from tubelet.video.reader import open_video

RESULT = "result.json.gz"


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
        "tracks": [_track_json(track, prediction.classes) for track in tracks],
    }

    text = json.dumps(document, separators=(",", ":"))
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), 6, mtime=0))
    return sum(track.score >= SHOWN_THRESHOLD for track in tracks)


def read(path: Path, source: Path, name: str, threshold: float) -> VideoPrediction:
    """Read a result as a prediction on the video `source`, called `name`; only tracks that reach the threshold."""
    document = json.loads(gzip.decompress(path.read_bytes()))
    size = (int(document["size"][0]), int(document["size"][1]))
    tracks = tuple(_read_track(entry, size) for entry in document["tracks"] if entry["score"] >= threshold)

    video: Video = replace(open_video(source), id=name)
    return VideoPrediction(
        video=name,
        size=size,
        length=document["length"],
        tracks=tracks,
        classes=tuple(document["classes"]),
        shots=tuple(document.get("shots", ())),  # older results have none
        source=video,
    )


def _read_track(entry: dict[str, Any], size: tuple[int, int]) -> Track:
    return Track(
        id=entry["id"],
        label=entry["label"],
        score=entry["score"],
        rles=tuple(None if counts is None else RLE(size, counts.encode("ascii")) for counts in entry["counts"]),
    )


def _track_json(track: Track, classes: tuple[str, ...]) -> dict[str, object]:
    red, green, blue = colour(track.id)
    return {
        "id": track.id,
        "label": track.label,
        "name": classes[track.label] if classes else str(track.label),
        "score": round(track.score, 6),
        "colour": f"#{red:02x}{green:02x}{blue:02x}",
        "counts": [None if rle is None else rle.counts.decode("ascii") for rle in track.rles],
    }
