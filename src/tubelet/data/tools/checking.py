"""Is a data set fit to train on? Looks for what silently spoils a training, and says where it is."""

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
from tubelet.data.sampling import evenly
from tubelet.formats.ytvis.document import Faults

FATAL = "fatal"  # a training would stop or learn wrong things
ODD = "odd"  # worth a look


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    grade: str  # FATAL or ODD
    video: str
    detail: str
    frame: int | None = None
    object: int | None = None
    times: int = 1  # how often, where a reader has counted


@dataclass(slots=True)
class Report:
    """All findings of a data set."""

    videos: int = 0
    objects: int = 0
    frames_decoded: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def fit(self) -> bool:
        """Whether nothing fatal was found, and there is an object to learn from."""
        return self.objects > 0 and not any(finding.grade == FATAL for finding in self.findings)

    def counts(self) -> dict[tuple[str, str], int]:
        """How often each (grade, kind) was found, fatal ones first."""
        found: Counter[tuple[str, str]] = Counter()
        for finding in self.findings:
            found[finding.grade, finding.kind] += finding.times
        return dict(sorted(found.items(), key=lambda item: (item[0][0] != FATAL, -item[1])))


def check(
    videos: VideoSet,
    *,
    frames: int | None = 3,
    faults: Faults | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Look through all masks, and decode `frames` frames of each video, spread evenly; None decodes every one.

    `faults` are those that a lenient reader has counted.
    """
    if frames is not None:
        whole_between("frames", frames, 1)
    report = Report(videos=len(videos.videos))
    if faults is not None:
        report.findings += [
            Finding(kind=kind, grade=FATAL, video="", detail=faults.first[kind], times=times)
            for kind, times in faults.counts.items()
        ]
    for n in range(len(videos.videos)):
        try:
            video = videos.videos[n]
        except (FormatError, InputError) as error:
            broken = Finding(kind="broken annotation", grade=FATAL, video=f"number {n}", detail=str(error))
            report.findings.append(broken)
            continue
        report.objects += sum(not track.ignore for track in video.tracks or ())
        chosen = evenly(len(video), min(frames or len(video), len(video)))
        report.frames_decoded += len(chosen)
        report.findings += [*_frames(video, chosen), *_objects(video, len(videos.classes))]
        if progress is not None:
            progress(n + 1, len(videos.videos))
    return report


def _frames(video: Video, chosen: Sequence[int]) -> Iterator[Finding]:
    for t in chosen:
        try:
            frame = video.frames[t]
        except (InputError, FormatError) as error:
            yield Finding(kind="broken frame", grade=FATAL, video=video.id, frame=t, detail=str(error))
            continue
        size = (int(frame.shape[1]), int(frame.shape[2]))
        if size != video.size:
            detail = f"{size[1]}x{size[0]} where the video has {video.size[1]}x{video.size[0]}"
            yield Finding(kind="wrong size", grade=FATAL, video=video.id, frame=t, detail=detail)


def _objects(video: Video, num_classes: int) -> Iterator[Finding]:
    tracks = video.tracks or ()
    objects = [track for track in tracks if not track.ignore]
    if not objects:
        yield Finding(kind="video without an object", grade=ODD, video=video.id, detail="no object to learn from")
    for number, count in Counter(track.id for track in tracks).items():
        if count > 1:
            yield Finding(
                kind="id used twice", grade=FATAL, video=video.id, object=number, detail=f"{count} tracks have this id"
            )
    for track in tracks:
        yield from _track(video, track, num_classes)
    yield from _overlaps(video, objects)
    yield from _jumps(video, objects)


def _track(video: Video, track: Track, num_classes: int) -> Iterator[Finding]:
    def found(kind: str, grade: str, detail: str, frame: int | None = None) -> Finding:
        return Finding(kind=kind, grade=grade, video=video.id, object=track.id, frame=frame, detail=detail)

    if not 0 <= track.label < num_classes:
        yield found("unknown class", FATAL, f"label {track.label} of {num_classes} classes")
    if len(track.rles) != len(video):
        yield found("wrong length", FATAL, f"{len(track.rles)} masks for {len(video)} frames")
    held = [(t, rle) for t, rle in enumerate(track.rles) if rle is not None]
    if not held:
        yield found("object without a mask", ODD, "absent from every frame")
    for (t, rle), area in zip(held, masks.areas([rle for _, rle in held]), strict=True):
        if rle.size != video.size:
            came = f"{rle.size[1]}x{rle.size[0]}"
            yield found("wrong mask size", FATAL, f"{came} in a video of {video.size[1]}x{video.size[0]}", t)
        elif area == 0:
            yield found("empty mask", ODD, "a mask without a pixel; absent is better said by none", t)


def _overlaps(video: Video, objects: Sequence[Track]) -> Iterator[Finding]:
    """Frames in which two objects share more than a tenth of the smaller one's pixels."""
    for t in range(len(video)):
        held = [(track, track.rles[t]) for track in objects if t < len(track.rles)]
        present = [(track, rle) for track, rle in held if rle is not None and rle.size == video.size]
        if len(present) < 2:
            continue
        codes = [rle for _, rle in present]
        shares = shared(codes, codes) / np.maximum(masks.areas(codes), 1)  # of the second one's area
        for n, m in zip(*np.nonzero(np.triu(np.maximum(shares, shares.T) > 0.1, 1)), strict=True):
            worst = max(shares[n, m], shares[m, n])
            detail = f"{worst:.0%} of the smaller is shared with object {present[m][0].id}"
            yield Finding(kind="overlap", grade=ODD, video=video.id, frame=t, object=present[n][0].id, detail=detail)


def _jumps(video: Video, objects: Sequence[Track]) -> Iterator[Finding]:
    """An id that may have changed its object: in the next frame its place is taken by another one of its class."""
    for t in range(len(video) - 1):
        both = [
            (track, before, after)
            for track in objects
            if len(track.rles) > t + 1 and (before := track.rles[t]) and (after := track.rles[t + 1])
        ]
        if not both or any(rle.size != video.size for _, *pair in both for rle in pair):
            continue
        befores, afters = [before for _, before, _ in both], [after for _, _, after in both]
        overlap = iou(befores, afters)
        for n, (track, before, after) in enumerate(both):
            others = [m for m in range(len(both)) if m != n and both[m][0].label == track.label]
            taken = max(others, key=lambda m: overlap[n, m], default=None)
            if taken is not None and overlap[n, n] < 0.1 and overlap[n, taken] > 0.5:
                detail = f"in the next frame object {both[taken][0].id} is in its place"
                yield Finding(kind="id jumps", grade=ODD, video=video.id, frame=t, object=track.id, detail=detail)
            elif overlap[n, n] == 0 and _leap(before, after) > 3:
                detail = "moves by more than three times its own size from one frame to the next"
                yield Finding(kind="leap", grade=ODD, video=video.id, frame=t, object=track.id, detail=detail)


def _leap(before: RLE, after: RLE) -> float:
    """Distance of the boxes' centres over the larger box's diagonal."""
    first, second = masks.boxes([before, after])
    distance = np.linalg.norm((first[:2] + first[2:] - second[:2] - second[2:]) / 2)
    largest = max(float(np.linalg.norm(box[2:] - box[:2])) for box in (first, second))
    return float(distance) / max(largest, 1.0)


def iou(first: Sequence[RLE], second: Sequence[RLE]) -> np.ndarray:
    """Pairwise overlap over union, float64 [N, M]."""
    return np.asarray(coco.iou(masks.as_coco(first), masks.as_coco(second), [0] * len(second))).reshape(
        len(first), len(second)
    )


def shared(first: Sequence[RLE], second: Sequence[RLE]) -> np.ndarray:
    """Pixels in both, float64 [N, M]."""
    # with iscrowd, the union is the first one's area alone
    share = np.asarray(coco.iou(masks.as_coco(first), masks.as_coco(second), [1] * len(second)))
    return share.reshape(len(first), len(second)) * masks.areas(first)[:, None]
