"""Check whether a data set is fit to train on: find what silently spoils a training, and where it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco

from tubelet.core import masks
from tubelet.core.arguments import whole_between
from tubelet.core.errors import FormatError, InputError
from tubelet.core.masks import RLE
from tubelet.core.types import Track, Video, VideoSet
from tubelet.formats.ytvis.document import Faults
from tubelet.video.windows import evenly

FATAL = "fatal"  # a training would stop or learn wrong things
ODD = "odd"  # worth a look

MOST_SHARED = 0.1  # share of the smaller object's pixels that two objects may have in common
FARTHEST_LEAP = 3  # distance from one frame to the next, in diagonals of the object's box


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem of a data set.

    >>> from tubelet.data.tools.checking import FATAL, Finding
    >>> finding = Finding(kind="broken frame", grade=FATAL, video="cats", frame=3, detail="not an image")
    >>> finding.video, finding.frame
    ('cats', 3)
    """

    kind: str
    grade: str  # FATAL or ODD
    video: str
    detail: str
    frame: int | None = None
    object: int | None = None
    times: int = 1  # how often, if a reader has counted


@dataclass(slots=True)
class Report:
    """All findings of a data set.

    >>> from tubelet.data.tools.checking import FATAL, Finding, Report
    >>> finding = Finding(kind="broken frame", grade=FATAL, video="cats", detail="not an image")
    >>> report = Report(videos=1, objects=2, findings=[finding])
    >>> report.fit, report.counts()
    (False, {('fatal', 'broken frame'): 1})
    """

    videos: int = 0
    objects: int = 0
    frames_decoded: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def fit(self) -> bool:
        """Whether there is at least one object to learn from, and no fatal finding."""
        return self.objects > 0 and not any(finding.grade == FATAL for finding in self.findings)

    def counts(self) -> dict[tuple[str, str], int]:
        """How often each (grade, kind) was found: fatal ones first, then the most frequent."""
        totals: Counter[tuple[str, str]] = Counter()
        for finding in self.findings:
            totals[finding.grade, finding.kind] += finding.times
        return dict(sorted(totals.items(), key=lambda item: (item[0][0] != FATAL, -item[1])))


