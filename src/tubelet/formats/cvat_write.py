"""Writing CVAT for video 1.1: masks frame by frame, which CVAT imports as tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from tubelet.core import masks
from tubelet.core.atomic import new_folder
from tubelet.core.masks import RLE
from tubelet.core.text import printable
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats.cvat import CROWD
from tubelet.formats.storing import Omissions, folder_names, store_frames

LONGEST_NAME = 10_000  # characters


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write <video>/annotations.xml and <video>/images/frame_000000.*; each folder, zipped, is what CVAT imports.

    The folder appears whole or not at all.
    """
    losses = Omissions()
    with new_folder(out) as root:
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            losses.note_times(video)
            losses.note_scores(video.tracks or ())
            (root / name).mkdir(parents=True)
            if frames:
                store_frames(video, root / name / "images", digits=6, prefix="frame_")
            (root / name / "annotations.xml").write_text(_document(name, video, videos.classes), encoding="utf-8")
    return losses


def _document(name: str, video: Video, classes: Sequence[str]) -> str:
    attribute = f"<attribute><name>{CROWD}</name><mutable>False</mutable><input_type>checkbox</input_type>"
    attribute += "<default_value>false</default_value><values>false</values></attribute>"
    labels = [
        f"<label><name>{escape(_name(label))}</name><type>mask</type><attributes>{attribute}</attributes></label>"
        for label in classes
    ]
    head = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations><version>1.1</version><meta><task>",
        f"<name>{escape(_name(name))}</name><size>{len(video)}</size><mode>interpolation</mode>",
        f"<labels>{''.join(labels)}</labels>",
        f"<original_size><width>{video.size[1]}</width><height>{video.size[0]}</height></original_size>",
        "</task></meta>",
    ]
    tracks = [line for track in video.tracks or () for line in _track_lines(track, classes[track.label])]
    return "\n".join([*head, *tracks, "</annotations>", ""])


def _track_lines(track: Track, label: str) -> list[str]:
    """The mask of every frame; after the last frame of a stretch, the same mask once more, as outside."""
    lines = [f'<track id="{track.id}" label={quoteattr(_name(label))} source="manual">']
    last: RLE | None = None
    for t, rle in enumerate(track.rles):
        if rle is not None:
            lines.append(_mask_line(t, rle, track.ignore, outside=False))
        elif last is not None:
            lines.append(_mask_line(t, last, track.ignore, outside=True))
        last = rle
    return [*lines, "</track>"]


def _mask_line(t: int, rle: RLE, crowd: bool, *, outside: bool) -> str:
    x1, y1, x2, y2 = masks.boxes([rle])[0].astype(int)
    flat = masks.decode([rle])[0][y1:y2, x1:x2].ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=0))  # the first run is of zeros, maybe none
    runs = np.diff(np.concatenate([[0], starts, [flat.size]]))
    return (
        f'<mask frame="{t}" outside="{int(outside)}" occluded="0" keyframe="1" rle="{", ".join(map(str, runs))}" '
        f'left="{x1}" top="{y1}" width="{x2 - x1}" height="{y2 - y1}" z_order="0">'
        f'<attribute name="{CROWD}">{str(crowd).lower()}</attribute></mask>'
    )


def _name(text: str) -> str:
    """XML cannot hold control characters, not even escaped."""
    return printable(text, LONGEST_NAME)
