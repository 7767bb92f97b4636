"""YouTube-VIS 2019, 2021, 2022 and OVIS: one JSON form for truth, and two for predictions.

Truth is a data set: {"videos", "categories", "annotations"}; an annotation is one object through one video, with one
segmentation per frame (compressed or plain run lengths, polygons, null where absent). Predictions are either a bare
list of results, each with the video_id and category_id of the truth, as the servers take it, or a data set with scores.

Nothing here imports torch before a frame is decoded, so that evaluating a file does not wait for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tubelet.core.errors import FormatError, nearest
from tubelet.core.masks.packed import Tube
from tubelet.core.records import Prediction, Track, Video, VideoSet
from tubelet.core.untrusted.files import as_path
from tubelet.formats.ytvis.document import AnnotationEntry, Faults, Wanted, YtvisDocument, finite, load, unpack, whole
from tubelet.formats.ytvis.numbering import AnnotatedSet as AnnotatedSet
from tubelet.formats.ytvis.numbering import Frames, category_numbers, video_names, video_numbers
from tubelet.formats.ytvis.tables import categories_of, inferred, name_of, shots_of, videos_of
from tubelet.formats.ytvis.writing import write_folder as write_folder
from tubelet.formats.ytvis.writing import write_predictions as write_predictions
from tubelet.formats.ytvis.writing import write_results as write_results
from tubelet.formats.ytvis.writing import write_set as write_set

OCCLUSION = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}  # of one frame, OVIS


class _Index(NamedTuple):
    """How a file's numbers lead to the truth's videos or classes."""

    positions: dict[int, int]
    called: dict[int, str]  # the file's own names for its numbers
    known: list[str]  # what there is, for a hint

    def find(self, value: Any) -> int | None:
        number = whole(value)
        return None if number is None else self.positions.get(number)

    def missing(self, kind: str, value: Any) -> str:
        name = self.called.get(whole(value) or 0, str(value))
        return f"{kind} {name!r} is not in the truth; {nearest(name, self.known)}"


def read(path: Path | str, frames: Path | str | None = None, *, faults: Faults | None = None) -> AnnotatedSet:
    """A data set. Frames lie in `frames`, a folder or a zip archive, else in JPEGImages beside the JSON or in a folder
    of its name; they are looked for when first used.

    A video's id is its number in the file, as a string; a track's is its annotation's. Where the annotations are kept
    back, as in public validation sets, tracks are None. Raises FormatError for the first thing that is not right; with
    lenient `faults`, such annotations are left out and counted.
    """
    path, faults = as_path(path, "annotations"), faults or Faults()
    document = load(path)
    if document.bare or not document.videos:
        raise FormatError(f"{path}: expected a data set with videos, categories and annotations")
    return _read(document, path, _usual_folders(path) if frames is None else (Path(frames),), faults)


def read_tables(path: Path | str) -> AnnotatedSet:
    """The videos and classes that a file of predictions itself speaks of, without tracks.

    From its tables, or, for a bare list, from the ids, sizes and lengths of its results. Raises FormatError where these
    disagree.
    """
    path = as_path(path, "predictions")
    document = load(path)
    if document.bare or not document.videos:
        document.videos, document.categories = inferred(document, path)
    document.annotations = None
    return _read(document, path, _usual_folders(path), Faults())


def _read(document: YtvisDocument, path: Path, folders: tuple[Path, ...], faults: Faults) -> AnnotatedSet:
    videos, categories = videos_of(document, path), categories_of(document, path)
    labels = _Index({number: label for label, number in enumerate(categories)}, {}, list(categories.values()))
    places = _Index({video.id: n for n, video in enumerate(videos)}, {}, [str(video.id) for video in videos])
    sizes = [(video.size, len(video.files)) for video in videos]
    tracks: list[list[Track]] = [[] for _ in videos]
    occlusion: dict[tuple[str, int], float] = {}
    seen: set[int] = set()
    for entry, n, label, tube in _annotations(document, sizes, places, labels, path, faults):
        number = whole(entry.id)
        if number is None or number in seen:
            faults.note("annotation id", f"{entry.where(path.name)}: expected an id of its own, got {entry.id!r}")
            continue
        seen.add(number)
        area = _stated_area(entry, len(tube), path)
        tracks[n].append(Track(id=number, label=label, score=1.0, rles=tube, ignore=bool(entry.iscrowd), area=area))
        if entry.occlusion is not None:
            occlusion[str(videos[n].id), number] = _occlusion(entry, path)
    return AnnotatedSet(
        videos=tuple(
            Video(
                id=str(video.id),
                size=video.size,
                frames=Frames(folders, video.files, video.size, f"{path}: video {video.id}"),
                tracks=None if document.annotations is None else tuple(held),
            )
            for video, held in zip(videos, tracks, strict=True)
        ),
        classes=tuple(categories.values()),
        category_ids=tuple(categories),
        names=tuple(video.name for video in videos),
        subsets=tuple(video.subset for video in videos) if any(video.subset for video in videos) else (),
        occlusion=occlusion,
    )


def read_predictions(path: Path | str, truth: VideoSet, *, faults: Faults | None = None) -> list[Prediction]:
    """Predictions for each video of `truth`, in its order; a video that the file leaves out has none.

    A bare list means the videos and categories of the truth by their ids. A data set has tables of its own: its videos
    are found by name, or by id where they have none; its classes by name. Tracks keep the order of the file. Raises
    FormatError for the first thing that is not right; with lenient `faults`, such tracks are left out and counted. An
    empty list is right, and warns.
    """
    path, faults = as_path(path, "annotations"), faults or Faults()
    document = load(path)
    if document.annotations is None:
        raise FormatError(f"{path}: expected a list of results, or a data set with annotations that have scores")
    if not document.annotations:
        warnings.warn(f"{path}: no predictions in it, every number will be 0", stacklevel=2)
    sizes = [(video.size, len(video)) for video in truth.videos]
    places, labels = _places(document, truth, path), _labels(document, truth, path)
    tracks: list[list[Track]] = [[] for _ in sizes]
    seen: set[tuple[int, int]] = set()
    for entry, n, label, tube in _annotations(document, sizes, places, labels, path, faults):
        score = finite(entry.score)
        if score is None:
            came = "none" if entry.score is None else repr(entry.score)
            faults.note("score", f"{entry.where(path.name)}: expected a finite score, got {came}")
            continue
        named = entry.place if document.bare else entry.id if entry.track_id is None else entry.track_id
        number = whole(named)
        if number is None or (n, number) in seen:
            where = entry.where(path.name)
            faults.note("track id", f"{where}: expected a track id of its own within the video, got {named!r}")
            continue
        seen.add((n, number))
        tracks[n].append(Track(id=number, label=label, score=score, rles=tube))
    listed = {places.find(entry.get("id")): entry for entry in document.videos}
    return [
        Prediction(
            video=video.id,
            size=video.size,
            length=len(video),
            tracks=tuple(held),
            classes=truth.classes,
            shots=shots_of(listed.get(n, {}), len(video)),
        )
        for n, (video, held) in enumerate(zip(truth.videos, tracks, strict=True))
    ]


def _annotations(
    document: YtvisDocument,
    sizes: Sequence[tuple[tuple[int, int], int]],
    places: _Index,
    labels: _Index,
    path: Path,
    faults: Faults,
) -> Iterator[tuple[AnnotationEntry, int, int, Tube]]:
    """Each annotation whose video, category and masks are right, with the position of its video, its label and tube."""
    found: dict[int, tuple[int, int]] = {}

    def wanted() -> Iterator[Wanted]:
        for entry in document.annotations or ():
            place, label = places.find(entry.video_id), labels.find(entry.category_id)
            if place is None:
                missing = places.missing("video", entry.video_id)
                faults.note("unknown video", f"{entry.where(path.name)}: {missing}")
            elif label is None:
                missing = labels.missing("category", entry.category_id)
                faults.note("unknown category", f"{entry.where(path.name)}: {missing}")
            else:
                found[entry.place] = place, label
                yield Wanted(entry, *sizes[place], path.name)

    for entry, tube in unpack(wanted(), faults):
        yield entry, *found.pop(entry.place), tube


def _places(document: YtvisDocument, truth: VideoSet, path: Path) -> _Index:
    """Video id in the file -> position in the truth."""
    own = {number: n for n, number in enumerate(video_numbers(truth))}
    if document.bare or not document.videos:
        return _Index(own, {}, [str(number) for number in own])
    names = video_names(truth)
    by_name = {name: n for n, name in enumerate(names) if names.count(name) == 1}
    by_name |= {video.id: n for n, video in enumerate(truth.videos)}
    index = _Index({}, {}, sorted(by_name))
    for entry in document.videos:
        number, name = whole(entry.get("id")), name_of(entry)
        if number is None:
            raise FormatError(f"{path}: a video needs a number as its id, got {entry.get('id')!r}")
        place = own.get(number) if name is None else by_name.get(name)
        if place is not None:
            index.positions[number] = place
        index.called[number] = name or str(number)
    return index


def _labels(document: YtvisDocument, truth: VideoSet, path: Path) -> _Index:
    """Category id in the file -> label in the truth."""
    if document.bare or not document.categories:
        numbers = category_numbers(truth)
        return _Index({number: label for label, number in enumerate(numbers)}, {}, [str(n) for n in numbers])
    own = {name: label for label, name in enumerate(truth.classes)}
    called = categories_of(document, path)
    positions = {number: own[name] for number, name in called.items() if name in own}
    return _Index(positions, called, list(truth.classes))


def _usual_folders(path: Path) -> tuple[Path, ...]:
    """Where the public sets keep the frames of `train.json`."""
    roots = (path.parent, path.parent / path.stem, path.parent.parent / path.stem)
    return tuple(root / name for root in roots for name in ("JPEGImages", "JPEGImages.zip"))


def _stated_area(entry: AnnotationEntry, length: int, path: Path) -> float | None:
    """The mean of the stated areas that are not 0, as the official evaluation takes it; None where none are stated."""
    if entry.areas is None:
        return None
    areas = [0.0 if area is None else finite(area) for area in entry.areas] if isinstance(entry.areas, list) else []
    if len(areas) != length or any(area is None or area < 0 for area in areas):
        raise FormatError(f"{entry.where(path.name)}: expected {length} areas, numbers or null, one per frame")
    held = [area for area in areas if area]
    return sum(held) / len(held) if held else 0.0


def _occlusion(entry: AnnotationEntry, path: Path) -> float:
    """How occluded an object is, 0 to 0.75: the mean over the half of its frames that are occluded most.

    Our reading of the OVIS paper; frames without the object have no level.
    """
    levels = entry.occlusion
    known = (*OCCLUSION, None)  # a tuple: what a file holds may have no hash
    if not isinstance(levels, list) or any(level not in known for level in levels):
        raise FormatError(
            f"{entry.where(path.name)}: expected occlusion to be a list of {', '.join(OCCLUSION)} or null"
        )
    scores = sorted((OCCLUSION[level] for level in levels if level is not None), reverse=True)
    upper = scores[: (len(scores) + 1) // 2]
    return sum(upper) / len(upper) if upper else 0.0
