"""Statistics of a data set: numbers, and histograms as a PNG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tubelet.core import masks
from tubelet.core.atomic import replacing
from tubelet.core.text import printable
from tubelet.core.types import Track, Video, VideoSet

MOST_CLASSES = 80  # shown in the bar chart


@dataclass(slots=True)
class Statistics:
    """Numbers of a data set; lists have one entry per video, object or mask.

    >>> from tubelet.data.tools.statistics import Statistics
    >>> statistics = Statistics(lengths=[20, 30], objects=[1, 2])
    >>> statistics.rows()[1]
    ('frames', '50 (20 to 30 per video, median 25)')
    """

    classes: Counter[str] = field(default_factory=Counter)  # objects of each class
    lengths: list[int] = field(default_factory=list)  # frames of each video
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (height, width) of videos
    objects: list[int] = field(default_factory=list)  # objects of each video
    at_once: list[int] = field(default_factory=list)  # most objects in one frame of each video
    areas: list[float] = field(default_factory=list)  # of each mask: square root of its share of the frame
    presence: list[float] = field(default_factory=list)  # share of the frames in which each object is present
    gaps: int = 0  # objects that leave and come back
    ignored: int = 0  # tracks that are ignored, such as crowds
    overlap: list[float] = field(default_factory=list)  # mean bounding-box overlap rate of each video (OVIS)
    motion: list[float] = field(default_factory=list)  # movement of box centres per frame, in frame diagonals

    def rows(self) -> list[tuple[str, str]]:
        """The numbers as text: (name, value) for each row of a table."""
        least = min(self.lengths, default=0)
        most = max(self.lengths, default=0)
        sizes = ", ".join(f"{w}x{h} ({n})" for (h, w), n in self.sizes.most_common(3))
        return [
            ("videos", str(len(self.lengths))),
            ("frames", f"{sum(self.lengths)} ({least} to {most} per video, median {_median(self.lengths):.0f})"),
            ("sizes", sizes + (f" and {len(self.sizes) - 3} more" if len(self.sizes) > 3 else "")),
            ("objects", f"{sum(self.objects)} (mean {_mean(self.objects):.2f} per video, {self.ignored} ignored)"),
            ("most at once", f"mean {_mean(self.at_once):.2f}, largest {max(self.at_once, default=0)}"),
            ("object size", f"median {_median(self.areas):.3f} (root of its share of the frame)"),
            ("presence", f"mean {_mean(self.presence):.2f} of the frames; {self.gaps} objects leave and come back"),
            ("box overlap", f"mean {_mean(self.overlap):.3f} (OVIS has 0.22, YouTube-VIS 2019 0.07)"),
            ("motion", f"median {_median(self.motion):.4f} frame diagonals per frame"),
        ]


def measure(videos: VideoSet, progress: Callable[[int, int], None] | None = None) -> Statistics:
    """Measure all annotations of a set; no frame is decoded. `progress` is called with (videos done, videos).

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.tools.statistics import measure
    >>> track = tubelet.Track(id=1, label=0, score=1.0, rles=(None, None))
    >>> video = tubelet.Video(id="v", size=(8, 8), frames=[None] * 2, tracks=(track,))
    >>> statistics = measure(VideoSet(videos=[video], classes=("dog",)))
    >>> statistics.lengths, statistics.objects, statistics.presence
    ([2], [1], [0.0])
    """
    statistics = Statistics(classes=Counter({name: 0 for name in videos.classes}))
    for n, video in enumerate(videos.videos):
        objects = [track for track in video.tracks or () if not track.ignore]
        statistics.ignored += len(video.tracks or ()) - len(objects)
        statistics.lengths.append(len(video))
        statistics.sizes[video.size] += 1
        statistics.objects.append(len(objects))

        present = _presence(objects, len(video))
        statistics.at_once.append(int(present.sum(0).max(initial=0)))
        statistics.presence += present.mean(1).tolist()
        statistics.overlap.append(_box_overlap(video, objects))
        for track in objects:
            statistics.classes[videos.classes[track.label]] += 1
            _measure_track(track, video, statistics)

        if progress is not None:
            progress(n + 1, len(videos.videos))
    return statistics


def draw(statistics: Statistics, out: str | Path) -> None:
    """Write a PNG with six histograms and a bar chart of the classes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 9), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["objects", "lengths", "areas"],
            ["presence", "overlap", "motion"],
            ["classes", "classes", "classes"],
        ]
    )

    _bars(axes["objects"], statistics.objects, "objects per video")
    axes["lengths"].hist(statistics.lengths, bins=30)
    axes["areas"].hist(statistics.areas, bins=30)
    axes["presence"].hist(statistics.presence, bins=20, range=(0, 1))
    axes["overlap"].hist(statistics.overlap, bins=30)
    axes["motion"].hist(np.clip(statistics.motion, 0, 0.1), bins=30)
    titles = {
        "lengths": "frames per video",
        "areas": "object size (root of its share of the frame)",
        "presence": "share of frames that hold the object",
        "overlap": "mean box overlap per video",
        "motion": "motion per frame (frame diagonals, up to 0.1)",
    }
    for name, title in titles.items():
        axes[name].set_title(title, fontsize=10)

    classes = statistics.classes.most_common(MOST_CLASSES)
    names = [printable(name, 40) for name, _ in classes]
    counts = [count for _, count in classes]
    axes["classes"].bar(names, counts)
    axes["classes"].tick_params(axis="x", rotation=90, labelsize=8)
    axes["classes"].set_title("objects per class", fontsize=10)

    with replacing(out) as temporary, temporary.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def _bars(axes: object, values: list[int], title: str) -> None:
    counts = Counter(values)
    axes.bar(list(counts), list(counts.values()))  # type: ignore[attr-defined]
    axes.locator_params(integer=True)  # type: ignore[attr-defined]
    axes.set_title(title, fontsize=10)  # type: ignore[attr-defined]


