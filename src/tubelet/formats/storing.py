"""Writing the frames of a video into a folder, and keeping count of what a form cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from tubelet.core.errors import InputError
from tubelet.core.text import plain
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats import png
from tubelet.formats.files import StoredFrames, clean_name
from tubelet.formats.label_maps import merge
from tubelet.formats.ytvis.numbering import video_names


class Omissions:
    """What a form cannot hold, by kind, with a count."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, kind: str, count: int = 1) -> None:
        """Count something that was left out; nothing is counted as nothing."""
        if count:
            self.counts[kind] += count

    def lines(self) -> list[str]:
        """One line per kind."""
        return [f"{kind}: {count}" for kind, count in self.counts.items()]

    def note_times(self, video: Video) -> None:
        """For forms that know neither frame rate nor time stamps."""
        self.note("frame rates or time stamps of videos", int(video.times is not None or video.fps != 25.0))

    def note_scores(self, tracks: tuple[Track, ...]) -> None:
        """For forms that hold truth alone."""
        self.note("scores of objects", sum(track.score != 1.0 for track in tracks))


def folder_names(videos: VideoSet) -> list[str]:
    """A folder for each video: what its files call it, without slashes; raises InputError where two would be one."""
    names = [plain(name).replace("\\", "/").strip("/").replace("/", "-") for name in video_names(videos)]
    for name, count in Counter(names).items():
        clean_name(name, "video names")
        if count > 1:
            raise InputError(f"{count} videos are called {name!r}: each needs a folder of its own")
    return names


def store_frames(video: Video, folder: Path, *, first: int = 0, digits: int = 5, prefix: str = "") -> tuple[str, ...]:
    """Write every frame into `folder` as 00000.jpg, 00001.jpg, ..., after a prefix; returns the names.

    Frames that are files are copied as they are; others are written as PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for t, (data, suffix) in enumerate(_encoded(video)):
        names.append(f"{prefix}{first + t:0{digits}d}{suffix}")
        (folder / names[-1]).write_bytes(data)
    return tuple(names)


def _encoded(video: Video) -> Iterator[tuple[bytes, str]]:
    frames = getattr(video.frames, "stored", video.frames)
    if isinstance(frames, StoredFrames):
        for t in range(len(frames)):
            name = frames.stored_name(t)
            yield frames.files.read(name), PurePosixPath(name).suffix.lower()
    else:
        for frame in frames:
            yield png.encode(frame.permute(1, 2, 0).numpy()), ".png"


def label_maps(video: Video, numbers: dict[int, int], losses: Omissions) -> Iterator[np.ndarray]:
    """The label map of each frame, int64 [H, W]; the pixels that two objects claim are counted as lost."""
    for t in range(len(video)):
        merged, disputed = merge(video.tracks or (), numbers, video.size, t)
        losses.note("pixels that two objects claim (the earlier object keeps them)", disputed)
        yield merged
