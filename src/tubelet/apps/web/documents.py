"""The result of a job as a document, which the page draws. It knows no torch, so that the server itself can edit it.

{"size": [H, W], "length": T, "fps": float, "times": [seconds of each frame],
 "shots": [first frame of each shot], "classes": [name of each class],
 "tracks": [{"id", "label", "name", "score", "colour": "#rrggbb",
             "counts": [COCO's compressed RLE counts or null, for each frame]}]}
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tubelet.core.atomic import replacing
from tubelet.core.masks import RLE
from tubelet.core.records import Prediction, Track
from tubelet.drawing.colours import colour

RESULT = "result.json.gz"

Document = dict[str, Any]


def read(path: Path) -> Document:
    """Read a document that `write` wrote."""
    document: Document = json.loads(gzip.decompress(path.read_bytes()))
    return document


def write(path: Path, document: Document) -> None:
    """Write a document, compressed, whole or not at all."""
    text = json.dumps(document, separators=(",", ":"))
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), 6, mtime=0))


def prediction_of(document: Document, video: str) -> Prediction:
    """The result in a document, of the video called `video`."""
    size = (int(document["size"][0]), int(document["size"][1]))
    return Prediction(
        video=video,
        size=size,
        length=document["length"],
        tracks=tuple(_track(entry, size) for entry in document["tracks"]),
        classes=tuple(document["classes"]),
        shots=tuple(document.get("shots", ())),  # older results have none
    )


def track_json(track: Track, classes: Sequence[str]) -> Document:
    """A track as the document has it."""
    red, green, blue = colour(track.id)
    return {
        "id": track.id,
        "label": track.label,
        "name": classes[track.label] if classes else str(track.label),
        "score": round(track.score, 6),
        "colour": f"#{red:02x}{green:02x}{blue:02x}",
        "counts": [None if rle is None else rle.counts.decode("ascii") for rle in track.rles],
    }


def _track(entry: Document, size: tuple[int, int]) -> Track:
    return Track(
        id=entry["id"],
        label=entry["label"],
        score=entry["score"],
        rles=tuple(None if counts is None else RLE(size, counts.encode("ascii")) for counts in entry["counts"]),
    )
