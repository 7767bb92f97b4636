"""Read YouTube-VIS 2019, 2021, 2022 and OVIS: data sets and predictions.

A data set is {"videos", "categories", "annotations"}. An annotation is one object through one
video, with one segmentation per frame: compressed or plain run lengths, polygons, or null where the
object is absent. Predictions are either a bare list of results with the video_id and category_id of
the truth, as the servers take it, or a data set whose annotations have scores. Frame lines
(`formats.frame_lines`) are read like the latter.

Nothing here imports torch before a frame is decoded, so evaluating a file starts fast.
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
from tubelet.formats.ytvis.document import (
    AnnotationEntry,
    Faults,
    RecordedEntry,
    UnpackedTrack,
    YtvisDocument,
    finite,
    unpack,
    whole,
)
from tubelet.formats.ytvis.loading import load
from tubelet.formats.ytvis.numbering import AnnotatedSet as AnnotatedSet
from tubelet.formats.ytvis.numbering import Frames, category_numbers, video_names, video_numbers
from tubelet.formats.ytvis.tables import ListedVideo, categories_of, inferred, name_of, shots_of, videos_of
from tubelet.formats.ytvis.writing import write_folder as write_folder
from tubelet.formats.ytvis.writing import write_predictions as write_predictions
from tubelet.formats.ytvis.writing import write_results as write_results
from tubelet.formats.ytvis.writing import write_set as write_set

OCCLUSION = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}  # OVIS, of one frame


class _Index(NamedTuple):
    """Which of the truth's videos or classes the ids in a file mean."""

    positions: dict[int, int]  # id in the file -> position in the truth
    names: dict[int, str]  # id in the file -> name in the file
    known: list[str]  # names in the truth, to suggest one

    def find(self, value: Any) -> int | None:
        number = whole(value)
        return None if number is None else self.positions.get(number)

    def missing(self, kind: str, value: Any) -> str:
        name = self.names.get(whole(value) or 0, str(value))
        return f"{kind} {name!r} is not in the truth; {nearest(name, self.known)}"


def read(path: Path | str, frames: Path | str | None = None, *, faults: Faults | None = None) -> AnnotatedSet:
    """Read a data set; frames are looked for only when one is used.

    Args:
        path: The JSON file.
        frames: Folder or zip archive of the frames; by default JPEGImages beside the JSON or in a
            folder of the JSON's name, or the JSON's own folder.
        faults: If lenient, invalid annotations are left out and counted there.

    Returns:
        The set. A video's id is its number in the file, as a string; a track's id is its
        annotation's. Without annotations, as in public validation sets, `tracks` is None.

    Raises:
        InputError: if the file cannot be read.
        FormatError: for the first error in the file.

    Example:
        >>> import msgspec
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import ytvis
        >>> video = {"id": 7, "width": 6, "height": 4, "length": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "valid.json")
        ...     _ = path.write_bytes(msgspec.json.encode({"videos": [video]}))
        ...     ytvis.read(path).videos[0]
        Video(id='7', size=(4, 6), frames=2, fps=25, tracks=unknown)
    """
    path = as_path(path, "annotations")
    faults = faults or Faults()
    document = load(path)
    if document.bare or not document.videos:
        raise FormatError(f"{path}: expected a data set with videos, categories and annotations")

    folders = _usual_folders(path) if frames is None else (Path(frames),)
    return _read(document, path, folders, faults, beside=path.parent if frames is None else None)


def read_tables(path: Path | str) -> AnnotatedSet:
    """Read which videos and classes a file of predictions has, without tracks.

    They come from its tables, or, for a bare list, from the ids, sizes and lengths of its results.
    Raises FormatError if these are invalid.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import ytvis
        >>> prediction = tubelet.Prediction(video="dog", size=(4, 6), length=2, tracks=(), classes=("dog",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ytvis.write_predictions(Path(folder, "out.json"), [prediction])
        ...     tables = ytvis.read_tables(Path(folder, "out.json"))
        >>> tables.names, tables.classes
        (('dog',), ('dog',))
    """
    path = as_path(path, "predictions")
    document = load(path)
    if document.bare or not document.videos:
        document.videos, document.categories = inferred(document, path)
    document.annotations = None
    return _read(document, path, _usual_folders(path), Faults())


def _read(
    document: YtvisDocument, path: Path, folders: tuple[Path, ...], faults: Faults, beside: Path | None = None
) -> AnnotatedSet:
    listed = videos_of(document, path)
    categories = categories_of(document, path)
    tracks, occlusion = _truth(document, listed, categories, path, faults)

    videos = []
    for video, video_tracks in zip(listed, tracks, strict=True):
        frames = Frames(folders, video.files, video.size, f"{path}: video {video.id}", beside)
        truth = None if document.annotations is None else tuple(video_tracks)
        videos.append(Video(id=str(video.id), size=video.size, frames=frames, tracks=truth))

    subsets = tuple(video.subset for video in listed)
    return AnnotatedSet(
        videos=tuple(videos),
        classes=tuple(categories.values()),
        category_ids=tuple(categories),
        names=tuple(video.name for video in listed),
        subsets=subsets if any(subsets) else (),
        occlusion=occlusion,
    )


