"""Writing YouTube-VIS files: data sets, predictions as a data set, and the bare list that servers take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tubelet.core import masks
from tubelet.core.atomic import new_folder
from tubelet.core.errors import FormatError, nearest
from tubelet.core.masks.packed import Tube, pack
from tubelet.core.records import Prediction, Track, Video, VideoSet
from tubelet.core.text import plain
from tubelet.formats import png
from tubelet.formats.ytvis.document import save
from tubelet.formats.ytvis.numbering import Frames, category_numbers, numbers_of, video_names, video_numbers


def write_set(path: Path | str, videos: VideoSet, *, suffix: str = ".jpg") -> None:
    """Write truth. Frames are named as they were read, else `<video id>/00000<suffix>`, ...

    Ids of videos and tracks are kept where they are numbers of their own, else counted from 1.
    """
    numbers, categories = video_numbers(videos), category_numbers(videos)
    ids = [track.id for video in videos.videos for track in video.tracks or ()]
    keep = len(set(ids)) == len(ids)
    listed = [
        {**_video(number, name, video.size, len(video)), "file_names": _file_names(video, suffix)}
        for number, name, video in zip(numbers, video_names(videos), videos.videos, strict=True)
    ]

    def annotations() -> Iterator[dict[str, Any]]:
        count = 0
        for number, video in zip(numbers, videos.videos, strict=True):
            for track, tube in zip(video.tracks or (), _tubes(video.tracks or (), video.size), strict=True):
                count += 1
                yield _annotation(track.id if keep else count, number, categories[track.label], track, tube)

    save(Path(path), _head(listed, categories, videos.classes), annotations(), b"]}\n")


def write_folder(out: str | Path, videos: VideoSet, progress: Callable[[int], None] | None = None) -> None:
    """Write videos that are drawn when asked for as a folder: JPEGImages/<video>/00000.png ... and instances.json.

    The folder appears whole or not at all. `progress` is called with the number of videos done. Raises InputError where
    `out` holds something already.
    """
    with new_folder(out) as folder:
        for done, video in enumerate(videos.videos, start=1):
            place = folder / "JPEGImages" / plain(video.id)
            place.mkdir(parents=True)
            for t, frame in enumerate(video.frames):
                (place / f"{t:05d}.png").write_bytes(png.encode(frame.permute(1, 2, 0).numpy()))
            if progress is not None:
                progress(done)
        write_set(folder / "instances.json", videos, suffix=".png")


def write_predictions(path: Path | str, predictions: Iterable[Prediction]) -> None:
    """Write predictions as a data set of their own: annotations carry a score and a track_id, classes go by name.

    Where shots are known, a video has the first frame of each as `shots`.

    Raises ValueError where two predictions are of the same video or disagree on the classes.
    """
    held = list(predictions)
    names = [prediction.video for prediction in held]
    if len(set(names)) < len(names):
        raise ValueError("two predictions are of the same video")
    classes = next((prediction.classes for prediction in held if prediction.classes), ())
    if any(prediction.classes not in ((), classes) for prediction in held):
        raise ValueError("predictions of one file must share their classes")
    numbers = numbers_of(names)
    listed = [
        _video(number, p.video, p.size, p.length) | ({"shots": list(p.shots)} if p.shots else {})
        for number, p in zip(numbers, held, strict=True)
    ]

    def annotations() -> Iterator[dict[str, Any]]:
        count = 0
        for number, prediction in zip(numbers, held, strict=True):
            for track, tube in zip(prediction.tracks, _tubes(prediction.tracks, prediction.size), strict=True):
                count += 1
                entry = _annotation(count, number, track.label + 1, track, tube)
                yield {**entry, "track_id": track.id, "score": float(track.score)}

    save(Path(path), _head(listed, range(1, len(classes) + 1), classes), annotations(), b"]}\n")


def write_results(path: Path | str, predictions: Iterable[Prediction], truth: VideoSet) -> None:
    """Write the bare list that servers take, ids as in `truth`, sorted by video, falling score and track id.

    Raises FormatError for a video or class that the truth does not have.
    """
    numbers = dict(zip((video.id for video in truth.videos), video_numbers(truth), strict=True))
    held = list(predictions)
    for prediction in held:
        if prediction.video not in numbers:
            raise FormatError(f"video {prediction.video!r} is not in the truth; {nearest(prediction.video, numbers)}")
    held.sort(key=lambda prediction: numbers[prediction.video])
    save(Path(path), b"[", _results(held, numbers, truth), b"]\n")


def _results(held: Sequence[Prediction], numbers: dict[str, int], truth: VideoSet) -> Iterator[dict[str, Any]]:
    for prediction in held:
        categories = _categories(prediction, truth)
        for track in sorted(prediction.tracks, key=lambda track: (-track.score, track.id)):
            yield {
                "video_id": numbers[prediction.video],
                "category_id": categories[track.label],
                "score": float(track.score),
                "segmentations": [masks.to_json(rle) for rle in track.rles],
            }


def _categories(prediction: Prediction, truth: VideoSet) -> dict[int, int]:
    """The category id of each label that the prediction uses."""
    ids = dict(zip(truth.classes, category_numbers(truth), strict=True))
    names = prediction.classes or truth.classes
    used = {track.label for track in prediction.tracks}
    for label in used:
        if not 0 <= label < len(names) or names[label] not in ids:
            name = names[label] if 0 <= label < len(names) else f"label {label}"
            raise FormatError(f"video {prediction.video}: class {name!r} is not in the truth; {nearest(name, ids)}")
    return {label: ids[names[label]] for label in used}


def _head(videos: list[dict[str, Any]], categories: Iterable[int], classes: Sequence[str]) -> bytes:
    listed = [{"id": number, "name": plain(name)} for number, name in zip(categories, classes, strict=True)]
    encode = msgspec.json.encode
    return b'{"videos":' + encode(videos) + b',\n"categories":' + encode(listed) + b',\n"annotations":['


def _video(number: int, name: str, size: tuple[int, int], length: int) -> dict[str, Any]:
    return {"id": number, "name": plain(name), "height": size[0], "width": size[1], "length": length}


def _annotation(number: int, video: int, category: int, track: Track, tube: Tube) -> dict[str, Any]:
    """One object; areas and boxes (x, y, width, height) are null where it is absent."""
    present = [rle is not None for rle in tube]
    boxes = masks.boxes([rle for rle in tube if rle is not None])
    boxes[:, 2:] -= boxes[:, :2]
    box = iter(boxes.tolist())
    return {
        "id": number,
        "video_id": video,
        "category_id": category,
        "iscrowd": int(track.ignore),
        "height": tube.size[0],
        "width": tube.size[1],
        "length": len(tube),
        "segmentations": [masks.to_json(rle) for rle in tube],
        "bboxes": [next(box) if held else None for held in present],
        "areas": [area if held else None for area, held in zip(tube.areas.tolist(), present, strict=True)],
    }


def _tubes(tracks: Sequence[Track], size: tuple[int, int]) -> list[Tube]:
    held = [track.rles for track in tracks]
    return [rles if isinstance(rles, Tube) else pack([rles], size)[0] for rles in held]


def _file_names(video: Video, suffix: str) -> list[str]:
    if isinstance(video.frames, Frames):
        return [plain(name) for name in video.frames.files]
    return [f"{plain(video.id)}/{t:05d}{suffix}" for t in range(len(video))]
