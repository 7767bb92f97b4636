"""Load a file of annotations or results, whichever form it has: YouTube-VIS JSON or frame lines.

All commands that take results read them here.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

from tubelet.core.errors import FormatError
from tubelet.core.untrusted.archives import read_anywhere
from tubelet.core.untrusted.documents import decode_json_as, spell_out_nan
from tubelet.formats import frame_lines_reading
from tubelet.formats.frame_lines_reading import RecordedVideo
from tubelet.formats.ytvis.document import AnnotationEntry, RecordedEntry, YtvisDocument
from tubelet.formats.ytvis.numbering import numbers_of

COMPLAINT = "not of the YouTube-VIS form"
_NOT_NUMBERS = (b"NaN", b"Infinity")  # as Python's json module writes them


def load(path: Path) -> YtvisDocument:
    """Parse a file.

    Raises InputError if it cannot be read, FormatError if it is not JSON or not of this format.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.ytvis.loading import load
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "results.json")
        ...     _ = path.write_text('[{"video_id": 1, "category_id": 2, "score": 0.5}]')
        ...     document = load(path)
        >>> document.bare, document.annotations[0].score
        (True, 0.5)
    """
    data = read_anywhere(path)
    try:
        document = _parse(data, path)
    except FormatError:
        if not any(data.find(word) >= 0 for word in _NOT_NUMBERS):
            raise
        document = _parse(spell_out_nan(data, str(path)), path)  # so that the track with the NaN can be named

    for position, entry in enumerate(document.annotations or (), start=1):
        entry.position = position
    return document


def _parse(data: bytes | mmap.mmap, path: Path) -> YtvisDocument:
    if frame_lines_reading.are_frame_lines(data):
        return _of_frame_lines(frame_lines_reading.read(data, str(path)), path)

    beginning = bytes(data[:1024]).lstrip(b"\xef\xbb\xbf \t\r\n")
    if beginning[:1] == b"[":
        entries = decode_json_as(list[AnnotationEntry], data, str(path), complaint=COMPLAINT)
        return YtvisDocument(annotations=entries, bare=True)

    document: YtvisDocument = decode_json_as(YtvisDocument, data, str(path), complaint=COMPLAINT)
    return document


def _of_frame_lines(videos: Sequence[RecordedVideo], path: Path) -> YtvisDocument:
    classes = next((video.classes for video in videos if video.classes), ())
    if any(video.classes not in ((), classes) for video in videos):
        raise FormatError(f"{path}: expected the same classes for all videos of the file")

    track_ids = [track.id for video in videos for track in video.tracks]
    is_unique = len(set(track_ids)) == len(track_ids)
    entries: list[AnnotationEntry] = []
    document = YtvisDocument(annotations=entries)
    document.categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    for number, video in zip(numbers_of([video.name for video in videos]), videos, strict=True):
        height, width = video.size
        table = {"id": number, "name": video.name, "height": height, "width": width, "length": video.length}
        document.videos.append({**table, "shots": list(video.shots)})
        for track in video.tracks:
            entry = RecordedEntry(
                id=track.id if is_unique else len(entries) + 1,
                track_id=track.id,
                video_id=number,
                category_id=track.label + 1,
                score=track.score,
                iscrowd=int(track.ignore),
                counts=track.counts,
            )
            entries.append(entry)
    return document