def _truth(
    document: YtvisDocument,
    listed: Sequence[ListedVideo],
    categories: dict[int, str],
    path: Path,
    faults: Faults,
) -> tuple[list[list[Track]], dict[tuple[str, int], float]]:
    """The tracks of each video, and the occlusion of each (video id, track id) that gives it."""
    videos = _Index({video.id: n for n, video in enumerate(listed)}, {}, [str(video.id) for video in listed])
    labels = _Index({number: label for label, number in enumerate(categories)}, {}, list(categories.values()))
    shapes = [(video.size, len(video.files)) for video in listed]

    tracks: list[list[Track]] = [[] for _ in listed]
    occlusion: dict[tuple[str, int], float] = {}
    seen: set[int] = set()
    for entry, n, label, tube in _annotations(document, shapes, videos, labels, path, faults):
        number = whole(entry.id)
        if number is None or number in seen:
            faults.note("annotation id", f"{entry.where(path.name)}: expected an id of its own, got {entry.id!r}")
            continue

        seen.add(number)
        area = _stated_area(entry, tube, path)
        tracks[n].append(Track(id=number, label=label, score=1.0, rles=tube, ignore=bool(entry.iscrowd), area=area))
        if entry.occlusion is not None:
            occlusion[str(listed[n].id), number] = _occlusion(entry, path)
    return tracks, occlusion


def read_predictions(
    path: Path | str,
    truth: VideoSet,
    *,
    faults: Faults | None = None,
) -> list[Prediction]:
    """Read the predictions for each video of `truth`, in its order; tracks are in the order of the file.

    In a bare list, video_id and category_id are those of the truth. In a data set, the ids are
    those of its own tables: videos match by name, or by id if they have no name, and classes match
    by name. A video that the file leaves out has no tracks. An empty list is valid, with a warning.

    Args:
        path: The JSON file, or a file of frame lines.
        truth: The set that the predictions are for.
        faults: If lenient, invalid tracks are left out and counted there.

    Raises:
        InputError: if the file cannot be read.
        FormatError: for the first error in the file.

    Example:
        >>> import msgspec
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import ytvis
        >>> truth = VideoSet(videos=[tubelet.Video(id="7", size=(4, 6), frames=[None] * 2)], classes=("dog",))
        >>> masks = [{"size": [4, 6], "counts": "0h0"}, None]
        >>> result = {"video_id": 7, "category_id": 1, "score": 0.5, "segmentations": masks}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "results.json")
        ...     _ = path.write_bytes(msgspec.json.encode([result]))
        ...     ytvis.read_predictions(path, truth)[0].tracks
        (Track(id=1, label=0, score=0.5, frames=1 of 2),)
    """
    path = as_path(path, "annotations")
    faults = faults or Faults()
    document = load(path)
    if document.annotations is None:
        raise FormatError(f"{path}: expected a list of results, or a data set with annotations that have scores")
    if not document.annotations:
        warnings.warn(f"{path}: no predictions in it, every number will be 0", stacklevel=2)

    videos = _video_index(document, truth, path)
    labels = _label_index(document, truth, path)
    tracks = _predicted(document, truth, videos, labels, path, faults)

    tables = {videos.find(entry.get("id")): entry for entry in document.videos}
    predictions = []
    for n, (video, video_tracks) in enumerate(zip(truth.videos, tracks, strict=True)):
        shots = shots_of(tables.get(n, {}), len(video))
        predictions.append(
            Prediction(
                video=video.id,
                size=video.size,
                length=len(video),
                tracks=tuple(video_tracks),
                classes=truth.classes,
                shots=shots,
            )
        )
    return predictions


def _predicted(
    document: YtvisDocument,
    truth: VideoSet,
    videos: _Index,
    labels: _Index,
    path: Path,
    faults: Faults,
) -> list[list[Track]]:
    """The predicted tracks of each video of the truth."""
    shapes = [(video.size, len(video)) for video in truth.videos]
    tracks: list[list[Track]] = [[] for _ in shapes]
    seen: set[tuple[int, int]] = set()
    annotations = _annotations(document, shapes, videos, labels, path, faults)
    for entry, n, label, tube in annotations:
        score = finite(entry.score)
        if score is None:
            came = "none" if entry.score is None else repr(entry.score)
            faults.note("score", f"{entry.where(path.name)}: expected a finite score, got {came}")
            continue

        track_id = entry.id if entry.track_id is None else entry.track_id
        if document.bare:
            track_id = entry.position
        number = whole(track_id)
        if number is None or (n, number) in seen:
            expected = f"expected a track id of its own within the video, got {track_id!r}"
            faults.note("track id", f"{entry.where(path.name)}: {expected}")
            continue

        seen.add((n, number))
        tracks[n].append(Track(id=number, label=label, score=score, rles=tube))
    return tracks


