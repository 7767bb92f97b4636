"""Write YouTube-VIS files: data sets, predictions as a data set, and the bare list that servers take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tubelet.core import masks
from tubelet.core.atomic import new_folder
from tubelet.core.errors import FormatError, InputError, nearest
from tubelet.core.masks.packed import Tube, pack
from tubelet.core.masks.sparse import SparseMasks
from tubelet.core.records import Prediction, Track, Video, VideoSet
from tubelet.core.text import plain
from tubelet.formats import frame_lines, png
from tubelet.formats.ytvis.document import save
from tubelet.formats.ytvis.numbering import Frames, category_numbers, numbers_of, video_names, video_numbers


def write_set(path: Path | str, videos: VideoSet, *, suffix: str = ".jpg", beside: Path | None = None) -> None:
    """Write a data set with its tracks.

    Frames have the file names that they were read with, else `<video id>/00000<suffix>` and so on.
    Ids of videos are written as they are if all are integers, ids of tracks if none occurs twice in
    the set; otherwise they are numbered from 1.

    Args:
        path: The file.
        videos: The set.
        suffix: Of frames without a file name.
        beside: The folder in which the file will be, if frames of other forms are to be found from there;
            raises InputError if they are not image files below it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import ytvis
        >>> videos = [tubelet.Video(id="dog", size=(4, 6), frames=[None] * 2)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ytvis.write_set(Path(folder, "train.json"), VideoSet(videos=videos, classes=("dog",)))
        ...     ytvis.read(Path(folder, "train.json")).videos[0].frames.files
        ('dog/00000.jpg', 'dog/00001.jpg')
    """
    numbers = video_numbers(videos)
    categories = category_numbers(videos)
    track_ids = [track.id for video in videos.videos for track in video.tracks or ()]
    unique = len(set(track_ids)) == len(track_ids)

    table = []
    for number, name, video in zip(numbers, video_names(videos), videos.videos, strict=True):
        entry = _video(number, name, video.size, len(video))
        table.append({**entry, "file_names": _file_names(video, suffix, beside)})

    def annotations() -> Iterator[dict[str, Any]]:
        count = 0
        for number, video in zip(numbers, videos.videos, strict=True):
            tracks = video.tracks or ()
            for track, tube in zip(tracks, _tubes(tracks, video.size), strict=True):
                count += 1
                track_id = track.id if unique else count
                yield _annotation(track_id, number, categories[track.label], track, tube)

    save(Path(path), _head(table, categories, videos.classes), annotations(), b"]}\n")


def write_folder(out: str | Path, videos: VideoSet, progress: Callable[[int], None] | None = None) -> None:
    """Write a data set with its frames: JPEGImages/<video>/00000.png and so on, and instances.json.

    The folder is written atomically. One video at a time is in memory if `videos` is lazy.

    Args:
        out: The new folder; raises InputError if it exists and is not empty.
        videos: The set.
        progress: Called with the number of videos written so far.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import ytvis
        >>> video = tubelet.Video(id="dog", size=(4, 6), frames=[torch.zeros(3, 4, 6, dtype=torch.uint8)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ytvis.write_folder(Path(folder, "set"), VideoSet(videos=[video], classes=("dog",)))
        ...     sorted(path.name for path in Path(folder, "set").rglob("*.*"))
        ['00000.png', 'instances.json']
    """
    with new_folder(out) as folder:
        for count, video in enumerate(videos.videos, start=1):
            frames = folder / "JPEGImages" / plain(video.id)
            frames.mkdir(parents=True)
            for t, frame in enumerate(video.frames):
                (frames / f"{t:05d}.png").write_bytes(png.encode(frame.permute(1, 2, 0).numpy()))
            if progress is not None:
                progress(count)

        write_set(folder / "instances.json", videos, suffix=".png")


def write_predictions(path: Path | str, predictions: Iterable[Prediction]) -> None:
    """Write predictions as a data set: annotations have a score and a track_id, classes have names.

    Into a path that ends in .jsonl, they are written as frame lines (`formats.frame_lines`).
    An annotation's id is its track_id if no track_id occurs twice in the file, else its position from
    1. A video whose shots are known has their first frames as `shots`. Raises ValueError if two
    predictions are of the same video or have different classes.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from tubelet.formats import ytvis
        >>> prediction = tubelet.Prediction(video="dog", size=(4, 6), length=2, tracks=(), classes=("dog",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ytvis.write_predictions(Path(folder, "out.json"), [prediction])
        ...     json.loads(Path(folder, "out.json").read_text())["videos"]
        [{'id': 1, 'name': 'dog', 'height': 4, 'width': 6, 'length': 2}]
    """
    predictions = list(predictions)
    names = [prediction.video for prediction in predictions]
    if len(set(names)) < len(names):
        raise ValueError("two predictions are of the same video")

    classes = next((prediction.classes for prediction in predictions if prediction.classes), ())
    if any(prediction.classes not in ((), classes) for prediction in predictions):
        raise ValueError("predictions of one file must share their classes")
    if Path(path).suffix == frame_lines.SUFFIX:
        frame_lines.write(Path(path), predictions)
        return

    track_ids = [track.id for prediction in predictions for track in prediction.tracks]
    unique = len(set(track_ids)) == len(track_ids)

    numbers = numbers_of(names)
    table = []
    for number, prediction in zip(numbers, predictions, strict=True):
        entry = _video(number, prediction.video, prediction.size, prediction.length)
        if prediction.shots:
            entry["shots"] = list(prediction.shots)
        table.append(entry)

    def annotations() -> Iterator[dict[str, Any]]:
        count = 0
        for number, prediction in zip(numbers, predictions, strict=True):
            tubes = _tubes(prediction.tracks, prediction.size)
            for track, tube in zip(prediction.tracks, tubes, strict=True):
                count += 1
                annotation_id = track.id if unique else count
                entry = _annotation(annotation_id, number, track.label + 1, track, tube)
                yield {**entry, "track_id": track.id, "score": float(track.score)}

    head = _head(table, range(1, len(classes) + 1), classes)
    save(Path(path), head, annotations(), b"]}\n")


def write_results(path: Path | str, predictions: Iterable[Prediction], truth: VideoSet) -> None:
    """Write the bare list that servers take, with the ids of `truth`.

    Results are sorted by video, falling score and track id. Raises FormatError for a video or class
    that the truth does not have.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from tubelet.core.types import VideoSet
        >>> from tubelet.formats import ytvis
        >>> truth = VideoSet(videos=[tubelet.Video(id="7", size=(4, 6), frames=[None])], classes=("dog",))
        >>> track = tubelet.Track(id=1, label=0, score=0.5, rles=(None,))
        >>> prediction = tubelet.Prediction(video="7", size=(4, 6), length=1, tracks=(track,), classes=("dog",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ytvis.write_results(Path(folder, "results.json"), [prediction], truth)
        ...     json.loads(Path(folder, "results.json").read_text())
        [{'video_id': 7, 'category_id': 1, 'score': 0.5, 'segmentations': [None]}]
    """
    numbers = dict(zip((video.id for video in truth.videos), video_numbers(truth), strict=True))
    predictions = list(predictions)
    for prediction in predictions:
        if prediction.video not in numbers:
            raise FormatError(f"video {prediction.video!r} is not in the truth; {nearest(prediction.video, numbers)}")

    predictions.sort(key=lambda prediction: numbers[prediction.video])
    save(Path(path), b"[", _results(predictions, numbers, truth), b"]\n")


def _results(predictions: Sequence[Prediction], numbers: dict[str, int], truth: VideoSet) -> Iterator[dict[str, Any]]:
    for prediction in predictions:
        categories = _categories(prediction, truth)
        for track in sorted(prediction.tracks, key=lambda track: (-track.score, track.id)):
            yield {
                "video_id": numbers[prediction.video],
                "category_id": categories[track.label],
                "score": float(track.score),
                "segmentations": _in_all_frames(track.entries, [masks.to_json(rle) for rle in track.entries.present]),
            }


def _categories(prediction: Prediction, truth: VideoSet) -> dict[int, int]:
    """The category id of each label that the prediction uses."""
    ids = dict(zip(truth.classes, category_numbers(truth), strict=True))
    names = prediction.classes or truth.classes
    labels = {track.label for track in prediction.tracks}
    for label in labels:
        if not 0 <= label < len(names) or names[label] not in ids:
            name = names[label] if 0 <= label < len(names) else f"label {label}"
            raise FormatError(f"video {prediction.video}: class {name!r} is not in the truth; {nearest(name, ids)}")
    return {label: ids[names[label]] for label in labels}


def _head(videos: list[dict[str, Any]], categories: Iterable[int], classes: Sequence[str]) -> bytes:
    """The beginning of a file, up to the first annotation."""
    table = [{"id": number, "name": plain(name)} for number, name in zip(categories, classes, strict=True)]
    encode = msgspec.json.encode
    return b'{"videos":' + encode(videos) + b',\n"categories":' + encode(table) + b',\n"annotations":['


def _video(number: int, name: str, size: tuple[int, int], length: int) -> dict[str, Any]:
    return {"id": number, "name": plain(name), "height": size[0], "width": size[1], "length": length}


def _annotation(number: int, video: int, category: int, track: Track, tube: Tube) -> dict[str, Any]:
    """One object; areas and boxes (x, y, width, height) are null in frames without it."""
    boxes = masks.boxes(tube.present)
    boxes[:, 2:] -= boxes[:, :2]
    return {
        "id": number,
        "video_id": video,
        "category_id": category,
        "iscrowd": int(track.ignore),
        "height": tube.size[0],
        "width": tube.size[1],
        "length": len(tube),
        "segmentations": _in_all_frames(tube, [masks.to_json(rle) for rle in tube.present]),
        "bboxes": _in_all_frames(tube, boxes.tolist()),
        "areas": _in_all_frames(tube, tube.areas[tube.frames].tolist()),
    }


def _in_all_frames(rles: SparseMasks, values: Sequence[Any]) -> list[Any]:
    """A value for each frame, from those of the frames in which the object appears; null in the others."""
    every: list[Any] = [None] * len(rles)
    for t, value in zip(rles.frames.tolist(), values, strict=True):
        every[t] = value
    return every


def _tubes(tracks: Sequence[Track], size: tuple[int, int]) -> list[Tube]:
    """The masks of each track, packed."""
    all_rles = [track.entries for track in tracks]
    return [rles if isinstance(rles, Tube) else pack([rles], size)[0] for rles in all_rles]


def _file_names(video: Video, suffix: str, beside: Path | None) -> list[str]:
    if isinstance(video.frames, Frames):
        return [plain(name) for name in video.frames.files]
    if beside is not None:
        return _names_from(beside, video)
    return [f"{plain(video.id)}/{t:05d}{suffix}" for t in range(len(video))]


def _names_from(folder: Path, video: Video) -> list[str]:
    """The image files of a video, relative to a folder above them."""
    from tubelet.formats.files import Folder, StoredFrames  # imports torch

    frames = video.frames
    if isinstance(frames, StoredFrames) and isinstance(frames.files, Folder):
        paths = [(frames.files.path / frames.stored_name(t)).absolute() for t in range(len(frames))]
        if all(path.is_relative_to(folder.absolute()) for path in paths):
            return [plain(path.relative_to(folder.absolute()).as_posix()) for path in paths]
    remedy = "bring the set into YouTube-VIS form first (tubelet data convert SET NEW --to ytvis)"
    raise InputError(f"video {video.id}: its frames are no image files below {folder}; {remedy}")