def check(
    videos: VideoSet,
    *,
    frames: int | None = 3,
    faults: Faults | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check all masks of a set, and decode `frames` frames of each video, spread evenly; None decodes every frame.

    `faults` are those that a lenient reader has counted. `progress` is called with (videos done, videos).

    >>> from tubelet.core.types import VideoSet
    >>> from tubelet.data.tools.checking import check
    >>> frames = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> video = tubelet.Video(id="cats", size=(8, 9), frames=list(frames), tracks=())
    >>> report = check(VideoSet(videos=[video], classes=("cat",)), frames=1)
    >>> [(finding.kind, finding.detail) for finding in report.findings]
    [('wrong size', '8x8 where the video has 9x8'), ('video without an object', 'no object to learn from')]
    """
    if frames is not None:
        whole_between("frames", frames, 1)
    report = Report(videos=len(videos.videos))
    if faults is not None:
        report.findings += _reader_faults(faults)

    for n in range(len(videos.videos)):
        try:
            video = videos.videos[n]
        except (FormatError, InputError) as error:
            broken = Finding(kind="broken annotation", grade=FATAL, video=f"number {n}", detail=str(error))
            report.findings.append(broken)
            continue

        report.objects += sum(not track.ignore for track in video.tracks or ())
        decoded = evenly(len(video), frames or len(video))
        report.frames_decoded += len(decoded)
        report.findings += _check_frames(video, decoded)
        report.findings += _check_objects(video, len(videos.classes))
        if progress is not None:
            progress(n + 1, len(videos.videos))
    return report


def iou(first: Sequence[RLE], second: Sequence[RLE]) -> np.ndarray:
    """Pairwise IoU of masks, float64 [N, M].

    >>> from tubelet.core import masks
    >>> from tubelet.data.tools.checking import iou
    >>> whole, half = masks.encode(np.array([[[1, 1]], [[1, 0]]], bool))
    >>> iou([whole], [whole, half]).tolist()
    [[1.0, 0.5]]
    """
    overlaps = coco.iou(masks.as_coco(first), masks.as_coco(second), [0] * len(second))
    return np.asarray(overlaps).reshape(len(first), len(second))


def shared(first: Sequence[RLE], second: Sequence[RLE]) -> np.ndarray:
    """Pairwise number of pixels in both masks, float64 [N, M].

    >>> from tubelet.core import masks
    >>> from tubelet.data.tools.checking import shared
    >>> whole, half = masks.encode(np.array([[[1, 1]], [[1, 0]]], bool))
    >>> shared([whole], [whole, half]).tolist()
    [[2.0, 1.0]]
    """
    # with iscrowd = 1, pycocotools divides by the first mask's area alone
    shares = np.asarray(coco.iou(masks.as_coco(first), masks.as_coco(second), [1] * len(second)))
    return shares.reshape(len(first), len(second)) * masks.areas(first)[:, None]


def _reader_faults(faults: Faults) -> Iterator[Finding]:
    for kind, times in faults.counts.items():
        yield Finding(kind=kind, grade=FATAL, video="", detail=faults.first[kind], times=times)


def _check_frames(video: Video, indices: Sequence[int]) -> Iterator[Finding]:
    """Decode some frames: each must be readable and of the video's size."""
    for t in indices:
        try:
            frame = video.frames[t]
        except (InputError, FormatError) as error:
            yield Finding(kind="broken frame", grade=FATAL, video=video.id, frame=t, detail=str(error))
            continue

        size = (int(frame.shape[1]), int(frame.shape[2]))
        if size != video.size:
            detail = f"{size[1]}x{size[0]} where the video has {video.size[1]}x{video.size[0]}"
            yield Finding(kind="wrong size", grade=FATAL, video=video.id, frame=t, detail=detail)


def _check_objects(video: Video, num_classes: int) -> Iterator[Finding]:
    tracks = video.tracks or ()
    objects = [track for track in tracks if not track.ignore]
    if not objects:
        yield Finding(kind="video without an object", grade=ODD, video=video.id, detail="no object to learn from")

    for id, count in Counter(track.id for track in tracks).items():
        if count > 1:
            detail = f"{count} tracks have this id"
            yield Finding(kind="id used twice", grade=FATAL, video=video.id, object=id, detail=detail)

    for track in tracks:
        yield from _check_track(video, track, num_classes)
    yield from _check_overlaps(video, objects)
    yield from _check_jumps(video, objects)


def _check_track(video: Video, track: Track, num_classes: int) -> Iterator[Finding]:
    def finding(kind: str, grade: str, detail: str, frame: int | None = None) -> Finding:
        return Finding(kind=kind, grade=grade, video=video.id, object=track.id, frame=frame, detail=detail)

    if not 0 <= track.label < num_classes:
        yield finding("unknown class", FATAL, f"label {track.label} of {num_classes} classes")
    if len(track.rles) != len(video):
        yield finding("wrong length", FATAL, f"{len(track.rles)} masks for {len(video)} frames")

    present = [(t, rle) for t, rle in enumerate(track.rles) if rle is not None]
    if not present:
        yield finding("object without a mask", ODD, "absent from every frame")

    areas = masks.areas([rle for _, rle in present])
    for (t, rle), area in zip(present, areas, strict=True):
        if rle.size != video.size:
            size = f"{rle.size[1]}x{rle.size[0]}"
            yield finding("wrong mask size", FATAL, f"{size} in a video of {video.size[1]}x{video.size[0]}", t)
        elif area == 0:
            yield finding("empty mask", ODD, "a mask without a pixel; an absent object has no mask at all", t)


def _check_overlaps(video: Video, objects: Sequence[Track]) -> Iterator[Finding]:
    """Frames in which two objects share more than a tenth of the smaller one's pixels."""
    for t in range(len(video)):
        in_frame = [(track, track.rles[t]) for track in objects if t < len(track.rles)]
        present = [(track, rle) for track, rle in in_frame if rle is not None and rle.size == video.size]
        if len(present) < 2:
            continue

        rles = [rle for _, rle in present]
        shares = shared(rles, rles) / np.maximum(masks.areas(rles), 1)  # of the second one's area
        shares = np.maximum(shares, shares.T)  # of the smaller one's area
        for n, m in zip(*np.nonzero(np.triu(shares > MOST_SHARED, 1)), strict=True):
            track = present[n][0]
            other = present[m][0]
            detail = f"{shares[n, m]:.0%} of the smaller is shared with object {other.id}"
            yield Finding(kind="overlap", grade=ODD, video=video.id, frame=t, object=track.id, detail=detail)


def _check_jumps(video: Video, objects: Sequence[Track]) -> Iterator[Finding]:
    """Objects whose mask, in the next frame, is far away or where another object of their class was."""
    for t in range(len(video) - 1):
        tracks = []
        before = []
        after = []
        for track in objects:
            pair = track.rles[t : t + 2]
            if len(pair) == 2 and pair[0] and pair[1]:
                tracks.append(track)
                before.append(pair[0])
                after.append(pair[1])
        if not tracks or any(rle.size != video.size for rle in (*before, *after)):
            continue

        overlap = iou(before, after)
        for n, track in enumerate(tracks):
            others = [m for m, other in enumerate(tracks) if m != n and other.label == track.label]
            successor = max(others, key=lambda m: overlap[n, m], default=None)
            if successor is not None and overlap[n, n] < 0.1 and overlap[n, successor] > 0.5:
                detail = f"in the next frame object {tracks[successor].id} is in its place"
                yield Finding(kind="id jumps", grade=ODD, video=video.id, frame=t, object=track.id, detail=detail)
            elif overlap[n, n] == 0 and _leap(before[n], after[n]) > FARTHEST_LEAP:
                detail = "moves by more than three times its own size from one frame to the next"
                yield Finding(kind="leap", grade=ODD, video=video.id, frame=t, object=track.id, detail=detail)


def _leap(before: RLE, after: RLE) -> float:
    """Distance of the boxes' centres, over the larger box's diagonal."""
    first, second = masks.boxes([before, after])
    distance = np.linalg.norm((first[:2] + first[2:] - second[:2] - second[2:]) / 2)
    largest = max(float(np.linalg.norm(box[2:] - box[:2])) for box in (first, second))
    return float(distance) / max(largest, 1.0)
