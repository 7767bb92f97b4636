"""Write CVAT for video 1.1: every mask is a keyframe, and CVAT imports them as tracks."""

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
from tubelet.formats.cvat.shapes import CROWD
from tubelet.formats.storing import Omissions, folder_names, store_frames

LONGEST_NAME = 10_000  # characters


def write(out: str | Path, videos: VideoSet, *, frames: bool = True) -> Omissions:
    """Write <video>/annotations.xml and <video>/images/frame_000000.* for each video.

    To import a video into CVAT, zip its folder. The whole output is written atomically.

    Args:
        out: The new folder.
        videos: The set; masks may overlap.
        frames: Whether to write the images too.

    Returns:
        What CVAT cannot store, with counts: times and scores.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import cvat
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = Path(folder, "set")
        ...     _ = cvat.write(out, VideoSet(videos=[video], classes=("dog",)))
        ...     sorted(path.name for path in out.rglob("*.*"))
        ['annotations.xml', 'frame_000000.png']
    """
    omissions = Omissions()
    with new_folder(out) as root:
        for name, video in zip(folder_names(videos), videos.videos, strict=True):
            omissions.note_times(video)
            omissions.note_scores(video.tracks or ())

            folder = root / name
            folder.mkdir(parents=True)
            if frames:
                store_frames(video, folder / "images", digits=6, prefix="frame_")

            document = _document(name, video, videos.classes)
            (folder / "annotations.xml").write_text(document, encoding="utf-8")
    return omissions


def _document(name: str, video: Video, classes: Sequence[str]) -> str:
    attribute = f"<attribute><name>{CROWD}</name><mutable>False</mutable><input_type>checkbox</input_type>"
    attribute += "<default_value>false</default_value><values>false</values></attribute>"
    labels = [
        f"<label><name>{escape(_name(label))}</name><type>mask</type><attributes>{attribute}</attributes></label>"
        for label in classes
    ]

    height, width = video.size
    head = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations><version>1.1</version><meta><task>",
        f"<name>{escape(_name(name))}</name><size>{len(video)}</size><mode>interpolation</mode>",
        f"<labels>{''.join(labels)}</labels>",
        f"<original_size><width>{width}</width><height>{height}</height></original_size>",
        "</task></meta>",
    ]

    lines = head
    for track in video.tracks or ():
        lines += _track_lines(track, classes[track.label])
    return "\n".join([*lines, "</annotations>", ""])


def _track_lines(track: Track, label: str) -> list[str]:
    """A line per mask; when the object disappears, its last mask again with outside="1", which ends it."""
    lines = [f'<track id="{track.id}" label={quoteattr(_name(label))} source="manual">']
    previous: RLE | None = None
    for t, rle in enumerate(track.rles):
        if rle is not None:
            lines.append(_mask_line(t, rle, track.ignore, outside=False))
        elif previous is not None:
            lines.append(_mask_line(t, previous, track.ignore, outside=True))
        previous = rle
    return [*lines, "</track>"]


def _mask_line(t: int, rle: RLE, crowd: bool, *, outside: bool) -> str:
    x1, y1, x2, y2 = masks.boxes([rle])[0].astype(int)
    pixels = masks.decode([rle])[0][y1:y2, x1:x2].ravel()
    starts = np.flatnonzero(np.diff(pixels, prepend=0))
    lengths = np.diff(np.concatenate([[0], starts, [pixels.size]]))  # the first run is background, perhaps empty
    runs = ", ".join(map(str, lengths))
    return (
        f'<mask frame="{t}" outside="{int(outside)}" occluded="0" keyframe="1" rle="{runs}" '
        f'left="{x1}" top="{y1}" width="{x2 - x1}" height="{y2 - y1}" z_order="0">'
        f'<attribute name="{CROWD}">{str(crowd).lower()}</attribute></mask>'
    )


def _name(text: str) -> str:
    """The text without control characters, which XML does not allow even when escaped."""
    return printable(text, LONGEST_NAME)
