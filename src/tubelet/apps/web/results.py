"""What a finished job keeps: one compressed JSON file that the page draws from and every download is made of.

{"size": [H, W], "length": T, "fps": F, "times": [seconds, T of them], "shots": [first frame of each],
 "classes": [...],
 "tracks": [{"id", "label", "name", "score", "colour": "#rrggbb", "counts": [COCO's compressed runs or null, T]}]}
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

from tubelet.apps.web.limits import MAX_TRACKS, SHOWN_THRESHOLD
from tubelet.core.atomic import replacing
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video
from tubelet.drawing.colours import colour
from tubelet.inference.results import VideoPrediction
from tubelet.video.reader import open_video

RESULT = "result.json.gz"


def write(path: Path, prediction: VideoPrediction) -> int:
    """Write the best MAX_TRACKS tracks; how many of them the page shows at first."""
    best = sorted(prediction.tracks, key=lambda track: -track.score)[:MAX_TRACKS]
    tracks = sorted(best, key=lambda track: track.id)
    told = {
        "size": list(prediction.size),
        "length": prediction.length,
        "fps": prediction.source.fps,
        "times": [round(prediction.source.time(t), 6) for t in range(prediction.length)],
        "shots": list(prediction.shots),
        "classes": list(prediction.classes),
        "tracks": [_track(track, prediction.classes) for track in tracks],
    }
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(json.dumps(told, separators=(",", ":")).encode(), 6, mtime=0))
    return sum(track.score >= SHOWN_THRESHOLD for track in tracks)


def read(path: Path, source: Path, name: str, threshold: float) -> VideoPrediction:
    """The tracks that reach the threshold, with the video `source`, under the name that the user knows."""
    told = json.loads(gzip.decompress(path.read_bytes()))
    size = (int(told["size"][0]), int(told["size"][1]))
    tracks = tuple(
        Track(
            id=entry["id"],
            label=entry["label"],
            score=entry["score"],
            rles=tuple(None if counts is None else RLE(size, counts.encode("ascii")) for counts in entry["counts"]),
        )
        for entry in told["tracks"]
        if entry["score"] >= threshold
    )
    video: Video = replace(open_video(source), id=name)
    return VideoPrediction(
        video=name,
        size=size,
        length=told["length"],
        tracks=tracks,
        classes=tuple(told["classes"]),
        shots=tuple(told.get("shots", ())),  # results of before there were any are still read
        source=video,
    )


def _track(track: Track, classes: tuple[str, ...]) -> dict[str, object]:
    red, green, blue = colour(track.id)
    return {
        "id": track.id,
        "label": track.label,
        "name": classes[track.label] if classes else str(track.label),
        "score": round(track.score, 6),
        "colour": f"#{red:02x}{green:02x}{blue:02x}",
        "counts": [None if rle is None else rle.counts.decode("ascii") for rle in track.rles],
    }
