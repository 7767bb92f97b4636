"""Write the frames of a video into a folder, and count what a format cannot hold."""

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
from tubelet.formats.ytvis.numbering import Frames, video_names


class Omissions:
    """What a format cannot hold, counted by kind.

    Example:
        >>> from tubelet.formats.storing import Omissions
        >>> losses = Omissions()
        >>> losses.note("scores of objects", 3)
        >>> losses.lines()
        ['scores of objects: 3']
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, kind: str, count: int = 1) -> None:
        """Add to the count of a kind; a count of 0 adds nothing."""
        if count:
            self.counts[kind] += count

    def lines(self) -> list[str]:
        """Return one line per kind."""
        return [f"{kind}: {count}" for kind, count in self.counts.items()]

    def note_times(self, video: Video) -> None:
        """Count a video's frame rate and times, for formats that have neither."""
        self.note("frame rates or time stamps of videos", int(video.times is not None or video.fps != 25.0))

    def note_scores(self, tracks: tuple[Track, ...]) -> None:
        """Count scores other than 1, for formats that have none."""
        self.note("scores of objects", sum(track.score != 1.0 for track in tracks))


def folder_names(videos: VideoSet) -> list[str]:
    """Return a folder name for each video: its name with slashes replaced by hyphens.

    Raises InputError if two videos would get the same folder.

    Example:
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats.storing import folder_names
        >>> folder_names(VideoSet(videos=[tubelet.Video(id="zoo/dog", size=(4, 6), frames=[None])], classes=()))
        ['zoo-dog']
    """
    names = [_folder_name(name) for name in video_names(videos)]
    for name, count in Counter(names).items():
        clean_name(name, "video names")
        if count > 1:
            raise InputError(f"{count} videos are called {name!r}: each needs a folder of its own")
    return names


def _folder_name(name: str) -> str:
    return plain(name).replace("\\", "/").strip("/").replace("/", "-")


def store_frames(video: Video, folder: Path, *, first: int = 0, digits: int = 5, prefix: str = "") -> tuple[str, ...]:
    """Write every frame of a video into `folder`, and return the file names.

    Frames that are image files are copied unchanged; others are encoded as PNG.

    Args:
        video: The video.
        folder: Made if it does not exist.
        first: Number of the first frame.
        digits: Digits of the number in a file name.
        prefix: Before the number in a file name.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats.storing import store_frames
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store_frames(video, Path(folder), prefix="frame_")
        ('frame_00000.png',)
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for t, (data, suffix) in enumerate(_encoded(video)):
        name = f"{prefix}{first + t:0{digits}d}{suffix}"
        (folder / name).write_bytes(data)
        names.append(name)
    return tuple(names)


def _encoded(video: Video) -> Iterator[tuple[bytes, str]]:
    """The file of each frame, with its suffix."""
    frames = video.frames.stored if isinstance(video.frames, Frames) else video.frames
    if isinstance(frames, StoredFrames):
        for t in range(len(frames)):
            name = frames.stored_name(t)
            yield frames.files.read(name), PurePosixPath(name).suffix.lower()
    else:
        for frame in frames:
            yield png.encode(frame.permute(1, 2, 0).numpy()), ".png"


def label_maps(video: Video, numbers: dict[int, int], losses: Omissions) -> Iterator[np.ndarray]:
    """Draw the label map of each frame, int64 [H, W]; pixels that two objects cover are noted in `losses`.

    Example:
        >>> from tubelet.core import masks
        >>> from tubelet.formats.storing import Omissions, label_maps
        >>> (rle,) = masks.encode(np.array([[[False, True]]]))
        >>> track = tubelet.Track(id=5, label=0, score=1.0, rles=(rle,))
        >>> video = tubelet.Video(id="dog", size=(1, 2), frames=[None], tracks=(track,))
        >>> list(label_maps(video, {5: 1}, Omissions()))
        [array([[0, 1]])]
    """
    for t in range(len(video)):
        merged, num_shared = merge(video.tracks or (), numbers, video.size, t)
        losses.note("pixels that two objects claim (the earlier object keeps them)", num_shared)
        yield merged
