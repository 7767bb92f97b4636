"""What a data set holds, in numbers and pictures."""

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


@dataclass(slots=True)
class Statistics:
    """Numbers of a data set; lists have one entry per video or object."""

    classes: Counter[str] = field(default_factory=Counter)  # objects of each
    lengths: list[int] = field(default_factory=list)  # frames of each video
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (height, width) of videos
    objects: list[int] = field(default_factory=list)  # of each video
    at_once: list[int] = field(default_factory=list)  # most objects in one frame, of each video
    areas: list[float] = field(default_factory=list)  # of each mask: the root of its share of the frame
    presence: list[float] = field(default_factory=list)  # share of frames that hold each object
    gaps: int = 0  # objects that leave and come back
    ignored: int = 0  # tracks neither to be found nor forbidden
    overlap: list[float] = field(default_factory=list)  # mean bounding-box overlap rate of each video (OVIS)
    motion: list[float] = field(default_factory=list)  # way of box centres per frame, in frame diagonals

    def rows(self) -> list[tuple[str, str]]:
        """What to print: name and value."""
        least, most = min(self.lengths, default=0), max(self.lengths, default=0)
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
    """Read every annotation; no frame is decoded."""
    found = Statistics(classes=Counter({name: 0 for name in videos.classes}))
    for n, video in enumerate(videos.videos):
        objects = [track for track in video.tracks or () if not track.ignore]
        found.ignored += len(video.tracks or ()) - len(objects)
        found.lengths.append(len(video))
        found.sizes[video.size] += 1
        found.objects.append(len(objects))
        present = np.array([[rle is not None for rle in track.rles] for track in objects], bool).reshape(-1, len(video))
        found.at_once.append(int(present.sum(0).max(initial=0)))
        found.presence += present.mean(1).tolist()
        found.overlap.append(_box_overlap(video, objects))
        for track in objects:
            found.classes[videos.classes[track.label]] += 1
            _measure_track(track, video, found)
        if progress is not None:
            progress(n + 1, len(videos.videos))
    return found


def draw(found: Statistics, out: str | Path) -> None:
    """A PNG of six histograms and the bar chart of classes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 9), layout="constrained")
    axes = figure.subplot_mosaic([["objects", "lengths", "areas"], ["presence", "overlap", "motion"], ["classes"] * 3])
    _bars(axes["objects"], found.objects, "objects per video")
    axes["lengths"].hist(found.lengths, bins=30)
    axes["areas"].hist(found.areas, bins=30)
    axes["presence"].hist(found.presence, bins=20, range=(0, 1))
    axes["overlap"].hist(found.overlap, bins=30)
    axes["motion"].hist(np.clip(found.motion, 0, 0.1), bins=30)
    names = {
        "lengths": "frames per video",
        "areas": "object size (root of its share of the frame)",
        "presence": "share of frames that hold the object",
        "overlap": "mean box overlap per video",
        "motion": "motion per frame (frame diagonals, up to 0.1)",
    }
    for name, title in names.items():
        axes[name].set_title(title, fontsize=10)
    shown = found.classes.most_common(80)
    axes["classes"].bar([printable(name, 40) for name, _ in shown], [count for _, count in shown])
    axes["classes"].tick_params(axis="x", rotation=90, labelsize=8)
    axes["classes"].set_title("objects per class", fontsize=10)
    with replacing(out) as temporary, temporary.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def _bars(axes: object, values: list[int], title: str) -> None:
    counts = Counter(values)
    axes.bar(list(counts), list(counts.values()))  # type: ignore[attr-defined]
    axes.locator_params(integer=True)  # type: ignore[attr-defined]
    axes.set_title(title, fontsize=10)  # type: ignore[attr-defined]


def _measure_track(track: Track, video: Video, found: Statistics) -> None:
    held = [t for t, rle in enumerate(track.rles) if rle is not None]
    rles = [rle for rle in track.rles if rle is not None]
    found.areas += np.sqrt(masks.areas(rles) / (video.size[0] * video.size[1])).tolist()
    found.gaps += bool(held) and held[-1] - held[0] + 1 > len(held)
    boxes = masks.boxes(rles)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    steps = np.diff(held)
    ways = np.linalg.norm(np.diff(centres, axis=0), axis=1) / np.hypot(*video.size)
    found.motion += ways[steps == 1].tolist()


def _box_overlap(video: Video, objects: list[Track]) -> float:
    """OVIS's mean bounding-box overlap rate: IoU summed over pairs, over the number of pairs, averaged over frames."""
    rates = []
    for t in range(len(video)):
        present = [rle for track in objects if (rle := track.rles[t]) is not None]
        if len(present) > 1:
            rates.append(_mean_pair_iou(masks.boxes(present)))
    return _mean(rates)


def _mean_pair_iou(boxes: np.ndarray) -> float:
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), -1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    union = area[:, None] + area[None] - both
    first, second = np.triu_indices(len(boxes), 1)
    return float((both / np.maximum(union, 1))[first, second].mean())


def _mean(values: list[int] | list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _median(values: list[int] | list[float]) -> float:
    return float(np.median(values)) if values else 0.0