def _presence(objects: list[Track], length: int) -> np.ndarray:
    """Whether each object has a mask in each frame, bool [N, T]."""
    present = [[rle is not None for rle in track.rles] for track in objects]
    return np.array(present, bool).reshape(-1, length)


def _measure_track(track: Track, video: Video, statistics: Statistics) -> None:
    """Add one object's mask sizes, gap and motion."""
    frames = [t for t, rle in enumerate(track.rles) if rle is not None]
    rles = [rle for rle in track.rles if rle is not None]

    shares = masks.areas(rles) / (video.size[0] * video.size[1])
    statistics.areas += np.sqrt(shares).tolist()
    statistics.gaps += bool(frames) and frames[-1] - frames[0] + 1 > len(frames)

    boxes = masks.boxes(rles)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = np.linalg.norm(np.diff(centres, axis=0), axis=1) / np.hypot(*video.size)
    steps = np.diff(frames)
    statistics.motion += distances[steps == 1].tolist()


def _box_overlap(video: Video, objects: list[Track]) -> float:
    """OVIS's bounding-box overlap rate: mean IoU of all pairs in a frame, averaged over frames with two objects."""
    rates = []
    for t in range(len(video)):
        present = [rle for track in objects if (rle := track.rles[t]) is not None]
        if len(present) > 1:
            rates.append(_mean_pair_iou(masks.boxes(present)))
    return _mean(rates)


def _mean_pair_iou(boxes: np.ndarray) -> float:
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), -1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    union = area[:, None] + area[None] - intersection
    iou = intersection / np.maximum(union, 1)

    first, second = np.triu_indices(len(boxes), 1)
    return float(iou[first, second].mean())


def _mean(values: list[int] | list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _median(values: list[int] | list[float]) -> float:
    return float(np.median(values)) if values else 0.0