def _annotations(
    document: YtvisDocument,
    shapes: Sequence[tuple[tuple[int, int], int]],
    videos: _Index,
    labels: _Index,
    path: Path,
    faults: Faults,
) -> Iterator[tuple[AnnotationEntry, int, int, Tube]]:
    """Each valid annotation with the position of its video, its label and its masks.

    Args:
        document: The file.
        shapes: Each video's (height, width) and number of frames.
        videos: Which video an id means.
        labels: Which label an id means.
        path: The file, for error messages.
        faults: Where errors are noted.
    """
    targets: dict[int, tuple[int, int]] = {}  # position in the file -> position of the video, label

    def tracks() -> Iterator[UnpackedTrack]:
        for entry in document.annotations or ():
            n = videos.find(entry.video_id)
            label = labels.find(entry.category_id)
            if n is None:
                missing = videos.missing("video", entry.video_id)
                faults.note("unknown video", f"{entry.where(path.name)}: {missing}")
            elif label is None:
                missing = labels.missing("category", entry.category_id)
                faults.note("unknown category", f"{entry.where(path.name)}: {missing}")
            else:
                targets[entry.position] = (n, label)
                size, length = shapes[n]
                yield UnpackedTrack(entry, size, length, path.name)

    for entry, tube in unpack(tracks(), faults):
        n, label = targets.pop(entry.position)
        yield entry, n, label, tube


def _video_index(document: YtvisDocument, truth: VideoSet, path: Path) -> _Index:
    """Video id in the file -> position in the truth."""
    by_number = {number: n for n, number in enumerate(video_numbers(truth))}
    if document.bare or not document.videos:
        return _Index(by_number, {}, [str(number) for number in by_number])

    names = video_names(truth)
    by_name = {name: n for n, name in enumerate(names) if names.count(name) == 1}
    by_name |= {video.id: n for n, video in enumerate(truth.videos)}

    index = _Index({}, {}, sorted(by_name))
    for entry in document.videos:
        number = whole(entry.get("id"))
        name = name_of(entry)
        if number is None:
            raise FormatError(f"{path}: a video needs a number as its id, got {entry.get('id')!r}")

        position = by_number.get(number) if name is None else by_name.get(name)
        if position is not None:
            index.positions[number] = position
        index.names[number] = name or str(number)
    return index


def _label_index(document: YtvisDocument, truth: VideoSet, path: Path) -> _Index:
    """Category id in the file -> label in the truth."""
    if document.bare or not document.categories:
        numbers = category_numbers(truth)
        return _Index({number: label for label, number in enumerate(numbers)}, {}, [str(n) for n in numbers])

    labels = {name: label for label, name in enumerate(truth.classes)}
    names = categories_of(document, path)
    positions = {number: labels[name] for number, name in names.items() if name in labels}
    return _Index(positions, names, list(truth.classes))


def _usual_folders(path: Path) -> tuple[Path, ...]:
    """Where the public sets store the frames of `train.json`."""
    roots = (path.parent, path.parent / path.stem, path.parent.parent / path.stem)
    return tuple(root / name for root in roots for name in ("JPEGImages", "JPEGImages.zip"))


def _stated_area(entry: AnnotationEntry, tube: Tube, path: Path) -> float | None:
    """Mean of the areas in the file that are not 0, as in the official evaluation; None without areas."""
    if isinstance(entry, RecordedEntry):
        return tube.pixels / tube.held if tube.held else 0.0
    if entry.areas is None:
        return None

    length = len(tube)
    areas = [0.0 if area is None else finite(area) for area in entry.areas] if isinstance(entry.areas, list) else []
    if len(areas) != length or any(area is None or area < 0 for area in areas):
        raise FormatError(f"{entry.where(path.name)}: expected {length} areas, numbers or null, one per frame")

    positive = [area for area in areas if area]
    return sum(positive) / len(positive) if positive else 0.0


def _occlusion(entry: AnnotationEntry, path: Path) -> float:
    """How occluded an object is, 0 to 0.75: the mean over the half of its frames that are occluded most.

    Our reading of the OVIS paper; frames without the object have no level.
    """
    levels = entry.occlusion
    known = (*OCCLUSION, None)  # a tuple, since a value in the file may not be hashable
    if not isinstance(levels, list) or any(level not in known for level in levels):
        expected = f"expected occlusion to be a list of {', '.join(OCCLUSION)} or null"
        raise FormatError(f"{entry.where(path.name)}: {expected}")

    scores = sorted((OCCLUSION[level] for level in levels if level is not None), reverse=True)
    upper = scores[: (len(scores) + 1) // 2]
    return sum(upper) / len(upper) if upper else 0.0
